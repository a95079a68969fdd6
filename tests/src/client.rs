//! A client that does not give up: what it is not answered it asks again, of another server, until it is told yes or no.

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

use crate::serve::Answer;

/// How long a client waits before it asks again, and before it looks for what is new.
const AGAIN: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(250);

/// How long one request may take, and how long a stream is kept open before it is asked for anew, in seconds as curl has it.
const REQUEST: &str = "30";
const STREAM: &str = "60";

/// How fast a piece is sent, as curl has it: a server that dies does so in the middle of one now and then.
const RATE: &str = "4M";

/// What every request of tus says.
const TUS: [&str; 2] = ["-H", "Tus-Resumable: 1.0.0"];

/// A client of several servers that stand for one another.
#[derive(Debug, Clone)]
pub struct Client {
    servers: Vec<String>,
    /// The one that is asked next.
    at: usize,
    /// It gives up then, or once this is set.
    until: Instant,
    stop: Arc<AtomicBool>,
}

impl Client {
    /// A client of these servers (`http://HOST:PORT`) that begins with one of them, and gives up at a time or once it is told to.
    pub fn new(servers: &[String], first: usize, until: Instant, stop: &Arc<AtomicBool>) -> Self {
        Self { servers: servers.to_vec(), at: first % servers.len(), until, stop: stop.clone() }
    }

    /// Asks, with these arguments of curl, until somebody says yes or no.
    ///
    /// # Panics
    /// Where nobody does in time.
    pub fn ask(&mut self, path: &str, args: &[&str]) -> Answer {
        loop {
            match self.once(path, args) {
                Ok(answer) if !passes(answer.status) => return answer,
                Ok(answer) => self.wait(&format!("{path}: {} {}", answer.status, text(&answer))),
                Err(problem) => self.wait(&format!("{path}: {problem}")),
            }
        }
    }

    /// Sends a file at once, with a job or `none`; gives the upload. Where its answer is lost there may be another that nobody knows of.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn post(&mut self, file: &Path, name: &str, job: &str) -> Value {
        let job: String = url::form_urlencoded::byte_serialize(job.as_bytes()).collect();
        let body = format!("@{}", file.display());
        let answer = self.ask(&format!("/v1/uploads?name={name}&job={job}"), &["--data-binary", &body]);
        assert_eq!(answer.status, 201, "an upload is refused: {}", text(&answer));
        answer.json()
    }

    /// Sends a file by tus, in pieces of so many bytes, with a job; gives the upload once it is finished.
    ///
    /// # Panics
    /// Where it is refused, or what was kept of it is gone.
    pub fn tus(&mut self, bytes: &[u8], piece: usize, name: &str, job: &str) -> Value {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("piece");
        let (length, body) = (format!("Upload-Length: {}", bytes.len()), format!("@{}", file.display()));
        let metadata = format!(
            "Upload-Metadata: filename {},job {}",
            BASE64_STANDARD.encode(name),
            BASE64_STANDARD.encode(job)
        );
        let begun =
            self.ask("/v1/uploads", &[&TUS[..], &["-X", "POST", "-H", &length, "-H", &metadata]].concat());
        assert_eq!(begun.status, 201, "an upload is refused: {}", text(&begun));
        let path = begun.header("location").unwrap().to_owned();
        let mut kept = 0;
        loop {
            let head = self.ask(&path, &[&TUS[..], &["-I"]].concat());
            assert_eq!(head.status, 200, "{path} was begun, and is not there any more: {}", head.headers);
            let at: usize =
                head.header("upload-offset").and_then(|offset| offset.trim().parse().ok()).unwrap();
            assert!(at >= kept, "{path}: {kept} bytes were kept, and now there are {at}");
            if at == bytes.len() {
                break;
            }
            fs::write(&file, &bytes[at..bytes.len().min(at + piece)]).unwrap();
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
                RATE,
            ];
            // How far it came is asked for, whatever is said here.
            kept = at;
            match self.once(&path, &[&TUS[..], &args].concat()) {
                Ok(answer) if answer.status == 204 => kept = bytes.len().min(at + piece),
                Ok(answer) if passes(answer.status) || answer.status == 409 => {
                    self.wait(&format!("{path}: {}", text(&answer)))
                }
                Ok(answer) => panic!("a piece of {path} is refused: {} {}", answer.status, text(&answer)),
                Err(problem) => self.wait(&format!("{path}: {problem}")),
            }
        }
        // All of it is there: whoever dies before it is finished is followed by another.
        loop {
            let upload = self.ask(&path, &[]).json();
            match upload["state"].as_str().unwrap() {
                "finished" => return upload,
                "open" => self.wait(&format!("{path} to be finished: {upload}")),
                state => panic!("all of {path} was sent, and it is {state}: {upload}"),
            }
        }
    }

    /// Asks for a job with a key, again until there is an answer; gives it, and whether it was there already.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn job(&mut self, document: &Value, key: &str) -> (Value, bool) {
        let (document, key) = (document.to_string(), format!("Idempotency-Key: {key}"));
        let answer = self.ask(
            "/v1/jobs",
            &["-H", "Content-Type: application/json", "-H", &key, "--data-binary", &document],
        );
        assert!([200, 201].contains(&answer.status), "a job is refused: {} {}", answer.status, text(&answer));
        (answer.json(), answer.status == 200)
    }

    /// A job as it is now.
    ///
    /// # Panics
    /// Where it is not there.
    pub fn show(&mut self, job: &str) -> Value {
        let answer = self.ask(&format!("/v1/jobs/{job}"), &[]);
        assert_eq!(answer.status, 200, "{job} was acknowledged, and is not there: {}", text(&answer));
        answer.json()
    }

    /// Follows a job to its end by pages; gives its events.
    ///
    /// # Panics
    /// Where it is not there, or their numbers have a gap.
    pub fn follow(&mut self, job: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let page = self.ask(&format!("/v1/jobs/{job}/events?behind={}&limit=100", events.len()), &[]);
            assert_eq!(page.status, 200, "{job} was acknowledged, and cannot be followed: {}", text(&page));
            let page = page.json();
            for event in page["events"].as_array().unwrap() {
                append(&mut events, event.clone());
            }
            if page["more"] == false {
                return events;
            }
            self.check(&format!("the end of {job} after event {}", events.len()));
            sleep(LOOK);
        }
    }

    /// The same by a stream, which is taken up at another server where it was lost.
    ///
    /// # Panics
    /// Where it is not there, or their numbers have a gap.
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
                    // Only behind an empty line it is whole.
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
                "{job} was acknowledged, and cannot be followed: {status}"
            );
            self.wait(&format!("the end of {job} after event {}", events.len()));
        }
    }

    /// Asks once; an answer that broke off is none.
    fn once(&self, path: &str, args: &[&str]) -> Result<Answer, String> {
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
        Ok(Answer {
            status: String::from_utf8_lossy(&output.stdout).trim().parse().unwrap(),
            headers: named.map(|(name, value)| format!("{}:{value}\n", name.to_ascii_lowercase())).collect(),
            body: fs::read(body).unwrap_or_default(),
        })
    }

    /// Waits as a client does that is not answered, and turns to the next server.
    fn wait(&mut self, what: &str) {
        self.check(what);
        self.at = (self.at + 1) % self.servers.len();
        sleep(AGAIN);
    }

    fn check(&self, what: &str) {
        assert!(!self.stop.load(Ordering::Relaxed), "given up, since something else failed: {what}");
        assert!(Instant::now() < self.until, "waited in vain: {what}");
    }
}

/// Is it worth asking again?
fn passes(status: u16) -> bool {
    matches!(status, 423 | 429 | 500..=599)
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// Adds the next event of a job.
fn append(events: &mut Vec<Value>, event: Value) {
    let due = events.len() as u64 + 1;
    assert_eq!(event["sequence"].as_u64(), Some(due), "after event {} comes {event}", due - 1);
    events.push(event);
}
