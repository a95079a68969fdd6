//! Attacks by a tenant with a key, and by another user of the machine: each was possible once.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts the processes that it tests"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use spool_tests::{
    clips::Clip,
    run::{Spool, wait_until},
    serve::{Response, Serve},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// A server with a tenant that may read and publish nothing but its own uploads and videos.
struct Victim {
    folder: tempfile::TempDir,
    serve: Serve,
    key: String,
}

impl Victim {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let serve = Serve::start(&data, Path::new("ffmpeg"), &["--auth", "keys"]);
        let database = data.join("jobs.db");
        let args = ["keys", "create", "--tenant", "stolen", "--database", database.to_str().unwrap()];
        let ran = Spool::new(args).run();
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        Self { folder, serve, key: format!("Authorization: Bearer {}", ran.stdout.trim()) }
    }

    fn query(&self, sql: &str) -> Response {
        self.serve.post("/v1/sql", &json!({ "sql": sql }), &["-H", &self.key])
    }

    fn submit(&self, sql: &str) -> Response {
        self.serve.post("/v1/jobs", &json!({ "sql": sql }), &["-H", &self.key])
    }

    /// Submits a statement, and returns the job when it has ended.
    fn run(&self, sql: &str) -> Value {
        let created = self.submit(sql);
        assert_eq!(created.status, 201, "{}", String::from_utf8_lossy(&created.body));
        let path = format!("/v1/jobs/{}", created.json()["id"].as_str().unwrap());
        wait_until("the end of the job", DEADLINE, || {
            let job = self.serve.request(&path, &["-H", &self.key]).json();
            ["failed", "published", "canceled"].contains(&job["state"].as_str()?).then_some(job)
        })
    }

    fn assert_alive(&self, after: &str) {
        let asked = Instant::now();
        let live = self.serve.request("/livez", &["--max-time", "5"]);
        assert_eq!(live.status, 200, "after {after}");
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?} after {after}", asked.elapsed());
    }
}

#[test]
fn no_statement_overflows_the_stack() {
    let victim = Victim::start();
    let tables: Vec<String> = (0..200).map(|n| format!("jobs j{n}")).collect();
    let chains = ["+a", "::int", " IS NULL", " OR a", "||a", "['x']"]
        .map(|link| format!("SELECT a{}", link.repeat(2_000)));
    let nests = [("(", ")"), ("abs(", ")"), ("NOT (", ")")]
        .map(|(open, close)| format!("SELECT {}1{}", open.repeat(1_500), close.repeat(1_500)));
    let doubled: Vec<String> =
        (1..30).map(|n| format!("t{n} AS (SELECT * FROM t{0} a, t{0} b)", n - 1)).collect();
    let doubled = format!("WITH t0 AS (SELECT 1 AS x), {} SELECT * FROM t29", doubled.join(", "));
    let joined = format!("SELECT count(*) FROM {}", tables.join(", "));
    for sql in chains.iter().chain(&nests).chain([&doubled, &joined]) {
        let shown: String = sql.chars().take(40).collect();
        assert_eq!(victim.query(sql).status, 422, "query {shown}");
        assert_eq!(victim.submit(sql).status, 422, "job {shown}");
        victim.assert_alive(&shown);
        let ran = Spool::new(["sql", "-c", sql]).run();
        assert_eq!(ran.code, Some(2), "{shown}: {}", ran.stderr);
    }
}

#[test]
fn queries_stay_within_their_budget() {
    let victim = Victim::start();
    let before = victim.serve.peak_bytes();
    let sixteen: Vec<String> = (0..16).map(|n| format!("jobs j{n}")).collect();
    let conditions: Vec<String> = (1..16).map(|n| format!("j{n}.state = j0.state")).collect();
    for sql in [
        format!("SELECT count(*) FROM {}", sixteen.join(", ")),
        format!("SELECT count(*) FROM {} WHERE {}", sixteen.join(", "), conditions.join(" AND ")),
        "SELECT count(*) FROM jobs a JOIN jobs b ON a.created_ms < b.created_ms".to_owned(),
        "EXPLAIN ANALYZE SELECT count(*) FROM jobs".to_owned(),
    ] {
        let answer = victim.query(&sql);
        assert_eq!(answer.status, 422, "{sql}: {}", String::from_utf8_lossy(&answer.body));
        victim.assert_alive(&sql);
    }
    let grown = victim.serve.peak_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown} bytes more");
    assert_eq!(victim.query("SELECT count(*) AS n FROM jobs WHERE state = 'failed'").status, 200);
}

#[test]
fn a_tenants_joins_and_concatenations_are_refused_and_its_neighbours_go_on() {
    let victim = Victim::start();
    let values = |name: &str| {
        let rows: Vec<String> = (0..400).map(|n| format!("({n})")).collect();
        format!("(VALUES {}) AS {name} (n)", rows.join(", "))
    };
    let cross = format!("SELECT count(*) FROM {}, {}, {}", values("a"), values("b"), values("c"));
    let mut concat = "'0123456789abcdef'".to_owned();
    for _ in 0..16 {
        concat = format!("concat({concat}, {concat})");
        if concat.len() > 8_000 {
            break;
        }
    }
    let nested =
        (0..10).fold("'0123456789'".to_owned(), |text, _| format!("concat(a, a) AS a FROM (SELECT {text}"));
    let nested = format!("SELECT length(a) FROM (SELECT {nested} AS a{}", ")".repeat(11));
    for sql in [cross, format!("SELECT length({concat})"), nested] {
        let job = victim.run(&sql);
        let shown: String = sql.chars().take(60).collect();
        assert_eq!(job["state"], "failed", "{shown}: {job}");
        victim.assert_alive(&shown);
    }
}

/// `EXPLAIN` opened what a statement names without asking the tenant's path policy.
#[test]
fn explain_tells_a_tenant_nothing_of_other_files() {
    let victim = Victim::start();
    let secret = Clip { frames: 50, ..Clip::default() }.make(victim.folder.path(), "secret.mp4");
    let missing = victim.folder.path().join("missing.mp4");
    let explain = |path: &Path| {
        let job = victim.run(&format!(
            "EXPLAIN SELECT transcode(segment, 'web', '{0}') FROM segments('{0}')",
            path.display()
        ));
        job["error"]["message"].as_str().unwrap_or_default().replace(path.to_str().unwrap(), "PATH")
    };
    let (of_secret, of_missing) = (explain(&secret), explain(&missing));
    assert!(of_secret.contains("may not read"), "{of_secret}");
    assert_eq!(of_secret, of_missing);
    // The segment as a value of the statement, without `segments`.
    let literal = Spool::new([
        "sql",
        "--output",
        "json",
        "-c",
        &format!("SELECT arrow_typeof(segment) AS t FROM segments('{}')", secret.display()),
    ])
    .run();
    assert_eq!(literal.code, Some(0), "{}", literal.stderr);
}

#[test]
fn files_are_closed_to_other_users() {
    let victim = Victim::start();
    let data = victim.folder.path().join("data");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for entry in fs::read_dir(&data).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("jobs.db") {
            assert_eq!(mode(&entry.path()) & 0o077, 0, "{}", entry.path().display());
        }
    }
    // A database of an earlier version is closed when it is opened.
    let database = data.join("jobs.db");
    fs::set_permissions(&database, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = Spool::new(["keys", "ls", "--database", database.to_str().unwrap()]).run();
    assert_eq!((ran.code, mode(&database)), (Some(0), 0o600), "{}", ran.stderr);
}

/// Another user can put anything into the system's temporary folder.
#[test]
fn a_pipe_in_the_temporary_folder_delays_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    for name in ["lock", "spool-scratch-x/lock", "other/lock"] {
        let path: PathBuf = temporary.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    }
    let started = Instant::now();
    let ran = Spool::new(["doctor"]).env("SPOOL_SCRATCH", temporary.path()).run();
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}
