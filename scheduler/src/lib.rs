//! Scheduler: runs statements on Ballista. Every statement is executed by this crate.

mod api;
mod executors;
mod queue;
mod run;

mod client;
mod demand;
mod engine;
mod engine_config;
mod error;
mod executor_calls;
mod metrics;
mod scheduler;
mod service;

pub use client::Client;
pub use error::{Error, Result};
pub use queue::statement_list::BeforeRows;
pub use run::results::{StatementResult, StatementTiming};
pub use scheduler::Scheduler;
pub use service::{Service, Settings};
