//! Encodes rows for a scheduler: a session with the scheduler, the tasks that it sends, and their results.
//!
//! An executor opens connections and accepts none: only its probes listen, if they are asked for.

mod error;
mod settings;

mod plan_check;
mod result_sender;
mod results;
mod task_runner;
mod tasks;

mod executor;
mod session;

mod metrics;
mod probes;

pub use error::Error;
pub use executor::Executor;
pub use probes::serve_probes;
pub use session::SessionState;
pub use settings::{Settings, TokenSource};
