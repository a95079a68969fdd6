//! Application state: the services that the routes share.

use std::{sync::Arc, time::Duration};

use spool_jobs::{Access, Counts, Store, Webhooks};
use spool_storage::Stores;
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{authenticate::Authenticator, signed_links::Links},
    background::webhook_delivery::WebhookDelivery,
    ingest::watcher::Watcher,
    problem::Problem,
    query::service::QueryService,
    uploads::service::UploadService,
};

/// Event streams at a time; each polls the job store.
pub(crate) const MAX_EVENT_STREAMS: usize = 256;

/// How long job counts are served from memory.
const JOB_COUNTS_TTL: Duration = Duration::from_secs(2);

/// The services that routes share.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) job_store: Arc<dyn Store>,
    pub(crate) credentials: Arc<dyn Access>,
    pub(crate) auth: Authenticator,
    pub(crate) signed_links: Links,
    pub(crate) queries: QueryService,
    pub(crate) webhook_store: Arc<dyn Webhooks>,
    pub(crate) webhook_delivery: WebhookDelivery,
    pub(crate) watcher: Watcher,
    pub(crate) object_stores: Stores,
    pub(crate) uploads: UploadService,
    /// Prefix below which videos without a destination are published.
    pub(crate) media_root: Option<Arc<str>>,
    pub(crate) event_streams: Arc<Semaphore>,
    pub(crate) job_counts: Arc<Mutex<Option<(Instant, Counts)>>>,
    /// Cancelled when the server shuts down.
    pub(crate) shutdown: CancellationToken,
}

impl AppState {
    /// Returns the number of jobs by state, at most [`JOB_COUNTS_TTL`] old: frequent scrapes cost the job store one query.
    pub(crate) async fn counts(&self) -> Result<Counts, Problem> {
        let mut cached = self.job_counts.lock().await;
        if let Some((when, counts)) = &*cached
            && when.elapsed() < JOB_COUNTS_TTL
        {
            return Ok(counts.clone());
        }
        let counts = self.job_store.counts().await?;
        *cached = Some((Instant::now(), counts.clone()));
        Ok(counts)
    }

    /// Returns the number of open event streams.
    pub(crate) fn open_event_streams(&self) -> usize {
        MAX_EVENT_STREAMS - self.event_streams.available_permits()
    }
}
