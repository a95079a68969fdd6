//! What every store promises, tried on each: SQLite, and a real PostgreSQL.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod access;
mod claims;
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
    Attempt, Claim, Ending, Error, Filter, Id, Job, Kind, NewJob, Order, Phase, Progress, Report, Request,
    Row, RowState, SqlStore, State, Store,
};
use spool_media::plan::segments::SegmentTrack;
use spool_storage::{ErrorKind, path_policy::PathPolicy};
use spool_tests::postgres::Postgres;
use tokio::{task::JoinSet, time::Instant};

use access::{
    a_key_opens_until_it_ends, a_quota_holds_whoever_asks_at_once, a_token_is_good_for_one_upload,
    all_servers_sign_alike,
};
use claims::{
    a_job_is_in_one_hand_until_its_lease_ends, a_report_that_is_sent_again_is_written_down_once,
    a_thousand_rows_are_one_report, each_ending_means_what_it_says, many_hands_never_hold_one_job,
    progress_never_goes_back_and_events_have_no_gap,
};
use watches::{a_place_is_looked_at_by_one_when_its_time_comes, what_a_job_was_made_of_is_known};
use webhooks::what_happened_is_told_until_it_arrived;

use uploads::{
    a_video_is_swept_by_one_some_time_after_it_was_published, an_upload_grows_in_one_hand_at_a_time,
    an_upload_makes_one_job_when_all_of_it_is_there, what_nobody_came_back_for_is_found,
};

/// A lease that does not end within a test, and one that does.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(300);

/// How long something that has to happen may take.
const SOON: Duration = Duration::from_secs(30);

/// A store, and what it lives in.
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

    /// The same store, as another process has it.
    async fn again(&self) -> Arc<SqlStore> {
        Arc::new(SqlStore::open(&self.url).await.unwrap())
    }
}

/// Runs each law on each backend.
macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")] async fn $law() { super::$law(super::Backend::sqlite().await).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $law() { super::$law(super::Backend::postgres().await).await; })*
        }
    };
}

laws!(
    what_was_made_is_there_for_everybody,
    a_request_that_is_sent_twice_makes_one_job,
    a_tenant_reaches_nothing_of_another,
    lists_go_on_where_they_ended,
    a_job_is_in_one_hand_until_its_lease_ends,
    many_hands_never_hold_one_job,
    progress_never_goes_back_and_events_have_no_gap,
    a_report_that_is_sent_again_is_written_down_once,
    each_ending_means_what_it_says,
    what_is_tried_again_waits_for_its_time,
    what_is_canceled_stays_canceled,
    what_failed_can_be_tried_again,
    what_is_tried_again_touches_what_is_allowed_now,
    a_big_tenant_does_not_starve_a_small_one,
    a_tenants_urgent_jobs_go_first,
    a_thousand_rows_are_one_report,
    a_bad_request_makes_no_job,
    an_upload_grows_in_one_hand_at_a_time,
    an_upload_makes_one_job_when_all_of_it_is_there,
    what_nobody_came_back_for_is_found,
    a_video_is_swept_by_one_some_time_after_it_was_published,
    a_key_opens_until_it_ends,
    a_token_is_good_for_one_upload,
    a_quota_holds_whoever_asks_at_once,
    all_servers_sign_alike,
    what_happened_is_told_until_it_arrived,
    a_place_is_looked_at_by_one_when_its_time_comes,
    what_a_job_was_made_of_is_known,
);

fn new(tenant: &str, source: &str) -> NewJob {
    let request = Request::transcode(format!("s3://uploads/{source}"), format!("s3://media/{source}/"));
    NewJob { tenant: tenant.to_owned(), order: request.into(), key: None }
}

async fn made(store: &SqlStore, tenant: &str, source: &str) -> Job {
    let created = store.create(&new(tenant, source)).await.unwrap();
    assert!(!created.existed);
    created.job
}

async fn claimed(store: &SqlStore, lease: Duration) -> Claim {
    store.claim("a", lease).await.unwrap().unwrap_or_else(|| panic!("there is nothing to claim"))
}

/// Waits until there is something to claim.
async fn claimed_soon(store: &SqlStore, dispatcher: &str) -> Claim {
    let started = Instant::now();
    loop {
        if let Some(claim) = store.claim(dispatcher, LONG).await.unwrap() {
            return claim;
        }
        assert!(started.elapsed() < SOON, "nothing came to be claimed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The kinds of a job's events, after it was seen that they are numbered without a gap.
async fn kinds(store: &SqlStore, job: &Job) -> Vec<Kind> {
    let events = store.events(&job.tenant, &job.id, 0, 10_000).await.unwrap();
    let numbers: Vec<i64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=events.len() as i64).collect::<Vec<_>>());
    assert!(events.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));
    assert_eq!(store.job(&job.tenant, &job.id).await.unwrap().events, events.len() as i64);
    events.into_iter().map(|event| event.kind).collect()
}

fn lost<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Lost { .. }))
}

fn failed() -> Ending {
    Ending::Failed { kind: ErrorKind::BadInput, message: "no such file".to_owned() }
}

fn again(after: Duration) -> Ending {
    Ending::Again { kind: ErrorKind::Transient, message: "the store was away".to_owned(), after }
}

fn row(number: i64, state: RowState) -> Row {
    Row {
        number,
        track: SegmentTrack::Video,
        track_index: number,
        first_frame: number * 250,
        frames: 250,
        start_ms: number * 10_000,
        duration_ms: 10_000,
        state,
        done_ms: if state == RowState::Done { 10_000 } else { 0 },
        attempts: 1,
        encoded: 3,
        reused: 0,
    }
}

async fn what_was_made_is_there_for_everybody(backend: Backend) {
    let job = made(&backend.store, "acme", "talk.mp4").await;
    let other = backend.again().await;
    assert_eq!(other.job("acme", &job.id).await.unwrap(), job);
    assert_eq!((job.state, job.phase, job.percent(), job.tries), (State::Pending, Phase::Waiting, 0, 0));
    let video = other.video("acme", job.video.as_ref().unwrap()).await.unwrap();
    assert_eq!((video.name.as_str(), video.destination.as_str()), ("talk.mp4", "s3://media/talk.mp4/"));
    assert!(video.published.is_none() && video.created_ms == job.created_ms);
    assert_eq!(kinds(&other, &job).await, [Kind::Created]);
    let sql =
        NewJob { order: Request::Sql { sql: "SELECT 1".to_owned(), threads: 1 }.into(), ..new("acme", "") };
    let created = backend.store.create(&sql).await.unwrap().job;
    assert!(created.video.is_none() && created.request == sql.order.request);
    let secret = Request::transcode("https://host/talk.mp4?X-Amz-Signature=secret", "out/");
    let created =
        backend.store.create(&NewJob { order: secret.clone().into(), ..new("acme", "") }).await.unwrap().job;
    assert_eq!(created.request, secret, "it is needed to read the source");
    let video = other.video("acme", created.video.as_ref().unwrap()).await.unwrap();
    assert!(!format!("{video:?}").contains("secret") && video.name == "talk.mp4", "{video:?}");
}

async fn a_request_that_is_sent_twice_makes_one_job(backend: Backend) {
    let keyed = NewJob { key: Some("upload-7".to_owned()), ..new("acme", "talk.mp4") };
    let mut tries = JoinSet::new();
    for _ in 0..12 {
        let (store, keyed) = (backend.store.clone(), keyed.clone());
        tries.spawn(async move { store.create(&keyed).await.unwrap() });
    }
    let created = tries.join_all().await;
    let ids: BTreeSet<&Id> = created.iter().map(|created| &created.job.id).collect();
    assert_eq!((ids.len(), created.iter().filter(|created| !created.existed).count()), (1, 1));
    assert_eq!(backend.store.jobs("acme", &Filter::default(), None, 10).await.unwrap().items.len(), 1);
    assert_eq!(backend.store.videos("acme", None, 10).await.unwrap().items.len(), 1);
    let other = NewJob { key: keyed.key.clone(), ..new("acme", "other.mp4") };
    let error = backend.store.create(&other).await.unwrap_err();
    assert!(matches!(&error, Error::KeyUsed { job, .. } if ids.contains(job)), "{error}");
    let elsewhere = NewJob { tenant: "globex".to_owned(), ..other };
    assert!(!backend.store.create(&elsewhere).await.unwrap().existed, "a key is its tenant's");
}

async fn a_tenant_reaches_nothing_of_another(backend: Backend) {
    let store = &backend.store;
    let job = made(store, "acme", "talk.mp4").await;
    let video = job.video.clone().unwrap();
    let none = |error: Error| matches!(error, Error::NotFound { .. });
    assert!(none(store.job("globex", &job.id).await.unwrap_err()));
    assert!(none(store.video("globex", &video).await.unwrap_err()));
    assert!(none(store.cancel("globex", &job.id).await.unwrap_err()));
    assert!(none(store.retry("globex", &job.id, None).await.unwrap_err()));
    assert!(none(store.rows("globex", &job.id, 0, 10).await.unwrap_err()));
    assert!(none(store.attempts("globex", &job.id, 10).await.unwrap_err()));
    assert!(none(store.events("globex", &job.id, 0, 10).await.unwrap_err()));
    assert!(store.jobs("globex", &Filter::default(), None, 10).await.unwrap().items.is_empty());
    assert!(store.videos("globex", None, 10).await.unwrap().items.is_empty());
    assert_eq!(store.job("acme", &job.id).await.unwrap(), job, "nothing was touched");
}

async fn lists_go_on_where_they_ended(backend: Backend) {
    let store = &backend.store;
    let mut made_ids = Vec::new();
    for number in 0..7 {
        made_ids.push(made(store, "acme", &format!("{number}.mp4")).await.id);
    }
    made_ids.reverse();
    let (mut seen, mut behind) = (Vec::new(), None);
    loop {
        let page = store.jobs("acme", &Filter::default(), behind.as_ref(), 3).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|job| job.id));
        behind = page.next;
        if behind.is_none() {
            break;
        }
    }
    assert_eq!(seen, made_ids);
    store.cancel("acme", &made_ids[2]).await.unwrap();
    let canceled = Filter { state: Some(State::Canceled), video: None };
    let page = store.jobs("acme", &canceled, None, 3).await.unwrap();
    assert!(page.items.len() == 1 && page.items[0].id == made_ids[2] && page.next.is_none());
    let video = page.items[0].video.clone();
    let page = store.jobs("acme", &Filter { state: None, video }, None, 3).await.unwrap();
    assert!(page.items.len() == 1 && page.items[0].id == made_ids[2]);
}

async fn what_is_tried_again_waits_for_its_time(backend: Backend) {
    let store = &backend.store;
    let job = made(store, "acme", "talk.mp4").await;
    let claim = claimed(store, LONG).await;
    let waits = store.end(&claim, &Report::default(), &again(LONG)).await.unwrap();
    assert_eq!((waits.state, waits.tries, waits.ended_ms), (State::Pending, 1, None));
    assert_eq!(waits.error.unwrap().message, "the store was away");
    assert!(store.claim("a", LONG).await.unwrap().is_none(), "its time has not come");
    let other = made(store, "acme", "other.mp4").await;
    let claim = claimed(store, LONG).await;
    assert_eq!(claim.job.id, other.id, "one that waits keeps nobody waiting");
    store.end(&claim, &Report::default(), &again(SHORT)).await.unwrap();
    let claim = claimed_soon(store, "b").await;
    assert_eq!((&claim.job.id, claim.job.tries), (&other.id, 2));
    let released = store.end(&claim, &Report::default(), &Ending::Released).await.unwrap();
    assert_eq!((released.state, released.tries), (State::Pending, 1), "whoever leaves did not try it");
    let claim = claimed(store, LONG).await;
    assert_eq!((&claim.job.id, claim.job.tries), (&other.id, 2));
    assert_eq!(kinds(store, &job).await, [Kind::Created, Kind::Started, Kind::Again]);
}

async fn what_is_canceled_stays_canceled(backend: Backend) {
    let store = &backend.store;
    let waits = made(store, "acme", "waits.mp4").await;
    let canceled = store.cancel("acme", &waits.id).await.unwrap();
    assert_eq!(
        (canceled.state, canceled.phase, canceled.ended_ms.is_some()),
        (State::Canceled, Phase::Ended, true)
    );
    assert_eq!(store.cancel("acme", &waits.id).await.unwrap(), canceled, "twice is once");
    assert!(store.claim("a", LONG).await.unwrap().is_none());
    assert_eq!(kinds(store, &waits).await, [Kind::Created, Kind::Canceled]);
    for (ending, end) in [
        (again(SHORT), State::Canceled),
        (Ending::Released, State::Canceled),
        (Ending::Published(json!({})), State::Published),
    ] {
        let runs = made(store, "acme", "runs.mp4").await;
        let claim = claimed(store, LONG).await;
        let asked = store.cancel("acme", &runs.id).await.unwrap();
        assert!(asked.state == State::Processing && asked.cancel_requested);
        assert!(store.standing(&claim).await.unwrap().cancel_requested);
        assert_eq!(store.end(&claim, &Report::default(), &ending).await.unwrap().state, end);
        assert!(store.claim("a", LONG).await.unwrap().is_none());
    }
    let failing = made(store, "acme", "fails.mp4").await;
    let claim = claimed(store, LONG).await;
    store.end(&claim, &Report::default(), &failed()).await.unwrap();
    let error = store.cancel("acme", &failing.id).await.unwrap_err();
    assert!(matches!(error, Error::State { state: State::Failed, .. }), "{error}");
}

async fn what_failed_can_be_tried_again(backend: Backend) {
    let store = &backend.store;
    let job = made(store, "acme", "talk.mp4").await;
    let claim = claimed(store, LONG).await;
    assert_eq!(store.retry("acme", &job.id, None).await.unwrap().state, State::Processing, "it is at it");
    store.end(&claim, &Report::default(), &failed()).await.unwrap();
    let again = store.retry("acme", &job.id, None).await.unwrap();
    assert_eq!((again.state, again.tries, again.error, again.ended_ms), (State::Pending, 0, None, None));
    assert!(lost(store.standing(&claim).await));
    let second = claimed(store, LONG).await;
    assert!(second.fence > claim.fence);
    store.end(&second, &Report::default(), &Ending::Published(json!({}))).await.unwrap();
    assert!(matches!(
        store.retry("acme", &job.id, None).await.unwrap_err(),
        Error::State { state: State::Published, .. }
    ));
    let canceled = made(store, "acme", "other.mp4").await;
    store.cancel("acme", &canceled.id).await.unwrap();
    let again = store.retry("acme", &canceled.id, None).await.unwrap();
    assert!(again.state == State::Pending && !again.cancel_requested);
    use Kind::{Created, Failed, Published, Retried, Started};
    assert_eq!(kinds(store, &job).await, [Created, Started, Failed, Retried, Started, Published]);
}

async fn what_is_tried_again_touches_what_is_allowed_now(backend: Backend) {
    let store = &backend.store;
    let places = |source: &str| PathPolicy {
        sources: vec![source.to_owned()],
        destinations: vec!["s3://media/{video}/".to_owned()],
        own: Vec::new(),
    };
    let request = Request::transcode("s3://uploads/talk.mp4", "s3://media/{video}/");
    let order = Order { request, priority: 0, confines: Some(places("s3://uploads/")) };
    let job = store.create(&NewJob { tenant: "acme".to_owned(), order, key: None }).await.unwrap().job;
    store.cancel("acme", &job.id).await.unwrap();
    let refused = store.retry("acme", &job.id, Some(&places("s3://elsewhere/"))).await.unwrap_err();
    assert!(matches!(refused, Error::NotAllowed { field: "source", .. }), "{refused}");
    assert_eq!(store.job("acme", &job.id).await.unwrap().state, State::Canceled);
    let again = store.retry("acme", &job.id, Some(&places("s3://uploads/talk.mp4"))).await.unwrap();
    let video = again.video.clone().unwrap();
    let confines = again.confines.clone().unwrap();
    assert_eq!((again.state, confines.sources), (State::Pending, vec!["s3://uploads/talk.mp4".to_owned()]));
    assert_eq!(confines.destinations, [format!("s3://media/{video}/")]);
    // Where nobody is confined, it stays as it was.
    store.cancel("acme", &job.id).await.unwrap();
    assert_eq!(store.retry("acme", &job.id, None).await.unwrap().confines, again.confines);
}

async fn a_big_tenant_does_not_starve_a_small_one(backend: Backend) {
    let store = &backend.store;
    for number in 0..30 {
        made(store, "big", &format!("{number}.mp4")).await;
    }
    for number in 0..3 {
        made(store, "small", &format!("{number}.mp4")).await;
    }
    // Four in hand at a time, the oldest of which ends when the next is taken.
    let (mut held, mut order) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let claim = claimed(store, LONG).await;
        order.push(claim.job.tenant.clone());
        held.push(claim);
        if held.len() == 4 {
            store.end(&held.remove(0), &Report::default(), &Ending::Published(json!({}))).await.unwrap();
        }
    }
    let small = order.iter().take(7).filter(|tenant| *tenant == "small").count();
    assert_eq!(small, 3, "{order:?}");
    assert!(
        order.iter().skip(7).all(|tenant| tenant == "big"),
        "a share that nobody wants is everybody's: {order:?}"
    );
}

async fn a_tenants_urgent_jobs_go_first(backend: Backend) {
    let store = &backend.store;
    for (source, priority) in [("first", 0), ("second", 0), ("urgent", 5), ("idle", -5)] {
        store
            .create(&NewJob { order: Order { priority, ..new("acme", source).order }, ..new("acme", source) })
            .await
            .unwrap();
    }
    let mut order = BTreeMap::new();
    for place in 0..4 {
        let claim = claimed(store, LONG).await;
        let Request::Transcode { source, .. } = claim.job.request else { panic!("not what was asked for") };
        order.insert(place, source.trim_start_matches("s3://uploads/").to_owned());
    }
    assert_eq!(order.into_values().collect::<Vec<_>>(), ["urgent", "first", "second", "idle"]);
}

async fn a_bad_request_makes_no_job(backend: Backend) {
    let bad = NewJob { order: Request::transcode("", "out/").into(), ..new("acme", "") };
    let error = backend.store.create(&bad).await.unwrap_err();
    assert!(
        matches!(error, Error::Request { field: "source", .. }) && error.kind() == ErrorKind::BadInput,
        "{error}"
    );
    assert!(backend.store.jobs("acme", &Filter::default(), None, 10).await.unwrap().items.is_empty());
}
