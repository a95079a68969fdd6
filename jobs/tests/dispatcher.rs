//! What a dispatcher promises, on a cluster that is none: it does what a test tells it to.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};
use spool_jobs::{
    Cluster, Dispatcher, Failure, Job, Kind, NewJob, Phase, Request, RowState, Settings, SqlStore, State,
    Store,
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

/// How long something that has to happen may take.
const SOON: Duration = Duration::from_secs(60);

/// Rows of every job, and their length.
const ROWS: u32 = 4;
const ROW_MS: i64 = 1_000;

/// A cluster that does as it is told by the source's name.
#[derive(Default)]
struct Fake {
    /// Runs of each source that were begun.
    begun: Mutex<HashMap<String, usize>>,
    /// Runs that were told to stop.
    stopped: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
    /// What those wait for whose source is called so.
    gate: Option<Arc<Semaphore>>,
}

impl Fake {
    fn begun(&self, source: &str) -> usize {
        self.begun.lock().unwrap().get(source).copied().unwrap_or_default()
    }

    async fn work(&self, source: &str, tell: &(dyn Fn(RowEvent) + Send + Sync)) -> Result<Value, Failure> {
        let times = {
            let mut begun = self.begun.lock().unwrap();
            let times = begun.entry(source.to_owned()).or_default();
            *times += 1;
            *times
        };
        let event =
            |index, what| tell(RowEvent { job: String::new(), segment: segment(source, index), kind: what });
        (0..ROWS).for_each(|index| event(index, RowEventKind::Planned));
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
        let failure = |passes| Failure {
            kind: if passes { ErrorKind::Transient } else { ErrorKind::BadInput },
            message: format!("no luck with {source}"),
            passes,
        };
        match source {
            _ if source.contains("bad") => Err(failure(false)),
            _ if source.contains("never") => Err(failure(true)),
            _ if source.contains("third") && times < 3 => Err(failure(true)),
            _ if source.contains("panic") && times < 2 => panic!("as it was told to"),
            _ => Ok(json!({ "master": format!("{source}/master.m3u8") })),
        }
    }
}

/// One run that runs, as long as this is there.
struct Running<'a>(&'a Fake);

impl<'a> Running<'a> {
    fn new(fake: &'a Fake) -> Self {
        let now = fake.running.fetch_add(1, Ordering::SeqCst) + 1;
        fake.most.fetch_max(now, Ordering::SeqCst);
        Self(fake)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Cluster for Fake {
    async fn run(
        &self,
        job: &Job,
        cancel: &CancellationToken,
        tell: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Value, Failure> {
        let _running = Running::new(self);
        let Request::Transcode { source, .. } = &job.request else { panic!("not what was asked for") };
        tokio::select! {
            result = self.work(source, tell) => result,
            () = cancel.cancelled() => {
                self.stopped.fetch_add(1, Ordering::SeqCst);
                Err(Failure { kind: ErrorKind::Canceled, message: "canceled".to_owned(), passes: false })
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

/// A store with a cluster, and dispatchers that come and go.
struct House {
    store: Arc<SqlStore>,
    fake: Arc<Fake>,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        Self::with(Fake::default()).await
    }

    async fn with(fake: Fake) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqlStore::open(folder.path().join("jobs.db").to_str().unwrap()).await.unwrap();
        Self { store: Arc::new(store), fake: Arc::new(fake), _folder: folder }
    }

    fn dispatcher(
        &self,
        name: &str,
        change: impl FnOnce(&mut Settings),
    ) -> (JoinHandle<()>, CancellationToken) {
        let mut settings = Settings {
            lease: Duration::from_secs(2),
            poll: Duration::from_millis(20),
            report: Duration::from_millis(50),
            again: (Duration::from_millis(50), Duration::from_millis(400)),
            ..Settings::new(name)
        };
        change(&mut settings);
        let leave = CancellationToken::new();
        let dispatcher = Dispatcher::new(self.store.clone(), self.fake.clone(), settings);
        (tokio::spawn(dispatcher.run(leave.clone())), leave)
    }

    async fn job(&self, source: &str) -> Job {
        let request = Request::transcode(source, "out/");
        self.store
            .create(&NewJob { tenant: "acme".to_owned(), order: request.into(), key: None })
            .await
            .unwrap()
            .job
    }

    /// Waits until a job is as it should be.
    async fn until(&self, what: &str, job: &Job, is: impl Fn(&Job) -> bool) -> Job {
        let started = Instant::now();
        loop {
            // A database that is away comes back.
            let now = self.store.job("acme", &job.id).await;
            if let Ok(now) = &now
                && is(now)
            {
                return now.clone();
            }
            assert!(started.elapsed() < SOON, "waited in vain until a job is {what}: {now:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ended(&self, job: &Job) -> Job {
        self.until("ended", job, |job| job.state.ended()).await
    }

    async fn kinds(&self, job: &Job) -> Vec<Kind> {
        let events = self.store.events("acme", &job.id, 0, 1_000).await.unwrap();
        assert!(events.iter().map(|event| event.sequence).eq(1..=events.len() as i64));
        let percents: Vec<i64> = events.iter().filter_map(|event| event.data["percent"].as_i64()).collect();
        assert!(percents.is_sorted(), "progress went back: {percents:?}");
        events.into_iter().map(|event| event.kind).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_worked_off_and_all_of_it_is_written_down() {
    let house = House::new().await;
    let job = house.job("talk.mp4").await;
    let (_task, _leave) = house.dispatcher("a", |_| {});
    let ended = house.ended(&job).await;
    assert_eq!(
        (ended.state, ended.phase, ended.percent(), ended.tries),
        (State::Published, Phase::Ended, 100, 1)
    );
    assert_eq!((ended.rows, ended.rows_done, ended.media_ms, ended.media_done_ms), (4, 4, 4_000, 4_000));
    assert_eq!(ended.result.unwrap()["master"], "talk.mp4/master.m3u8");
    let rows = house.store.rows("acme", &job.id, 0, 10).await.unwrap();
    assert!(
        rows.len() == 4 && rows.iter().all(|row| row.state == RowState::Done && row.encoded == 1),
        "{rows:?}"
    );
    let attempts = house.store.attempts("acme", &job.id, 10).await.unwrap();
    assert!(
        attempts.len() == 1 && attempts[0].row == 1 && attempts[0].reason.ends_with("x264: the last line"),
        "{attempts:?}"
    );
    let kinds = house.kinds(&job).await;
    assert_eq!(
        (kinds[..3].to_vec(), kinds.last()),
        (vec![Kind::Created, Kind::Started, Kind::Planned], Some(&Kind::Published))
    );
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::RowFinished).count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    let house = House::new().await;
    let (bad, third, never, panics) = (
        house.job("bad.mp4").await,
        house.job("third.mp4").await,
        house.job("never.mp4").await,
        house.job("panic.mp4").await,
    );
    let (_task, _leave) = house.dispatcher("a", |_| {});
    let bad = house.ended(&bad).await;
    assert_eq!((bad.state, bad.tries), (State::Failed, 1));
    assert_eq!(bad.error.unwrap().message, "no luck with bad.mp4");
    let third = house.ended(&third).await;
    assert_eq!((third.state, third.tries, &third.error), (State::Published, 3, &None));
    let kinds = house.kinds(&third).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Again).count(), 2);
    let never = house.ended(&never).await;
    assert_eq!((never.state, never.tries, house.fake.begun("never.mp4")), (State::Failed, 5, 5));
    assert!(never.error.unwrap().message.contains("tried 5 times"));
    let panics = house.ended(&panics).await;
    assert_eq!(
        (panics.state, panics.tries),
        (State::Published, 2),
        "a defect in one run takes nothing else along"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_are_in_hand_and_the_others_wait_in_the_store() {
    let house = House::with(Fake { gate: Some(Arc::new(Semaphore::new(0))), ..Fake::default() }).await;
    let mut jobs = Vec::new();
    for number in 0..12 {
        jobs.push(house.job(&format!("gate-{number}.mp4")).await);
    }
    let (_task, _leave) = house.dispatcher("a", |settings| settings.active = 3);
    let started = Instant::now();
    while house.fake.running.load(Ordering::SeqCst) < 3 {
        assert!(started.elapsed() < SOON);
        sleep(Duration::from_millis(10)).await;
    }
    house.fake.gate.as_ref().unwrap().add_permits(jobs.len());
    for job in &jobs {
        assert_eq!(house.ended(job).await.state, State::Published);
    }
    assert_eq!(house.fake.most.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_canceled_is_stopped_where_it_runs() {
    let house = House::new().await;
    let job = house.job("hang.mp4").await;
    let (_task, _leave) = house.dispatcher("a", |_| {});
    house.until("under way", &job, |job| job.rows_done == 2).await;
    house.store.cancel("acme", &job.id).await.unwrap();
    let ended = house.ended(&job).await;
    assert_eq!(ended.state, State::Canceled);
    assert_eq!(
        (house.fake.stopped.load(Ordering::SeqCst), house.fake.running.load(Ordering::SeqCst)),
        (1, 0)
    );
    assert_eq!(house.kinds(&job).await.last(), Some(&Kind::Canceled));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_dispatcher_left_is_taken_over() {
    let house = House::with(Fake { gate: Some(Arc::new(Semaphore::new(0))), ..Fake::default() }).await;
    let job = house.job("gate.mp4").await;
    let (dead, _leave) = house.dispatcher("dead", |_| {});
    house.until("under way", &job, |job| job.rows_done == 2).await;
    dead.abort();
    let (_task, _leave) = house.dispatcher("heir", |_| {});
    house.fake.gate.as_ref().unwrap().add_permits(2);
    let ended = house.ended(&job).await;
    assert_eq!((ended.state, ended.tries, ended.dispatcher.as_deref()), (State::Published, 2, Some("heir")));
    let kinds = house.kinds(&job).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Published).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_leaves_gives_back_what_it_has() {
    let house = House::new().await;
    let job = house.job("hang.mp4").await;
    let (task, leave) = house.dispatcher("a", |settings| settings.lease = Duration::from_secs(600));
    house.until("under way", &job, |job| job.rows_done == 2).await;
    leave.cancel();
    task.await.unwrap();
    let waits = house.store.job("acme", &job.id).await.unwrap();
    assert_eq!((waits.state, waits.tries, house.fake.running.load(Ordering::SeqCst)), (State::Pending, 0, 0));
    let (_task, _leave) = house.dispatcher("b", |_| {});
    house.until("in another's hand", &job, |job| job.dispatcher.as_deref() == Some("b")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_whoever_begins_it_is_given_up() {
    let house = House::new().await;
    let job = house.job("hang.mp4").await;
    for _ in 0..3 {
        let (dead, _leave) = house.dispatcher("dead", |settings| settings.lease = Duration::from_millis(200));
        let begun = house.fake.begun("hang.mp4");
        let started = Instant::now();
        while house.fake.begun("hang.mp4") == begun {
            assert!(started.elapsed() < SOON);
            sleep(Duration::from_millis(10)).await;
        }
        dead.abort();
    }
    let (_task, _leave) = house.dispatcher("a", |settings| settings.tries = 3);
    let ended = house.ended(&job).await;
    assert_eq!((ended.state, house.fake.begun("hang.mp4")), (State::Failed, 3));
    assert!(ended.error.unwrap().message.contains("begun 3 times"));
}

/// A dispatcher that cannot tell any more whether a job is its own lets go of it; what it hears later it does not write.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_costs_no_job() {
    let mut server = Postgres::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    let fake = Fake { gate: Some(Arc::new(Semaphore::new(0))), ..Fake::default() };
    let house = House { store: Arc::new(store), fake: Arc::new(fake), _folder: tempfile::tempdir().unwrap() };
    let (short, long) = (house.job("gate.mp4").await, house.job("gate-long.mp4").await);
    let (_task, _leave) = house.dispatcher("a", |settings| settings.lease = Duration::from_secs(30));
    for job in [&short, &long] {
        house.until("under way", job, |job| job.rows_done == 2).await;
    }
    server.kill();
    // Both end while nothing can be written down.
    house.fake.gate.as_ref().unwrap().add_permits(2);
    let started = Instant::now();
    while house.fake.running.load(Ordering::SeqCst) > 0 {
        assert!(started.elapsed() < SOON);
        sleep(Duration::from_millis(10)).await;
    }
    server.restart();
    for job in [&short, &long] {
        let ended = house.ended(job).await;
        assert_eq!((ended.state, ended.tries), (State::Published, 1), "nobody had to begin it again");
        house.kinds(job).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_is_cut_off_stops_before_another_begins() {
    let mut server = Postgres::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    let house = House { store: Arc::new(store), fake: Arc::default(), _folder: tempfile::tempdir().unwrap() };
    let job = house.job("hang.mp4").await;
    let (_task, _leave) = house.dispatcher("a", |settings| settings.lease = Duration::from_secs(2));
    house.until("under way", &job, |job| job.rows_done == 2).await;
    server.kill();
    let started = Instant::now();
    while house.fake.running.load(Ordering::SeqCst) > 0 {
        assert!(started.elapsed() < SOON, "it still works on what may be another's");
        sleep(Duration::from_millis(10)).await;
    }
    server.restart();
    house.until("begun again", &job, |job| job.tries == 2).await;
}
