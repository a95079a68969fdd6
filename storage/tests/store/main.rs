//! Conformance suite of stores, run against local files and against S3 with checked signatures; then tests of
//! each alone.
#![expect(clippy::unwrap_used, reason = "tests; clippy knows only those of one function as such")]

mod folders;
#[path = "../../../tests/src/s3.rs"]
#[expect(dead_code, reason = "the library of the whole-system tests, of which this needs a part")]
mod s3;
mod web;

use std::{path::Path, time::Instant};

use bytes::Bytes;
use futures::{TryStreamExt, future::join_all};
use s3::{Fault, S3Server};
use spool_storage::{Entry, Error, ErrorKind, Location, ObjectKind, PutOutcome, Stores};
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Bytes of which no two neighbouring blocks are equal, so that a misplaced part is detected.
fn patterned(length: usize) -> Bytes {
    (0..length.div_ceil(8) as u64)
        .flat_map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes())
        .take(length)
        .collect()
}

async fn content_of(location: &Location) -> Bytes {
    location.read().await.unwrap().unwrap().0
}

async fn listed(location: &Location) -> Vec<(String, u64)> {
    let entries: Vec<Entry> = location.list().try_collect().await.unwrap();
    let mut entries: Vec<_> = entries.into_iter().map(|entry| (entry.relative, entry.bytes)).collect();
    entries.sort();
    entries
}

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod local {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let directory = tempfile::tempdir().unwrap();
                    let stores = super::Stores::with_options([("", "")]);
                    let root = stores.locate(directory.path().join("out").to_str().unwrap()).unwrap();
                    super::$name(&stores, &root).await;
                }
            )*
        }
        mod on_s3 {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let server = super::S3Server::start(&["media"]);
                    let stores = super::Stores::with_options(server.env());
                    let root = stores.locate("s3://media/out").unwrap();
                    super::$name(&stores, &root).await;
                }
            )*
        }
    };
}

conformance! {
    what_is_put_is_read,
    names_may_have_any_characters,
    nothing_is_found_where_nothing_is,
    of_many_creators_one_wins,
    of_many_replacers_one_wins_each_round,
    ranges_are_what_was_asked_for,
    a_source_that_changes_is_an_error,
    large_files_go_there_and_back,
    listings_show_objects_only,
}

async fn what_is_put_is_read(stores: &Stores, root: &Location) {
    let location = root.child("a/b.json");
    location.put(text("one"), ObjectKind::Record).await.unwrap();
    location.put(text("two!"), ObjectKind::Record).await.unwrap();
    assert_eq!(content_of(&location).await, "two!");
    assert_eq!(location.size().await.unwrap(), Some(4));
    assert_eq!(content_of(&stores.locate(location.uri()).unwrap()).await, "two!", "{}", location.uri());
    assert_eq!(location.name(), "b.json");
    location.delete().await.unwrap();
    location.delete().await.unwrap();
    assert_eq!(location.size().await.unwrap(), None);
    root.child("empty").put(Bytes::new(), ObjectKind::InitSegment).await.unwrap();
    assert_eq!(content_of(&root.child("empty")).await, "");
}

async fn names_may_have_any_characters(stores: &Stores, root: &Location) {
    let names = [
        "with blank.mp4",
        "100%.mp4",
        "take#1",
        "take#12/x.mp4",
        "what?.mp4",
        "a%20b",
        "ünïcödé 日本.mp4",
        "a+b&c=d;e.mp4",
        "[x]{y}~'\"*.mp4",
    ];
    for name in names {
        let location = root.child(name);
        location.create(text(name), ObjectKind::MediaSegment).await.unwrap();
        let again = stores.locate(location.uri()).unwrap();
        assert_eq!(content_of(&again).await, name);
        let reader = again.open().await.unwrap();
        assert_eq!(reader.read(0..name.len() as u64).await.unwrap(), name);
        assert_eq!(again.name(), name.rsplit('/').next().unwrap());
    }
    let mut expected: Vec<_> = names.iter().map(|name| ((*name).to_owned(), name.len() as u64)).collect();
    expected.sort();
    assert_eq!(listed(root).await, expected);
    // No child lies outside of its location.
    assert!(root.child("../../x").uri().starts_with(root.uri()), "{}", root.child("../../x").uri());
    assert!(!root.child("../../x").uri().contains("/../"));
}

async fn nothing_is_found_where_nothing_is(_: &Stores, root: &Location) {
    root.child("there/file").put(text("x"), ObjectKind::Record).await.unwrap();
    for location in [root.child("nothing"), root.child("no/thing")] {
        assert!(location.read().await.unwrap().is_none());
        assert_eq!(location.size().await.unwrap(), None);
        let error = location.open().await.unwrap_err();
        assert!(matches!(&error, Error::NotFound { uri } if uri == location.uri()), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(listed(&location).await, []);
    }
    // A folder is no object.
    let error = root.child("there").open().await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. } | Error::NotAFile { .. }), "{error:?}");
}

async fn of_many_creators_one_wins(_: &Stores, root: &Location) {
    let location = root.child("parts/key.json");
    let created = join_all((0..16).map(|i| {
        let location = location.clone();
        tokio::spawn(async move {
            (i, location.create(text(&format!("creator {i}")), ObjectKind::Record).await.unwrap())
        })
    }));
    let winners: Vec<_> = created
        .await
        .into_iter()
        .map(Result::unwrap)
        .filter(|(_, created)| *created == PutOutcome::Written)
        .collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(content_of(&location).await, format!("creator {}", winners[0].0));
}

async fn of_many_replacers_one_wins_each_round(_: &Stores, root: &Location) {
    let location = root.child("master.m3u8");
    for round in 0..4 {
        let version = location.read().await.unwrap().map(|(_, version)| version);
        assert_eq!(version.is_none(), round == 0);
        let replaced = join_all((0..16).map(|i| {
            let (location, version) = (location.clone(), version.clone());
            // All of the same length: size alone must not tell them apart.
            let bytes = text(&format!("round {round} by {i:02}"));
            tokio::spawn(async move {
                (
                    bytes.clone(),
                    location
                        .replace(bytes, ObjectKind::MultivariantPlaylist, version.as_ref())
                        .await
                        .unwrap(),
                )
            })
        }));
        let winners: Vec<_> = replaced
            .await
            .into_iter()
            .map(Result::unwrap)
            .filter(|(_, r)| *r == PutOutcome::Written)
            .collect();
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(content_of(&location).await, winners[0].0);
    }
    // A delayed writer cannot overwrite a newer version.
    let (_, old) = location.read().await.unwrap().unwrap();
    assert_eq!(
        location.replace(text("new"), ObjectKind::MultivariantPlaylist, Some(&old)).await.unwrap(),
        PutOutcome::Written
    );
    assert_eq!(
        location.replace(text("old"), ObjectKind::MultivariantPlaylist, Some(&old)).await.unwrap(),
        PutOutcome::PreconditionFailed
    );
    assert_eq!(
        location.replace(text("old"), ObjectKind::MultivariantPlaylist, None).await.unwrap(),
        PutOutcome::PreconditionFailed
    );
    let gone = root.child("gone.m3u8");
    assert_eq!(
        gone.replace(text("x"), ObjectKind::MultivariantPlaylist, Some(&old)).await.unwrap(),
        PutOutcome::PreconditionFailed
    );
    assert_eq!(content_of(&location).await, "new");
}

async fn ranges_are_what_was_asked_for(_: &Stores, root: &Location) {
    let (location, bytes) = (root.child("source.mp4"), patterned(100_000));
    location.put(bytes.clone(), ObjectKind::InitSegment).await.unwrap();
    let reader = location.open().await.unwrap();
    assert_eq!((reader.source().bytes, reader.source().uri.as_str()), (100_000, location.uri()));
    assert!(!reader.must_download());
    for range in [0..1, 0..100_000, 99_999..100_000, 500..500, 100_000..100_000, 1234..56_789] {
        assert_eq!(
            reader.read(range.clone()).await.unwrap(),
            bytes[range.start as usize..range.end as usize],
            "{range:?}"
        );
    }
    assert_eq!(reader.bytes_read(), 1 + 100_000 + 1 + (56_789 - 1234));
    for range in [0..100_001, 100_001..100_002, u64::MAX - 1..u64::MAX] {
        let error = reader.read(range).await.unwrap_err();
        assert!(matches!(error, Error::OutOfRange { bytes: 100_000, .. }), "{error:?}");
    }
}

async fn a_source_that_changes_is_an_error(_: &Stores, root: &Location) {
    let location = root.child("source.mp4");
    location.put(patterned(1000), ObjectKind::InitSegment).await.unwrap();
    let reader = location.open().await.unwrap();
    let pinned = reader.source().clone();
    assert_eq!(location.open_pinned(&pinned).await.unwrap().source(), &pinned);
    // The same length as before, immediately afterwards.
    location.put(Bytes::from(vec![0; 1000]), ObjectKind::InitSegment).await.unwrap();
    let directory = TempDir::new().unwrap();
    let target = directory.path().join("copy");
    let errors = [
        reader.read(0..10).await.unwrap_err(),
        reader.save(&target).await.unwrap_err(),
        location.open_pinned(&pinned).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, Error::SourceChanged { uri } if uri == location.uri()), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::BadInput);
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a failed save leaves nothing");
    // Cut short: the same error, not one about ranges.
    location.put(Bytes::from(vec![0; 10]), ObjectKind::InitSegment).await.unwrap();
    assert!(matches!(reader.read(900..1000).await.unwrap_err(), Error::SourceChanged { .. }));
}

async fn large_files_go_there_and_back(_: &Stores, root: &Location) {
    let directory = TempDir::new().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let bytes = patterned(20 * MIB + 12_345);
    std::fs::write(&from, &bytes).unwrap();
    let location = root.child("1080p/large.mp4");
    location.put_file(&from, ObjectKind::InitSegment).await.unwrap();
    let reader = location.open().await.unwrap();
    reader.save(&to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == bytes);
    assert_eq!(reader.bytes_read(), bytes.len() as u64);
    assert!(reader.read(5..bytes.len() as u64).await.unwrap() == bytes[5..]);
    root.child("again").put(bytes.clone(), ObjectKind::InitSegment).await.unwrap();
    assert_eq!(root.child("again").size().await.unwrap(), Some(bytes.len() as u64));
    let error = root.child("again").read().await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    let error =
        location.put_file(&directory.path().join("nothing"), ObjectKind::InitSegment).await.unwrap_err();
    assert!(error.to_string().contains("nothing") && error.kind() == ErrorKind::NotFound, "{error}");
}

async fn listings_show_objects_only(_: &Stores, root: &Location) {
    assert_eq!(listed(root).await, []);
    for name in ["a/1.m4s", "a/2.m4s", "ab/3.m4s", "master.m3u8"] {
        root.child(name).put(text(name), ObjectKind::MediaSegment).await.unwrap();
    }
    let version = root.child("master.m3u8").read().await.unwrap().unwrap().1;
    root.child("master.m3u8")
        .replace(text("x"), ObjectKind::MultivariantPlaylist, Some(&version))
        .await
        .unwrap();
    let names = |entries: Vec<(String, u64)>| entries.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(listed(root).await), ["a/1.m4s", "a/2.m4s", "ab/3.m4s", "master.m3u8"]);
    assert_eq!(names(listed(&root.child("a")).await), ["1.m4s", "2.m4s"]);
    for entry in listed(root).await {
        root.child(&entry.0).delete().await.unwrap();
    }
    assert_eq!(listed(root).await, []);
}

/// A server with a bucket, and a location in it.
fn s3() -> (S3Server, Location) {
    let server = S3Server::start(&["media"]);
    let location = Stores::with_options(server.env()).locate("s3://media/out/x").unwrap();
    (server, location)
}

fn without(variables: Vec<(String, String)>, name: &str) -> Vec<(String, String)> {
    variables.into_iter().filter(|(key, _)| key != name).collect()
}

#[tokio::test]
async fn objects_say_what_they_are() {
    let (server, location) = s3();
    let large = patterned(9 * MIB);
    for (content, bytes) in [
        (ObjectKind::MediaSegment, large),
        (ObjectKind::MultivariantPlaylist, text("m")),
        (ObjectKind::Record, text("r")),
    ] {
        location.put(bytes, content).await.unwrap();
        let stored = server.get("media", "out/x").unwrap();
        assert_eq!(stored.content_type.as_deref(), Some(content.media_type()));
        assert_eq!(stored.cache_control.as_deref(), Some(content.cache_control()));
    }
}

#[tokio::test]
async fn an_upload_has_its_own_media_type_whether_it_comes_in_one_request_or_in_parts() {
    let (server, location) = s3();
    let kind = ObjectKind::Upload("video/quicktime");
    let stored_type = || server.get("media", "out/x").unwrap().content_type;
    location.put(text("whole"), kind).await.unwrap();
    assert_eq!(stored_type().as_deref(), Some("video/quicktime"));
    location.delete().await.unwrap();
    let upload = location.create_multipart(kind).await.unwrap();
    let part = location.put_part(&upload, 0, 0, text("in parts")).await.unwrap();
    location.complete_multipart(&upload, &[part], 8).await.unwrap();
    assert_eq!(stored_type().as_deref(), Some("video/quicktime"));
    assert_eq!(content_of(&location).await, "in parts");
    // A created upload can be aborted by its ID.
    let upload = location.create_multipart(kind).await.unwrap();
    assert!(!upload.is_empty() && server.unfinished_uploads() == 1);
    location.abort_multipart(&upload).await.unwrap();
    assert_eq!(server.unfinished_uploads(), 0);
}

#[tokio::test]
async fn a_large_upload_goes_in_parts_and_a_failed_one_is_aborted() {
    let (server, location) = s3();
    location.put(patterned(20 * MIB), ObjectKind::MediaSegment).await.unwrap();
    assert_eq!(
        (server.count("UploadPart"), server.count("CompleteMultipartUpload"), server.count("PutObject")),
        (3, 1, 0)
    );
    assert_eq!(server.unfinished_uploads(), 0);
    server.fail_next(1, Some("UploadPart"), Fault::Denied);
    let error = location.put(patterned(20 * MIB), ObjectKind::MediaSegment).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAllowed);
    // The abort runs in the background; the test waits for its end.
    while server.count("AbortMultipartUpload") == 0 || server.unfinished_uploads() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn only_what_is_needed_is_read() {
    let (server, location) = s3();
    server.put("media", "out/x", patterned(30 * MIB));
    let reader = location.open().await.unwrap();
    reader.read(1000..2000).await.unwrap();
    assert_eq!((server.bytes_sent(), server.count("GetObject"), server.count("HeadObject")), (1000, 1, 1));
    assert_eq!(server.requests()[1].range, Some((1000, 1999)));
    reader.read(0..20 * MIB as u64).await.unwrap();
    assert_eq!((server.bytes_sent(), server.count("GetObject")), (1000 + 20 * MIB as u64, 4));
}

#[tokio::test]
async fn transient_failures_are_asked_again() {
    let (server, location) = s3();
    for fault in [Fault::Busy, Fault::Internal] {
        server.fail_next(2, None, fault);
        location.put(text("x"), ObjectKind::Record).await.unwrap();
        server.fail_next(1, None, fault);
        assert_eq!(content_of(&location).await, "x");
    }
    assert_eq!(server.faults_left(), 0);
    server.fail_next(5, None, Fault::Busy);
    let error = location.read().await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { uri, .. } if uri == "s3://media/out/x"), "{error:?}");
    assert!(error.to_string().contains("503 SlowDown") && error.kind() == ErrorKind::Transient, "{error}");
    assert_eq!(server.faults_left(), 0, "five tries, no more and no less");
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_no_conflict_with_itself() {
    let (server, location) = s3();
    server.fail_next(1, Some("PutObject"), Fault::LostAnswer);
    let created = location.create(text("one"), ObjectKind::Record).await.unwrap();
    assert_eq!((created, content_of(&location).await), (PutOutcome::AlreadyExists, text("one")));
    let version = location.read().await.unwrap().unwrap().1;
    server.fail_next(1, Some("PutObject"), Fault::LostAnswer);
    assert_eq!(
        location.replace(text("two"), ObjectKind::Record, Some(&version)).await.unwrap(),
        PutOutcome::Written
    );
    assert_eq!(content_of(&location).await, "two");
    // 409 without a winner is not another writer's object.
    location.delete().await.unwrap();
    server.fail_next(1, Some("PutObject"), Fault::Conflict);
    assert_eq!(location.create(text("three"), ObjectKind::Record).await.unwrap(), PutOutcome::Written);
}

#[tokio::test]
async fn a_request_without_an_answer_is_given_up_and_repeated() {
    let server = S3Server::start(&["media"]);
    let impatient = server.env().into_iter().chain([("AWS_TIMEOUT".to_owned(), "300ms".to_owned())]);
    let location = Stores::with_options(impatient).locate("s3://media/x").unwrap();
    let forever = std::time::Duration::from_secs(600);
    server.fail_next(1, Some("PutObject"), Fault::Stall(forever));
    assert_eq!(location.create(text("x"), ObjectKind::Record).await.unwrap(), PutOutcome::Written);
    server.fail_next(1, Some("GetObject"), Fault::Stall(forever));
    assert_eq!(content_of(&location).await, "x");
    assert_eq!(server.faults_left(), 0);
}

#[tokio::test]
async fn a_store_without_conditions_is_checked_first() {
    let (server, location) = s3();
    server.disable_conditional_writes();
    checked_first(&location).await;
    let disabled =
        server.env().into_iter().chain([("AWS_CONDITIONAL_PUT".to_owned(), "disabled".to_owned())]);
    checked_first(&Stores::with_options(disabled).locate("s3://media/y").unwrap()).await;
}

async fn checked_first(location: &Location) {
    assert_eq!(location.create(text("one"), ObjectKind::Record).await.unwrap(), PutOutcome::Written);
    assert_eq!(location.create(text("two"), ObjectKind::Record).await.unwrap(), PutOutcome::AlreadyExists);
    let (bytes, version) = location.read().await.unwrap().unwrap();
    assert_eq!(bytes, "one");
    assert_eq!(
        location.replace(text("x"), ObjectKind::Record, None).await.unwrap(),
        PutOutcome::PreconditionFailed
    );
    assert_eq!(
        location.replace(text("three"), ObjectKind::Record, Some(&version)).await.unwrap(),
        PutOutcome::Written
    );
    assert_eq!(
        location.replace(text("four"), ObjectKind::Record, Some(&version)).await.unwrap(),
        PutOutcome::PreconditionFailed
    );
    assert_eq!(content_of(location).await, "three");
}

#[tokio::test]
async fn a_wrong_secret_is_not_allowed_and_not_shown() {
    let server = S3Server::start(&["media"]);
    let variables = without(server.env(), "AWS_SECRET_ACCESS_KEY").into_iter();
    let stores =
        Stores::with_options(variables.chain([("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned())]));
    let location = stores.locate("s3://media/x").unwrap();
    for error in
        [location.read().await.unwrap_err(), location.put(text("x"), ObjectKind::Record).await.unwrap_err()]
    {
        let message = format!("{error} {error:?} {stores:?} {location:?}");
        assert_eq!(error.kind(), ErrorKind::NotAllowed, "{message}");
        assert!(
            error
                .to_string()
                .contains("s3://media/x: HTTP 403 SignatureDoesNotMatch; check AWS_SECRET_ACCESS_KEY"),
            "{message}"
        );
        assert!(!message.contains("hunter2") && !message.contains("Signature="), "{message}");
    }
    // HEAD has no body with an error code.
    assert_eq!(location.open().await.unwrap_err().kind(), ErrorKind::NotAllowed);
}

#[tokio::test]
async fn missing_credentials_fail_at_once() {
    let server = S3Server::start(&["media"]);
    let begun = Instant::now();
    let variables = without(without(server.env(), "AWS_SECRET_ACCESS_KEY"), "AWS_ACCESS_KEY_ID");
    let error = Stores::with_options(variables).locate("s3://media/x").unwrap().open().await.unwrap_err();
    assert!(error.to_string().contains("no credentials were found; set AWS_ACCESS_KEY_ID"), "{error}");
    assert_eq!(error.kind(), ErrorKind::NotAllowed);
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    let halved = without(server.env(), "AWS_SECRET_ACCESS_KEY");
    let error = Stores::with_options(halved).locate("s3://media/x").unwrap_err();
    assert!(matches!(error, Error::Configuration { .. }), "{error:?}");
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let server = S3Server::start(&[]);
    let location = Stores::with_options(server.env()).locate("s3://missing/x/y").unwrap();
    let errors = [
        location.open().await.unwrap_err(),
        location.read().await.unwrap_err(),
        location.size().await.unwrap_err(),
        location.put(text("x"), ObjectKind::Record).await.unwrap_err(),
        location.put(patterned(9 * MIB), ObjectKind::Record).await.unwrap_err(),
        location.create(text("x"), ObjectKind::Record).await.unwrap_err(),
        location.list().try_collect::<Vec<_>>().await.unwrap_err(),
        location.delete().await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, Error::NoBucket { bucket } if bucket == "s3://missing"), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_server_that_is_down_fails_within_seconds() {
    let (mut server, location) = s3();
    location.put(text("x"), ObjectKind::Record).await.unwrap();
    server.stop();
    let begun = Instant::now();
    let error = location.read().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(
        error.to_string().contains("Connection refused") && error.kind() == ErrorKind::Transient,
        "{error}"
    );
    assert!(begun.elapsed().as_secs() < 18, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_whole_bucket_is_a_location() {
    let server = S3Server::start(&["media"]);
    let stores = Stores::with_options(server.env());
    let (one, two) =
        (stores.locate("s3://media/a").unwrap(), stores.locate("s3://media").unwrap().child("a"));
    one.put(text("x"), ObjectKind::Record).await.unwrap();
    assert_eq!((content_of(&two).await, one.uri()), (text("x"), two.uri()));
    assert_eq!(listed(&stores.locate("s3://media/").unwrap()).await, [("a".to_owned(), 1)]);
}
