//! Finished work is not done again: not by the same command, not for another rung, not after a kill.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use spool_tests::{
    ffmpeg_wrapper::FfmpegWrapper,
    folder, footage,
    run::{CommandOutput, Running, Spool, processes_in, wait_until},
};

/// Time limit of half a job on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Time within which an interrupted command cleans up and ends.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// The clip: rows of 4 s, so one of sound and four of pictures.
const SECONDS: u32 = 16;
const PICTURE_ROWS: u64 = 4;

/// A clip, its destination, and the FFmpeg whose encodes are counted.
struct Setting {
    folder: tempfile::TempDir,
    source: PathBuf,
    out: PathBuf,
    ffmpeg: FfmpegWrapper,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = footage::bunny(folder.path(), "bunny.mp4", SECONDS, 180);
        Self { source, out: folder.path().join("out"), folder, ffmpeg: FfmpegWrapper::new() }
    }

    fn spool(&self, destination: &Path, rungs: &str) -> Spool {
        let (source, destination) = (self.source.to_str().unwrap(), destination.to_str().unwrap());
        // One slot: rows run one after the other, sound last, for it takes the least time.
        let args = [
            "transcode",
            source,
            "-o",
            destination,
            "--ladder",
            rungs,
            "--segment",
            "4",
            "--slots",
            "1",
            "--output",
            "json",
        ];
        Spool::new(args).env("SPOOL_FFMPEG", self.ffmpeg.path())
    }

    fn transcode(&self, rungs: &str) -> CommandOutput {
        let ran = self.spool(&self.out, rungs).ok();
        ran.expect_no_leftovers();
        ran
    }

    /// Starts a job of one row of sound and four of pictures at two rungs, and waits until two rows of
    /// pictures are done and FFmpeg is in the middle of the third.
    fn half(&self, with: impl FnOnce(Spool) -> Spool) -> Running {
        self.ffmpeg.slow_after(2);
        let running = with(self.spool(&self.out, RUNGS)).start();
        wait_until("half of the job", DEADLINE, || {
            let encoding = processes_in(running.scratch.path()).iter().any(|line| line.contains("-readrate"));
            (folder::records(&self.out).len() == 4 && encoding).then_some(())
        });
        assert_eq!(self.ffmpeg.encodes().len(), 3);
        running
    }

    /// Runs the interrupted job again, and expects that only missing parts are encoded and that the result is
    /// that of an uninterrupted job.
    fn resumes(&self, with: impl FnOnce(Spool) -> Spool) -> CommandOutput {
        self.ffmpeg.full_speed();
        self.ffmpeg.clear_log();
        let ran = with(self.spool(&self.out, RUNGS)).ok();
        assert_eq!(ran.tally(), (1 + 2 * (PICTURE_ROWS - 2), 4));
        let encodes = self.ffmpeg.encodes();
        assert_eq!(encodes.len() as u64, PICTURE_ROWS - 1, "{encodes:#?}");
        let whole = self.folder.path().join("whole");
        self.spool(&whole, RUNGS).ok();
        same(&self.out, &whole);
        ran
    }
}

const RUNGS: &str = "180p,90p";

/// Expects equal bytes under equal names, except part records.
fn same(one: &Path, other: &Path) {
    let (one, other) = (folder::media(one), folder::media(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in &one {
        assert!(*bytes == other[name], "{name} differs");
    }
    assert_eq!(folder::reachable(&one), one.into_keys().collect());
}

#[test]
fn the_same_command_encodes_nothing_the_second_time() {
    let setting = Setting::new();
    let first = setting.transcode(RUNGS);
    assert_eq!(first.tally(), (1 + 2 * PICTURE_ROWS, 0));
    // Two rungs are one run of FFmpeg.
    assert_eq!(setting.ffmpeg.encodes().len() as u64, 1 + PICTURE_ROWS, "{:#?}", setting.ffmpeg.encodes());
    let (files, written) = (folder::files(&setting.out), master_written(&setting.out));
    setting.ffmpeg.clear_log();

    let second = setting.transcode(RUNGS);
    assert_eq!(second.tally(), (0, 1 + 2 * PICTURE_ROWS));
    assert_eq!(setting.ffmpeg.encodes(), Vec::<String>::new());
    assert!(folder::files(&setting.out) == files, "a second run changed files");
    assert_eq!(master_written(&setting.out), written, "an unchanged multivariant playlist was written again");
    assert_eq!(second.json()["published"], first.json()["published"]);
}

fn master_written(out: &Path) -> std::time::SystemTime {
    out.join("master.m3u8").metadata().unwrap().modified().unwrap()
}

#[test]
fn another_rung_costs_only_that_rung() {
    let setting = Setting::new();
    setting.transcode("180p");
    let before = folder::media(&setting.out);
    setting.ffmpeg.clear_log();

    let ran = setting.transcode(RUNGS);
    assert_eq!(ran.tally(), (PICTURE_ROWS, 1 + PICTURE_ROWS));
    let encodes = setting.ffmpeg.encodes();
    assert_eq!(encodes.len() as u64, PICTURE_ROWS, "{encodes:#?}");
    assert!(
        encodes.iter().all(|line| line.contains("/90p.mp4") && !line.contains("/180p.mp4")),
        "{encodes:#?}"
    );
    let after = folder::media(&setting.out);
    for (name, bytes) in before.iter().filter(|(name, _)| *name != "master.m3u8") {
        assert!(after.get(name) == Some(bytes), "{name} changed");
    }
    // A rung that is encoded alone is equal to the one that is encoded beside others.
    let together = setting.folder.path().join("together");
    setting.spool(&together, RUNGS).ok();
    same(&setting.out, &together);
}

#[test]
fn a_killed_job_resumes_and_leaves_nothing_behind() {
    let setting = Setting::new();
    let scratch = tempfile::tempdir().unwrap();
    let running = setting.half(|spool| spool.scratch(scratch.path()));
    running.signal(Signal::SIGKILL);
    let killed = running.wait();
    assert_eq!(killed.code, None);
    // A killed process cannot stop its FFmpeg: FFmpeg must end by itself.
    killed.expect_no_processes();
    assert!(!setting.out.join("master.m3u8").exists());
    assert!(
        !killed.leftover_files.is_empty(),
        "a killed process cannot clean up; this one was not killed half-way"
    );

    let ran = setting.resumes(|spool| spool.scratch(scratch.path()));
    ran.expect_no_leftovers();
}

#[test]
fn an_early_playlist_only_grows_though_its_writer_is_killed() {
    let setting = Setting::new();
    // Sound and two rows of pictures are done; the third waits.
    setting.ffmpeg.block_encode(4);
    let early = |spool: Spool| spool.env("SPOOL_EARLY_PLAYBACK", "true");
    let running = early(setting.spool(&setting.out, RUNGS)).start();
    let read = || std::fs::read_to_string(setting.out.join("90p/early.m3u8")).unwrap_or_default();
    wait_until("two rows that can be played", DEADLINE, || {
        (read().matches(".m4s").count() == 2).then_some(())
    });
    running.signal(Signal::SIGKILL);
    running.wait();

    setting.ffmpeg.unblock();
    let before = read();
    let (mut seen, mut running) = (vec![before.clone()], early(setting.spool(&setting.out, RUNGS)).start());
    while running.child.try_wait().unwrap().is_none() {
        let now = read();
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    let ran = running.wait();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    seen.push(read());
    assert!(seen.windows(2).all(|pair| pair[1].starts_with(&pair[0])), "{seen:#?}");
    assert!(
        before.len() < seen[seen.len() - 1].len() && seen[seen.len() - 1].ends_with("#EXT-X-ENDLIST\n"),
        "{seen:#?}"
    );
}

#[test]
fn ctrl_c_cleans_up_at_once_and_the_same_command_resumes() {
    stops(Signal::SIGINT);
}

#[test]
fn sigterm_cleans_up_at_once_and_the_same_command_resumes() {
    stops(Signal::SIGTERM);
}

fn stops(signal: Signal) {
    let setting = Setting::new();
    let running = setting.half(|spool| spool);
    let sent = Instant::now();
    running.signal(signal);
    let ran = running.wait();
    assert!(sent.elapsed() < STOP_DEADLINE, "it took {:?} to stop", sent.elapsed());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(ran.stderr.contains("interrupted: run the same command again"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    ran.expect_no_leftovers();
    assert!(!setting.out.join("master.m3u8").exists());
    setting.resumes(|spool| spool);
}

#[test]
fn ctrl_c_cancels_a_running_statement() {
    let setting = Setting::new();
    setting.ffmpeg.slow_after(0);
    let sql = format!(
        "SELECT count(part) FROM (SELECT transcode(segment, '90p', '{}') AS part FROM segments('{}'))",
        setting.out.display(),
        setting.source.display()
    );
    let running =
        Spool::new(["sql", "--slots", "1", "-c", &sql]).env("SPOOL_FFMPEG", setting.ffmpeg.path()).start();
    wait_until("an encode", DEADLINE, || {
        processes_in(running.scratch.path()).iter().any(|line| line.contains("-readrate")).then_some(())
    });
    let sent = Instant::now();
    running.signal(Signal::SIGINT);
    let ran = running.wait();
    assert!(sent.elapsed() < STOP_DEADLINE, "it took {:?} to stop", sent.elapsed());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    ran.expect_no_leftovers();
}

#[test]
fn two_commands_share_a_scratch_folder() {
    let setting = Setting::new();
    let scratch = tempfile::tempdir().unwrap();
    let running = setting.half(|spool| spool.scratch(scratch.path()));
    // The engine's results are deleted once they were fetched.
    let kept = |name: &String| !name.contains("/engine/");
    let before = folder::files(scratch.path()).into_keys().filter(kept).collect::<BTreeSet<_>>();
    assert!(!before.is_empty());
    let other = Spool::new(["probe", setting.source.to_str().unwrap()]).scratch(scratch.path()).ok();
    assert_eq!(other.leftover_files.len(), 1, "{:?}", other.leftover_files);
    let after = folder::files(scratch.path()).into_keys().collect::<BTreeSet<_>>();
    assert!(before.is_subset(&after), "gone: {:?}", before.difference(&after).collect::<Vec<_>>());
    running.signal(Signal::SIGINT);
    running.wait().expect_no_leftovers();
}

#[test]
fn gc_deletes_exactly_the_dropped_rungs() {
    let setting = Setting::new();
    let out = &setting.out;
    let sweep = |more: &[&str]| {
        let args = ["gc", out.to_str().unwrap(), "--output", "json"];
        let ran = Spool::new(args.iter().chain(more)).ok();
        ran.expect_no_leftovers();
        ran.json()
    };
    setting.transcode(RUNGS);
    let dropped = |name: &str| name.starts_with("90p/");
    let records = folder::records(out);
    let dropped_records: BTreeSet<&String> = records
        .iter()
        .filter(|(_, record)| record["rendition"]["name"] == "90p")
        .map(|(path, _)| path)
        .collect();
    assert_eq!(dropped_records.len() as u64, PICTURE_ROWS);
    let published_twice = folder::files(out);
    let dropped_bytes: u64 =
        published_twice.iter().filter(|(name, _)| dropped(name)).map(|(_, bytes)| bytes.len() as u64).sum();
    setting.transcode("180p");
    let before = folder::files(out);
    assert_eq!(before.len(), published_twice.len(), "publishing deletes nothing");

    // Parts that a job may still be about to publish stay.
    let young = sweep(&["--grace-hours", "1"]);
    assert_eq!((&young["records"], &young["objects"]), (&0.into(), &0.into()));
    assert!(folder::files(out) == before);

    let planned = sweep(&["--grace-hours", "0", "--dry-run"]);
    assert!(folder::files(out) == before, "a dry run changed something");
    let objects = before.keys().filter(|name| dropped(name)).count();
    assert_eq!(planned["records"], PICTURE_ROWS);
    assert_eq!(planned["objects"], objects);
    assert_eq!(planned["bytes"], dropped_bytes);

    let done = sweep(&["--grace-hours", "0"]);
    assert_eq!(done, planned, "the deletion differs from the dry run");
    let expected: BTreeSet<&String> =
        before.keys().filter(|name| !dropped(name) && !dropped_records.contains(name)).collect();
    let after = folder::files(out);
    assert_eq!(after.keys().collect::<BTreeSet<_>>(), expected);
    let media = folder::media(out);
    assert_eq!(folder::reachable(&media), media.into_keys().collect());

    // The remaining parts are found, and deleted ones are encoded again.
    assert_eq!(setting.transcode("180p").tally(), (0, 1 + PICTURE_ROWS));
    assert_eq!(setting.transcode(RUNGS).tally(), (PICTURE_ROWS, 1 + PICTURE_ROWS));
    assert!(
        folder::media(out)
            == published_twice.into_iter().filter(|(name, _)| !name.starts_with("parts/")).collect()
    );
}

/// A job that read a record before it was tombstoned may publish its objects later: they stay for the grace
/// period, counted from the tombstone.
#[test]
fn tombstoned_parts_wait_for_the_grace_period() {
    let setting = Setting::new();
    setting.transcode("180p,90p");
    setting.transcode("180p");
    let sweep = || {
        Spool::new(["gc", setting.out.to_str().unwrap(), "--grace-hours", "24", "--output", "json"])
            .ok()
            .json()
    };
    let age = || folder::age(&setting.out, Duration::from_secs(48 * 3600));
    assert_eq!(sweep()["records"], 0, "all parts are young");

    age();
    let first = sweep();
    // Only the dropped rung's playlist goes at once: a publication writes it anew.
    assert_eq!(
        (first["records"].as_u64(), first["objects"].as_u64()),
        (Some(PICTURE_ROWS), Some(1)),
        "{first}"
    );
    let waiting = first["waiting"].as_u64().unwrap();
    assert!(waiting > PICTURE_ROWS, "{first}");
    let again = sweep();
    assert_eq!((again["records"].as_u64(), again["waiting"].as_u64()), (Some(0), Some(waiting)), "{again}");

    age();
    let last = sweep();
    assert_eq!((last["objects"].as_u64(), last["waiting"].as_u64()), (Some(waiting), Some(0)), "{last}");
    assert!(!setting.out.join("90p").read_dir().is_ok_and(|mut left| left.next().is_some()));
    // All parts in use are there, and deleted ones are encoded again on demand.
    assert_eq!(setting.transcode("180p").tally().0, 0);
    assert_eq!(setting.transcode("180p,90p").tally().0, PICTURE_ROWS);
}
