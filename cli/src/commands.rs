//! One file per command.

pub mod doctor;
pub mod plan;
pub mod probe;
pub mod sql;
pub mod sweep;
pub mod transcode;
