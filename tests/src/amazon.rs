//! Amazon's buckets and queues, by moto: what the S3 server of most tests does not have, notifications and checks of parts; it takes any signature.
#![expect(clippy::disallowed_methods, reason = "it starts what tests talk to")]

use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

/// A bucket, `inbox`, and the queue that it tells. Dropped, both are gone.
#[derive(Debug)]
pub struct Amazon {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    endpoint: String,
    /// The queue's address.
    pub queue: String,
    /// That of its dead letters.
    pub dead: String,
}

impl Amazon {
    /// Starts them.
    ///
    /// # Panics
    /// Where they do not start.
    pub fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let python = root.join(".cache/python");
        assert!(
            python.join("moto").exists(),
            "run scripts/python-setup .cache/python tests/clients/requirements.txt first"
        );
        let mut child = Command::new("python3")
            .env("PYTHONPATH", python)
            .arg(root.join("tests/clients/amazon.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let text = |name: &str| first[name].as_str().unwrap().to_owned();
        let (endpoint, queue, dead) = (text("endpoint"), text("queue"), text("dead"));
        Self { stdin: child.stdin.take().unwrap(), child, lines, endpoint, queue, dead }
    }

    /// Has something done, and tells how many messages wait, are in hand, and are among the dead letters.
    ///
    /// # Panics
    /// Where it is not done.
    pub fn does(&mut self, line: &str) -> [u64; 3] {
        writeln!(self.stdin, "{line}").unwrap();
        let told: Value = serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap();
        ["waiting", "held", "dead"].map(|name| told[name].as_u64().unwrap())
    }

    /// The variables that lead a client here.
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

impl Drop for Amazon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
