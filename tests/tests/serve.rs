//! Everything on one machine: jobs that are created by HTTP run, survive, and play.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests start what they test")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use spool_tests::{
    check,
    clips::{Clip, Sound},
    ffmpeg_wrapper::FfmpegWrapper,
    folder,
    mount::Mount,
    privilege,
    run::{Spool, wait_until},
    serve::Serve,
};

/// The clip of every test here.
fn clip() -> Clip {
    Clip { sound: Some(Sound::default()), frames: 200, ..Clip::default() }
}

/// Makes the clip, and a folder for a server's data.
fn prepared() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let source = clip().make(folder.path(), "it's a talk");
    let data = folder.path().join("data");
    (folder, source, data)
}

fn request(source: &Path) -> Value {
    json!({ "source": source.to_str().unwrap(), "ladder": "180p,90p:300k", "segment_seconds": 2, "media_segment_seconds": 1 })
}

fn exact(source: &Path, out: &Path) {
    let flaws: Vec<String> = check::all(out, &clip(), source).iter().map(ToString::to_string).collect();
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
}

#[test]
fn one_request_gives_a_ladder_that_plays() {
    let (_folder, source, data) = prepared();
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let job = serve.create_job(&request(&source));
    let job = serve.wait_until_published(&job);
    assert_eq!((&job["percent"], &job["phase"], &job["tries"]), (&json!(100), &json!("ended"), &json!(1)));
    assert_eq!(job["rows"], job["rows_done"]);
    let id = job["video"].as_str().unwrap();
    let video = serve.request(&format!("/v1/videos/{id}"), &[]).json();
    assert_eq!(
        (&video["name"], &video["play"]),
        (&json!("it's a talk.mp4"), &json!(format!("/v1/videos/{id}/play/master.m3u8")))
    );
    assert_eq!(serve.request("/v1/videos", &[]).json()["videos"][0], video);
    // The files in the destination are exact, and each of them is served by HTTP unchanged.
    let out = data.join("media").join(id);
    exact(&source, &out);
    let (playlists, segments): (Vec<_>, Vec<_>) =
        folder::media(&out).into_iter().partition(|(name, _)| name.ends_with(".m3u8"));
    assert!(playlists.len() == 4 && segments.len() > 16, "{} and {}", playlists.len(), segments.len());
    for (name, bytes) in playlists.iter().chain(&segments) {
        let answer = serve.request(&format!("/v1/videos/{id}/play/{name}"), &[]);
        assert!(answer.status == 200 && answer.body == *bytes, "{name}");
        let expected = if name.ends_with(".m3u8") { "application/vnd.apple.mpegurl" } else { "video/mp4" };
        assert_eq!(answer.header("content-type"), Some(expected));
        assert_eq!(answer.header("cache-control").unwrap().contains("immutable"), name != "master.m3u8");
    }
    let (name, bytes) = &segments[0];
    let segment = format!("/v1/videos/{id}/play/{name}");
    let range = serve.request(&segment, &["-H", "Range: bytes=100-299"]);
    assert!(range.status == 206 && range.body == bytes[100..300]);
    assert_eq!(range.header("content-range"), Some(format!("bytes 100-299/{}", bytes.len()).as_str()));
    assert_eq!(serve.request(&segment, &["-H", "Range: bytes=99999999-"]).status, 416);
    let known = format!("If-None-Match: {}", range.header("etag").unwrap());
    assert_eq!(serve.request(&segment, &["-H", &known]).status, 304);
    let head = serve.request(&segment, &["-I"]);
    assert!(head.status == 200 && head.header("content-length") == Some(bytes.len().to_string().as_str()));
    let record = folder::files(&out).into_keys().find(|name| name.starts_with("parts/")).unwrap();
    for path in
        [record.as_str(), "../../jobs.db", "%2e%2e/%2e%2e/jobs.db", "..%2f..%2fjobs.db", "nothing.m4s"]
    {
        assert_eq!(serve.request(&format!("/v1/videos/{id}/play/{path}"), &[]).status, 404, "{path}");
    }
    serve.stop();
}

#[test]
fn a_job_survives_the_death_of_every_process() {
    let (_folder, source, data) = prepared();
    let wrapper = FfmpegWrapper::new();
    wrapper.slow_after(2);
    let serve = Serve::start(&data, &wrapper.path(), &["--slots", "1", "--lease", "2"]);
    let keyed = ["-H", "Idempotency-Key: talk-1"];
    let made = serve.post("/v1/jobs", &request(&source), &keyed);
    let job = made.json()["id"].as_str().unwrap().to_owned();
    serve.wait_for("rows to be done", &job, |job| job["rows_done"].as_u64().unwrap() >= 2);
    serve.kill();
    wrapper.full_speed();
    let serve = Serve::start(&data, &wrapper.path(), &["--slots", "1", "--lease", "2"]);
    let again = serve.post("/v1/jobs", &request(&source), &keyed);
    assert!(again.status == 200 && again.json()["id"] == job.as_str(), "{again:?}");
    let job_now = serve.wait_until_published(&job);
    assert_eq!(job_now["tries"], 2);
    let rows = serve.request(&format!("/v1/jobs/{job}/rows"), &[]).json();
    let reused = rows["rows"].as_array().unwrap().iter().filter(|row| row["reused"] != 0).count();
    assert!(reused >= 2, "finished rows were encoded again: {rows}");
    let events = serve.events(&job);
    let kinds: Vec<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "job.published").count(), 1);
    let percents: Vec<i64> = events.iter().filter_map(|event| event["data"]["percent"].as_i64()).collect();
    assert!(percents.is_sorted(), "progress went back: {percents:?}");
    exact(&source, &data.join("media").join(job_now["video"].as_str().unwrap()));
}

/// The events of a stream, each with the milliseconds from its time to its arrival.
struct Stream {
    curl: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Stream {
    /// Follows a job behind an event.
    fn of(serve: &Serve, job: &str, last: u64) -> Self {
        let mut curl = Command::new("curl")
            .args([
                "-sSN",
                "--max-time",
                "120",
                "-H",
                "Accept: text/event-stream",
                "-H",
                &format!("Last-Event-ID: {last}"),
            ])
            .arg(format!("{}/v1/jobs/{job}/events", serve.address))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { lines: BufReader::new(curl.stdout.take().unwrap()).lines(), curl }
    }
}

impl Iterator for Stream {
    type Item = (Value, i64);

    fn next(&mut self) -> Option<(Value, i64)> {
        let line = self
            .lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("data: ").map(str::to_owned))?;
        let event: Value = serde_json::from_str(&line).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
        let late = now - event["at_ms"].as_i64().unwrap();
        Some((event, late))
    }
}

#[test]
fn an_event_stream_resumes_at_any_server() {
    let (_folder, source, data) = prepared();
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let api = Serve::api(&data);
    let job = serve.create_job(&request(&source));
    let mut first = Stream::of(&api, &job, 0);
    let mut seen: Vec<(Value, i64)> = first.by_ref().take(3).collect();
    // The server dies, and with it the stream; another goes on.
    api.kill();
    assert!(first.count() < 100, "the rest of the stream ends");
    let api = Serve::api(&data);
    let mut rest = Stream::of(&api, &job, 3);
    seen.extend(rest.by_ref());
    assert!(rest.curl.wait().unwrap().success(), "the stream ends with the job");
    let events = serve.events(&job);
    assert!(seen.iter().map(|(event, _)| event).eq(&events), "{seen:?}");
    assert_eq!(seen.last().unwrap().0["kind"], "job.published");
    let percents: Vec<i64> = seen.iter().filter_map(|(event, _)| event["data"]["percent"].as_i64()).collect();
    assert!(percents.is_sorted() && percents.len() > 1, "progress went back: {percents:?}");
    // Events that happened while the stream was open: the first ones were there before.
    let late: Vec<i64> = seen[4..].iter().map(|(_, late)| *late).collect();
    println!("events came {late:?} ms after they happened");
    assert!(late.iter().all(|late| *late < 10_000), "{late:?}");
    // All events were received: a browser does not reconnect after this.
    let last = format!("Last-Event-ID: {}", events.len());
    assert_eq!(
        serve
            .request(&format!("/v1/jobs/{job}/events"), &["-H", "Accept: text/event-stream", "-H", &last])
            .status,
        204
    );
    let page = serve.request(&format!("/v1/jobs/{job}/events?after=2&limit=2"), &[]).json();
    assert!(page["events"][0] == events[2] && page["more"] == true, "{page}");
}

#[test]
fn a_canceled_job_stops_and_a_retried_one_resumes() {
    let (_folder, source, data) = prepared();
    let wrapper = FfmpegWrapper::new();
    wrapper.slow_after(1);
    let serve = Serve::start(&data, &wrapper.path(), &["--slots", "1"]);
    let job = serve.create_job(&request(&source));
    serve.wait_for("a row to be done", &job, |job| job["rows_done"].as_u64().unwrap() >= 1);
    let asked = Instant::now();
    assert_eq!(serve.post(&format!("/v1/jobs/{job}/cancel"), &json!({}), &[]).status, 200);
    serve.wait_for("the cancellation", &job, |job| job["state"] == "canceled");
    assert!(asked.elapsed() < Duration::from_secs(20));
    wrapper.full_speed();
    assert_eq!(serve.post(&format!("/v1/jobs/{job}/retry"), &json!({}), &[]).status, 200);
    let published = serve.wait_until_published(&job);
    assert_eq!(serve.post(&format!("/v1/jobs/{job}/cancel"), &json!({}), &[]).status, 409);
    exact(&source, &data.join("media").join(published["video"].as_str().unwrap()));
}

#[test]
fn a_statement_job_returns_its_rows() {
    let (_folder, source, data) = prepared();
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let sql = format!(
        "SELECT frames FROM segments('{}', 2, 1) WHERE track = 'video'",
        source.to_str().unwrap().replace('\'', "''")
    );
    let job = serve.wait_until_published(&serve.create_job(&json!({ "sql": sql })));
    let frames: u64 =
        job["result"]["rows"].as_array().unwrap().iter().map(|row| row["frames"].as_u64().unwrap()).sum();
    assert_eq!(frames, u64::from(clip().frames));
}

#[test]
fn delete_source_deletes_after_publication_only() {
    let (_folder, source, data) = prepared();
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let mut document = request(&source);
    document["delete_source"] = json!(true);
    let mut bad = document.clone();
    bad["destination"] = json!("/proc/nowhere");
    let failed = serve.create_job(&bad);
    serve.wait_for("the failure", &failed, |job| job["state"] == "failed");
    assert!(source.exists(), "nothing was published");
    let kept = std::fs::read(&source).unwrap();
    let job = serve.wait_until_published(&serve.create_job(&document));
    let event = wait_until("the deletion of the source", Duration::from_secs(60), || {
        serve
            .events(job["id"].as_str().unwrap())
            .into_iter()
            .find(|event| event["kind"].as_str().unwrap().starts_with("source."))
    });
    assert!(event["kind"] == "source.deleted" && !source.exists(), "{event}");
    std::fs::write(&source, &kept).unwrap();
    exact(&source, &data.join("media").join(job["video"].as_str().unwrap()));
    serve.stop();
}

#[test]
fn a_full_database_is_reported_and_keeps_acknowledged_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let Some(mount) = privilege::require(Mount::tmpfs(&data, "size=2m")) else { return };
    let uploads = folder.path().join("uploads");
    let serve = Serve::api_with_uploads(&data, uploads.to_str().unwrap(), []);
    let mut kept = 0;
    let refused = loop {
        let answer = serve.post("/v1/jobs", &json!({ "source": format!("/in/{kept}.mp4") }), &[]);
        if answer.status != 201 {
            break answer;
        }
        kept += 1;
        assert!(kept < 5000, "the database never fills up");
    };
    assert!(
        refused.status == 503 && refused.json()["type"] == "urn:spool:problem:unavailable",
        "{refused:?}"
    );
    let jobs =
        |serve: &Serve| serve.request("/v1/jobs?limit=1000", &[]).json()["jobs"].as_array().unwrap().len();
    assert!(kept > 0 && jobs(&serve) == kept, "{kept} were acknowledged");
    // With space again it goes on, and so does the next.
    mount.remount("size=64m");
    serve.create_job(&json!({ "source": "/in/more.mp4" }));
    serve.kill();
    assert_eq!(jobs(&Serve::api(&data)), kept + 1);
}

#[test]
fn the_api_collects_unreferenced_parts() {
    let (_folder, source, data) = prepared();
    let serve = Serve::start(&data, Path::new("ffmpeg"), &["--gc-grace-hours", "0.001"]);
    let mut document = request(&source);
    document.as_object_mut().unwrap().remove("destination");
    let job = serve.wait_until_published(&serve.create_job(&document));
    let place = data.join("media").join(job["video"].as_str().unwrap());
    // As a process left it that died: an object that no record and no playlist names.
    let segment = folder::files(&place).into_keys().find(|name| name.ends_with(".m4s")).unwrap();
    let dead = place.join(&segment).with_file_name("00000-0123456789abcdef.m4s");
    std::fs::copy(place.join(&segment), &dead).unwrap();
    wait_until("the deletion of the object", Duration::from_secs(60), || (!dead.exists()).then_some(()));
    exact(&source, &place);
    serve.stop();
}

#[test]
fn delete_source_waits_for_readers_and_keeps_a_changed_source() {
    let (_folder, source, data) = prepared();
    let wrapper = FfmpegWrapper::new();
    let serve = Serve::start(&data, &wrapper.path(), &["--slots", "3"]);
    let mut document = request(&source);
    document["destination"] = json!(data.join("out"));
    serve.wait_until_published(&serve.create_job(&document));
    // Another job reads it, for as long as it likes.
    wrapper.slow_after(0);
    let reader = serve.create_job(&json!({ "source": source, "ladder": "120p", "segment_seconds": 30 }));
    serve.wait_for("the other job to read the source", &reader, |job| job["phase"] == "encoding");
    // Parts that exist already need no FFmpeg.
    document["delete_source"] = json!(true);
    let job = serve.create_job(&document);
    serve.wait_until_published(&job);
    assert!(source.exists(), "another job reads it");
    std::fs::write(&source, "another file").unwrap();
    assert_eq!(serve.post(&format!("/v1/jobs/{reader}/cancel"), &json!({}), &[]).status, 200);
    wrapper.full_speed();
    let event = wait_until("the decision about the source", Duration::from_secs(60), || {
        serve.events(&job).into_iter().find(|event| event["kind"].as_str().unwrap().starts_with("source."))
    });
    assert!(
        event["kind"] == "source.kept" && event["data"]["reason"].as_str().unwrap().contains("changed"),
        "{event}"
    );
    assert_eq!(std::fs::read_to_string(&source).unwrap(), "another file");
}

#[test]
fn queries_read_jobs_and_change_nothing() {
    let (_folder, source, data) = prepared();
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let job = serve.wait_until_published(&serve.create_job(&request(&source)));
    let (job, video) = (job["id"].as_str().unwrap(), job["video"].as_str().unwrap());
    let ask = |sql: &str| serve.post("/v1/sql", &json!({ "sql": sql }), &[]);
    let rows = |sql: &str| {
        let answer = ask(sql);
        assert_eq!(answer.status, 200, "{sql}: {answer:?}");
        answer.json()["rows"].clone()
    };
    assert_eq!(rows("SELECT * FROM rows WHERE frames <> expected"), json!([]));
    let frames = clip().frames;
    assert_eq!(
        rows("SELECT sum(frames) AS frames FROM rows WHERE track = 'video'"),
        json!([{ "frames": frames }])
    );
    assert_eq!(
        rows(&format!("SELECT state, percent FROM jobs WHERE id = '{job}'")),
        json!([{ "state": "published", "percent": 100 }])
    );
    assert_eq!(rows("SELECT count(*) AS jobs FROM jobs WHERE id = 'job_0'"), json!([{ "jobs": 0 }]));
    let renditions = rows(&format!(
        "SELECT name, height FROM renditions WHERE video = '{video}' AND height > 0 ORDER BY height"
    ));
    assert_eq!(renditions, json!([{ "name": "90p", "height": 90 }, { "name": "180p", "height": 180 }]));
    let parts =
        format!("SELECT sum(frames) AS frames FROM parts WHERE video = '{video}' AND rendition = '90p'");
    assert_eq!(rows(&parts), json!([{ "frames": frames }]));
    let columns = rows("SELECT column_name FROM information_schema.columns WHERE table_name = 'jobs'");
    assert!(columns.as_array().unwrap().iter().any(|column| column["column_name"] == "state"), "{columns}");
    let columns = "information_schema.columns";
    let many = ask(&format!(
        "SELECT 1 AS one FROM {columns} a JOIN {columns} b ON a.table_schema = b.table_schema \
         JOIN {columns} c ON a.table_schema = c.table_schema"
    ));
    assert!(many.json()["more"] == true && many.json()["rows"].as_array().unwrap().len() == 10_000);
    let asked = Instant::now();
    // A join of rows that all match, hundreds of billions: the memory of a query ends before its time.
    let ones = vec!["(1)"; 900].join(",");
    let endless = format!(
        "SELECT count(*) FROM (VALUES {ones}) a (n) JOIN ((VALUES {ones}) b (n) \
         JOIN ((VALUES {ones}) c (n) JOIN (VALUES {ones}) d (n) ON c.n = d.n) ON b.n = c.n) ON a.n = b.n"
    );
    for (sql, says) in [
        ("DROP TABLE jobs", "DDL"),
        ("CREATE TABLE t AS SELECT 1", "DDL"),
        ("INSERT INTO jobs (id) VALUES ('job_1')", "DML"),
        ("COPY jobs TO '/tmp/jobs.csv'", "DML"),
        ("SET datafusion.execution.batch_size = 1", "SetVariable"),
        ("SELECT * FROM nothing", "nothing"),
        ("SELECT frmaes FROM rows", "frmaes"),
        ("SELECT 1; SELECT 2", "single SQL"),
        ("SELEKT 1", "SELEKT"),
        ("", "bytes"),
        ("SELECT repeat('x', 2000000000)", "repeat"),
        ("SELECT levenshtein('a', 'b')", "levenshtein"),
        ("SELECT * FROM generate_series(1, 10)", "generate_series"),
        ("SELECT 'a'||'a'||'a'||'a'||'a'||'a'||'a'||'a'||'a'||'a'", "concatenates strings"),
        (endless.as_str(), "Resources exhausted"),
    ] {
        let answer = ask(sql);
        assert!(
            answer.status == 422 && answer.json()["detail"].as_str().unwrap().contains(says),
            "{}: {answer:?}",
            sql.chars().take(80).collect::<String>()
        );
    }
    assert!(asked.elapsed() < Duration::from_secs(60));
    assert_eq!(serve.request("/livez", &[]).status, 200);
    let metrics = String::from_utf8(serve.request("/metrics", &[]).body).unwrap();
    assert!(
        metrics.contains("spool_jobs{state=\"published\"} 1\n") && metrics.contains("spool_uploads_open 0"),
        "{metrics}"
    );
}

#[test]
fn an_invalid_request_is_explained_and_makes_no_job() {
    let (folder, _source, data) = prepared();
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let large = folder.path().join("large.json");
    std::fs::write(&large, " ".repeat(2 << 20)).unwrap();
    let none = "/v1/jobs/job_0";
    let large = format!("@{}", large.display());
    let document = "Content-Type: application/json";
    let cases: &[(&str, &[&str], u16, &str, &str)] = &[
        ("/v1/jobs", &["-H", document, "-d", "{"], 400, "malformed", "EOF"),
        ("/v1/jobs", &["-H", document, "-d", "{}"], 422, "invalid", "source"),
        ("/v1/jobs", &["-H", document, "-d", r#"{"source": 7}"#], 422, "invalid", "source"),
        ("/v1/jobs", &["-H", document, "-d", r#"{"source": "a.mp4", "speed": 2}"#], 422, "invalid", "speed"),
        (
            "/v1/jobs",
            &["-H", document, "-d", r#"{"source": "a.mp4", "ladder": "8000x"}"#],
            422,
            "invalid",
            "ladder",
        ),
        (
            "/v1/jobs",
            &["-H", document, "-d", r#"{"source": "a.mp4", "threads": 0}"#],
            422,
            "invalid",
            "threads",
        ),
        ("/v1/jobs", &["-d", r#"{"source": "a.mp4"}"#], 415, "unsupported-media-type", "application/json"),
        ("/v1/jobs", &["-H", document, "--data-binary", &large], 413, "too-large", ""),
        ("/v1/jobs?limit=0", &[], 422, "invalid", "limit"),
        ("/v1/jobs?limit=many", &[], 400, "malformed", "limit"),
        ("/v1/jobs?state=done", &[], 422, "invalid", "pending"),
        (none, &[], 404, "not-found", "job_0"),
        ("/v1/jobs/job_0/cancel", &["-X", "POST"], 404, "not-found", "job_0"),
        ("/v1/jobs/job_0/events?after=-1", &[], 400, "malformed", "after"),
        ("/v1/videos/video_0", &[], 404, "not-found", "video_0"),
        ("/v1/nothing", &[], 404, "not-found", "/v1/nothing"),
        (none, &["-X", "DELETE"], 405, "method-not-allowed", "DELETE"),
        ("/v1/jobs", &["-H", "Host: rebound.example"], 403, "not-allowed", "localhost"),
        ("/v1/jobs", &["-H", "Origin: http://evil.example"], 403, "not-allowed", "other pages"),
    ];
    for (path, args, status, kind, says) in cases {
        let answer = serve.request(path, args);
        assert_eq!(answer.status, *status, "{path} {args:?}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path} {args:?}");
        let problem = answer.json();
        assert_eq!(
            (&problem["type"], &problem["status"]),
            (&json!(format!("urn:spool:problem:{kind}")), &json!(status))
        );
        assert!(problem["detail"].as_str().unwrap().contains(says), "{path} {args:?}: {problem}");
    }
    assert_eq!(serve.request("/v1/jobs", &[]).json(), json!({ "jobs": [], "next": null }));
    let gone = serve.create_job(&json!({ "source": "/nowhere/talk.mp4" }));
    let failed = wait_until("the failure", Duration::from_secs(60), || {
        Some(serve.get_job(&gone)).filter(|job| job["state"] == "failed")
    });
    assert!(
        failed["error"]["kind"] == "not_found"
            && failed["error"]["message"].as_str().unwrap().contains("/nowhere/talk.mp4"),
        "{failed}"
    );
    assert_eq!(failed["tries"], 1, "a missing source is not retried");
}

#[test]
fn serve_refuses_a_public_address_without_auth() {
    let data = tempfile::tempdir().unwrap();
    let serve =
        Spool::new(["serve", "--listen", "0.0.0.0:0", "--data", data.path().join("d").to_str().unwrap()])
            .run();
    assert!(serve.code == Some(2) && serve.stderr.contains("127.0.0.1"), "{serve:?}");
}
