//! Application state: the services that the routes share.

use std::{sync::Arc, time::Duration};

use spool_jobs::{Counts, CredentialStore, JobStore, WebhookStore};
use spool_storage::{ConcurrencyLimit, Stores};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{authenticate::Authenticator, path_policy::PathPolicies, signed_links::LinkSigner},
    background::webhook_delivery::WebhookDelivery,
    ingest::watcher::Watcher,
    problem::Problem,
    query::service::QueryService,
    uploads::service::UploadService,
};

/// Event streams at a time; each polls the job store.
const MAX_EVENT_STREAMS: usize = 256;

/// Time for which job counts are served from memory.
const JOB_COUNTS_TTL: Duration = Duration::from_secs(2);

/// The services that routes share.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) job_store: Arc<dyn JobStore>,
    pub(crate) object_stores: Stores,
    pub(crate) credentials: Arc<dyn CredentialStore>,
    pub(crate) auth: Authenticator,
    pub(crate) path_policies: PathPolicies,
    pub(crate) link_signer: LinkSigner,
    pub(crate) uploads: UploadService,
    pub(crate) queries: QueryService,
    pub(crate) watcher: Watcher,
    pub(crate) webhook_store: Arc<dyn WebhookStore>,
    pub(crate) webhook_delivery: WebhookDelivery,
    /// Prefix below which videos without a destination are published.
    pub(crate) media_root: Option<Arc<str>>,
    pub(crate) connections: ConcurrencyLimit,
    pub(crate) event_streams: ConcurrencyLimit,
    pub(crate) job_counts: JobCounts,
    /// Cancelled when the server shuts down.
    pub(crate) shutdown: CancellationToken,
}

/// Returns the limit on event streams at a time.
pub(crate) fn event_stream_limit() -> ConcurrencyLimit {
    ConcurrencyLimit::new("event_streams", MAX_EVENT_STREAMS)
}

/// Number of jobs by state, cached: frequent scrapes cost the job store one query.
#[derive(Clone)]
pub(crate) struct JobCounts {
    job_store: Arc<dyn JobStore>,
    cached: Arc<Mutex<Option<(Instant, Counts)>>>,
}

impl JobCounts {
    pub(crate) fn new(job_store: Arc<dyn JobStore>) -> Self {
        Self { job_store, cached: Arc::default() }
    }

    /// Returns counts that are at most [`JOB_COUNTS_TTL`] old.
    pub(crate) async fn read(&self) -> Result<Counts, Problem> {
        let mut cached = self.cached.lock().await;
        if let Some((read_at, counts)) = &*cached
            && read_at.elapsed() < JOB_COUNTS_TTL
        {
            return Ok(counts.clone());
        }
        let counts = self.job_store.counts().await?;
        *cached = Some((Instant::now(), counts.clone()));
        Ok(counts)
    }
}
