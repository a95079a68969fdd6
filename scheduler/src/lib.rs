//! Runs statements on Ballista: the one way in which any statement is executed.

mod error;
mod results;
mod run;
mod service;

pub use error::{Error, Result};
pub use run::Outcome;
pub use service::{Scheduler, Settings};
