//! Settings of an executor.

use std::{path::PathBuf, sync::Arc, time::Duration};

use spool_wire::Address;

/// Settings of an executor: its scheduler, and its share of the host.
#[derive(Clone)]
pub struct Settings {
    /// The scheduler's address.
    pub scheduler: Address,
    /// Rows that run at a time.
    pub slots: usize,
    /// Folder for the engine's own intermediate results.
    pub work_dir: PathBuf,
    /// Bearer token for the scheduler.
    pub token: TokenSource,
    /// Time for running rows to finish while the executor drains.
    pub drain_timeout: Duration,
    /// Time without a row after which the executor stops by itself; `None` for no limit.
    pub idle_timeout: Option<Duration>,
}

/// Returns the token, if there is one. It is read for each session: a scheduler that starts after its
/// executors may have drawn one meanwhile, and a token may be replaced.
pub type TokenSource = Arc<dyn Fn() -> Option<String> + Send + Sync>;
