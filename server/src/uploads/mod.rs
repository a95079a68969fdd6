//! Uploads: transfer of clients' files into the object store.

pub(crate) mod checksum;
mod media_type;
pub(crate) mod multipart;
pub(crate) mod service;
