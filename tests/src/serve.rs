//! A `spool serve` or `spool api` with its data in a folder, and requests to it by curl.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::run::{Running, Spool, wait_until};

/// Time within which a job ends on a busy machine.
const JOB_TIMEOUT: Duration = Duration::from_secs(180);

/// A running server.
#[derive(Debug)]
pub struct Serve {
    running: Option<Running>,
    /// `http://127.0.0.1:PORT`.
    pub address: String,
    log: PathBuf,
}

/// An HTTP response.
#[derive(Clone)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Headers in lower case, one per line.
    pub headers: String,
    /// Body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}\n{}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl Response {
    /// Returns the body as JSON.
    ///
    /// # Panics
    /// If the body is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Serve {
    /// Starts `spool serve` over the data in a folder, with these arguments and this FFmpeg.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn start(data: &Path, ffmpeg: &Path, args: &[&str]) -> Self {
        Self::start_with(data, ffmpeg, args, [])
    }

    /// Starts `spool serve` with these environment variables.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn start_with(
        data: &Path,
        ffmpeg: &Path,
        args: &[&str],
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let all = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]
            .into_iter()
            .chain(args.iter().copied());
        Self::of(Spool::new(all).env("SPOOL_FFMPEG", ffmpeg).envs(env), data.with_extension("log"))
    }

    /// Starts the HTTP API alone, over the same data.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn api(data: &Path) -> Self {
        Self::api_with_uploads(data, data.join("uploads").to_str().unwrap(), [])
    }

    /// Starts the HTTP API alone, with uploads elsewhere and these environment variables.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn api_with_uploads(
        data: &Path,
        uploads: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self::api_with(data, uploads, env, &[])
    }

    /// Starts the HTTP API alone, with more arguments.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn api_with(
        data: &Path,
        uploads: &str,
        env: impl IntoIterator<Item = (String, String)>,
        more: &[&str],
    ) -> Self {
        let [store, media] = ["jobs.db", "media"].map(|name| data.join(name).to_str().unwrap().to_owned());
        let args =
            ["api", "--listen", "127.0.0.1:0", "--database", &store, "--media", &media, "--uploads", uploads];
        Self::of(Spool::new(args.iter().chain(more).copied()).envs(env), data.with_extension("log"))
    }

    fn of(spool: Spool, log: PathBuf) -> Self {
        let mut running = spool.start_logged(&log);
        let mut line = String::new();
        BufReader::new(running.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let address = address.unwrap_or_else(|| {
            panic!("the server did not start: {}", std::fs::read_to_string(&log).unwrap_or_default())
        });
        Self { running: Some(running), address, log }
    }

    /// Returns the process ID.
    ///
    /// # Panics
    /// If the server has ended.
    pub fn id(&self) -> u32 {
        self.running.as_ref().unwrap().child.id()
    }

    /// Sends a request, with these arguments of curl.
    ///
    /// # Panics
    /// If there is no response.
    pub fn request(&self, path: &str, args: &[&str]) -> Response {
        let folder = tempfile::tempdir().unwrap();
        let (headers, body) = (folder.path().join("headers"), folder.path().join("body"));
        let output = Command::new("curl")
            .args(["-sS", "--path-as-is", "--max-time", "120", "-w", "%{http_code}", "-D"])
            .arg(&headers)
            .arg("-o")
            .arg(&body)
            .args(args)
            .arg(format!("{}{path}", self.address))
            .output()
            .unwrap();
        let status = String::from_utf8_lossy(&output.stdout).parse().unwrap_or_default();
        assert!(status > 0, "{path}: {}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        let headers = std::fs::read_to_string(headers).unwrap();
        let headers = headers.lines().map(|line| match line.split_once(':') {
            Some((name, value)) => format!("{}:{value}\n", name.to_ascii_lowercase()),
            None => String::new(),
        });
        Response { status, headers: headers.collect(), body: std::fs::read(body).unwrap_or_default() }
    }

    /// Sends a document.
    ///
    /// # Panics
    /// If there is no response.
    pub fn post(&self, path: &str, document: &Value, args: &[&str]) -> Response {
        let document = document.to_string();
        let mut all = vec!["-H", "Content-Type: application/json", "--data-binary", &document];
        all.extend(args);
        self.request(path, &all)
    }

    /// Creates a job, and returns its ID.
    ///
    /// # Panics
    /// If the job is refused.
    pub fn create_job(&self, document: &Value) -> String {
        let answer = self.post("/v1/jobs", document, &[]);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Returns a job in its current state.
    ///
    /// # Panics
    /// If the job does not exist.
    pub fn get_job(&self, job: &str) -> Value {
        let answer = self.request(&format!("/v1/jobs/{job}"), &[]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Waits until a job meets a condition.
    ///
    /// # Panics
    /// If the condition is not met in time.
    pub fn wait_for(&self, what: &str, job: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, JOB_TIMEOUT, || {
            Some(self.get_job(job)).filter(|job| {
                is(job) || {
                    assert!(job["state"] != "failed", "{job}");
                    false
                }
            })
        })
    }

    /// Waits until a job is published.
    ///
    /// # Panics
    /// If the job fails.
    pub fn wait_until_published(&self, job: &str) -> Value {
        self.wait_for("a job to be published", job, |job| job["state"] == "published")
    }

    /// Returns all events of a job.
    ///
    /// # Panics
    /// If their numbers have a gap.
    pub fn events(&self, job: &str) -> Vec<Value> {
        let answer = self.request(&format!("/v1/jobs/{job}/events?limit=1000"), &[]);
        let events = answer.json()["events"].as_array().unwrap().clone();
        assert!(
            events.iter().map(|event| event["sequence"].as_u64().unwrap()).eq(1..=events.len() as u64),
            "{events:?}"
        );
        events
    }

    /// Returns the peak resident memory, in bytes.
    ///
    /// # Panics
    /// If `/proc` has no memory figures.
    pub fn peak_bytes(&self) -> u64 {
        let pid = self.running.as_ref().unwrap().child.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Returns the log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills the server with SIGKILL: it cannot tell its peers.
    ///
    /// # Panics
    /// If the server is gone.
    pub fn kill(mut self) {
        let running = self.running.take().unwrap();
        running.signal(Signal::SIGKILL);
        running.wait().expect_no_processes();
    }

    /// Sends SIGTERM, and expects a clean end.
    ///
    /// # Panics
    /// If the server ends with an error.
    pub fn stop(mut self) {
        let running = self.running.take().unwrap();
        running.signal(Signal::SIGTERM);
        let ran = running.wait();
        assert_eq!(ran.code, Some(0), "{}", self.log());
        ran.expect_no_leftovers();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}
