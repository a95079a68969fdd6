//! Executes segment rows for a Ballista scheduler.

mod ballista;
mod engine;
mod membership;
mod probes;
mod results;
mod service;

pub use membership::{Settings, Standing};
pub use probes::probes;
pub use service::{Error, Executor};
