//! Sources that were to be deleted once they are published are: only then, and only as they were read.

use std::{sync::Arc, time::Duration};

use spool_jobs::{Job, Request, Sources};
use spool_media::{ErrorKind, records, store::Stores};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it is looked for such sources, and how soon another tries where one was not deleted.
const LOOK: Duration = Duration::from_secs(5);
const LEASE: Duration = Duration::from_secs(60);

/// Deletes sources.
#[derive(Clone)]
pub(crate) struct Tidy {
    pub(crate) sources: Arc<dyn Sources>,
    pub(crate) stores: Stores,
}

impl Tidy {
    /// Deletes what is to be deleted, until the server leaves.
    pub(crate) async fn run(self, leave: CancellationToken) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                () = leave.cancelled() => return,
                _ = look.tick() => {}
            }
            loop {
                match self.sources.hold_source(LEASE).await {
                    Ok(Some(job)) => self.settle(&job).await,
                    Ok(None) => break,
                    Err(error) => {
                        warn!(%error, "sources that are to be deleted cannot be looked for");
                        break;
                    }
                }
            }
        }
    }

    async fn settle(&self, job: &Job) {
        let Request::Transcode { source, destination, .. } = &job.request else { return };
        let kept = match self.delete(source, destination).await {
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
    async fn delete(&self, source: &str, destination: &str) -> spool_media::Result<Option<String>> {
        let location = self.stores.locate(source)?;
        let now = match location.open().await {
            Ok(reader) => reader.source().clone(),
            // Somebody was faster.
            Err(spool_media::store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let records = records::list(&self.stores.locate(destination)?).await?;
        let read = records.iter().any(|record| record.segment.source == now.uri && record.segment.etag == now.etag);
        if !read {
            return Ok(Some("it is not what was transcoded any more".to_owned()));
        }
        location.delete().await?;
        Ok(None)
    }
}
