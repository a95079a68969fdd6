//! Executes segment rows for a Ballista scheduler.

mod engine;
mod service;

pub use service::{Error, Executor, Settings};
