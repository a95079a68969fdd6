//! Webhooks: signed, retried until they are delivered, and never fewer than the events.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests start what they test")]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};
use spool_tests::{clips::Clip, run::wait_until, serve::Serve};

/// A receiver that verifies signatures with the library of the standard.
struct Receiver {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Receiver {
    /// Starts a receiver that answers with each of these in turn, and with the last from then on.
    fn start(answers: &[&str]) -> Self {
        let root = spool_tests::repository::root();
        let python = root.join(".cache/python");
        assert!(
            python.join("standardwebhooks").exists(),
            "run scripts/python-setup .cache/python tests/clients/requirements.txt first"
        );
        let mut child = Command::new("python3")
            .env("PYTHONPATH", python)
            .arg(root.join("tests/clients/webhook.py"))
            .arg("-")
            .args(answers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.next().unwrap().unwrap();
        Self { stdin: child.stdin.take(), child, lines, address }
    }

    /// Registers the receiver with a server, and returns the webhook's ID.
    fn of(&mut self, serve: &Serve) -> String {
        let made = serve.post("/v1/webhooks", &json!({ "url": self.address }), &[]);
        assert_eq!(made.status, 201, "{made:?}");
        let secret = made.json()["secret"].as_str().unwrap().to_owned();
        writeln!(self.stdin.as_mut().unwrap(), "{secret}").unwrap();
        assert!(
            !String::from_utf8_lossy(&serve.request("/v1/webhooks", &[]).body).contains(&secret),
            "the secret is shown once"
        );
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// Returns the next message; messages with a wrong signature do not count.
    fn next(&mut self) -> Value {
        let line: Value = serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["genuine"], true, "{line}");
        line
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_webhook_is_retried_until_it_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let source = Clip { frames: 50, ..Clip::default() }.make(folder.path(), "talk");
    let data = folder.path().join("data");
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let mut receiver = Receiver::start(&["500", "204"]);
    let webhook = receiver.of(&serve);
    let job = serve.create_job(&json!({ "source": source.to_str().unwrap(), "ladder": "90p" }));
    let first = receiver.next();
    assert!(first["status"] == 500 && first["content"]["data"]["job"] == job.as_str(), "{first}");
    // Killed before a delivery: another server sends the pending ones.
    serve.kill();
    let serve = Serve::start(&data, Path::new("ffmpeg"), &["--lease", "2"]);
    let (mut kinds, mut ids) = (BTreeSet::new(), BTreeSet::new());
    while kinds.len() < 2 {
        let message = receiver.next();
        let content = &message["content"];
        assert!(
            content["data"]["job"] == job.as_str() && content["timestamp"].as_str().unwrap().ends_with('Z'),
            "{message}"
        );
        if message["id"] == first["id"] {
            assert_eq!(message["body"], first["body"], "a repeated message keeps its ID");
        }
        kinds.insert(content["type"].as_str().unwrap().to_owned());
        ids.insert(message["id"].as_str().unwrap().to_owned());
    }
    assert!(
        kinds.iter().eq(["job.created", "job.published"]) && ids.contains(first["id"].as_str().unwrap()),
        "{kinds:?}"
    );
    let deliveries = || {
        serve.request(&format!("/v1/webhooks/{webhook}/deliveries"), &[]).json()["deliveries"]
            .as_array()
            .unwrap()
            .clone()
    };
    wait_until("all messages", std::time::Duration::from_secs(60), || {
        deliveries().iter().all(|delivery| delivery["state"] == "delivered").then_some(())
    });
    assert!(
        deliveries().iter().any(|delivery| delivery["tries"].as_i64().unwrap() > 1),
        "{:?}",
        deliveries()
    );
    // A receiver that lost a message requests it again.
    let again = serve.post(&format!("/v1/webhooks/{webhook}/replay"), &json!({}), &[]);
    assert_eq!(again.json(), json!({ "messages": 2 }));
    let again: BTreeSet<String> =
        (0..2).map(|_| receiver.next()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(again, ids);
    serve.stop();
}

#[test]
fn a_receiver_that_answers_410_gets_no_more_messages() {
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::api(&folder.path().join("data"));
    let mut receiver = Receiver::start(&["410"]);
    let webhook = receiver.of(&serve);
    serve.create_job(&json!({ "sql": "SELECT 1" }));
    receiver.next();
    let shown = wait_until("the webhook to be disabled", std::time::Duration::from_secs(30), || {
        let shown = serve.request("/v1/webhooks", &[]).json()["webhooks"][0].clone();
        (!shown["disabled_ms"].is_null()).then_some(shown)
    });
    assert_eq!(shown["id"], webhook.as_str());
    serve.create_job(&json!({ "sql": "SELECT 2" }));
    let deliveries = serve.request(&format!("/v1/webhooks/{webhook}/deliveries"), &[]).json();
    assert_eq!(deliveries["deliveries"].as_array().unwrap().len(), 1, "{deliveries}");
    assert_eq!(serve.post(&format!("/v1/webhooks/{webhook}/replay"), &json!({}), &[]).status, 404);
    let wrong = serve.post("/v1/webhooks", &json!({ "url": "file:///etc/passwd" }), &[]);
    assert!(
        wrong.status == 422 && wrong.json()["detail"].as_str().unwrap().starts_with("url: "),
        "{wrong:?}"
    );
}
