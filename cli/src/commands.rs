//! One module per command.

pub mod api;
pub mod credentials;
pub mod doctor;
pub mod executor;
pub mod gc;
pub mod health;
pub mod jobs;
pub mod man;
pub mod plan;
pub mod probe;
pub mod scheduler;
pub mod serve;
pub mod slurm;
pub mod sql;
pub mod tls;
pub mod transcode;
pub mod watches;
