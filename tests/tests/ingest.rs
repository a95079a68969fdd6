//! Ingest: each file that arrives in a watched bucket or folder becomes one job, whichever source reports it
//! and however often.
#![expect(clippy::unwrap_used, reason = "tests start what they test")]

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use spool_tests::{
    clips::Clip,
    moto::Moto,
    run::{Spool, wait_until},
    s3::S3Server,
    serve::Serve,
};

/// Time within which a reported file becomes a job.
const TAKEN: Duration = Duration::from_secs(60);

/// Creates a `spool watches` command over the database in a folder.
fn watches(data: &Path, args: &[&str]) -> Spool {
    let store = data.join("jobs.db");
    let args: Vec<&str> = ["watches"]
        .iter()
        .chain(args)
        .copied()
        .chain(["--database", store.to_str().unwrap(), "--output", "json"])
        .collect();
    Spool::new(args)
}

/// Returns every job, the newest first.
fn jobs(serve: &Serve) -> Vec<Value> {
    serve.request("/v1/jobs?limit=1000", &[]).json()["jobs"].as_array().unwrap().clone()
}

/// Waits until there are so many jobs, and returns their sources.
fn sources(serve: &Serve, count: usize) -> Vec<String> {
    wait_until(&format!("{count} jobs"), TAKEN, || (jobs(serve).len() >= count).then_some(()));
    let mut sources: Vec<String> =
        jobs(serve).iter().map(|job| job["request"]["source"].as_str().unwrap().to_owned()).collect();
    sources.sort();
    sources
}

fn record(source: &str, name: &str, key: &str) -> Value {
    json!({
        "eventVersion": "2.1", "eventSource": source, "eventName": name,
        "s3": { "bucket": { "name": "inbox" }, "object": { "key": key, "size": 5, "sequencer": "00" } },
    })
}

fn event(source: &str, name: &str, key: &str) -> Value {
    json!({ "Records": [record(source, name, key)] })
}

#[test]
fn one_file_becomes_one_job_however_often_it_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let s3 = S3Server::start(&["inbox", "uploads"]);
    let serve = Serve::api_with_uploads(&data, "s3://uploads/", s3.env());
    let added = watches(
        &data,
        &[
            "add",
            "s3://inbox/talks",
            "--job",
            r#"{"ladder": "180p", "destination": "s3://inbox/talks/out/{video}/"}"#,
        ],
    );
    let added = added.envs(s3.env()).ok().json();
    assert_eq!((&added[0]["prefix"], &added[0]["tenant"]), (&json!("s3://inbox/talks/"), &json!("default")));
    for key in ["talks/Café 1.mp4", "talks/a+b.mp4", "talks-2/other.mp4", "talks/empty.mp4"] {
        s3.put("inbox", key, if key.contains("empty") { "" } else { "video" });
    }
    let report = |event: &Value| {
        let answer = serve.post("/v1/events/s3", event, &[]);
        assert_eq!(answer.status, 200, "{event}: {answer:?}");
        answer.json()
    };
    let put = event("aws:s3", "ObjectCreated:Put", "talks/Caf%C3%A9+1.mp4");
    let completed = event("aws:s3", "ObjectCreated:CompleteMultipartUpload", "talks/Caf%C3%A9+1.mp4");
    let minio = json!({
        "EventName": "s3:ObjectCreated:Put", "Key": "inbox/talks/Café 1.mp4",
        "Records": [record("minio:s3", "s3:ObjectCreated:Put", "talks%2FCaf%C3%A9+1.mp4")],
    });
    let ceph = event("ceph:s3", "ObjectCreated:Put", "talks/Café 1.mp4");
    let topic = json!({ "Type": "Notification", "Message": put.to_string() });
    let bridge = json!({
        "source": "aws.s3", "detail-type": "Object Created",
        "detail": { "bucket": { "name": "inbox" }, "object": { "key": "talks/Café 1.mp4" } },
    });
    let trial = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "inbox" });
    let removed = event("aws:s3", "ObjectRemoved:Delete", "talks/Caf%C3%A9+1.mp4");
    assert_eq!(report(&trial), json!({ "jobs": [], "ignored": 0 }));
    let first = report(&put);
    // Reported again, in any order and every shape, and many at a time.
    std::thread::scope(|scope| {
        for event in [&put, &completed, &minio, &ceph, &topic, &bridge, &put, &completed, &minio, &bridge] {
            let (report, first) = (&report, &first);
            scope.spawn(move || assert_eq!(&report(event), first));
        }
    });
    assert_eq!(report(&removed), json!({ "jobs": [], "ignored": 0 }));
    assert_eq!(sources(&serve, 1), ["s3://inbox/talks/Café 1.mp4"]);
    // A key that is not encoded, though it looks like one that is.
    assert_eq!(
        report(&event("ceph:s3", "s3:ObjectCreated:Put", "talks/a+b.mp4"))["jobs"].as_array().unwrap().len(),
        1
    );
    // Files that are in no watched place, empty, gone, or published by Spool itself.
    let video = jobs(&serve).iter().find_map(|job| job["video"].as_str().map(str::to_owned)).unwrap();
    s3.put("inbox", &format!("talks/out/{video}/180p/init-0123456789abcdef.mp4"), "ours");
    for key in [
        "talks-2/other.mp4",
        "talks/empty.mp4",
        "talks/gone.mp4",
        &format!("talks/out/{video}/180p/init-0123456789abcdef.mp4"),
    ] {
        assert_eq!(
            report(&event("aws:s3", "ObjectCreated:Put", key)),
            json!({ "jobs": [], "ignored": 1 }),
            "{key}"
        );
    }
    assert_eq!(sources(&serve, 2), ["s3://inbox/talks/Café 1.mp4", "s3://inbox/talks/a+b.mp4"]);
    // Another file under the same name is another upload.
    s3.put("inbox", "talks/a+b.mp4", "another video");
    assert_eq!(report(&bridge_of("talks/a+b.mp4"))["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(jobs(&serve).len(), 3);
    // A document that is no event is refused.
    for (body, status) in [("{", 422), ("{}", 422), (r#"{"Records": [{}]}"#, 422)] {
        let refused =
            serve.request("/v1/events/s3", &["-H", "Content-Type: application/json", "--data-binary", body]);
        assert_eq!(refused.status, status, "{refused:?}");
    }
    // The watch is removed.
    watches(&data, &["rm", added[0]["id"].as_str().unwrap()]).ok();
    s3.put("inbox", "talks/late.mp4", "video");
    assert_eq!(report(&bridge_of("talks/late.mp4")), json!({ "jobs": [], "ignored": 1 }));
}

fn bridge_of(key: &str) -> Value {
    json!({ "source": "aws.s3", "detail-type": "Object Created", "detail": { "bucket": { "name": "inbox" }, "object": { "key": key } } })
}

#[test]
fn a_tenants_key_reports_files_of_that_tenant_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let s3 = S3Server::start(&["inbox", "uploads"]);
    let store = data.join("jobs.db");
    std::fs::create_dir(&data).unwrap();
    let key = |tenant: &str, scope: &str| {
        let store = store.to_str().unwrap();
        Spool::new(["keys", "create", "--tenant", tenant, "--scope", scope, "--database", store])
            .ok()
            .stdout
            .trim()
            .to_owned()
    };
    let (acme, globex, reader) = (key("acme", "write"), key("globex", "write"), key("acme", "read"));
    let serve = Serve::api_with(&data, "s3://uploads/", s3.env(), &["--auth", "keys"]);
    watches(&data, &["add", "s3://inbox/acme/", "--tenant", "acme"]).envs(s3.env()).ok();
    s3.put("inbox", "acme/talk.mp4", "video");
    let notification = event("minio:s3", "s3:ObjectCreated:Put", "acme/talk.mp4");
    let report = |args: &[&str]| serve.post("/v1/events/s3", &notification, args);
    let bearer = |key: &str| format!("Authorization: Bearer {key}");
    assert_eq!(report(&[]).status, 401);
    assert_eq!(report(&["-H", &bearer(&reader)]).status, 403);
    assert_eq!(
        report(&["-H", &bearer(&globex)]).json(),
        json!({ "jobs": [], "ignored": 1 }),
        "another tenant's place"
    );
    let taken = report(&["-H", &bearer(&acme)]).json();
    assert_eq!(taken["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(
        report(&["-u", &format!("any:{acme}")]).json(),
        taken,
        "a store that can only be configured with an address"
    );
    let shown =
        serve.request(&format!("/v1/jobs/{}", taken["jobs"][0].as_str().unwrap()), &["-H", &bearer(&reader)]);
    assert_eq!(shown.json()["request"]["source"], "s3://inbox/acme/talk.mp4", "{shown:?}");
}

#[test]
fn a_file_that_sqs_reports_is_transcoded_once_into_its_own_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let clip = Clip { frames: 50, ..Clip::default() }.make(folder.path(), "talk");
    let data = folder.path().join("data");
    let mut amazon = Moto::start();
    let serve = Serve::start_with(&data, Path::new("ffmpeg"), &["--http-sources", "any"], amazon.env());
    let refused =
        watches(&data, &["add", "s3://inbox/", "--queue", &amazon.dead_letters]).envs(amazon.env()).run();
    assert!(refused.code == Some(2) && refused.stderr.contains("dead-letter queue"), "{refused:?}");
    let job = r#"{"ladder": "180p", "destination": "s3://inbox/videos/{video}/"}"#;
    watches(&data, &["add", "s3://inbox/", "--job", job, "--queue", &amazon.queue]).envs(amazon.env()).ok();
    amazon.run("send an unreadable message");
    amazon.run(&format!("put talks/a+talk.mp4 {}", clip.display()));
    assert_eq!(sources(&serve, 1), ["s3://inbox/talks/a+talk.mp4"]);
    let job = jobs(&serve)[0]["id"].as_str().unwrap().to_owned();
    serve.wait_until_published(&job);
    // No file that publishing wrote into the bucket became a job, and the message that cannot be read is in
    // the dead-letter queue.
    wait_until("an empty queue", TAKEN, || (amazon.run("") == [0, 0, 1]).then_some(()));
    assert_eq!(jobs(&serve).len(), 1);
    // An equal notification makes no job; another file does.
    amazon.run(&format!("put talks/a+talk.mp4 {}", clip.display()));
    amazon.run(&format!("put talks/another.mp4 {}", clip.display()));
    assert_eq!(sources(&serve, 2), ["s3://inbox/talks/a+talk.mp4", "s3://inbox/talks/another.mp4"]);
    wait_until("an empty queue", TAKEN, || (amazon.run("") == [0, 0, 1]).then_some(()));
    serve.stop();
}

#[test]
fn a_scan_finds_files_that_no_event_reports() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let arrivals = folder.path().join("arrivals");
    std::fs::create_dir_all(arrivals.join("deep")).unwrap();
    std::fs::write(arrivals.join("before.mp4"), "video").unwrap();
    let s3 = S3Server::start(&["inbox", "uploads"]);
    s3.put("inbox", "talks/a b.mp4", "video");
    let apis = [(); 2].map(|()| Serve::api_with_uploads(&data, "s3://uploads/", s3.env()));
    for place in [arrivals.to_str().unwrap(), "s3://inbox/talks/"] {
        watches(&data, &["add", place, "--scan-interval", "5"]).envs(s3.env()).ok();
    }
    let before = format!("file://{}", arrivals.join("before.mp4").display());
    let bucket = "s3://inbox/talks/a b.mp4".to_owned();
    let mut expected = vec![before, bucket];
    expected.sort();
    assert_eq!(sources(&apis[0], 2), expected);
    // A file that comes later makes a job, and none makes two, though two servers scan.
    std::fs::write(arrivals.join("deep/later.mp4"), "another video").unwrap();
    expected.push(format!("file://{}", arrivals.join("deep/later.mp4").display()));
    expected.sort();
    assert_eq!(sources(&apis[1], 3), expected);
    // Reported as well, it is still one job.
    let answer = apis[0].post("/v1/events/s3", &bridge_of("talks/a b.mp4"), &[]).json();
    assert_eq!(answer["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(jobs(&apis[0]).len(), 3);
    // A place that does not exist is reported in the list of watches.
    let lost = watches(&data, &["add", "s3://nowhere/", "--scan-interval", "5"]).envs(s3.env()).ok().json();
    let id = lost[0]["id"].as_str().unwrap().to_owned();
    let trouble = wait_until("trouble", TAKEN, || {
        let all = watches(&data, &["ls"]).ok().json();
        let watch = all.as_array().unwrap().iter().find(|watch| watch["id"] == id.as_str()).unwrap().clone();
        watch["last_error"].as_str().map(str::to_owned)
    });
    assert!(trouble.contains("nowhere"), "{trouble}");
}

#[test]
fn a_place_that_cannot_be_watched_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for (args, says) in [
        (vec!["add", "https://example.com/videos/"], "the web"),
        (vec!["add", "s3://inbox/", "--job", "{"], "--job"),
        (vec!["add", "s3://inbox/", "--job", r#"{"source": "a.mp4"}"#], "source"),
        (vec!["add", "s3://inbox/", "--queue", "arrivals"], "one of an SQS queue"),
        (vec!["add", "s3://inbox/", "--scan-interval", "1"], "--scan-interval"),
        (vec!["add", "s3://inbox/", "--tenant", "../x"], "tenant"),
    ] {
        let refused = watches(&data, &args).run();
        assert!(
            matches!(refused.code, Some(1 | 2)) && refused.stderr.contains(says),
            "{args:?}: {refused:?}"
        );
    }
    let missing = watches(&data, &["rm", "watch_1"]).run();
    assert!(missing.code == Some(3), "{missing:?}");
}
