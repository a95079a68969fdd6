//! Conformance suite of the stores, run on SQLite and on a real PostgreSQL server.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod credentials;
mod job_leases;
mod opening;
mod uploads;
mod watches;
mod webhooks;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use spool_jobs::{
    Attempt, Error, EventKind, Id, Job, JobFilter, JobProgress, JobSpec, JobState, JobStore, Lease, NewJob,
    Outcome, Phase, Report, Request, Row, RowState, SqlStore,
};
use spool_media::plan::segments::SegmentTrack;
use spool_storage::{ErrorKind, path_policy::PathPolicy};
use spool_tests::postgres::Postgres;
use tokio::{task::JoinSet, time::Instant};

use credentials::{
    a_key_is_valid_until_it_expires_or_is_revoked, a_quota_holds_under_concurrent_requests,
    all_servers_share_a_signing_key, an_upload_token_is_redeemed_once,
};
use job_leases::{
    a_job_has_one_lease_until_it_expires, a_repeated_report_is_written_once, a_thousand_rows_fit_one_report,
    concurrent_dispatchers_never_lease_one_job, each_outcome_sets_its_state,
    progress_never_decreases_and_events_have_no_gap,
};
use watches::{a_due_watch_is_leased_once, used_idempotency_keys_are_found};
use webhooks::a_delivery_is_retried_until_it_arrives;

use uploads::{
    a_finished_upload_creates_one_job, an_abandoned_upload_is_leased_once, an_upload_has_one_lease_at_a_time,
    gc_of_a_video_is_leased_once_after_the_grace_period,
};

/// Lease time that does not end within a test.
const LONG: Duration = Duration::from_secs(600);

/// Lease time that ends within a test.
const SHORT: Duration = Duration::from_millis(300);

/// Time limit for an expected change.
const SOON: Duration = Duration::from_secs(30);

/// A store and its database.
struct Backend {
    store: Arc<SqlStore>,
    url: String,
    _folder: Option<tempfile::TempDir>,
    _server: Option<Postgres>,
}

impl Backend {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = folder.path().join("a folder/jobs?.db").to_str().unwrap().to_owned();
        let store = Arc::new(SqlStore::open(&url).await.unwrap());
        Self { store, url, _folder: Some(folder), _server: None }
    }

    async fn postgres() -> Self {
        let server = Postgres::start();
        let url = server.url();
        let store = Arc::new(SqlStore::open(&url).await.unwrap());
        Self { store, url, _folder: None, _server: Some(server) }
    }

    /// Opens the database once more, as another process does.
    async fn reopen(&self) -> Arc<SqlStore> {
        Arc::new(SqlStore::open(&self.url).await.unwrap())
    }
}

/// Runs each test on each backend.
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test(super::Backend::sqlite().await).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test(super::Backend::postgres().await).await; })*
        }
    };
}

conformance!(
    a_created_job_is_visible_to_every_process,
    a_repeated_request_creates_one_job,
    a_tenant_reaches_no_object_of_another,
    a_page_continues_where_the_last_one_ended,
    a_job_has_one_lease_until_it_expires,
    concurrent_dispatchers_never_lease_one_job,
    progress_never_decreases_and_events_have_no_gap,
    a_repeated_report_is_written_once,
    each_outcome_sets_its_state,
    a_retry_waits_for_its_due_time,
    a_canceled_job_stays_canceled,
    a_failed_job_can_be_retried,
    a_retried_job_obeys_the_current_path_policy,
    a_big_tenant_does_not_starve_a_small_one,
    a_tenants_jobs_go_by_priority,
    a_thousand_rows_fit_one_report,
    an_invalid_request_creates_no_job,
    an_upload_has_one_lease_at_a_time,
    a_finished_upload_creates_one_job,
    an_abandoned_upload_is_leased_once,
    gc_of_a_video_is_leased_once_after_the_grace_period,
    a_key_is_valid_until_it_expires_or_is_revoked,
    an_upload_token_is_redeemed_once,
    a_quota_holds_under_concurrent_requests,
    all_servers_share_a_signing_key,
    a_delivery_is_retried_until_it_arrives,
    a_due_watch_is_leased_once,
    used_idempotency_keys_are_found,
);

fn new(tenant: &str, source: &str) -> NewJob {
    let request = Request::transcode(format!("s3://uploads/{source}"), format!("s3://media/{source}/"));
    NewJob { tenant: tenant.to_owned(), spec: request.into(), idempotency_key: None }
}

async fn create(store: &SqlStore, tenant: &str, source: &str) -> Job {
    let created = store.create(&new(tenant, source)).await.unwrap();
    assert!(!created.existed);
    created.job
}

async fn leased(store: &SqlStore, lease: Duration) -> Lease {
    store.lease_job("a", lease).await.unwrap().unwrap_or_else(|| panic!("no job is due"))
}

/// Leases a job, as soon as one is due.
async fn leased_soon(store: &SqlStore, dispatcher: &str) -> Lease {
    let started = Instant::now();
    loop {
        if let Some(lease) = store.lease_job(dispatcher, LONG).await.unwrap() {
            return lease;
        }
        assert!(started.elapsed() < SOON, "no job became due");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the kinds of a job's events, after a check that their numbers have no gap.
async fn kinds(store: &SqlStore, job: &Job) -> Vec<EventKind> {
    let events = store.events(&job.tenant, &job.id, 0, 10_000).await.unwrap();
    let numbers: Vec<i64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=events.len() as i64).collect::<Vec<_>>());
    assert!(events.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));
    assert_eq!(store.job(&job.tenant, &job.id).await.unwrap().events, events.len() as i64);
    events.into_iter().map(|event| event.kind).collect()
}

fn lost<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::LeaseLost { .. }))
}

fn failed() -> Outcome {
    Outcome::Failed { kind: ErrorKind::BadInput, message: "no such file".to_owned() }
}

fn retry(delay: Duration) -> Outcome {
    Outcome::Retry { kind: ErrorKind::Transient, message: "the store was unreachable".to_owned(), delay }
}

fn row(ordinal: i64, state: RowState) -> Row {
    Row {
        ordinal,
        track: SegmentTrack::Video,
        track_index: ordinal,
        first_frame: ordinal * 250,
        frames: 250,
        start_ms: ordinal * 10_000,
        duration_ms: 10_000,
        state,
        done_ms: if state == RowState::Done { 10_000 } else { 0 },
        attempts: 1,
        encoded: 3,
        reused: 0,
    }
}

async fn a_created_job_is_visible_to_every_process(backend: Backend) {
    let job = create(&backend.store, "acme", "talk.mp4").await;
    let other = backend.reopen().await;
    assert_eq!(other.job("acme", &job.id).await.unwrap(), job);
    assert_eq!((job.state, job.phase, job.percent(), job.tries), (JobState::Pending, Phase::Waiting, 0, 0));
    let video = other.video("acme", job.video.as_ref().unwrap()).await.unwrap();
    assert_eq!((video.name.as_str(), video.destination.as_str()), ("talk.mp4", "s3://media/talk.mp4/"));
    assert!(video.published.is_none() && video.created_ms == job.created_ms);
    assert_eq!(kinds(&other, &job).await, [EventKind::Created]);
    let sql =
        NewJob { spec: Request::Sql { sql: "SELECT 1".to_owned(), threads: 1 }.into(), ..new("acme", "") };
    let created = backend.store.create(&sql).await.unwrap().job;
    assert!(created.video.is_none() && created.request == sql.spec.request);
    let secret = Request::transcode("https://host/talk.mp4?X-Amz-Signature=secret", "out/");
    let created =
        backend.store.create(&NewJob { spec: secret.clone().into(), ..new("acme", "") }).await.unwrap().job;
    assert_eq!(created.request, secret, "the signature is needed to read the source");
    let video = other.video("acme", created.video.as_ref().unwrap()).await.unwrap();
    assert!(!format!("{video:?}").contains("secret") && video.name == "talk.mp4", "{video:?}");
}

async fn a_repeated_request_creates_one_job(backend: Backend) {
    let keyed = NewJob { idempotency_key: Some("upload-7".to_owned()), ..new("acme", "talk.mp4") };
    let mut calls = JoinSet::new();
    for _ in 0..12 {
        let (store, keyed) = (backend.store.clone(), keyed.clone());
        calls.spawn(async move { store.create(&keyed).await.unwrap() });
    }
    let created = calls.join_all().await;
    let ids: BTreeSet<&Id> = created.iter().map(|created| &created.job.id).collect();
    assert_eq!((ids.len(), created.iter().filter(|created| !created.existed).count()), (1, 1));
    assert_eq!(backend.store.jobs("acme", &JobFilter::default(), None, 10).await.unwrap().items.len(), 1);
    assert_eq!(backend.store.videos("acme", None, 10).await.unwrap().items.len(), 1);
    let other = NewJob { idempotency_key: keyed.idempotency_key.clone(), ..new("acme", "other.mp4") };
    let error = backend.store.create(&other).await.unwrap_err();
    assert!(matches!(&error, Error::KeyUsed { job, .. } if ids.contains(job)), "{error}");
    let elsewhere = NewJob { tenant: "globex".to_owned(), ..other };
    assert!(
        !backend.store.create(&elsewhere).await.unwrap().existed,
        "an idempotency key is the tenant's own"
    );
}

async fn a_tenant_reaches_no_object_of_another(backend: Backend) {
    let store = &backend.store;
    let job = create(store, "acme", "talk.mp4").await;
    let video = job.video.clone().unwrap();
    let not_found = |error: Error| matches!(error, Error::NotFound { .. });
    assert!(not_found(store.job("globex", &job.id).await.unwrap_err()));
    assert!(not_found(store.video("globex", &video).await.unwrap_err()));
    assert!(not_found(store.cancel("globex", &job.id).await.unwrap_err()));
    assert!(not_found(store.retry("globex", &job.id, None).await.unwrap_err()));
    assert!(not_found(store.rows("globex", &job.id, 0, 10).await.unwrap_err()));
    assert!(not_found(store.attempts("globex", &job.id, 10).await.unwrap_err()));
    assert!(not_found(store.events("globex", &job.id, 0, 10).await.unwrap_err()));
    assert!(store.jobs("globex", &JobFilter::default(), None, 10).await.unwrap().items.is_empty());
    assert!(store.videos("globex", None, 10).await.unwrap().items.is_empty());
    assert_eq!(store.job("acme", &job.id).await.unwrap(), job, "no call changed the job");
}

async fn a_page_continues_where_the_last_one_ended(backend: Backend) {
    let store = &backend.store;
    let mut created_ids = Vec::new();
    for number in 0..7 {
        created_ids.push(create(store, "acme", &format!("{number}.mp4")).await.id);
    }
    created_ids.reverse();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.jobs("acme", &JobFilter::default(), after.as_ref(), 3).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|job| job.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, created_ids);
    store.cancel("acme", &created_ids[2]).await.unwrap();
    let canceled = JobFilter { state: Some(JobState::Canceled), video: None };
    let page = store.jobs("acme", &canceled, None, 3).await.unwrap();
    assert!(page.items.len() == 1 && page.items[0].id == created_ids[2] && page.next.is_none());
    let video = page.items[0].video.clone();
    let page = store.jobs("acme", &JobFilter { state: None, video }, None, 3).await.unwrap();
    assert!(page.items.len() == 1 && page.items[0].id == created_ids[2]);
}

async fn a_retry_waits_for_its_due_time(backend: Backend) {
    let store = &backend.store;
    let job = create(store, "acme", "talk.mp4").await;
    let lease = leased(store, LONG).await;
    let waits = store.finish(&lease, &Report::default(), &retry(LONG)).await.unwrap();
    assert_eq!((waits.state, waits.tries, waits.ended_ms), (JobState::Pending, 1, None));
    assert_eq!(waits.error.unwrap().message, "the store was unreachable");
    assert!(store.lease_job("a", LONG).await.unwrap().is_none(), "the retry is not due");
    let other = create(store, "acme", "other.mp4").await;
    let lease = leased(store, LONG).await;
    assert_eq!(lease.job.id, other.id, "a waiting job blocks no other");
    store.finish(&lease, &Report::default(), &retry(SHORT)).await.unwrap();
    let lease = leased_soon(store, "b").await;
    assert_eq!((&lease.job.id, lease.job.tries), (&other.id, 2));
    let released = store.finish(&lease, &Report::default(), &Outcome::Released).await.unwrap();
    assert_eq!((released.state, released.tries), (JobState::Pending, 1), "a released lease is no try");
    let lease = leased(store, LONG).await;
    assert_eq!((&lease.job.id, lease.job.tries), (&other.id, 2));
    assert_eq!(kinds(store, &job).await, [EventKind::Created, EventKind::Started, EventKind::RetryScheduled]);
}

async fn a_canceled_job_stays_canceled(backend: Backend) {
    let store = &backend.store;
    let waits = create(store, "acme", "waits.mp4").await;
    let canceled = store.cancel("acme", &waits.id).await.unwrap();
    assert_eq!(
        (canceled.state, canceled.phase, canceled.ended_ms.is_some()),
        (JobState::Canceled, Phase::Ended, true)
    );
    assert_eq!(
        store.cancel("acme", &waits.id).await.unwrap(),
        canceled,
        "a second cancellation changes nothing"
    );
    assert!(store.lease_job("a", LONG).await.unwrap().is_none());
    assert_eq!(kinds(store, &waits).await, [EventKind::Created, EventKind::Canceled]);
    for (outcome, state) in [
        (retry(SHORT), JobState::Canceled),
        (Outcome::Released, JobState::Canceled),
        (Outcome::Published(json!({})), JobState::Published),
    ] {
        let runs = create(store, "acme", "runs.mp4").await;
        let lease = leased(store, LONG).await;
        let asked = store.cancel("acme", &runs.id).await.unwrap();
        assert!(asked.state == JobState::Processing && asked.cancel_requested);
        assert!(store.lease_status(&lease).await.unwrap().cancel_requested);
        assert_eq!(store.finish(&lease, &Report::default(), &outcome).await.unwrap().state, state);
        assert!(store.lease_job("a", LONG).await.unwrap().is_none());
    }
    let failing = create(store, "acme", "fails.mp4").await;
    let lease = leased(store, LONG).await;
    store.finish(&lease, &Report::default(), &failed()).await.unwrap();
    let error = store.cancel("acme", &failing.id).await.unwrap_err();
    assert!(matches!(error, Error::InvalidState { state: JobState::Failed, .. }), "{error}");
}

async fn a_failed_job_can_be_retried(backend: Backend) {
    let store = &backend.store;
    let job = create(store, "acme", "talk.mp4").await;
    let lease = leased(store, LONG).await;
    assert_eq!(
        store.retry("acme", &job.id, None).await.unwrap().state,
        JobState::Processing,
        "a running job stays as it is"
    );
    store.finish(&lease, &Report::default(), &failed()).await.unwrap();
    let retried = store.retry("acme", &job.id, None).await.unwrap();
    assert_eq!(
        (retried.state, retried.tries, retried.error, retried.ended_ms),
        (JobState::Pending, 0, None, None)
    );
    assert!(lost(store.lease_status(&lease).await));
    let second = leased(store, LONG).await;
    assert!(second.fencing_token > lease.fencing_token);
    store.finish(&second, &Report::default(), &Outcome::Published(json!({}))).await.unwrap();
    assert!(matches!(
        store.retry("acme", &job.id, None).await.unwrap_err(),
        Error::InvalidState { state: JobState::Published, .. }
    ));
    let canceled = create(store, "acme", "other.mp4").await;
    store.cancel("acme", &canceled.id).await.unwrap();
    let retried = store.retry("acme", &canceled.id, None).await.unwrap();
    assert!(retried.state == JobState::Pending && !retried.cancel_requested);
    use EventKind::{Created, Failed, Published, Retried, Started};
    assert_eq!(kinds(store, &job).await, [Created, Started, Failed, Retried, Started, Published]);
}

async fn a_retried_job_obeys_the_current_path_policy(backend: Backend) {
    let store = &backend.store;
    let policy = |source: &str| PathPolicy {
        read: vec![source.to_owned()],
        write: vec!["s3://media/{video}/".to_owned()],
        delete: Vec::new(),
    };
    let request = Request::transcode("s3://uploads/talk.mp4", "s3://media/{video}/");
    let spec = JobSpec { request, priority: 0, path_policy: Some(policy("s3://uploads/")) };
    let job =
        store.create(&NewJob { tenant: "acme".to_owned(), spec, idempotency_key: None }).await.unwrap().job;
    store.cancel("acme", &job.id).await.unwrap();
    let refused = store.retry("acme", &job.id, Some(&policy("s3://elsewhere/"))).await.unwrap_err();
    assert!(matches!(refused, Error::NotAllowed { field: "source", .. }), "{refused}");
    assert_eq!(store.job("acme", &job.id).await.unwrap().state, JobState::Canceled);
    let retried = store.retry("acme", &job.id, Some(&policy("s3://uploads/talk.mp4"))).await.unwrap();
    let video = retried.video.clone().unwrap();
    let path_policy = retried.path_policy.clone().unwrap();
    assert_eq!(
        (retried.state, path_policy.read),
        (JobState::Pending, vec!["s3://uploads/talk.mp4".to_owned()])
    );
    assert_eq!(path_policy.write, [format!("s3://media/{video}/")]);
    // Without a new policy the job keeps its own.
    store.cancel("acme", &job.id).await.unwrap();
    assert_eq!(store.retry("acme", &job.id, None).await.unwrap().path_policy, retried.path_policy);
}

async fn a_big_tenant_does_not_starve_a_small_one(backend: Backend) {
    let store = &backend.store;
    for number in 0..30 {
        create(store, "big", &format!("{number}.mp4")).await;
    }
    for number in 0..3 {
        create(store, "small", &format!("{number}.mp4")).await;
    }
    // Four leases at a time: the oldest ends when the next is taken.
    let (mut leases, mut served) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let lease = leased(store, LONG).await;
        served.push(lease.job.tenant.clone());
        leases.push(lease);
        if leases.len() == 4 {
            store
                .finish(&leases.remove(0), &Report::default(), &Outcome::Published(json!({})))
                .await
                .unwrap();
        }
    }
    let small = served.iter().take(7).filter(|tenant| *tenant == "small").count();
    assert_eq!(small, 3, "{served:?}");
    assert!(
        served.iter().skip(7).all(|tenant| tenant == "big"),
        "an unused share goes to the other tenant: {served:?}"
    );
}

async fn a_tenants_jobs_go_by_priority(backend: Backend) {
    let store = &backend.store;
    for (source, priority) in [("first", 0), ("second", 0), ("urgent", 5), ("idle", -5)] {
        store
            .create(&NewJob { spec: JobSpec { priority, ..new("acme", source).spec }, ..new("acme", source) })
            .await
            .unwrap();
    }
    let mut order = BTreeMap::new();
    for place in 0..4 {
        let lease = leased(store, LONG).await;
        let Request::Transcode { source, .. } = lease.job.request else { panic!("not a transcode request") };
        order.insert(place, source.trim_start_matches("s3://uploads/").to_owned());
    }
    assert_eq!(order.into_values().collect::<Vec<_>>(), ["urgent", "first", "second", "idle"]);
}

async fn an_invalid_request_creates_no_job(backend: Backend) {
    let invalid = NewJob { spec: Request::transcode("", "out/").into(), ..new("acme", "") };
    let error = backend.store.create(&invalid).await.unwrap_err();
    assert!(
        matches!(error, Error::Request { field: "source", .. }) && error.kind() == ErrorKind::BadInput,
        "{error}"
    );
    assert!(backend.store.jobs("acme", &JobFilter::default(), None, 10).await.unwrap().items.is_empty());
}
