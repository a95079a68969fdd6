//! Encodes rows for a scheduler: a session with the scheduler, Ballista's executor beneath it, and the tasks
//! that it runs.

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
