//! No acknowledged request is lost or executed twice. Clients upload and create jobs while API servers,
//! schedulers, executors and PostgreSQL are killed at random; in the end every job is published, once, and
//! the database shows that no dispatcher wrote under another's lease.
//!
//! `make chaos-jobs N=200` kills more often; SPOOL_CHAOS_KILLS and SPOOL_CHAOS_JOBS set the numbers of kills
//! and jobs, and SPOOL_SEED repeats the choice of processes and pauses.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{panicking, scope, sleep},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use spool_tests::{
    check,
    client::Client,
    clips::{Clip, padded},
    deployment::{Component, Deployment},
    ffmpeg_wrapper::FfmpegWrapper,
    folder,
    random::Random,
    run::wait_until,
};

/// Kills and jobs of `make test`.
const KILLS: usize = 10;
const JOBS: usize = 12;

/// Number of API servers, of schedulers and of executors.
const REPLICAS: usize = 2;

/// Lease of a job.
const LEASE: Duration = Duration::from_secs(5);

/// The longest pause before a kill, in milliseconds.
const PAUSE_MS: u64 = 3000;

/// Jobs that run at a time.
const MAX_RUNNING: usize = 3;

/// Schedulers try a job five times, and then fail it as one that kills them. From this try on the processes
/// that would end the try are spared: a job that is failed that way is no loss.
const LAST_TRIES: u64 = 4;

/// Time limit of all of it, for each kill, and at least.
const EACH_KILL: Duration = Duration::from_secs(60);

/// An upload in several parts: longer than a part of the object store (5 MiB), in parts of another length.
const LARGE: usize = 6 << 20;
const PART_BYTES: usize = 2_500_000;

/// Padding of the other uploads.
const PADDING: usize = 4096;

/// One in so many ladders is checked frame by frame.
const LOOK_INTO: usize = 4;

/// The clip that is uploaded: two rows of pictures, and one of sound.
fn clip() -> Clip {
    Clip { frames: 100, ..Clip::default() }
}

/// Returns the job document.
fn document() -> Value {
    json!({ "ladder": "180p,90p:300k", "segment_seconds": 2, "media_segment_seconds": 1 })
}

/// State that the API acknowledged to a client.
#[derive(Debug)]
struct Acknowledged {
    number: usize,
    /// Name of the upload, and its stored path.
    upload: String,
    path: PathBuf,
    job: String,
    /// Idempotency key and document of the request.
    key: Option<(String, Value)>,
    /// Events that it received.
    events: Vec<Value>,
}

/// Progress of the test: which job is next, and whether it is worth going on.
#[derive(Debug)]
struct Schedule {
    jobs: usize,
    kills: usize,
    begun: AtomicUsize,
    ended: AtomicUsize,
    killed: AtomicUsize,
    /// Set once the kills are over.
    over: AtomicBool,
    failed: Arc<AtomicBool>,
    until: Instant,
}

impl Schedule {
    fn new(kills: usize, jobs: usize) -> Self {
        let zero = AtomicUsize::default;
        let within = EACH_KILL * u32::try_from(kills.max(KILLS)).unwrap();
        let (begun, ended, killed) = (zero(), zero(), zero());
        Self {
            jobs,
            kills,
            begun,
            ended,
            killed,
            over: false.into(),
            failed: Arc::default(),
            until: Instant::now() + within,
        }
    }

    fn running(&self) -> usize {
        self.begun.load(Ordering::SeqCst).saturating_sub(self.ended.load(Ordering::SeqCst))
    }

    /// Returns whether a job may start. Jobs are spread over the kills so that one always runs, and the last
    /// is kept for the end.
    fn is_turn(&self, number: usize) -> bool {
        assert!(!self.failed.load(Ordering::SeqCst), "job {number} does not start: another check failed");
        let is_last = self.jobs > 1 && number + 1 == self.jobs;
        if self.begun.load(Ordering::SeqCst) != number || (is_last && !self.over.load(Ordering::SeqCst)) {
            return false;
        }
        let due = self.killed.load(Ordering::SeqCst) * self.jobs / self.kills.max(1);
        self.running() == 0 || (self.running() < MAX_RUNNING && number < due + MAX_RUNNING)
    }
}

/// Participant of the test, counted when it ends, in whatever way.
struct Participant<'a> {
    schedule: &'a Schedule,
    kills: bool,
}

impl Drop for Participant<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.schedule.failed.store(true, Ordering::SeqCst);
        }
        if self.kills {
            self.schedule.over.store(true, Ordering::SeqCst);
        } else {
            self.schedule.ended.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn no_acknowledged_request_is_lost_to_kills() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count =
        |name: &str, unless: usize| number(name).map_or(unless, |number| usize::try_from(number).unwrap());
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    let (kills, jobs) = (count("SPOOL_CHAOS_KILLS", KILLS), count("SPOOL_CHAOS_JOBS", JOBS).max(1));
    let seed = number("SPOOL_SEED").unwrap_or_else(clock);
    println!("seed {seed}: {kills} kills, {jobs} jobs");
    let started = Instant::now();
    let made = tempfile::tempdir().unwrap();
    let source = std::fs::read(clip().make(made.path(), "talk")).unwrap();
    let ffmpeg = FfmpegWrapper::new();
    // The more kills there are for each job, the longer a job lasts, so that work runs at each kill.
    ffmpeg.before_each(&format!("sleep {}", (kills / jobs).max(1)));
    let mut deployment = Deployment::start(REPLICAS, LEASE, &ffmpeg.path());
    let (servers, uploads) = (&deployment.addresses(), &deployment.uploads());
    let (schedule, source) = (&Schedule::new(kills, jobs), &source);
    let (acknowledged, killed) = scope(|scope| {
        let clients: Vec<_> = (0..jobs)
            .map(|number| {
                scope.spawn(move || {
                    let _part = Participant { schedule, kills: false };
                    wait_until("a job's turn", schedule.until - Instant::now(), || {
                        schedule.is_turn(number).then_some(())
                    });
                    schedule.begun.fetch_add(1, Ordering::SeqCst);
                    deliver(
                        number,
                        source,
                        uploads,
                        Client::new(servers, number, schedule.until, &schedule.failed),
                    )
                })
            })
            .collect();
        let killed = kill_at_random(&mut deployment, schedule, &mut Random::of(seed));
        let acknowledged: Vec<Acknowledged> =
            clients.into_iter().map(|client| client.join().unwrap()).collect();
        (acknowledged, killed)
    });
    deployment.wait_until_ready();
    let worked_until = started.elapsed();
    let mut client = Client::new(servers, 0, schedule.until, &schedule.failed);
    let strangers = expect_all_published(&deployment, &acknowledged, schedule.until);
    for acknowledged in &acknowledged {
        expect_acknowledged_state(&mut client, acknowledged, source);
        expect_complete_ladder(&deployment, &mut client, acknowledged);
    }
    let takeovers = expect_one_lease_at_a_time(&deployment, &acknowledged);
    let by_kind: Vec<String> =
        killed.iter().map(|(kind, count)| format!("{count} {kind:?}").to_lowercase()).collect();
    println!(
        "{} kills ({}), {} jobs and {strangers} whose acknowledgement was lost, {takeovers} takeovers, {} s",
        killed.values().sum::<usize>(),
        by_kind.join(", "),
        acknowledged.len(),
        worked_until.as_secs()
    );
    deployment.stop();
}

/// Uploads a source and creates its job in one of the possible ways, and reads its events to the end.
fn deliver(number: usize, source: &[u8], uploads: &Path, mut client: Client) -> Acknowledged {
    let folder = tempfile::tempdir().unwrap();
    let (name, file) = (format!("talk-{number}.mp4"), folder.path().join("source"));
    let bytes = bytes_of(number, source);
    std::fs::write(&file, &bytes).unwrap();
    let wanted = document().to_string();
    let upload = match number % 3 {
        0 => client.post(&file, &name, &wanted),
        1 => client.tus(&bytes, PART_BYTES, &name, &wanted),
        _ => client.post(&file, &name, "none"),
    };
    assert_eq!((&upload["state"], &upload["name"]), (&json!("finished"), &json!(name)), "{upload}");
    let id = upload["id"].as_str().unwrap().to_owned();
    let path = uploads.join(&id).join(&name);
    let (job, key) = match upload["job"].as_str() {
        Some(job) => (job.to_owned(), None),
        None => {
            let (mut document, key) = (document(), format!("job of {id}"));
            document["source"] = json!(path);
            let (job, _) = client.create_job(&document, &key);
            let (again, existed) = client.create_job(&document, &key);
            assert!(existed && again["id"] == job["id"], "one key, two jobs: {job} and {again}");
            (job["id"].as_str().unwrap().to_owned(), Some((key, document)))
        }
    };
    let events = if number.is_multiple_of(2) { client.stream(&job) } else { client.follow(&job) };
    let ended = client.get_job(&job);
    assert_eq!(
        ended["state"], "published",
        "{job} was not published: {}\n{ended:#}\n{events:#?}",
        ended["error"]
    );
    Acknowledged { number, upload: id, path, job, key, events }
}

/// Returns the bytes of a job's source: no two are alike.
fn bytes_of(number: usize, source: &[u8]) -> Vec<u8> {
    let bytes = if number % 3 == 1 { source.len().max(LARGE) } else { source.len() };
    padded(source, bytes + PADDING, number as u64)
}

/// Kills one process after the other, and returns the number of kills by component.
fn kill_at_random(
    deployment: &mut Deployment,
    schedule: &Schedule,
    random: &mut Random,
) -> BTreeMap<Component, usize> {
    let _part = Participant { schedule, kills: true };
    let (mut killed, mut busy) = (BTreeMap::new(), 0);
    for number in 1..=schedule.kills {
        // The moment is what is random here: there is no condition to wait for.
        sleep(Duration::from_millis(random.below(PAUSE_MS)));
        let mut kind = Component::ALL[random.below(Component::ALL.len() as u64) as usize];
        let which = random.below(REPLICAS as u64) as usize;
        let tries =
            "SELECT coalesce(max(tries), 0) AS most FROM jobs WHERE state IN ('pending', 'processing')";
        if matches!(kind, Component::Scheduler | Component::Postgres)
            && deployment.query(tries)[0]["most"].as_u64().unwrap() >= LAST_TRIES
        {
            kind = Component::Executor;
        }
        if schedule.failed.load(Ordering::SeqCst) {
            break;
        }
        let running = schedule.running();
        busy += usize::from(running > 0);
        let begun = Instant::now();
        deployment.kill_and_restart(kind, which % deployment.count(kind));
        deployment.wait_until_ready();
        println!(
            "kill {number}: {kind:?} {which}, {running} jobs running; all ready after {} ms",
            begun.elapsed().as_millis()
        );
        *killed.entry(kind).or_default() += 1;
        schedule.killed.store(number, Ordering::SeqCst);
        let sql = "SELECT job, count(*) AS leases FROM leases WHERE ended_ms IS NULL GROUP BY job HAVING count(*) > 1";
        let twice = deployment.query(sql);
        assert!(twice.is_empty(), "jobs with several open leases: {twice:?}");
        assert!(Instant::now() < schedule.until, "{number} kills took too long");
    }
    assert!(
        schedule.failed.load(Ordering::SeqCst) || busy * 2 >= schedule.kills,
        "only {busy} of {} kills met work",
        schedule.kills
    );
    killed
}

/// Waits until no job is open, expects that none failed and that no upload has two, and returns the number of
/// jobs whose response no client received.
fn expect_all_published(deployment: &Deployment, acknowledged: &[Acknowledged], deadline: Instant) -> usize {
    let open = "SELECT id FROM jobs WHERE state IN ('pending', 'processing')";
    wait_until("the end of all jobs", deadline.saturating_duration_since(Instant::now()), || {
        deployment.query(open).is_empty().then_some(())
    });
    let failed = deployment.query("SELECT id, state, error_kind, error FROM jobs WHERE state <> 'published'");
    assert!(failed.is_empty(), "jobs that were not published: {failed:#?}");
    let found = deployment.query(
        "SELECT u.id, u.state, u.job, count(j.id) AS jobs, min(j.id) AS made FROM uploads u \
         LEFT JOIN videos v ON position(u.id IN v.source) > 0 LEFT JOIN jobs j ON j.video = v.id GROUP BY u.id, u.state, u.job",
    );
    let found: BTreeMap<&str, &Value> =
        found.iter().map(|upload| (upload["id"].as_str().unwrap(), upload)).collect();
    for upload in found.values() {
        assert!(upload["jobs"].as_u64().unwrap() <= 1, "one upload, several jobs: {upload}");
    }
    for acknowledged in acknowledged {
        let Some(upload) = found.get(acknowledged.upload.as_str()) else {
            panic!("upload {} of job {} is lost", acknowledged.upload, acknowledged.job)
        };
        assert!(
            upload["state"] == "finished" && upload["made"] == acknowledged.job.as_str(),
            "{} was acknowledged: {upload}",
            acknowledged.job
        );
        assert!(
            acknowledged.key.is_some() || upload["job"] == acknowledged.job.as_str(),
            "{} was acknowledged: {upload}",
            acknowledged.job
        );
    }
    let all: BTreeSet<String> = deployment
        .query("SELECT id FROM jobs")
        .iter()
        .map(|job| job["id"].as_str().unwrap().to_owned())
        .collect();
    let lost: Vec<&String> =
        acknowledged.iter().map(|acknowledged| &acknowledged.job).filter(|job| !all.contains(*job)).collect();
    assert!(lost.is_empty(), "acknowledged jobs are lost: {lost:?}");
    let known: BTreeSet<&String> = acknowledged.iter().map(|acknowledged| &acknowledged.job).collect();
    assert_eq!(known.len(), acknowledged.len(), "several clients got one job: {known:?}");
    all.len() - known.len()
}

/// Expects that everything is stored that the client was acknowledged of one job.
fn expect_acknowledged_state(client: &mut Client, acknowledged: &Acknowledged, source: &[u8]) {
    let Acknowledged { number, upload, path, job, key, events } = acknowledged;
    let found = client.request(&format!("/v1/uploads/{upload}"), &[]);
    assert!(
        found.status == 200 && found.json()["state"] == "finished",
        "upload {upload} of {job} is lost: {found:?}"
    );
    let sent = bytes_of(*number, source);
    let kept = std::fs::read(path).unwrap_or_else(|e| panic!("{}, of {job}: {e}", path.display()));
    assert_eq!(kept.len(), sent.len(), "the stored length of upload {upload} differs from the sent one");
    assert!(kept == sent, "the stored bytes of upload {upload} differ from the sent ones");
    if let Some((key, document)) = key {
        let (again, existed) = client.create_job(document, key);
        assert!(
            existed && again["id"] == job.as_str(),
            "the idempotency key of {job} has another job now: {again}"
        );
    }
    // Numbered without a gap or a repetition: the reader checks that.
    let now = client.follow(job);
    assert!(
        now == *events,
        "the received events of {job} differ from the stored ones: {events:#?}\n{now:#?}"
    );
    let published = events.iter().filter(|event| event["kind"] == "job.published").count();
    assert_eq!(published, 1, "{job} was published {published} times: {events:#?}");
    let percents: Vec<i64> = events.iter().filter_map(|event| event["data"]["percent"].as_i64()).collect();
    assert!(
        percents.is_sorted() && percents.last() == Some(&100),
        "progress of {job} went back: {percents:?}\n{events:#?}"
    );
}

/// Expects that the ladder of a job is complete.
fn expect_complete_ladder(deployment: &Deployment, client: &mut Client, acknowledged: &Acknowledged) {
    let job = client.get_job(&acknowledged.job);
    assert_eq!(job["state"], "published", "{} was published, and no longer is: {job}", acknowledged.job);
    let out = deployment.media().join(job["video"].as_str().unwrap());
    let files = folder::files(&out);
    assert!(
        files.contains_key("master.m3u8"),
        "{} is published without a multivariant playlist in {}",
        acknowledged.job,
        out.display()
    );
    // The multivariant playlist, a media playlist of each rendition, and of each an initialization segment
    // and four media segments.
    let reached = folder::reachable(&files);
    assert!(reached.len() > 3 * (1 + 1 + 4), "the ladder of {} has only {reached:?}", acknowledged.job);
    if !acknowledged.number.is_multiple_of(LOOK_INTO) {
        return;
    }
    let flaws: Vec<String> = if acknowledged.number == 0 {
        check::all(&out, &clip(), &acknowledged.path).iter().map(ToString::to_string).collect()
    } else {
        let frames = check::Ladder::open(&out).and_then(|ladder| check::frames(&ladder, &clip()));
        frames.err().iter().map(ToString::to_string).collect()
    };
    assert!(flaws.is_empty(), "the ladder of {}: {}", acknowledged.job, flaws.join("\n"));
}

/// A lease, by the database's tables.
#[derive(Debug, Clone)]
struct Lease {
    fencing_token: i64,
    dispatcher: String,
    leased_ms: i64,
    ended_ms: Option<i64>,
    outcome: Option<String>,
}

/// Expects that each job had one lease at a time, and returns how often one was taken over.
///
/// The tables do not keep a lease's end: each lease, and each report with an event in it, made one that
/// begins then. Of the written rows only attempts carry the fencing token.
fn expect_one_lease_at_a_time(deployment: &Deployment, acknowledged: &[Acknowledged]) -> usize {
    let mut leases: BTreeMap<String, Vec<Lease>> = BTreeMap::new();
    for row in deployment
        .query("SELECT job, fencing_token, dispatcher, leased_ms, ended_ms, outcome FROM leases ORDER BY job, fencing_token")
    {
        let lease = Lease {
            fencing_token: row["fencing_token"].as_i64().unwrap(),
            dispatcher: row["dispatcher"].as_str().unwrap().to_owned(),
            leased_ms: row["leased_ms"].as_i64().unwrap(),
            ended_ms: row["ended_ms"].as_i64(),
            outcome: row["outcome"].as_str().map(str::to_owned),
        };
        leases.entry(row["job"].as_str().unwrap().to_owned()).or_default().push(lease);
    }
    let mut takeovers = 0;
    for (job, leases) in &leases {
        let tokens: Vec<i64> = leases.iter().map(|lease| lease.fencing_token).collect();
        assert!(tokens.iter().copied().eq(1..=leases.len() as i64), "{job}: fencing tokens are {tokens:?}");
        for pair in leases.windows(2) {
            let ended = pair[0].ended_ms.unwrap_or_else(|| panic!("{job} has two open leases: {pair:#?}"));
            assert!(ended <= pair[1].leased_ms, "{job} was leased before the last lease ended: {pair:#?}");
            takeovers += usize::from(was_taken_over(&pair[0]));
        }
        let (last, before) = leases.split_last().unwrap();
        assert!(
            last.ended_ms.is_some() && last.outcome.as_deref() == Some("published"),
            "{job} ended otherwise: {last:#?}"
        );
        assert!(
            before.iter().all(|lease| lease.outcome.as_deref() != Some("published")),
            "{job} was published twice: {leases:#?}"
        );
    }
    let wrong = deployment.query(
        "SELECT j.id, j.fencing_token, (SELECT max(c.fencing_token) FROM leases c WHERE c.job = j.id) AS last FROM jobs j \
         WHERE j.fencing_token IS DISTINCT FROM (SELECT max(c.fencing_token) FROM leases c WHERE c.job = j.id)",
    );
    assert!(wrong.is_empty(), "jobs whose fencing token is not that of their last lease: {wrong:#?}");
    let late = deployment.query(
        "SELECT a.job, a.ordinal, a.fencing_token, a.at_ms, c.leased_ms, c.ended_ms FROM attempts a \
         LEFT JOIN leases c ON c.job = a.job AND c.fencing_token = a.fencing_token \
         WHERE c.fencing_token IS NULL OR a.at_ms < c.leased_ms OR a.at_ms > c.ended_ms",
    );
    assert!(late.is_empty(), "written without a lease: {late:#?}");
    for acknowledged in acknowledged {
        let Some(leases) = leases.get(&acknowledged.job) else {
            panic!("{} is published without a lease", acknowledged.job)
        };
        expect_events_within_leases(&acknowledged.job, leases, &acknowledged.events);
    }
    takeovers
}

fn was_taken_over(lease: &Lease) -> bool {
    lease.outcome.as_deref() == Some("lease expired")
}

/// Expects that a job's events fit its leases: each lease begins with an event, and ended no earlier than the
/// last event in it.
fn expect_events_within_leases(job: &str, leases: &[Lease], events: &[Value]) {
    let at = |event: &Value| event["at_ms"].as_i64().unwrap();
    let begins: Vec<usize> =
        (0..events.len()).filter(|number| events[*number]["kind"] == "job.started").collect();
    assert_eq!(
        begins.len(),
        leases.len(),
        "{job} was started more or less often than it was leased: {leases:#?}\n{events:#?}"
    );
    for (number, lease) in leases.iter().enumerate() {
        let begin = begins[number];
        assert_eq!(
            events[begin]["data"]["dispatcher"],
            lease.dispatcher.as_str(),
            "{job}: started by another dispatcher: {leases:#?}"
        );
        let Some(next) = begins.get(number + 1) else { continue };
        // Until another lease began.
        let last = events[begin..*next].iter().map(at).max().unwrap();
        let taken = leases[number + 1].leased_ms;
        assert!(
            last <= taken,
            "{job}: an event was written for lease {} after its end: {events:#?}",
            lease.fencing_token
        );
        let limit = LEASE.as_millis() as i64;
        assert!(
            !was_taken_over(lease) || taken - last >= limit,
            "{job} was taken over {} ms after the last event of lease {}, within {limit} ms: {leases:#?}\n{events:#?}",
            taken - last,
            lease.fencing_token
        );
    }
}
