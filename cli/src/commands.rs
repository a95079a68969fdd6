//! One file per command.

pub mod access;
pub mod doctor;
pub mod executor;
pub mod health;
pub mod jobs;
pub mod man;
pub mod plan;
pub mod probe;
pub mod scheduler;
pub mod serve;
pub mod server;
pub mod slurm;
pub mod sql;
pub mod sweep;
pub mod transcode;
pub mod watches;
