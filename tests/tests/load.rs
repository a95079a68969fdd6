//! Load: many uploads at once are all accepted and served, and a tenant with many jobs does not delay one
//! with few.
//!
//! SPOOL_LOAD_UPLOADS=1000 sends so many. Encodes come from a cache, so that the test measures everything
//! else; the time and the memory that it took are printed, without a limit.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use spool_tests::{
    clips::padded,
    ffmpeg_wrapper::FfmpegWrapper,
    footage::ffmpeg,
    run::{Spool, wait_until},
    serve::Serve,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// Uploads of `make test`.
const UPLOADS: usize = 60;

/// Length of each, in bytes.
const BYTES: usize = 100_000;

/// Tenants with few uploads, and the number of all uploads for each one of theirs.
const SMALL: [&str; 2] = ["small-one", "small-two"];
const ONE_OF: usize = 20;

/// Tenant of all other uploads.
const BIG: &str = "big";

/// Job of each upload: `{"ladder":"90p"}`.
const JOB: &str = "%7B%22ladder%22%3A%2290p%22%7D";

/// Jobs that run at a time, and rows that are encoded at a time.
const ACTIVE: &str = "6";
const SLOTS: &str = "2";

/// Wait of a client before a retry, and the limit of all its waits.
const RETRY_DELAY: Duration = Duration::from_millis(500);
const RETRY_LIMIT: Duration = Duration::from_secs(600);

/// Interval at which the states of the jobs are polled, and time limit of each, for uploads at once.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
const EACH: Duration = Duration::from_secs(5);

/// A client with one upload.
#[derive(Debug, Clone)]
struct Client {
    number: usize,
    tenant: &'static str,
    key: String,
}

/// When a job was created, started and published, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Times {
    created_ms: i64,
    started_ms: i64,
    ended_ms: i64,
}

#[test]
fn a_tenant_with_many_jobs_does_not_delay_one_with_few() {
    let total = std::env::var("SPOOL_LOAD_UPLOADS").ok().map_or(UPLOADS, |text| text.parse().unwrap());
    let few = (total / ONE_OF).max(2);
    let folder = tempfile::tempdir().unwrap();
    let source = std::fs::read(clip(folder.path())).unwrap();
    let caching = FfmpegWrapper::caching();
    let data = folder.path().join("data");
    let args = ["--auth", "keys", "--max-concurrent-jobs", ACTIVE, "--slots", SLOTS];
    let serve = Serve::start(&data, &caching.path(), &args);
    let keys: BTreeMap<&str, String> =
        SMALL.iter().chain([&BIG]).map(|tenant| (*tenant, key(&data, tenant))).collect();
    // The tenants with few uploads come last: they would be served last, if the order of arrival counted.
    let tenants = (0..total).map(|number| match (total - 1 - number) / few {
        0 => SMALL[0],
        1 => SMALL[1],
        _ => BIG,
    });
    let clients: Vec<Client> = tenants
        .enumerate()
        .map(|(number, tenant)| Client { number, tenant, key: keys[tenant].clone() })
        .collect();
    let started = Instant::now();
    let (jobs, refusals) = send_all(serve.address.trim_start_matches("http://"), &clients, &source);
    let accepted = started.elapsed();
    wait_until("all jobs to be published", EACH * u32::try_from(total).unwrap(), || {
        let failed = count(&serve, "failed");
        assert_eq!(failed, 0, "{failed} jobs failed\n{}", serve.log());
        let open = count(&serve, "pending") + count(&serve, "processing");
        if open == 0 && count(&serve, "published") >= total {
            return Some(());
        }
        sleep(POLL_INTERVAL);
        None
    });
    let ended = started.elapsed();
    let times: BTreeMap<&str, BTreeMap<String, Times>> =
        keys.iter().map(|(tenant, key)| (*tenant, published(&serve, key))).collect();
    for (client, job) in clients.iter().zip(&jobs) {
        assert!(
            times[client.tenant].contains_key(job),
            "{job} of {} was acknowledged, and is not published",
            client.tenant
        );
    }
    let all = || times.values().flat_map(BTreeMap::values);
    let first_ms = all().map(|job| job.created_ms).min().unwrap();
    let last = |tenant: &str| times[tenant].values().map(|job| job.ended_ms).max().unwrap();
    println!(
        "{total} uploads accepted after {:.1} s ({refusals} refusals), published after {:.1} s; the server took {} MB at most; \
         {} encodes were run",
        accepted.as_secs_f64(),
        ended.as_secs_f64(),
        serve.peak_bytes() >> 20,
        caching.cached_encodes()
    );
    for (tenant, jobs) in &times {
        println!(
            "{tenant}: the last of {} published after {:.1} s",
            jobs.len(),
            (last(tenant) - first_ms) as f64 / 1e3
        );
    }
    expect_fair_order(&times, last(SMALL[0]).max(last(SMALL[1])));
    serve.stop();
}

/// Expects that the jobs of the big tenant started only when it was their turn. Jobs that started before all
/// the others were created do not count.
fn expect_fair_order(times: &BTreeMap<&str, BTreeMap<String, Times>>, small_until_ms: i64) {
    let asked_ms =
        SMALL.iter().flat_map(|tenant| times[*tenant].values()).map(|job| job.created_ms).max().unwrap();
    let big = &times[BIG];
    let early = big.values().filter(|job| job.started_ms <= asked_ms).count();
    let before =
        big.values().filter(|job| job.started_ms > asked_ms && job.ended_ms <= small_until_ms).count();
    println!(
        "of {} of the big tenant's, {early} started before all were created, and {before} were done before the small tenants'",
        big.len()
    );
    assert!(
        before * 3 < big.len(),
        "{before} of {} jobs of the big tenant went before the last of the small tenants'",
        big.len()
    );
}

/// Makes a second of pictures in hardly any bytes.
fn clip(folder: &Path) -> PathBuf {
    let path = folder.join("clip.mp4");
    let picture = ["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25:duration=1"];
    let coded = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", path.to_str().unwrap()];
    ffmpeg(picture.iter().chain(&coded));
    path
}

/// Makes a tenant without a rate limit, and returns its key.
fn key(data: &Path, tenant: &str) -> String {
    let store = data.join("jobs.db").to_str().unwrap().to_owned();
    Spool::new(["tenants", "set", tenant, "--requests-per-minute", "1000000", "--database", &store]).ok();
    let made = Spool::new([
        "keys",
        "create",
        "--tenant",
        tenant,
        "--scope",
        "read",
        "--scope",
        "write",
        "--database",
        &store,
    ])
    .ok();
    made.stdout.trim().to_owned()
}

/// Sends all uploads at once, and returns the job of each, and the number of refusals.
#[tokio::main]
async fn send_all(address: &str, clients: &[Client], source: &[u8]) -> (Vec<String>, usize) {
    let mut uploads = JoinSet::new();
    for client in clients.iter().cloned() {
        let (address, bytes) = (address.to_owned(), padded(source, BYTES, client.number as u64));
        uploads.spawn(async move {
            let (job, refusals) = upload(&address, &client, &bytes).await;
            (client.number, job, refusals)
        });
    }
    let mut done = uploads.join_all().await;
    done.sort();
    let refusals = done.iter().map(|(_, _, refusals)| refusals).sum();
    (done.into_iter().map(|(_, job, _)| job).collect(), refusals)
}

/// Uploads with retries, and returns the job, and the number of refusals.
async fn upload(address: &str, client: &Client, bytes: &[u8]) -> (String, usize) {
    let begun = Instant::now();
    let mut refusals = 0;
    loop {
        let trouble = match post(address, client, bytes).await {
            Ok((201, body)) => {
                let upload: Value = serde_json::from_slice(&body).unwrap();
                return (upload["job"].as_str().unwrap().to_owned(), refusals);
            }
            Ok((status, body)) => {
                let message = String::from_utf8_lossy(&body).into_owned();
                assert!(status == 429 || status >= 500, "an upload is refused: {status} {message}");
                message
            }
            Err(error) => error.to_string(),
        };
        assert!(
            begun.elapsed() < RETRY_LIMIT,
            "upload {} was refused {refusals} times: {trouble}",
            client.number
        );
        refusals += 1;
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Sends one request over its own connection, and returns status and body. A thousand processes of curl would
/// be a load of their own.
async fn post(address: &str, client: &Client, bytes: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut socket = TcpStream::connect(address).await?;
    let head = format!(
        "POST /v1/uploads?name=clip-{}.mp4&job={JOB} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        client.number,
        client.key,
        bytes.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(bytes).await?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await?;
    let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "the response broke off");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(broken)?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let length: Option<usize> =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let body = answer[end + 4..].to_vec();
    if length.is_none_or(|length| length == body.len()) { Ok((status, body)) } else { Err(broken()) }
}

/// Returns the number of jobs in a state, of all tenants.
fn count(serve: &Serve, state: &str) -> usize {
    let metrics = serve.request("/metrics", &[]);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let prefix = format!("spool_jobs{{state=\"{state}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok()).unwrap_or(0)
}

/// Returns a tenant's published jobs by name.
fn published(serve: &Serve, key: &str) -> BTreeMap<String, Times> {
    let bearer = format!("Authorization: Bearer {key}");
    let (mut found, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let answer = serve.request(&format!("/v1/jobs?state=published&limit=500{cursor}"), &["-H", &bearer]);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let page = answer.json();
        for job in page["jobs"].as_array().unwrap() {
            let [created_ms, started_ms, ended_ms] =
                ["created_ms", "started_ms", "ended_ms"].map(|name| job[name].as_i64().unwrap());
            found.insert(job["id"].as_str().unwrap().to_owned(), Times { created_ms, started_ms, ended_ms });
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}
