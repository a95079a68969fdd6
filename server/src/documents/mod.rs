//! Documents of the HTTP API: the public form of requests and resources, without secrets. Their names become
//! the class names of generated clients.

pub(crate) mod credential;
pub(crate) mod event;
pub(crate) mod job;
pub(crate) mod job_request;
pub(crate) mod json_object;
pub(crate) mod upload;
pub(crate) mod video;
pub(crate) mod webhook;
