//! Cleanup of published videos: deletes sources whose jobs request it, and collects the garbage of videos
//! that the server keeps.

use std::{sync::Arc, time::Duration};

use spool_jobs::{CleanupQueue, Job, Request, Video};
use spool_media::package::{gc, part_store};
use spool_storage::{ErrorKind, Stores, is_within};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::lease_loop::{LeaseLoop, run_leased};

/// Interval between queries for work when none is due.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Time after which a failed deletion of a source is retried.
const SOURCE_LEASE: Duration = Duration::from_secs(60);

/// Time limit of the garbage collection of one video, and time for which no other server starts it.
const GC_TIMEOUT: Duration = Duration::from_secs(600);
const GC_LEASE: Duration = Duration::from_secs(3600);

/// Deletes sources and garbage of published videos.
#[derive(Clone)]
pub(crate) struct Cleanup {
    pub(crate) cleanup_queue: Arc<dyn CleanupQueue>,
    pub(crate) object_stores: Stores,
    /// Folder or URI prefix in which the server keeps videos.
    pub(crate) media_root: Option<Arc<str>>,
    /// Age at which unreferenced parts are tombstoned. `None` disables garbage collection.
    pub(crate) gc_grace: Option<Duration>,
}

impl Cleanup {
    /// Runs both loops until `shutdown` fires.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        tokio::join!(self.run_source_deletion(shutdown.clone()), self.run_gc(shutdown));
    }

    async fn run_source_deletion(&self, shutdown: CancellationToken) {
        let pace = LeaseLoop {
            name: "source deletion",
            poll_interval: POLL_INTERVAL,
            concurrency: 1,
            max_per_poll: usize::MAX,
        };
        let work = |job| {
            let cleanup = self.clone();
            async move { cleanup.delete_source(&job).await }
        };
        run_leased(pace, shutdown, || self.cleanup_queue.lease_source(SOURCE_LEASE), work).await;
    }

    async fn run_gc(&self, shutdown: CancellationToken) {
        let (Some(grace), Some(media)) = (self.gc_grace, &self.media_root) else { return };
        let pace = LeaseLoop {
            name: "garbage collection",
            poll_interval: POLL_INTERVAL,
            concurrency: 1,
            max_per_poll: 1,
        };
        let work = |video| {
            let (cleanup, media, shutdown) = (self.clone(), media.clone(), shutdown.clone());
            async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = cleanup.collect_garbage(&video, &media, grace) => {}
                }
            }
        };
        run_leased(pace, shutdown.clone(), || self.cleanup_queue.lease_gc(grace, GC_LEASE), work).await;
    }

    async fn collect_garbage(&self, video: &Video, media: &str, grace: Duration) {
        // Only below the server's own prefix: elsewhere, other deployments may publish, with part records
        // that the server does not know.
        let pending = if is_within(&video.destination, media) {
            let options = gc::Options { grace, dry_run: false };
            match timeout(GC_TIMEOUT, gc::run(&self.object_stores, &video.destination, options)).await {
                // Objects that are tombstoned now are deleted after another grace period.
                Ok(Ok(report)) => report.records > 0 || report.waiting > 0,
                Err(_) => {
                    warn!(video = %video.id, timeout_s = GC_TIMEOUT.as_secs(), "garbage collection timed out");
                    true
                }
                Ok(Err(error)) => {
                    warn!(video = %video.id, %error, "garbage collection failed");
                    error.kind() == ErrorKind::Transient
                }
            }
        } else {
            false
        };
        if let Err(error) = self.cleanup_queue.finish_gc(&video.id, pending).await {
            warn!(video = %video.id, %error, "failed to record a garbage collection");
        }
    }

    async fn delete_source(&self, job: &Job) {
        let Request::Transcode { source, destination, .. } = &job.request else { return };
        let kept_because = match self.delete_if_unchanged(source, destination).await {
            Ok(reason) => reason,
            Err(error) if error.kind() == ErrorKind::Transient => {
                warn!(job = %job.id, %error, "failed to delete a source; it is retried");
                return;
            }
            Err(error) => Some(error.to_string()),
        };
        match self.cleanup_queue.finish_source(job, source, kept_because.as_deref()).await {
            Ok(()) => info!(job = %job.id, kept_because, "source deletion finished"),
            Err(error) => warn!(job = %job.id, %error, "failed to record a source deletion"),
        }
    }

    /// Deletes a source unless it changed since it was transcoded; returns the reason if it is kept.
    async fn delete_if_unchanged(
        &self,
        source: &str,
        destination: &str,
    ) -> spool_media::Result<Option<String>> {
        let location = self.object_stores.locate(source)?;
        let now = match location.open().await {
            Ok(reader) => reader.source().clone(),
            // Already deleted.
            Err(spool_storage::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let records = part_store::list(&self.object_stores.locate(destination)?).await?;
        let unchanged =
            records.iter().any(|record| record.segment.source == now.uri && record.segment.etag == now.etag);
        if !unchanged {
            return Ok(Some("the source changed after it was transcoded".to_owned()));
        }
        location.delete().await?;
        Ok(None)
    }
}
