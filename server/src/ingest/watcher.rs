//! What becomes of a file that arrives where somebody watches? A job, once for each state of it, whoever tells of it, and however often.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{TryStreamExt, stream::TryChunksError};
use spool_jobs::{Id, NewJob, Order, Store, Watch, Watches};
use spool_media::package::parts::{RECORDS, is_object};
use spool_storage::{Entry, Location, Stores, is_within};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    auth::authenticate::Authenticator,
    ingest::s3_events::ObjectCreated,
    problem::{Problem, ProblemKind},
    routes::documents::parse_job_request,
};

/// How often it is looked for places that are to be looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How long a look may take, and how long the place is nobody else's meanwhile.
const LOOK_WITHIN: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(660);

/// What was written so lately may be written still: a folder shows files that are not whole.
const SETTLED: Duration = Duration::from_secs(5);

/// Entries of a listing that are asked about at a time.
const BATCH: usize = 200;

/// Makes jobs of what arrives.
#[derive(Clone)]
pub(crate) struct Watcher {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) watches: Arc<dyn Watches>,
    pub(crate) auth: Authenticator,
    pub(crate) stores: Stores,
    /// Where videos go that come without a destination.
    pub(crate) media: Option<Arc<str>>,
    /// Where uploads are kept: of those jobs are made already.
    pub(crate) uploads: Arc<str>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IngestOutcome {
    /// A job is made of it, or was before.
    Job(Id),
    /// Nothing, and why.
    Ignored(&'static str),
}

impl Watcher {
    /// Takes what a store says has arrived, for the watches that may see it.
    ///
    /// # Errors
    /// Where something that is needed is away, or the tenant has as much as it may: to be told again.
    pub(crate) async fn ingest(
        &self,
        watches: &[Watch],
        object: &ObjectCreated,
    ) -> Result<IngestOutcome, Problem> {
        let mut taken = IngestOutcome::Ignored("nobody watches it");
        for uri in object.uris() {
            let Some(watch) = deepest_watch(watches, &uri) else { continue };
            taken = self.ingest_object(watch, &uri).await?;
            if matches!(taken, IngestOutcome::Job(_)) {
                break;
            }
        }
        Ok(taken)
    }

    /// Makes a job of a file, unless there is one.
    async fn ingest_object(&self, watch: &Watch, uri: &str) -> Result<IngestOutcome, Problem> {
        if let Some(why) = self.ignore_reason(uri) {
            return Ok(IngestOutcome::Ignored(why));
        }
        let location = self.stores.locate(uri).map_err(spool_media::Error::from)?;
        let source = match location.open().await {
            Ok(reader) => reader.source().clone(),
            Err(spool_storage::Error::NotFound { .. }) => return Ok(IngestOutcome::Ignored("it is gone")),
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
            return Ok(IngestOutcome::Ignored("it is empty"));
        }
        let order = self.job_spec(watch, uri).await?;
        let new = NewJob { tenant: watch.tenant.clone(), order, key: Some(idempotency_key(uri, etag)) };
        match self.store.create(&new).await {
            Ok(created) => {
                if !created.existed {
                    info!(job = %created.job.id, watch = %watch.id, "a job of what has arrived");
                }
                Ok(IngestOutcome::Job(created.job.id))
            }
            // Something else was wanted of it when it arrived.
            Err(spool_jobs::Error::KeyUsed { job, .. }) => Ok(IngestOutcome::Job(job)),
            Err(error) => Err(error.into()),
        }
    }

    async fn job_spec(&self, watch: &Watch, uri: &str) -> Result<Order, Problem> {
        let (request, priority) =
            parse_job_request(&watch.job)?.with_source(uri)?.read(self.media.as_deref())?;
        Ok(Order { request, priority, confines: self.auth.watch_path_policy(watch).await? })
    }

    /// Why a file is nothing that arrived, where that can be told by its name.
    fn ignore_reason(&self, uri: &str) -> Option<&'static str> {
        if uri.ends_with('/') {
            return Some("it is a folder");
        }
        if is_within(uri, &self.uploads) {
            return Some("it is an upload, which says itself what is made of it");
        }
        is_published(uri).then_some("it is published")
    }

    /// Looks where nobody tells, until the server leaves.
    pub(crate) async fn run(self, leave: CancellationToken) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                () = leave.cancelled() => return,
                _ = look.tick() => {}
            }
            loop {
                match self.watches.hold_watch(LEASE).await {
                    Ok(Some(watch)) => tokio::select! {
                        () = leave.cancelled() => return,
                        () = self.scan(&watch) => {}
                    },
                    Ok(None) => break,
                    Err(error) => {
                        warn!(%error, "places that are watched cannot be looked for");
                        break;
                    }
                }
            }
        }
    }

    async fn scan(&self, watch: &Watch) {
        let late = || {
            Err(Problem::new(
                ProblemKind::RequestTimeout,
                format!("it took longer than {} s", LOOK_WITHIN.as_secs()),
            ))
        };
        let trouble = timeout(LOOK_WITHIN, self.scan_prefix(watch))
            .await
            .unwrap_or_else(|_| late())
            .err()
            .map(|problem| problem.detail);
        if let Some(trouble) = &trouble {
            warn!(watch = %watch.id, trouble, "what has arrived cannot be listed");
        }
        if let Err(error) = self.watches.looked(&watch.id, trouble.as_deref()).await {
            warn!(watch = %watch.id, %error, "that it was looked cannot be written down");
        }
    }

    /// Takes what a listing shows, and no job was made of; what is wrong with one file keeps from no other.
    async fn scan_prefix(&self, watch: &Watch) -> Result<(), Problem> {
        let place = self.stores.locate(&watch.prefix).map_err(spool_media::Error::from)?;
        let mut entries = place.list().try_chunks(BATCH);
        let mut wrong = None;
        loop {
            let (batch, broken) = match entries.try_next().await {
                Ok(Some(batch)) => (batch, None),
                Ok(None) => return wrong.map_or(Ok(()), Err),
                Err(TryChunksError(batch, error)) => (batch, Some(error)),
            };
            let taken = self.ingest_entries(watch, &place, batch).await?;
            wrong = wrong.or(taken);
            if let Some(error) = broken {
                return Err(spool_media::Error::from(error).into());
            }
        }
    }

    /// Gives the first thing that is wrong with a file.
    async fn ingest_entries(
        &self,
        watch: &Watch,
        place: &Location,
        batch: Vec<Entry>,
    ) -> Result<Option<Problem>, Problem> {
        let now = SystemTime::now();
        let is_settled =
            |entry: &Entry| now.duration_since(entry.modified).is_ok_and(|since| since >= SETTLED);
        let found = batch.into_iter().filter(|entry| entry.bytes > 0 && is_settled(entry));
        let found = found.map(|entry| (place.child(&entry.relative).uri().to_owned(), entry.etag));
        let found = found.filter(|(uri, _)| self.ignore_reason(uri).is_none());
        let (found, keys): (Vec<_>, Vec<_>) =
            found.map(|(uri, etag)| (uri.clone(), idempotency_key(&uri, &etag))).unzip();
        let used = self.watches.used_keys(&watch.tenant, &keys).await?;
        let mut wrong = None;
        for (uri, key) in found.iter().zip(keys) {
            // Asked by name: a few stores list other ETags than they answer with.
            if used.contains(&key) {
                continue;
            }
            match self.ingest_object(watch, uri).await {
                Ok(_) => {}
                // Of the others it would be no better.
                Err(problem) if problem.status == 429 || problem.status >= 500 => return Err(problem),
                Err(problem) => wrong = wrong.or(Some(problem)),
            }
        }
        Ok(wrong)
    }
}

/// Says what is wrong with what is to be made of files that arrive.
///
/// # Errors
/// What is wrong, and with which field.
pub fn check_job_document(text: &str, media: bool) -> Result<(), String> {
    let source = "s3://any/file.mp4";
    let read =
        parse_job_request(text).and_then(|job| job.with_source(source)?.read(media.then_some("s3://any")));
    let (request, _) = read.map_err(|problem| problem.detail)?;
    request.check().map_err(|error| error.to_string())
}

/// The watch that a file lies in; of several the one that lies deepest.
fn deepest_watch<'a>(watches: &'a [Watch], uri: &str) -> Option<&'a Watch> {
    watches.iter().filter(|watch| is_within(uri, &watch.prefix)).max_by_key(|watch| watch.prefix.len())
}

/// Stands for a state of a file, whoever tells of it.
fn idempotency_key(uri: &str, etag: &str) -> String {
    format!("arrived {uri} {etag}")
}

/// Is a file one of those that Spool publishes? By its name, wherever it lies: so a bucket may be source and destination at once, whoever
/// published there. A playlist is no source in any case.
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
            list_every: None,
            created_ms: 0,
            looked_ms: None,
            trouble: None,
        }
    }

    #[test]
    fn the_deepest_watch_takes_it() {
        let watches = ["s3://in/", "s3://in/talks/", "s3://other/"].map(watch);
        let taken = |uri| deepest_watch(&watches, uri).map(|watch| watch.prefix.as_str());
        assert_eq!(taken("s3://in/a.mp4"), Some("s3://in/"));
        assert_eq!(taken("s3://in/talks/a.mp4"), Some("s3://in/talks/"));
        assert_eq!(taken("s3://in/talks-2/a.mp4"), Some("s3://in/"));
        assert_eq!(taken("s3://elsewhere/a.mp4"), None);
    }

    #[test]
    fn what_was_published_is_told_by_its_name() {
        let digits = "0123456789abcdef";
        for name in ["master.m3u8", "live.m3u8", "1080p/live.m3u8"].map(str::to_owned).into_iter().chain([
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
    fn what_is_to_be_made_is_checked_before_anything_arrives() {
        check_job_document("{}", true).unwrap();
        check_job_document(r#"{"destination": "s3://media/{video}/", "ladder": "720p"}"#, false).unwrap();
        for (text, says) in [
            ("{}", "destination"),
            (r#"{"destination": "s3://media/", "ladder": "9x"}"#, "ladder"),
            (r#"{"destination": "s3://media/", "source": "a.mp4"}"#, "source"),
            (r#"{"destination": "s3://media/", "sql": "SELECT 1"}"#, "sql"),
            (r#"{"targets": "s3://media/"}"#, "targets"),
            ("[", "job"),
        ] {
            let refused = check_job_document(text, false).unwrap_err();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }
}
