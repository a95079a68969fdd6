//! Settings of an executor.

use std::{net::IpAddr, path::PathBuf, time::Duration};

/// The scheduler that an executor works for, and the share of its host that it uses.
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
    /// How long running rows may take to finish while the executor drains.
    pub drain_timeout: Duration,
    /// How long the executor may run no row before it stops by itself; `None` means for ever.
    pub idle_timeout: Option<Duration>,
}
