//! Amazon's buckets and queues, by moto: notifications and checks of parts, which the S3 server of most tests
//! lacks. It accepts any signature.
#![expect(clippy::disallowed_methods, reason = "it starts a server for tests")]

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

/// A bucket, `inbox`, and the queue that it notifies. Both are gone when this is dropped.
#[derive(Debug)]
pub struct Moto {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    endpoint: String,
    /// Address of the queue.
    pub queue: String,
    /// Address of its dead-letter queue.
    pub dead_letters: String,
}

impl Moto {
    /// Starts the server.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn start() -> Self {
        let root = crate::repository::root();
        let python = root.join(".cache/python");
        assert!(
            python.join("moto").exists(),
            "run scripts/python-setup .cache/python tests/clients/requirements.txt first"
        );
        let mut child = Command::new("python3")
            .env("PYTHONPATH", python)
            .arg(root.join("tests/clients/sqs.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let text = |name: &str| first[name].as_str().unwrap().to_owned();
        let (endpoint, queue, dead_letters) = (text("endpoint"), text("queue"), text("dead_letters"));
        Self { stdin: child.stdin.take().unwrap(), child, lines, endpoint, queue, dead_letters }
    }

    /// Runs a command, and returns how many messages are visible, in flight, and in the dead-letter queue.
    ///
    /// # Panics
    /// If the command fails.
    pub fn run(&mut self, line: &str) -> [u64; 3] {
        writeln!(self.stdin, "{line}").unwrap();
        let counts: Value = serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap();
        ["visible", "in_flight", "dead_letters"].map(|name| counts[name].as_u64().unwrap())
    }

    /// Returns the environment variables that lead a client here.
    pub fn env(&self) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
