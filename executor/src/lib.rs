//! Executor: encodes rows for a scheduler, in a session with it, on Ballista's executor.

mod error;
mod settings;

mod ballista;
mod results;
mod tasks;

mod executor;
mod session;

mod metrics;
mod probes;

pub use error::Error;
pub use executor::Executor;
pub use probes::serve_probes;
pub use session::SessionState;
pub use settings::Settings;
