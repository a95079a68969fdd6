//! What does Spool cost? What its measurements share; `spool-bench` runs them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot be made has failed"
)]
#![expect(clippy::disallowed_methods, reason = "what is measured has to be started")]

pub mod command;
pub mod encode;
pub mod inputs;
pub mod overhead;
pub mod predict;
pub mod process;
pub mod report;
pub mod scale;
pub mod simulation;
