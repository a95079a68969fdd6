//! Settings of a dispatcher.

use std::time::Duration;

use spool_storage::Backoff;

/// Waits between calls of a store that fails: first and longest.
const STORE_RETRY_FIRST: Duration = Duration::from_millis(250);
const STORE_RETRY_MAX: Duration = Duration::from_secs(10);

/// Settings of a dispatcher.
#[derive(Debug, Clone)]
pub struct DispatcherSettings {
    /// Name, unique among the dispatchers of the store.
    pub name: String,
    /// Jobs that it runs at a time.
    pub max_concurrent_jobs: usize,
    /// Duration of a lease without renewal: the time until other dispatchers take over the jobs of one that
    /// died.
    pub lease_time: Duration,
    /// Interval between polls for a job while none is due.
    pub poll_interval: Duration,
    /// Interval between reports of progress, which also check for a requested cancellation.
    pub report_interval: Duration,
    /// Most tries of a job before it fails for good.
    pub tries: u32,
    /// Wait before the second try of a job. It doubles with each further try.
    pub retry_delay: Duration,
    /// Longest wait between two tries.
    pub max_retry_delay: Duration,
}

impl DispatcherSettings {
    /// Returns the settings for a cluster.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            max_concurrent_jobs: 16,
            lease_time: Duration::from_secs(15),
            poll_interval: Duration::from_millis(250),
            report_interval: Duration::from_millis(500),
            tries: 5,
            retry_delay: Duration::from_secs(2),
            max_retry_delay: Duration::from_secs(300),
        }
    }
}

/// Returns the waits between calls of a store that fails.
pub(super) fn store_backoff() -> Backoff {
    Backoff::new(STORE_RETRY_FIRST, STORE_RETRY_MAX)
}
