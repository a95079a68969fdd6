//! What is to go once a video is published goes: its source, where that was asked for, and only as it was read; and where the server keeps videos,
//! parts that nothing refers to.

use std::{sync::Arc, time::Duration};

use spool_jobs::{Job, Request, Sources};
use spool_media::package::{gc, part_store};
use spool_storage::{ErrorKind, Stores, is_within};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it is looked for such sources, and how soon another tries where one was not deleted.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
const LEASE: Duration = Duration::from_secs(60);

/// How long a sweep may take, and is nobody else's.
const GC_TIMEOUT: Duration = Duration::from_secs(600);
const GC_LEASE: Duration = Duration::from_secs(3600);

/// Deletes what is to go.
#[derive(Clone)]
pub(crate) struct Cleanup {
    pub(crate) sources: Arc<dyn Sources>,
    pub(crate) stores: Stores,
    /// Where the server keeps videos.
    pub(crate) media: Option<Arc<str>>,
    /// After how long parts go that nothing refers to.
    pub(crate) gc_grace: Option<Duration>,
}

impl Cleanup {
    /// Deletes what is to be deleted, until the server leaves.
    pub(crate) async fn run(self, leave: CancellationToken) {
        let mut look = interval(POLL_INTERVAL);
        loop {
            tokio::select! {
                () = leave.cancelled() => return,
                _ = look.tick() => {}
            }
            loop {
                match self.sources.hold_source(LEASE).await {
                    Ok(Some(job)) => self.delete_source(&job).await,
                    Ok(None) => break,
                    Err(error) => {
                        warn!(%error, "sources that are to be deleted cannot be looked for");
                        break;
                    }
                }
            }
            tokio::select! {
                () = leave.cancelled() => return,
                () = self.collect_garbage() => {}
            }
        }
    }

    /// Sweeps a video that is due, if any is.
    async fn collect_garbage(&self) {
        let (Some(grace), Some(media)) = (self.gc_grace, &self.media) else { return };
        let video = match self.sources.hold_unswept(grace, GC_LEASE).await {
            Ok(Some(video)) => video,
            Ok(None) => return,
            Err(error) => return warn!(%error, "videos that are to be swept cannot be looked for"),
        };
        // Elsewhere others may publish, and know better.
        let again = if is_within(&video.destination, media) {
            let options = gc::Options { grace, dry_run: false };
            match timeout(GC_TIMEOUT, gc::run(&self.stores, &video.destination, options)).await {
                // Objects of what is retired now go after another grace.
                Ok(Ok(swept)) => swept.records > 0 || swept.waiting > 0,
                Err(_) => {
                    warn!(video = %video.id, "a video was not swept in time");
                    true
                }
                Ok(Err(error)) => {
                    warn!(video = %video.id, %error, "a video cannot be swept");
                    error.kind() == ErrorKind::Transient
                }
            }
        } else {
            false
        };
        if let Err(error) = self.sources.swept(&video.id, again).await {
            warn!(video = %video.id, %error, "that a video was swept cannot be written down");
        }
    }

    async fn delete_source(&self, job: &Job) {
        let Request::Transcode { source, destination, .. } = &job.request else { return };
        let kept = match self.delete_if_unchanged(source, destination).await {
            Ok(kept) => kept,
            Err(error) if error.kind() == ErrorKind::Transient => {
                warn!(job = %job.id, %error, "a source cannot be deleted now: it is tried again");
                return;
            }
            Err(error) => Some(error.to_string()),
        };
        match self.sources.settle_source(job, source, kept.as_deref()).await {
            Ok(()) => info!(job = %job.id, kept, "source settled"),
            Err(error) => warn!(job = %job.id, %error, "what became of a source cannot be written down"),
        }
    }

    /// Deletes a source; tells why it is kept where it is not what was transcoded any more.
    async fn delete_if_unchanged(
        &self,
        source: &str,
        destination: &str,
    ) -> spool_media::Result<Option<String>> {
        let location = self.stores.locate(source)?;
        let now = match location.open().await {
            Ok(reader) => reader.source().clone(),
            // Somebody was faster.
            Err(spool_storage::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let records = part_store::list(&self.stores.locate(destination)?).await?;
        let read =
            records.iter().any(|record| record.segment.source == now.uri && record.segment.etag == now.etag);
        if !read {
            return Ok(Some("it is not what was transcoded any more".to_owned()));
        }
        location.delete().await?;
        Ok(None)
    }
}
