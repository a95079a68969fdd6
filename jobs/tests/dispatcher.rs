//! Behaviour of a dispatcher, with a fake backend that acts by the name of the source.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use spool_jobs::{
    Dispatcher, DispatcherSettings, EventKind, Failure, Job, JobBackend, JobState, JobStore, NewJob, Phase,
    Request, RowState, SqlStore,
};
use spool_media::{
    encode::{
        events::{RowEvent, RowEventKind},
        timing::Timing,
    },
    plan::{
        deinterlace::Deinterlace,
        segments::{Segment, SegmentTrack},
    },
    time::Rational,
};
use spool_storage::ErrorKind;
use spool_tests::postgres::Postgres;
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// Time limit for an expected change.
const SOON: Duration = Duration::from_secs(60);

/// Rows of every job, and the duration of each.
const ROWS: u32 = 4;
const ROW_MS: i64 = 1_000;

/// A backend that acts by the name of the source.
#[derive(Default)]
struct FakeBackend {
    /// Runs started, by source.
    started: Mutex<HashMap<String, usize>>,
    /// Runs that were canceled.
    canceled: AtomicUsize,
    running: AtomicUsize,
    max_running: AtomicUsize,
    /// Permits that runs wait for whose source is named `gate`.
    gate: Option<Arc<Semaphore>>,
}

impl FakeBackend {
    fn started(&self, source: &str) -> usize {
        self.started.lock().get(source).copied().unwrap_or_default()
    }

    async fn encode(
        &self,
        source: &str,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Value, Failure> {
        let times = {
            let mut started = self.started.lock();
            let times = started.entry(source.to_owned()).or_default();
            *times += 1;
            *times
        };
        let event = |ordinal, kind| on_event(RowEvent { ordinal, kind });
        for index in 0..ROWS {
            event(index, RowEventKind::Planned { segment: Box::new(segment(source, index)) });
        }
        for index in 0..ROWS {
            event(index, RowEventKind::Started { rungs: vec!["720p".to_owned()] });
            event(index, RowEventKind::Progress { done_ms: ROW_MS / 2 });
            if index == 1 {
                event(
                    index,
                    RowEventKind::Retrying {
                        reason: "ffmpeg exited with 187:\nx264: the last line".to_owned(),
                    },
                );
            }
            if index == 2 && source.contains("gate") {
                self.gate.as_ref().unwrap().acquire().await.unwrap().forget();
            }
            if index == 2 && source.contains("hang") {
                std::future::pending::<()>().await;
            }
            event(index, RowEventKind::Finished { encoded: 1, reused: 0, timing: Timing::default() });
        }
        let failure = |retryable| Failure {
            kind: if retryable { ErrorKind::Transient } else { ErrorKind::BadInput },
            message: format!("failed to encode {source}"),
            retryable,
        };
        match source {
            _ if source.contains("bad") => Err(failure(false)),
            _ if source.contains("never") => Err(failure(true)),
            _ if source.contains("third") && times < 3 => Err(failure(true)),
            _ if source.contains("panic") && times < 2 => panic!("as the source demands"),
            _ => Ok(json!({ "master": format!("{source}/master.m3u8") })),
        }
    }
}

/// Counts a run as running until dropped.
struct Running<'a>(&'a FakeBackend);

impl<'a> Running<'a> {
    fn new(fake: &'a FakeBackend) -> Self {
        let now = fake.running.fetch_add(1, Ordering::SeqCst) + 1;
        fake.max_running.fetch_max(now, Ordering::SeqCst);
        Self(fake)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl JobBackend for FakeBackend {
    async fn run(
        &self,
        job: &Job,
        cancel: &CancellationToken,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Value, Failure> {
        let _running = Running::new(self);
        let Request::Transcode { source, .. } = &job.request else { panic!("not a transcode request") };
        tokio::select! {
            result = self.encode(source, on_event) => result,
            () = cancel.cancelled() => {
                self.canceled.fetch_add(1, Ordering::SeqCst);
                Err(Failure { kind: ErrorKind::Canceled, message: "canceled".to_owned(), retryable: false })
            }
        }
    }
}

fn segment(source: &str, index: u32) -> Segment {
    Segment {
        source: source.to_owned(),
        etag: "1".to_owned(),
        track: SegmentTrack::Video,
        index,
        first_frame: u64::from(index) * 25,
        frames: 25,
        timebase: Rational::new(1, 25).unwrap(),
        start_ms: i64::from(index) * ROW_MS,
        duration_ms: ROW_MS,
        media_segment_frames: 25,
        title_frames: u64::from(ROWS) * 25,
        lost_ms: 0,
        deinterlace: Deinterlace::Frame,
    }
}

/// A store and a backend for the dispatchers of a test.
struct Fixture {
    store: Arc<SqlStore>,
    backend: Arc<FakeBackend>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(FakeBackend::default()).await
    }

    async fn with(backend: FakeBackend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqlStore::open(folder.path().join("jobs.db").to_str().unwrap()).await.unwrap();
        Self { store: Arc::new(store), backend: Arc::new(backend), _folder: folder }
    }

    fn dispatcher(
        &self,
        name: &str,
        change: impl FnOnce(&mut DispatcherSettings),
    ) -> (JoinHandle<()>, CancellationToken) {
        let mut settings = DispatcherSettings {
            lease_time: Duration::from_secs(2),
            poll_interval: Duration::from_millis(20),
            report_interval: Duration::from_millis(50),
            retry_delay: Duration::from_millis(50),
            max_retry_delay: Duration::from_millis(400),
            ..DispatcherSettings::new(name)
        };
        change(&mut settings);
        let shutdown = CancellationToken::new();
        let dispatcher = Dispatcher::new(self.store.clone(), self.backend.clone(), settings);
        (tokio::spawn(dispatcher.run(shutdown.clone())), shutdown)
    }

    async fn job(&self, source: &str) -> Job {
        let request = Request::transcode(source, "out/");
        self.store
            .create(&NewJob { tenant: "acme".to_owned(), spec: request.into(), idempotency_key: None })
            .await
            .unwrap()
            .job
    }

    /// Waits until a job meets a condition.
    async fn until(&self, what: &str, job: &Job, is: impl Fn(&Job) -> bool) -> Job {
        let started = Instant::now();
        loop {
            // A stopped database starts again.
            let now = self.store.job("acme", &job.id).await;
            if let Ok(now) = &now
                && is(now)
            {
                return now.clone();
            }
            assert!(started.elapsed() < SOON, "the job is not {what}: {now:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ended(&self, job: &Job) -> Job {
        self.until("ended", job, |job| job.state.ended()).await
    }

    async fn kinds(&self, job: &Job) -> Vec<EventKind> {
        let events = self.store.events("acme", &job.id, 0, 1_000).await.unwrap();
        assert!(events.iter().map(|event| event.sequence).eq(1..=events.len() as i64));
        let percents: Vec<i64> = events.iter().filter_map(|event| event.data["percent"].as_i64()).collect();
        assert!(percents.is_sorted(), "progress decreased: {percents:?}");
        events.into_iter().map(|event| event.kind).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_job_has_all_rows_attempts_and_events() {
    let fixture = Fixture::new().await;
    let job = fixture.job("talk.mp4").await;
    let (_task, _shutdown) = fixture.dispatcher("a", |_| {});
    let ended = fixture.ended(&job).await;
    assert_eq!(
        (ended.state, ended.phase, ended.percent(), ended.tries),
        (JobState::Published, Phase::Ended, 100, 1)
    );
    assert_eq!((ended.rows, ended.rows_done, ended.media_ms, ended.media_done_ms), (4, 4, 4_000, 4_000));
    assert_eq!(ended.result.unwrap()["master"], "talk.mp4/master.m3u8");
    let rows = fixture.store.rows("acme", &job.id, 0, 10).await.unwrap();
    assert!(
        rows.len() == 4 && rows.iter().all(|row| row.state == RowState::Done && row.encoded == 1),
        "{rows:?}"
    );
    let attempts = fixture.store.attempts("acme", &job.id, 10).await.unwrap();
    assert!(
        attempts.len() == 1
            && attempts[0].ordinal == 1
            && attempts[0].reason.ends_with("x264: the last line"),
        "{attempts:?}"
    );
    let kinds = fixture.kinds(&job).await;
    assert_eq!(
        (kinds[..3].to_vec(), kinds.last()),
        (vec![EventKind::Created, EventKind::Started, EventKind::Planned], Some(&EventKind::Published))
    );
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::RowFinished).count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_retryable_failure_is_retried() {
    let fixture = Fixture::new().await;
    let (bad, third, never, panics) = (
        fixture.job("bad.mp4").await,
        fixture.job("third.mp4").await,
        fixture.job("never.mp4").await,
        fixture.job("panic.mp4").await,
    );
    let (_task, _shutdown) = fixture.dispatcher("a", |_| {});
    let bad = fixture.ended(&bad).await;
    assert_eq!((bad.state, bad.tries), (JobState::Failed, 1));
    assert_eq!(bad.error.unwrap().message, "failed to encode bad.mp4");
    let third = fixture.ended(&third).await;
    assert_eq!((third.state, third.tries, &third.error), (JobState::Published, 3, &None));
    let kinds = fixture.kinds(&third).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::RetryScheduled).count(), 2);
    let never = fixture.ended(&never).await;
    assert_eq!((never.state, never.tries, fixture.backend.started("never.mp4")), (JobState::Failed, 5, 5));
    assert!(never.error.unwrap().message.contains("tried 5 times"));
    let panics = fixture.ended(&panics).await;
    assert_eq!((panics.state, panics.tries), (JobState::Published, 2), "a panic in one run affects no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_runs_at_most_max_concurrent_jobs() {
    let fixture =
        Fixture::with(FakeBackend { gate: Some(Arc::new(Semaphore::new(0))), ..FakeBackend::default() })
            .await;
    let mut jobs = Vec::new();
    for number in 0..12 {
        jobs.push(fixture.job(&format!("gate-{number}.mp4")).await);
    }
    let (_task, _shutdown) = fixture.dispatcher("a", |settings| settings.max_concurrent_jobs = 3);
    let started = Instant::now();
    while fixture.backend.running.load(Ordering::SeqCst) < 3 {
        assert!(started.elapsed() < SOON);
        sleep(Duration::from_millis(10)).await;
    }
    fixture.backend.gate.as_ref().unwrap().add_permits(jobs.len());
    for job in &jobs {
        assert_eq!(fixture.ended(job).await.state, JobState::Published);
    }
    assert_eq!(fixture.backend.max_running.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_job_is_stopped() {
    let fixture = Fixture::new().await;
    let job = fixture.job("hang.mp4").await;
    let (_task, _shutdown) = fixture.dispatcher("a", |_| {});
    fixture.until("running", &job, |job| job.rows_done == 2).await;
    fixture.store.cancel("acme", &job.id).await.unwrap();
    let ended = fixture.ended(&job).await;
    assert_eq!(ended.state, JobState::Canceled);
    assert_eq!(
        (fixture.backend.canceled.load(Ordering::SeqCst), fixture.backend.running.load(Ordering::SeqCst)),
        (1, 0)
    );
    assert_eq!(fixture.kinds(&job).await.last(), Some(&EventKind::Canceled));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_dead_dispatcher_are_taken_over() {
    let fixture =
        Fixture::with(FakeBackend { gate: Some(Arc::new(Semaphore::new(0))), ..FakeBackend::default() })
            .await;
    let job = fixture.job("gate.mp4").await;
    let (dead, _shutdown) = fixture.dispatcher("dead", |_| {});
    fixture.until("running", &job, |job| job.rows_done == 2).await;
    dead.abort();
    let (_task, _shutdown) = fixture.dispatcher("successor", |_| {});
    fixture.backend.gate.as_ref().unwrap().add_permits(2);
    let ended = fixture.ended(&job).await;
    assert_eq!(
        (ended.state, ended.tries, ended.dispatcher.as_deref()),
        (JobState::Published, 2, Some("successor"))
    );
    let kinds = fixture.kinds(&job).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Published).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_releases_its_jobs_at_shutdown() {
    let fixture = Fixture::new().await;
    let job = fixture.job("hang.mp4").await;
    let (task, shutdown) = fixture.dispatcher("a", |settings| settings.lease_time = Duration::from_secs(600));
    fixture.until("running", &job, |job| job.rows_done == 2).await;
    shutdown.cancel();
    task.await.unwrap();
    let pending = fixture.store.job("acme", &job.id).await.unwrap();
    assert_eq!(
        (pending.state, pending.tries, fixture.backend.running.load(Ordering::SeqCst)),
        (JobState::Pending, 0, 0)
    );
    let (_task, _shutdown) = fixture.dispatcher("b", |_| {});
    fixture.until("leased by another dispatcher", &job, |job| job.dispatcher.as_deref() == Some("b")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_dispatchers_fails() {
    let fixture = Fixture::new().await;
    let job = fixture.job("hang.mp4").await;
    for _ in 0..3 {
        let (dead, _shutdown) =
            fixture.dispatcher("dead", |settings| settings.lease_time = Duration::from_millis(200));
        let before = fixture.backend.started("hang.mp4");
        let started = Instant::now();
        while fixture.backend.started("hang.mp4") == before {
            assert!(started.elapsed() < SOON);
            sleep(Duration::from_millis(10)).await;
        }
        dead.abort();
    }
    let (_task, _shutdown) = fixture.dispatcher("a", |settings| settings.tries = 3);
    let ended = fixture.ended(&job).await;
    assert_eq!((ended.state, fixture.backend.started("hang.mp4")), (JobState::Failed, 3));
    assert!(ended.error.unwrap().message.contains("started 3 times"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_costs_no_try() {
    let mut server = Postgres::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    let backend = FakeBackend { gate: Some(Arc::new(Semaphore::new(0))), ..FakeBackend::default() };
    let fixture =
        Fixture { store: Arc::new(store), backend: Arc::new(backend), _folder: tempfile::tempdir().unwrap() };
    let (short, long) = (fixture.job("gate.mp4").await, fixture.job("gate-long.mp4").await);
    let (_task, _shutdown) =
        fixture.dispatcher("a", |settings| settings.lease_time = Duration::from_secs(30));
    for job in [&short, &long] {
        fixture.until("running", job, |job| job.rows_done == 2).await;
    }
    server.kill();
    // Both runs end while the database is stopped.
    fixture.backend.gate.as_ref().unwrap().add_permits(2);
    let started = Instant::now();
    while fixture.backend.running.load(Ordering::SeqCst) > 0 {
        assert!(started.elapsed() < SOON);
        sleep(Duration::from_millis(10)).await;
    }
    server.restart();
    for job in [&short, &long] {
        let ended = fixture.ended(job).await;
        assert_eq!((ended.state, ended.tries), (JobState::Published, 1), "no second try was needed");
        fixture.kinds(job).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stops_before_its_unrenewed_lease_ends() {
    let mut server = Postgres::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    let fixture =
        Fixture { store: Arc::new(store), backend: Arc::default(), _folder: tempfile::tempdir().unwrap() };
    let job = fixture.job("hang.mp4").await;
    let (_task, _shutdown) = fixture.dispatcher("a", |settings| settings.lease_time = Duration::from_secs(2));
    fixture.until("running", &job, |job| job.rows_done == 2).await;
    server.kill();
    let started = Instant::now();
    while fixture.backend.running.load(Ordering::SeqCst) > 0 {
        assert!(started.elapsed() < SOON, "the run outlives its lease");
        sleep(Duration::from_millis(10)).await;
    }
    server.restart();
    fixture.until("started again", &job, |job| job.tries == 2).await;
}
