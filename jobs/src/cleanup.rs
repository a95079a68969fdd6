//! `CleanupQueue`: work that is due after a publication: deletion of sources, and garbage collection of
//! unreferenced parts.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Id, Job, Result, Video};

/// A durable queue of cleanup work. A lease has no fencing token: the work is idempotent.
#[async_trait]
pub trait CleanupQueue: Send + Sync + 'static {
    /// Leases, for `lease_time`, a published job whose source is to be deleted and that no unfinished job
    /// reads.
    async fn lease_source(&self, lease_time: Duration) -> Result<Option<Job>>;

    /// Records that a job's source was deleted, or, in `kept_because`, why it was kept.
    async fn finish_source(&self, job: &Job, source: &str, kept_because: Option<&str>) -> Result<()>;

    /// Leases, for `lease_time`, a video that was published or collected at least `grace` ago and whose
    /// destination may hold unreferenced parts.
    async fn lease_gc(&self, grace: Duration, lease_time: Duration) -> Result<Option<Video>>;

    /// Records a garbage collection of a video's destination. `pending`: another one is due after the grace
    /// period.
    async fn finish_gc(&self, id: &Id, pending: bool) -> Result<()>;
}
