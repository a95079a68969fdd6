//! Ladders of the sources that people upload are exact. The table is in `spool_tests::sources`: a dozen of it
//! always, all of it with SPOOL_TEST_FULL=1.
#![expect(clippy::unwrap_used, reason = "whatever goes wrong fails the test")]

use std::{
    panic::catch_unwind,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use spool_tests::{
    check, folder,
    run::{Spool, wait_until},
    sources::{self, Source},
};

/// Sources at a time: each has its own transcode and FFmpegs.
const AT_A_TIME: usize = 2;

/// Transcodes a source in rows of four seconds, and returns the flaws of its ladder.
fn flaws(source: &Source) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = source.clip.make(folder.path(), source.name);
    let destination = folder.path().join("ladder");
    let args = [
        "--ladder",
        source.ladder,
        "--segment",
        "4",
        "--media-segment",
        "2",
        "--output",
        "json",
        "--progress",
        "none",
    ];
    let paths = ["transcode".as_ref(), path.as_os_str(), "-o".as_ref(), destination.as_os_str()];
    let run = Spool::new(paths.into_iter().chain(args.iter().chain(source.more).map(AsRef::as_ref))).run();
    if run.code != Some(0) {
        return vec![format!("{}: {}", source.name, run.stderr)];
    }
    let mut flaws: Vec<String> = Vec::new();
    if run.stderr.contains("warning") {
        flaws.push(run.stderr);
    }
    flaws.extend(check::all(&destination, &source.clip, &path).iter().map(ToString::to_string));
    flaws.into_iter().map(|flaw| format!("{}: {flaw}", source.name)).collect()
}

#[test]
fn every_source_of_the_table_becomes_an_exact_ladder() {
    let full = std::env::var_os("SPOOL_TEST_FULL").is_some();
    let only = std::env::var("SPOOL_TEST_SOURCES").ok();
    let wanted = |source: &Source| match &only {
        Some(names) => names.split(',').any(|name| name == source.name),
        None => full || source.always,
    };
    let sources: Vec<Source> = sources::all().into_iter().filter(wanted).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A source that cannot be made or checked is a flaw too, and the others go on.
                    let flaws = catch_unwind(|| flaws(source))
                        .unwrap_or_else(|_| vec![format!("{}: see above", source.name)]);
                    println!("{}: {}", source.name, if flaws.is_empty() { "exact" } else { "NOT EXACT" });
                    found.lock().unwrap().extend(flaws);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert!(found.is_empty(), "{} of {} sources:\n{}", found.len(), sources.len(), found.join("\n"));
}

#[test]
fn the_docs_have_the_table() {
    let path = spool_tests::repository::root().join("docs/sources.md");
    if std::env::var_os("SPOOL_WRITE_DOCS").is_some() {
        std::fs::write(&path, sources::table()).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).is_ok_and(|text| text == sources::table()),
        "docs/sources.md is out of date: run `make docs`"
    );
}

/// Six of the table, of all kinds.
const SIX: [&str; 6] = ["phone", "ts-wrap", "interlaced", "hdr10", "surround", "to-all"];

#[test]
fn a_killed_and_repeated_job_has_equal_bytes() {
    let full = std::env::var_os("SPOOL_TEST_FULL").is_some();
    let sources = sources::all().into_iter().filter(|source| SIX.contains(&source.name));
    for source in sources.take(if full { SIX.len() } else { 1 }) {
        let folder = tempfile::tempdir().unwrap();
        let path = source.clip.make(folder.path(), source.name);
        let spool = |destination: &std::path::Path| {
            let args = [
                "--ladder",
                source.ladder,
                "--segment",
                "4",
                "--media-segment",
                "2",
                "--progress",
                "none",
                "--slots",
                "1",
            ];
            let paths = ["transcode".as_ref(), path.as_os_str(), "-o".as_ref(), destination.as_os_str()];
            Spool::new(paths.into_iter().chain(args.iter().chain(source.more).map(AsRef::as_ref)))
        };
        let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
        spool(&whole).ok();
        let running = spool(&killed).start();
        let records = || std::fs::read_dir(killed.join("parts")).map_or(0, Iterator::count);
        wait_until("a finished part", Duration::from_secs(60), || (records() > 0).then_some(()));
        running.signal(Signal::SIGKILL);
        running.wait();
        spool(&killed).ok();
        let (whole, killed) = (folder::media(&whole), folder::media(&killed));
        // A file that a killed process was writing is no object, and stays until garbage collection.
        let object = |name: &&String| !name.ends_with(".tmp");
        let differing: Vec<_> = whole
            .keys()
            .chain(killed.keys())
            .filter(object)
            .filter(|name| whole.get(*name) != killed.get(*name))
            .collect();
        assert!(differing.is_empty(), "{}: {differing:?}", source.name);
    }
}
