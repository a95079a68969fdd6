//! A client that retries: it repeats a request without a final response at another server, until one accepts
//! or refuses it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::serve::Response;

/// Wait before a retry, and between polls for new events.
const RETRY_DELAY: Duration = Duration::from_millis(200);
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Time limits of one request, and of a stream before it is opened anew, in seconds as curl takes them.
const REQUEST: &str = "30";
const STREAM: &str = "60";

/// Rate at which a part is sent, as curl takes it: slow enough that some kills hit a server in the middle of
/// one.
const SEND_RATE: &str = "4M";

/// Headers of every tus request.
const TUS: [&str; 2] = ["-H", "Tus-Resumable: 1.0.0"];

/// A client of several equivalent servers.
#[derive(Debug, Clone)]
pub struct Client {
    servers: Vec<String>,
    /// The server of the next request.
    at: usize,
    /// Time at which the client gives up, unless `stop` is set before.
    until: Instant,
    stop: Arc<AtomicBool>,
}

impl Client {
    /// Creates a client of these servers (`http://HOST:PORT`) that begins with one of them, and gives up at a
    /// time or once `stop` is set.
    pub fn new(servers: &[String], first: usize, until: Instant, stop: &Arc<AtomicBool>) -> Self {
        Self { servers: servers.to_vec(), at: first % servers.len(), until, stop: stop.clone() }
    }

    /// Sends a request, with these arguments of curl, until a server accepts or refuses it.
    ///
    /// # Panics
    /// If no server does in time.
    pub fn request(&mut self, path: &str, args: &[&str]) -> Response {
        loop {
            match self.once(path, args) {
                Ok(answer) if !passes(answer.status) => return answer,
                Ok(answer) => self.wait(&format!("{path}: {} {}", answer.status, text(&answer))),
                Err(problem) => self.wait(&format!("{path}: {problem}")),
            }
        }
    }

    /// Sends a file in one request, with a job or `none`, and returns the upload. If the response is lost
    /// there may be a second upload that no client knows of.
    ///
    /// # Panics
    /// If the upload is refused.
    pub fn post(&mut self, file: &Path, name: &str, job: &str) -> Value {
        let job: String = url::form_urlencoded::byte_serialize(job.as_bytes()).collect();
        let body = format!("@{}", file.display());
        let answer = self.request(&format!("/v1/uploads?name={name}&job={job}"), &["--data-binary", &body]);
        assert_eq!(answer.status, 201, "an upload is refused: {}", text(&answer));
        answer.json()
    }

    /// Sends a file by tus, in parts of so many bytes, with a job, and returns the upload once it is
    /// finished.
    ///
    /// # Panics
    /// If the upload is refused, or bytes that were acknowledged are lost.
    pub fn tus(&mut self, bytes: &[u8], part: usize, name: &str, job: &str) -> Value {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("part");
        let (length, body) = (format!("Upload-Length: {}", bytes.len()), format!("@{}", file.display()));
        let metadata = format!(
            "Upload-Metadata: filename {},job {}",
            BASE64_STANDARD.encode(name),
            BASE64_STANDARD.encode(job)
        );
        let begun = self
            .request("/v1/uploads", &[&TUS[..], &["-X", "POST", "-H", &length, "-H", &metadata]].concat());
        assert_eq!(begun.status, 201, "an upload is refused: {}", text(&begun));
        let path = begun.header("location").unwrap().to_owned();
        let mut kept = 0;
        loop {
            let head = self.request(&path, &[&TUS[..], &["-I"]].concat());
            assert_eq!(head.status, 200, "{path} was created, and no longer exists: {}", head.headers);
            let at: usize =
                head.header("upload-offset").and_then(|offset| offset.trim().parse().ok()).unwrap();
            assert!(at >= kept, "{path}: {kept} bytes were acknowledged, and {at} are stored");
            if at == bytes.len() {
                break;
            }
            fs::write(&file, &bytes[at..bytes.len().min(at + part)]).unwrap();
            let offset = format!("Upload-Offset: {at}");
            let args = [
                "-X",
                "PATCH",
                "-H",
                &offset,
                "-H",
                "Content-Type: application/offset+octet-stream",
                "--data-binary",
                &body,
                "--limit-rate",
                SEND_RATE,
            ];
            // The next HEAD returns the offset, whatever the response to this request.
            kept = at;
            match self.once(&path, &[&TUS[..], &args].concat()) {
                Ok(answer) if answer.status == 204 => kept = bytes.len().min(at + part),
                Ok(answer) if passes(answer.status) || answer.status == 409 => {
                    self.wait(&format!("{path}: {}", text(&answer)))
                }
                Ok(answer) => panic!("a part of {path} is refused: {} {}", answer.status, text(&answer)),
                Err(problem) => self.wait(&format!("{path}: {problem}")),
            }
        }
        // All bytes are stored. If the server dies before it finishes the upload, another one finishes it.
        loop {
            let upload = self.request(&path, &[]).json();
            match upload["state"].as_str().unwrap() {
                "finished" => return upload,
                "open" => self.wait(&format!("{path} to be finished: {upload}")),
                state => panic!("all of {path} was sent, and it is {state}: {upload}"),
            }
        }
    }

    /// Creates a job with an idempotency key, with retries; returns it, and whether it existed already.
    ///
    /// # Panics
    /// If the job is refused.
    pub fn create_job(&mut self, document: &Value, key: &str) -> (Value, bool) {
        let (document, key) = (document.to_string(), format!("Idempotency-Key: {key}"));
        let answer = self.request(
            "/v1/jobs",
            &["-H", "Content-Type: application/json", "-H", &key, "--data-binary", &document],
        );
        assert!([200, 201].contains(&answer.status), "a job is refused: {} {}", answer.status, text(&answer));
        (answer.json(), answer.status == 200)
    }

    /// Returns a job in its current state.
    ///
    /// # Panics
    /// If the job does not exist.
    pub fn get_job(&mut self, job: &str) -> Value {
        let answer = self.request(&format!("/v1/jobs/{job}"), &[]);
        assert_eq!(answer.status, 200, "{job} was acknowledged, and does not exist: {}", text(&answer));
        answer.json()
    }

    /// Reads the events of a job to its end by pages.
    ///
    /// # Panics
    /// If the job does not exist, or the numbers of its events have a gap.
    pub fn follow(&mut self, job: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let page = self.request(&format!("/v1/jobs/{job}/events?after={}&limit=100", events.len()), &[]);
            assert_eq!(page.status, 200, "{job} was acknowledged, and has no events: {}", text(&page));
            let page = page.json();
            for event in page["events"].as_array().unwrap() {
                append(&mut events, event.clone());
            }
            if page["more"] == false {
                return events;
            }
            self.check(&format!("the end of {job} after event {}", events.len()));
            sleep(POLL_INTERVAL);
        }
    }

    /// Reads the events of a job to its end by a stream, which is resumed at another server after a loss.
    ///
    /// # Panics
    /// If the job does not exist, or the numbers of its events have a gap.
    pub fn stream(&mut self, job: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let last = format!("Last-Event-ID: {}", events.len());
            let mut curl = Command::new("curl")
                .args([
                    "-sSN",
                    "--max-time",
                    STREAM,
                    "-H",
                    "Accept: text/event-stream",
                    "-H",
                    &last,
                    "-w",
                    "\nstatus %{http_code}\n",
                ])
                .arg(format!("{}/v1/jobs/{job}/events", self.servers[self.at]))
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let (mut status, mut data) = (0, None);
            for line in BufReader::new(curl.stdout.take().unwrap()).lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix("data: ") {
                    data = Some(said.to_owned());
                } else if let Some(code) = line.strip_prefix("status ") {
                    status = code.trim().parse().unwrap();
                } else if line.is_empty()
                    && let Some(said) = data.take()
                {
                    // An event is complete at its empty line.
                    append(
                        &mut events,
                        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{job}: {e}: {said}")),
                    );
                }
            }
            curl.wait().unwrap();
            if status == 204 {
                return events;
            }
            assert!(
                [0, 200].contains(&status) || passes(status),
                "{job} was acknowledged, and has no events: {status}"
            );
            self.wait(&format!("the end of {job} after event {}", events.len()));
        }
    }

    /// Sends one request; a response that broke off is an error.
    fn once(&self, path: &str, args: &[&str]) -> Result<Response, String> {
        let folder = tempfile::tempdir().unwrap();
        let (headers, body) = (folder.path().join("headers"), folder.path().join("body"));
        let output = Command::new("curl")
            .args(["-sS", "--path-as-is", "--max-time", REQUEST, "-w", "%{http_code}", "-D"])
            .arg(&headers)
            .arg("-o")
            .arg(&body)
            .args(args)
            .arg(format!("{}{path}", self.servers[self.at]))
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let headers = fs::read_to_string(headers).unwrap_or_default();
        let named = headers.lines().filter_map(|line| line.split_once(':'));
        Ok(Response {
            status: String::from_utf8_lossy(&output.stdout).trim().parse().unwrap(),
            headers: named.map(|(name, value)| format!("{}:{value}\n", name.to_ascii_lowercase())).collect(),
            body: fs::read(body).unwrap_or_default(),
        })
    }

    /// Waits as a client does that is not answered, and turns to the next server.
    fn wait(&mut self, what: &str) {
        self.check(what);
        self.at = (self.at + 1) % self.servers.len();
        sleep(RETRY_DELAY);
    }

    fn check(&self, what: &str) {
        assert!(!self.stop.load(Ordering::Relaxed), "stopped, another check failed: {what}");
        assert!(Instant::now() < self.until, "timed out waiting: {what}");
    }
}

/// Returns whether a response with this status is worth a retry.
fn passes(status: u16) -> bool {
    matches!(status, 423 | 429 | 500..=599)
}

fn text(answer: &Response) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// Appends the next event of a job.
fn append(events: &mut Vec<Value>, event: Value) {
    let due = events.len() as u64 + 1;
    assert_eq!(event["sequence"].as_u64(), Some(due), "after event {} comes {event}", due - 1);
    events.push(event);
}
