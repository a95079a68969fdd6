//! Measurements of what Spool costs; `spool-bench` runs them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark fails where it cannot measure"
)]
#![expect(clippy::disallowed_methods, reason = "benchmarks start the processes that they measure")]

pub mod command;
pub mod encode;
pub mod inputs;
pub mod overhead;
pub mod predict;
pub mod process;
pub mod report;
pub mod scale;
pub mod simulation;
