//! Ladders are equal wherever sources and destinations are, and refusals of a store are reported.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use spool_tests::{
    ffmpeg_wrapper::FfmpegWrapper,
    folder, footage,
    run::{CommandOutput, Spool, wait_until},
    s3::{Fault, LoggedRequest, S3Server},
    web::{Behavior, Web},
};

const FAILED: i32 = 1;
const NOT_FOUND: i32 = 3;
const NOT_ALLOWED: i32 = 4;

/// Time limit of the report of a refusal.
const DEADLINE: Duration = Duration::from_secs(10);

/// Time for which Spool may try to reach a store that is down.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(40);

/// Bytes of a source with large frames that planning may read.
const PLANNING_BYTES: u64 = 8 << 20;

const BUCKETS: [&str; 2] = ["media", "uploads"];
const RUNGS: &str = "180p,90p";

/// A clip, its ladder in a local folder, and an S3 server that has the clip too.
struct Setting {
    source: PathBuf,
    local: BTreeMap<String, Vec<u8>>,
    server: S3Server,
    _folder: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = footage::bunny(folder.path(), "talk.mp4", 8, 180);
        let out = folder.path().join("out");
        transcode(source.to_str().unwrap(), out.to_str().unwrap()).ok();
        let server = S3Server::start(&BUCKETS);
        server.put("uploads", "talk.mp4", std::fs::read(&source).unwrap());
        Self { source, local: folder::media(&out), server, _folder: folder }
    }

    fn source(&self) -> &str {
        self.source.to_str().unwrap()
    }

    fn spool(&self, source: &str, destination: &str) -> Spool {
        transcode(source, destination).envs(self.server.env())
    }

    /// Expects the ladder of the local folder under this prefix of the bucket `media`.
    fn published(&self, prefix: &str) {
        let kept = kept(&self.server, prefix);
        let media: BTreeMap<String, Vec<u8>> =
            kept.into_iter().filter(|(name, _)| !name.starts_with("parts/")).collect();
        assert_eq!(media.keys().collect::<Vec<_>>(), self.local.keys().collect::<Vec<_>>());
        for (name, bytes) in &media {
            assert!(*bytes == self.local[name], "{name} differs from the local one");
        }
    }
}

fn transcode(source: &str, destination: &str) -> Spool {
    Spool::new([
        "transcode",
        source,
        "-o",
        destination,
        "--ladder",
        RUNGS,
        "--segment",
        "4",
        "--output",
        "json",
    ])
}

/// Returns every key below a prefix of the bucket `media` that was ever written, in order.
fn written(server: &S3Server, prefix: &str) -> BTreeSet<String> {
    let writes = ["PutObject", "CompleteMultipartUpload", "CopyObject"];
    let asked = server
        .requests()
        .into_iter()
        .filter(|asked| writes.contains(&asked.operation) && asked.bucket == "media");
    asked.filter_map(|asked| asked.key.strip_prefix(prefix).map(str::to_owned)).collect()
}

/// Returns the objects below a prefix of the bucket `media`.
fn kept(server: &S3Server, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let names = written(server, prefix).into_iter();
    names
        .filter_map(|name| {
            Some((name.clone(), server.get("media", &format!("{prefix}{name}"))?.bytes.to_vec()))
        })
        .collect()
}

/// Expects that a command failed with this code, soon enough, with a message that contains these words, and
/// left nothing.
fn refused(name: &str, ran: &CommandOutput, code: i32, within: Duration, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{name}: {}", ran.stderr);
    assert!(ran.took < within, "{name} took {:?}", ran.took);
    for word in words {
        assert!(ran.stderr.contains(word), "{name}: {word:?} is not in: {}", ran.stderr);
    }
    assert_eq!(
        ran.stderr.lines().filter(|line| line.starts_with("error: ")).count(),
        1,
        "{name}: {}",
        ran.stderr
    );
    ran.expect_no_leftovers();
}

#[test]
fn a_ladder_in_a_bucket_equals_the_local_one_and_has_content_types() {
    let setting = Setting::new();
    let ran = setting.spool(setting.source(), "s3://media/talk/").ok();
    ran.expect_no_leftovers();
    assert_eq!(ran.json()["published"][0]["master"], "s3://media/talk/master.m3u8");
    setting.published("talk/");
    let kept = kept(&setting.server, "talk/");
    assert_eq!(
        folder::reachable(&kept),
        kept.keys().filter(|name| !name.starts_with("parts/")).cloned().collect()
    );
    for name in kept.keys() {
        let stored = setting.server.get("media", &format!("talk/{name}")).unwrap();
        let (media_type, cache) = match name.rsplit_once('.').unwrap().1 {
            "m3u8" if name == "master.m3u8" => ("application/vnd.apple.mpegurl", "no-cache"),
            "m3u8" => ("application/vnd.apple.mpegurl", "public, max-age=31536000, immutable"),
            "m4s" | "mp4" => ("video/mp4", "public, max-age=31536000, immutable"),
            "json" => ("application/json", "private, no-cache"),
            other => panic!("{other} is no object that Spool writes"),
        };
        assert_eq!(stored.content_type.as_deref(), Some(media_type), "{name}");
        assert_eq!(stored.cache_control.as_deref(), Some(cache), "{name}");
    }
    // The multivariant playlist last: before it no player sees half a ladder.
    let writes: Vec<LoggedRequest> =
        setting.server.requests().into_iter().filter(|asked| asked.operation == "PutObject").collect();
    let media: Vec<&LoggedRequest> =
        writes.iter().filter(|asked| kept.contains_key(asked.key.trim_start_matches("talk/"))).collect();
    assert_eq!(media.last().unwrap().key, "talk/master.m3u8");

    setting.server.clear_log();
    let again = setting.spool(setting.source(), "s3://media/talk/").ok();
    assert_eq!(again.tally().0, 0);
    // A playlist may be written again; it keeps its name and bytes.
    let rewritten: Vec<String> = written(&setting.server, "talk/")
        .into_iter()
        .filter(|name| {
            setting.server.get("media", &format!("talk/{name}")).is_some() && !name.ends_with(".m3u8")
        })
        .collect();
    assert_eq!(rewritten, Vec::<String>::new(), "a second run wrote existing objects again");
    assert!(
        !written(&setting.server, "talk/").contains("master.m3u8"),
        "an unchanged multivariant playlist was written again"
    );
    let deleted = setting.server.requests().into_iter().filter(|asked| {
        asked.operation.starts_with("Delete") && kept.contains_key(asked.key.trim_start_matches("talk/"))
    });
    assert_eq!(deleted.count(), 0);
}

#[test]
fn the_statement_of_the_readme_runs_from_bucket_to_bucket() {
    let readme = include_str!("../../README.md");
    let statement = readme.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(
        statement.contains("s3://uploads/talk.mp4") && statement.contains("s3://media/talk/"),
        "{statement}"
    );
    let setting = Setting::new();
    let ran = Spool::new(["sql", "--output", "json", "-c", statement]).envs(setting.server.env()).ok();
    ran.expect_no_leftovers();
    let rows = ran.json();
    let published = rows[0].as_object().unwrap().values().next().unwrap();
    assert_eq!(published["master"], "s3://media/talk/master.m3u8");
    assert_eq!(published["duration_ms"], 8000);
    let kept = kept(&setting.server, "talk/");
    assert_eq!(
        folder::reachable(&kept),
        kept.keys().filter(|name| !name.starts_with("parts/")).cloned().collect()
    );
    // A source below every rung of `web` has one rung of its own size.
    assert!(kept.keys().any(|name| name.starts_with("180p/")), "{:?}", kept.keys());

    // By the other command, and into a local folder.
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    Spool::new(["transcode", "s3://uploads/talk.mp4", "-o", out, "--segment", "30"])
        .envs(setting.server.env())
        .ok();
    let media: BTreeMap<_, _> = kept.into_iter().filter(|(name, _)| !name.starts_with("parts/")).collect();
    assert!(folder::media(folder.path()) == media);
    // Listed in SQL.
    let sql = "SELECT index, rendition['name'] AS name FROM parts('s3://media/talk/') WHERE track = 'video'";
    let rows = Spool::new(["sql", "--output", "json", "-c", sql]).envs(setting.server.env()).ok().json();
    assert_eq!(rows, serde_json::json!([{ "index": 0, "name": "180p" }]));
    let sql = "SELECT uri, width, height FROM media('s3://uploads/*.mp4')";
    let rows = Spool::new(["sql", "--output", "json", "-c", sql]).envs(setting.server.env()).ok().json();
    assert_eq!(rows, serde_json::json!([{ "uri": "s3://uploads/talk.mp4", "width": 320, "height": 180 }]));
}

#[test]
fn gc_works_in_a_bucket_as_in_a_folder() {
    let setting = Setting::new();
    setting.spool(setting.source(), "s3://media/talk/").ok();
    let before = kept(&setting.server, "talk/");
    let fewer =
        ["transcode", setting.source(), "-o", "s3://media/talk/", "--ladder", "180p", "--segment", "4"];
    Spool::new(fewer).envs(setting.server.env()).ok();
    let args = ["gc", "s3://media/talk/", "--grace-hours", "0", "--output", "json"];
    let swept = Spool::new(args).envs(setting.server.env()).ok().json();
    let after = kept(&setting.server, "talk/");
    let gone: Vec<&String> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    assert!(gone.iter().all(|name| name.starts_with("90p/") || name.starts_with("parts/")), "{gone:?}");
    assert_eq!(swept["objects"], before.keys().filter(|name| name.starts_with("90p/")).count());
    assert_eq!(swept["records"], gone.iter().filter(|name| name.starts_with("parts/")).count());
    assert_eq!(
        folder::reachable(&after),
        after.keys().filter(|name| !name.starts_with("parts/")).cloned().collect()
    );
}

#[test]
fn two_commands_at_once_make_one_ladder() {
    let setting = Setting::new();
    let commands = [0, 1].map(|_| setting.spool("s3://uploads/talk.mp4", "s3://media/talk/").start());
    for running in commands {
        let ran = running.wait();
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.expect_no_leftovers();
    }
    setting.published("talk/");
    let records =
        kept(&setting.server, "talk/").into_keys().filter(|name| name.starts_with("parts/")).count();
    // A row of sound, and two of pictures at two rungs.
    assert_eq!(records, 5);
}

#[test]
fn a_refusal_of_a_store_is_reported_with_the_remedy() {
    let setting = Setting::new();
    // Variables with wrong values, and the one that the message must name.
    let cases = [
        ("a wrong secret", vec![("AWS_SECRET_ACCESS_KEY", "wrong")], "AWS_SECRET_ACCESS_KEY"),
        ("a wrong key", vec![("AWS_ACCESS_KEY_ID", "WRONG")], "check the credentials"),
        (
            "no credentials",
            vec![("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")],
            "AWS_ACCESS_KEY_ID",
        ),
    ];
    for (name, variables, remedy) in cases {
        for (source, uri) in
            [("s3://uploads/talk.mp4", "s3://uploads/talk.mp4"), (setting.source(), "s3://media/talk")]
        {
            // An empty variable counts as not set.
            let env = setting.server.env().into_iter().map(|(key, value)| {
                let changed = variables.iter().find(|(variable, _)| *variable == key);
                (key, changed.map_or(value, |(_, value)| (*value).to_owned()))
            });
            let ran =
                transcode(source, "s3://media/talk/").envs(env.filter(|(_, value)| !value.is_empty())).run();
            // A store gives the reason in a body, and a response to HEAD has none: there the message can only
            // point to the settings.
            let asked_by_head = source.starts_with("s3://") && name == "a wrong secret";
            let remedy = if asked_by_head { "check the credentials" } else { remedy };
            refused(name, &ran, NOT_ALLOWED, DEADLINE, &["not allowed", uri, remedy]);
            assert!(!ran.stderr.contains("spool/test+secret"), "the secret was printed: {}", ran.stderr);
        }
    }
    let missing: [(&str, &str, &[&str]); 3] = [
        ("s3://uploads/nothing.mp4", "s3://media/talk/", &["s3://uploads/nothing.mp4", "does not exist"]),
        (
            "s3://elsewhere/talk.mp4",
            "s3://media/talk/",
            &["bucket s3://elsewhere", "does not exist", "create it"],
        ),
        (
            "s3://uploads/talk.mp4",
            "s3://elsewhere/talk/",
            &["bucket s3://elsewhere", "does not exist", "create it"],
        ),
    ];
    for (source, destination, words) in missing {
        refused(source, &setting.spool(source, destination).run(), NOT_FOUND, DEADLINE, words);
    }
    let sql = Spool::new(["sql", "-c", "SELECT * FROM segments('s3://elsewhere/talk.mp4')"])
        .envs(setting.server.env())
        .run();
    refused("in SQL", &sql, NOT_FOUND, DEADLINE, &["s3://elsewhere", "does not exist"]);
    assert_eq!(written(&setting.server, "talk/").len(), 0, "{:?}", written(&setting.server, "talk/"));
}

#[test]
fn a_job_reads_little_more_than_its_source_and_a_plan_hardly_any() {
    let folder = tempfile::tempdir().unwrap();
    let source = footage::heavy(folder.path(), "heavy.mp4", 1);
    let bytes = source.metadata().unwrap().len();
    let server = S3Server::start(&["uploads"]);
    server.put("uploads", "heavy.mp4", std::fs::read(&source).unwrap());
    let (uri, cut) = (
        "s3://uploads/heavy.mp4",
        ["--segment", "1", "--media-segment", "1", "--ladder", "90p", "--output", "json"],
    );
    let plan = Spool::new(["plan", uri].iter().chain(&cut)).envs(server.env()).ok().json();
    assert_eq!(plan["bytes"], bytes);
    assert_eq!(plan["planning_bytes"], server.bytes_sent());
    // The index, and a few samples: next to nothing of a large source, as scripts/big-source shows.
    assert!(server.bytes_sent() <= PLANNING_BYTES, "planning read {} of {bytes}", server.bytes_sent());
    server.clear_log();
    let out = folder.path().join("out");
    Spool::new(["transcode", uri, "-o", out.to_str().unwrap()].iter().chain(&cut)).envs(server.env()).ok();
    assert!(server.bytes_sent() * 100 <= bytes * 105, "the job read {} of {bytes}", server.bytes_sent());
}

#[test]
fn a_read_only_store_is_reported_before_any_encode() {
    let setting = Setting::new();
    let ffmpeg = FfmpegWrapper::new();
    setting.server.fail_next(1000, Some("PutObject"), Fault::Denied);
    setting.server.fail_next(1000, Some("CreateMultipartUpload"), Fault::Denied);
    let ran =
        setting.spool("s3://uploads/talk.mp4", "s3://media/talk/").env("SPOOL_FFMPEG", ffmpeg.path()).run();
    refused("denied", &ran, NOT_ALLOWED, DEADLINE, &["not allowed", "s3://media/talk", "permit"]);
    assert_eq!(ffmpeg.encodes(), Vec::<String>::new());
}

#[test]
fn a_store_that_is_down_is_reported() {
    let mut setting = Setting::new();
    let env = setting.server.env();
    setting.server.stop();
    for (source, destination) in
        [("s3://uploads/talk.mp4", "s3://media/talk/"), (setting.source(), "s3://media/talk/")]
    {
        let ran = transcode(source, destination).envs(env.clone()).run();
        refused(
            "down",
            &ran,
            FAILED,
            GIVES_UP_WITHIN,
            &["cannot reach the store", "s3://", "check the network and the endpoint"],
        );
    }
}

#[test]
fn transient_failures_are_retried_and_change_nothing() {
    let setting = Setting::new();
    let ffmpeg = FfmpegWrapper::new();
    ffmpeg.block_encode(1);
    let trouble = |faults: &[(&'static str, Fault)]| {
        for (operation, fault) in faults {
            setting.server.fail_next(1, Some(operation), *fault);
        }
    };
    // During planning, and during the check of write access.
    trouble(&[
        ("HeadObject", Fault::Busy),
        ("GetObject", Fault::Busy),
        ("GetObject", Fault::Internal),
        ("PutObject", Fault::Busy),
    ]);
    let spool = setting
        .spool("s3://uploads/talk.mp4", "s3://media/talk/")
        .env("SPOOL_FFMPEG", ffmpeg.path())
        .env("SPOOL_SLOTS", "1");
    let running = spool.start();
    wait_until("the first encode", Duration::from_secs(60), || (ffmpeg.encodes().len() == 1).then_some(()));
    assert_eq!(setting.server.faults_left(), 0);
    // During the upload of parts, and publication.
    trouble(&[
        ("PutObject", Fault::Busy),
        ("PutObject", Fault::LostAnswer),
        ("PutObject", Fault::Internal),
        ("GetObject", Fault::Busy),
    ]);
    trouble(&[("ListObjectsV2", Fault::Busy), ("ListObjectsV2", Fault::Internal)]);
    ffmpeg.unblock();
    let ran = running.wait();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.expect_no_leftovers();
    assert_eq!(setting.server.faults_left(), 0);
    setting.published("talk/");
}

#[test]
fn a_store_without_conditional_writes_works() {
    let setting = Setting::new();
    setting.server.disable_conditional_writes();
    setting.spool("s3://uploads/talk.mp4", "s3://media/talk/").ok();
    setting.published("talk/");
    let again = setting.spool("s3://uploads/talk.mp4", "s3://media/talk/").ok();
    assert_eq!(again.tally().0, 0);
    setting.published("talk/");
}

#[test]
fn a_source_that_is_replaced_meanwhile_is_reported() {
    let setting = Setting::new();
    let ffmpeg = FfmpegWrapper::new();
    ffmpeg.block_encode(2);
    let spool = setting
        .spool("s3://uploads/talk.mp4", "s3://media/talk/")
        .env("SPOOL_FFMPEG", ffmpeg.path())
        .env("SPOOL_SLOTS", "1");
    let running = spool.start();
    wait_until("the second encode", Duration::from_secs(60), || (ffmpeg.encodes().len() == 2).then_some(()));
    let mut other = std::fs::read(&setting.source).unwrap();
    other.push(0);
    setting.server.put("uploads", "talk.mp4", other);
    ffmpeg.unblock();
    let ran = running.wait();
    refused("changed", &ran, FAILED, Duration::from_secs(60), &["s3://uploads/talk.mp4", "changed", "again"]);
    assert!(setting.server.get("media", "talk/master.m3u8").is_none());
    // The new file is another video: no byte of the old one is used for it.
    let ran = setting.spool("s3://uploads/talk.mp4", "s3://media/talk/").ok();
    assert_eq!(ran.tally(), (5, 0));
}

#[test]
fn an_http_source_gives_an_equal_ladder_with_and_without_ranges() {
    let setting = Setting::new();
    for behavior in [
        Behavior { ranges: true, etag: true },
        Behavior { ranges: false, etag: true },
        Behavior { ranges: true, etag: false },
    ] {
        let web = Web::start(&setting.source, behavior);
        let out = tempfile::tempdir().unwrap();
        let ran = transcode(&web.address, out.path().to_str().unwrap()).ok();
        ran.expect_no_leftovers();
        assert!(
            folder::media(out.path()) == setting.local,
            "ranges {} etag {}",
            behavior.ranges,
            behavior.etag
        );
        let whole = web.log().iter().filter(|answered| answered.range.is_none()).count();
        if behavior.ranges && behavior.etag {
            assert_eq!(whole, 0, "{:?}", web.log());
        } else {
            // Probed by the planner, and dropped after the first byte (so small a file is sent by then);
            // downloaded once for all rows, of which there are five.
            assert!((1..=5).contains(&whole), "{:?}", web.log());
        }
        assert!(web.bytes_sent() > 0);
    }
}

#[test]
fn a_presigned_link_is_never_printed() {
    let setting = Setting::new();
    let web = Web::start(&setting.source, Behavior { ranges: true, etag: true });
    let link = format!("{}?X-Amz-Signature=hunter2", web.address);
    let out = tempfile::tempdir().unwrap();
    let ran = transcode(&link, out.path().to_str().unwrap()).env("SPOOL_PROGRESS", "json").ok();
    let shown = |text: &str| text.contains("hunter2");
    assert!(!shown(&ran.stdout), "{}", ran.stdout);
    assert!(!shown(&ran.stderr), "{}", ran.stderr);
    let telling: Vec<String> = folder::files(out.path())
        .into_iter()
        .filter(|(_, bytes)| shown(&String::from_utf8_lossy(bytes)))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(telling, Vec::<String>::new(), "published files contain the secret");
    // A new signature of the same object is no other video.
    let renewed = format!("{}?X-Amz-Signature=swordfish", web.address);
    assert_eq!(transcode(&renewed, out.path().to_str().unwrap()).ok().tally().0, 0);

    let ran = transcode(&link.replace("127.0.0.1", "127.0.0.2"), out.path().to_str().unwrap()).run();
    refused("no server", &ran, FAILED, GIVES_UP_WITHIN, &["cannot reach", "127.0.0.2"]);
    assert!(!shown(&ran.stderr), "{}", ran.stderr);
}

#[test]
fn file_uris_and_unusual_names_work() {
    let setting = Setting::new();
    let folder = tempfile::tempdir().unwrap();
    for name in ["it's 100% #1?.mp4", "-leading.mp4", "Ærøskøbing.mp4"] {
        let (source, out) = (folder.path().join(name), folder.path().join(format!("out of {name}")));
        std::fs::copy(&setting.source, &source).unwrap();
        transcode(source.to_str().unwrap(), out.to_str().unwrap()).ok();
        assert!(folder::media(&out) == setting.local, "{name}");
        let uri = url::Url::from_file_path(&source).unwrap();
        let again = transcode(uri.as_str(), url::Url::from_file_path(&out).unwrap().as_str()).ok();
        assert_eq!(again.tally().0, 0, "{uri} is another video than {}", Path::display(&source));
    }
}
