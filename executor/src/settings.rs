//! Settings of an executor.

use std::{path::PathBuf, time::Duration};

use spool_wire::Address;

/// Settings of an executor: its scheduler, and its share of the host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The scheduler's address.
    pub scheduler: Address,
    /// Rows that run at a time.
    pub slots: usize,
    /// Folder for the engine's own intermediate results.
    pub work_dir: PathBuf,
    /// Bearer token for the scheduler.
    pub token: Option<String>,
    /// Time for running rows to finish while the executor drains.
    pub drain_timeout: Duration,
    /// Time without a row after which the executor stops by itself; `None` for no limit.
    pub idle_timeout: Option<Duration>,
}
