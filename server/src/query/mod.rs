//! Queries: read-only SQL over the tables of one tenant.

pub(crate) mod service;
pub(crate) mod tables;
