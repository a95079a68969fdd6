//! API of the scheduler: statements by gRPC and Flight SQL, executors, KEDA, HTTP, and the backend of jobs.

pub(crate) mod connections;
pub(crate) mod flight_sql;
mod foreign_pages;
pub(crate) mod grpc;
pub(crate) mod http;
mod job_backend;
pub(crate) mod keda;
pub(crate) mod server;
