//! One file per command.

pub mod doctor;
pub mod executor;
pub mod jobs;
pub mod plan;
pub mod probe;
pub mod scheduler;
pub mod serve;
pub mod server;
pub mod sql;
pub mod sweep;
pub mod transcode;
