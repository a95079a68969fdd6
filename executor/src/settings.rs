//! Settings of an executor.

use std::{net::IpAddr, path::PathBuf, time::Duration};

/// Settings of an executor: its scheduler, and its share of the host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The scheduler's `HOST:PORT`.
    pub scheduler: String,
    /// Rows that run at a time.
    pub slots: usize,
    /// Folder for the engine's own intermediate results.
    pub work_dir: PathBuf,
    /// Address at which the scheduler reaches this host; `None` takes that of the route to the scheduler.
    pub address: Option<IpAddr>,
    /// Bearer token for the scheduler.
    pub token: Option<String>,
    /// Time for running rows to finish while the executor drains.
    pub drain_timeout: Duration,
    /// Time without a row after which the executor stops by itself; `None` for no limit.
    pub idle_timeout: Option<Duration>,
}
