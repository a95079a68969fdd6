//! Watcher: creates a job from each object that arrives below a watched prefix, once per version of the
//! object, whether an event or a scan finds it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{TryStreamExt, stream::TryChunksError};
use spool_jobs::{Id, JobSpec, JobStore, NewJob, Watch, WatchStore};
use spool_media::package::parts::{RECORDS, is_object};
use spool_storage::{Entry, Location, Stores, is_within};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    auth::path_policy::PathPolicies,
    background::lease_loop::{LeaseLoop, run_leased},
    documents::job_request::JobRequest,
    ingest::s3_events::ObjectCreated,
    problem::{Problem, ProblemKind},
};

/// Interval between queries for watches whose scan is due.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Time limit of one scan, and the lease on its watch, which is longer.
const SCAN_TIMEOUT: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(660);

/// Age below which an object is left for the next scan: a folder also lists files that are still being
/// written.
const MIN_AGE: Duration = Duration::from_secs(5);

/// Listed objects whose idempotency keys are looked up in one query.
const BATCH: usize = 200;

/// Creates jobs from objects that arrive.
#[derive(Clone)]
pub(crate) struct Watcher {
    pub(crate) job_store: Arc<dyn JobStore>,
    pub(crate) watch_store: Arc<dyn WatchStore>,
    pub(crate) path_policies: PathPolicies,
    pub(crate) object_stores: Stores,
    /// Folder or URI prefix for videos whose watch sets no destination.
    pub(crate) media_root: Option<Arc<str>>,
    /// Folder or URI prefix of uploads, which are ignored: an upload creates its job itself.
    pub(crate) uploads_root: Arc<str>,
}

/// Result of the ingest of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IngestOutcome {
    /// The object's job, which was created now or earlier.
    Job(Id),
    /// Reason for which the object has no job.
    Ignored(&'static str),
}

impl Watcher {
    /// Creates a job from an object that an event names, for the watch below whose prefix it lies.
    ///
    /// # Errors
    /// Returns an error if a dependency is unavailable or the tenant's quota is used up: the event must be
    /// sent again.
    pub(crate) async fn ingest(
        &self,
        watches: &[Watch],
        object: &ObjectCreated,
    ) -> Result<IngestOutcome, Problem> {
        let mut outcome = IngestOutcome::Ignored("no watch covers the object");
        for uri in object.uris() {
            let Some(watch) = deepest_watch(watches, &uri) else { continue };
            outcome = self.ingest_object(watch, &uri).await?;
            if matches!(outcome, IngestOutcome::Job(_)) {
                break;
            }
        }
        Ok(outcome)
    }

    async fn ingest_object(&self, watch: &Watch, uri: &str) -> Result<IngestOutcome, Problem> {
        if let Some(reason) = self.ignore_reason(uri) {
            return Ok(IngestOutcome::Ignored(reason));
        }
        let location = self.object_stores.locate(uri).map_err(spool_media::Error::from)?;
        let source = match location.open().await {
            Ok(reader) => reader.source().clone(),
            Err(spool_storage::Error::NotFound { .. }) => {
                return Ok(IngestOutcome::Ignored("the object does not exist any more"));
            }
            Err(error) => return Err(spool_media::Error::from(error).into()),
        };
        self.create_job(watch, &source.uri, &source.etag, source.bytes).await
    }

    async fn create_job(
        &self,
        watch: &Watch,
        uri: &str,
        etag: &str,
        bytes: u64,
    ) -> Result<IngestOutcome, Problem> {
        if bytes == 0 {
            return Ok(IngestOutcome::Ignored("the object is empty"));
        }
        let order = self.job_spec(watch, uri).await?;
        let new = NewJob {
            tenant: watch.tenant.clone(),
            spec: order,
            idempotency_key: Some(idempotency_key(uri, etag)),
        };
        match self.job_store.create(&new).await {
            Ok(created) => {
                if !created.existed {
                    info!(job = %created.job.id, watch = %watch.id, "job created for an object that arrived");
                }
                Ok(IngestOutcome::Job(created.job.id))
            }
            // The job was created from an earlier specification of the watch.
            Err(spool_jobs::Error::KeyUsed { job, .. }) => Ok(IngestOutcome::Job(job)),
            Err(error) => Err(error.into()),
        }
    }

    async fn job_spec(&self, watch: &Watch, uri: &str) -> Result<JobSpec, Problem> {
        let (request, priority) =
            JobRequest::parse(&watch.job)?.with_source(uri)?.into_request(self.media_root.as_deref())?;
        Ok(JobSpec { request, priority, path_policy: self.path_policies.of_watch(watch).await? })
    }

    /// Returns the reason if an object is ignored by its name.
    fn ignore_reason(&self, uri: &str) -> Option<&'static str> {
        if uri.ends_with('/') {
            return Some("the object is a folder");
        }
        if is_within(uri, &self.uploads_root) {
            return Some("the object is an upload, which makes its own job");
        }
        is_published(uri).then_some("the object was published by a job")
    }

    /// Scans watched prefixes when they are due, until `shutdown` fires.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let pace = LeaseLoop {
            name: "watch scan",
            poll_interval: POLL_INTERVAL,
            concurrency: 1,
            max_per_poll: usize::MAX,
        };
        let work = |watch| {
            let (watcher, shutdown) = (self.clone(), shutdown.clone());
            async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = watcher.scan(&watch) => {}
                }
            }
        };
        run_leased(pace, shutdown.clone(), || self.watch_store.lease_watch(LEASE), work).await;
    }

    async fn scan(&self, watch: &Watch) {
        let timed_out = || {
            let detail = format!("scan of {} took longer than {} s", watch.prefix, SCAN_TIMEOUT.as_secs());
            Err(Problem::new(ProblemKind::RequestTimeout, detail))
        };
        let error = timeout(SCAN_TIMEOUT, self.scan_prefix(watch))
            .await
            .unwrap_or_else(|_| timed_out())
            .err()
            .map(|problem| problem.detail);
        if let Some(error) = &error {
            warn!(watch = %watch.id, error, "scan failed");
        }
        if let Err(error) = self.watch_store.record_scan(&watch.id, error.as_deref()).await {
            warn!(watch = %watch.id, %error, "failed to record a scan");
        }
    }

    /// Creates jobs from the objects below a prefix that have none. A failed object does not prevent the jobs
    /// of the others.
    async fn scan_prefix(&self, watch: &Watch) -> Result<(), Problem> {
        let root = self.object_stores.locate(&watch.prefix).map_err(spool_media::Error::from)?;
        let mut entries = root.list().try_chunks(BATCH);
        let mut first_problem = None;
        loop {
            let (batch, broken) = match entries.try_next().await {
                Ok(Some(batch)) => (batch, None),
                Ok(None) => return first_problem.map_or(Ok(()), Err),
                Err(TryChunksError(batch, error)) => (batch, Some(error)),
            };
            let problem = self.ingest_entries(watch, &root, batch).await?;
            first_problem = first_problem.or(problem);
            if let Some(error) = broken {
                return Err(spool_media::Error::from(error).into());
            }
        }
    }

    /// Creates jobs from listed objects; returns the first problem that concerns one object alone.
    ///
    /// # Errors
    /// Returns a problem that every other object would have too.
    async fn ingest_entries(
        &self,
        watch: &Watch,
        root: &Location,
        batch: Vec<Entry>,
    ) -> Result<Option<Problem>, Problem> {
        let now = SystemTime::now();
        let is_settled = |entry: &Entry| now.duration_since(entry.modified).is_ok_and(|age| age >= MIN_AGE);
        let found = batch.into_iter().filter(|entry| entry.bytes > 0 && is_settled(entry));
        let found = found.map(|entry| (root.child(&entry.relative).uri().to_owned(), entry.etag));
        let found = found.filter(|(uri, _)| self.ignore_reason(uri).is_none());
        let (uris, keys): (Vec<_>, Vec<_>) =
            found.map(|(uri, etag)| (uri.clone(), idempotency_key(&uri, &etag))).unzip();
        let used = self.watch_store.used_keys(&watch.tenant, &keys).await?;
        let mut first_problem = None;
        for (uri, key) in uris.iter().zip(keys) {
            if used.contains(&key) {
                continue;
            }
            // Opened, since a few stores list other ETags than they return for the object.
            match self.ingest_object(watch, uri).await {
                Ok(_) => {}
                // The next object would meet the same quota or the same outage.
                Err(problem) if problem.status == 429 || problem.status >= 500 => return Err(problem),
                Err(problem) => first_problem = first_problem.or(Some(problem)),
            }
        }
        Ok(first_problem)
    }
}

/// Checks the job document of a watch. `media` states whether the server has a prefix for videos without a
/// destination.
///
/// # Errors
/// Returns the invalid field and the reason.
pub fn check_job_document(text: &str, media: bool) -> Result<(), String> {
    let source = "s3://any/file.mp4";
    let read = JobRequest::parse(text)
        .and_then(|job| job.with_source(source)?.into_request(media.then_some("s3://any")));
    let (request, _) = read.map_err(|problem| problem.detail)?;
    request.check().map_err(|error| error.to_string())
}

/// Returns the watch below whose prefix an object lies; of several, the one with the longest prefix.
fn deepest_watch<'a>(watches: &'a [Watch], uri: &str) -> Option<&'a Watch> {
    watches.iter().filter(|watch| is_within(uri, &watch.prefix)).max_by_key(|watch| watch.prefix.len())
}

/// Returns the idempotency key of one version of an object, equal for events and scans.
fn idempotency_key(uri: &str, etag: &str) -> String {
    format!("arrived {uri} {etag}")
}

/// Returns whether an object is one that Spool publishes. Only the name counts, since a bucket may be both
/// source and destination, also of another server. A playlist is never a source.
fn is_published(uri: &str) -> bool {
    let mut parts = uri.rsplit('/');
    let (name, folder) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let is_record = folder == RECORDS && [".json", ".retired"].iter().any(|ending| name.ends_with(ending));
    name.ends_with(".m3u8") || is_record || is_object(&format!("{folder}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(prefix: &str) -> Watch {
        Watch {
            id: Id::watch(),
            tenant: "acme".to_owned(),
            prefix: prefix.to_owned(),
            job: "{}".to_owned(),
            queue: None,
            scan_interval: None,
            created_ms: 0,
            scanned_ms: None,
            last_error: None,
        }
    }

    #[test]
    fn an_object_belongs_to_the_watch_with_the_longest_prefix() {
        let watches = ["s3://in/", "s3://in/talks/", "s3://other/"].map(watch);
        let found = |uri| deepest_watch(&watches, uri).map(|watch| watch.prefix.as_str());
        assert_eq!(found("s3://in/a.mp4"), Some("s3://in/"));
        assert_eq!(found("s3://in/talks/a.mp4"), Some("s3://in/talks/"));
        assert_eq!(found("s3://in/talks-2/a.mp4"), Some("s3://in/"));
        assert_eq!(found("s3://elsewhere/a.mp4"), None);
    }

    #[test]
    fn published_objects_are_recognized_by_their_names() {
        let digits = "0123456789abcdef";
        for name in ["master.m3u8", "early.m3u8", "1080p/early.m3u8"].map(str::to_owned).into_iter().chain([
            format!("1080p/00000-{digits}.m4s"),
            format!("audio-0/init-{digits}.mp4"),
            format!("1080p/{digits}.m3u8"),
            format!("parts/{digits}.json"),
            format!("parts/{digits}.retired"),
        ]) {
            assert!(
                is_published(&format!("s3://in/out/{name}"))
                    && is_published(&format!("file:///in/out/{name}")),
                "{name}"
            );
        }
        for name in [
            "talk.mp4",
            "1080p/talk.mp4",
            "init-talk.mp4",
            "parts/talk.mp4",
            "1080p/00000-talk.m4s",
            "notes.json",
        ] {
            assert!(!is_published(&format!("s3://in/{name}")), "{name}");
        }
    }

    #[test]
    fn the_job_document_of_a_watch_is_checked_before_an_object_arrives() {
        check_job_document("{}", true).unwrap();
        check_job_document(r#"{"destination": "s3://media/{video}/", "ladder": "720p"}"#, false).unwrap();
        for (text, field) in [
            ("{}", "destination"),
            (r#"{"destination": "s3://media/", "ladder": "9x"}"#, "ladder"),
            (r#"{"destination": "s3://media/", "source": "a.mp4"}"#, "source"),
            (r#"{"destination": "s3://media/", "sql": "SELECT 1"}"#, "sql"),
            (r#"{"targets": "s3://media/"}"#, "targets"),
            ("[", "job"),
        ] {
            let refused = check_job_document(text, false).unwrap_err();
            assert!(refused.contains(field), "{text}: {refused}");
        }
    }
}
