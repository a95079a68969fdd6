//! Settings of an executor.

use std::{path::PathBuf, time::Duration};

use spool_wire::Address;

/// The scheduler that an executor works for, and the share of its host that it uses.
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
    /// How long running rows may take to finish while the executor drains.
    pub drain_timeout: Duration,
    /// How long the executor may run no row before it stops by itself; `None` means for ever.
    pub idle_timeout: Option<Duration>,
}
