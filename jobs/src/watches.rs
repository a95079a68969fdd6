//! `WatchStore`: watches, which create a job for every file that arrives under a prefix.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Id, Result};

/// A watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// ID in the store.
    pub id: Id,
    /// Tenant that owns the jobs.
    pub tenant: String,
    /// Folder or URI prefix under which files arrive.
    pub prefix: String,
    /// Document of the jobs, without `source`.
    pub job: String,
    /// Amazon SQS queue that announces new objects.
    pub queue: Option<String>,
    /// Interval of scans of the prefix, for a prefix without a queue.
    pub scan_interval: Option<Duration>,
    /// Time of creation, in milliseconds since 1970.
    pub created_ms: i64,
    /// Time of the last scan, in milliseconds since 1970.
    pub scanned_ms: Option<i64>,
    /// Error of the last scan, or of the last read of the queue.
    pub last_error: Option<String>,
}

/// A watch to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWatch {
    /// Tenant that owns the jobs.
    pub tenant: String,
    /// Folder or URI prefix under which files arrive.
    pub prefix: String,
    /// Document of the jobs, without `source`.
    pub job: String,
    /// Amazon SQS queue that announces new objects.
    pub queue: Option<String>,
    /// Interval of scans of the prefix.
    pub scan_interval: Option<Duration>,
}

/// A durable store of watches.
#[async_trait]
pub trait WatchStore: Send + Sync + 'static {
    /// Creates a watch.
    ///
    /// # Errors
    /// Returns [`Error::Quota`](crate::Error::Quota) if the most watches of an installation exist.
    async fn create_watch(&self, new: &NewWatch) -> Result<Watch>;

    /// Returns the watches of one tenant, or of all, oldest first.
    async fn watches(&self, tenant: Option<&str>) -> Result<Vec<Watch>>;

    /// Deletes a watch. Its jobs stay.
    ///
    /// # Errors
    /// Returns [`Error::NotFound`](crate::Error::NotFound) if no such watch exists.
    async fn delete_watch(&self, id: &Id) -> Result<Watch>;

    /// Leases, for `lease_time`, a watch whose scan is due.
    async fn lease_watch(&self, lease_time: Duration) -> Result<Option<Watch>>;

    /// Records a scan and its error. The next scan is due after the watch's interval.
    async fn record_scan(&self, id: &Id, error: Option<&str>) -> Result<()>;

    /// Returns the idempotency keys among `keys` that created a job of the tenant.
    async fn used_keys(&self, tenant: &str, keys: &[String]) -> Result<Vec<String>>;
}
