//! A cluster loses nothing but machines: executors join, drain, freeze and die; the scheduler restarts;
//! clients cancel.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use spool_tests::{
    cluster::{Clock, Cluster, Network},
    ffmpeg_wrapper::FfmpegWrapper,
    folder, footage, privilege,
    run::{CommandOutput, Running, Spool, wait_until},
};

/// Time limit of a job on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// The clip: rows of 2 s, so one of sound and eight of pictures.
const SECONDS: u32 = 16;
const ROWS: usize = 9;

/// An executor without a heartbeat for this long counts as lost.
const TIMEOUT: [&str; 2] = ["--executor-timeout", "3"];

/// A clip, the ladder that one process makes of it, and the FFmpeg whose encodes are counted.
struct Setting {
    folder: tempfile::TempDir,
    source: PathBuf,
    ffmpeg: FfmpegWrapper,
    expected: BTreeMap<String, Vec<u8>>,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = footage::bunny(folder.path(), "bunny.mp4", SECONDS, 90);
        let mut setting = Self { source, folder, ffmpeg: FfmpegWrapper::new(), expected: BTreeMap::new() };
        let alone = setting.folder.path().join("alone");
        let args = setting.args(&alone);
        Spool::new(&args).ok();
        setting.expected = folder::media(&alone);
        setting
    }

    fn args(&self, out: &std::path::Path) -> Vec<String> {
        let (source, out) = (self.source.to_str().unwrap(), out.to_str().unwrap());
        let args = [
            "transcode",
            source,
            "-o",
            out,
            "--ladder",
            "90p,60p",
            "--segment",
            "2",
            "--media-segment",
            "1",
            "--output",
            "json",
        ];
        args.iter().map(|arg| (*arg).to_owned()).collect()
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn start(&self, cluster: &Cluster) -> Running {
        let args = self.args(&self.out());
        cluster.spool(&args.iter().map(String::as_str).collect::<Vec<_>>()).start()
    }

    /// Sets the least time of an encode.
    fn take(&self, seconds: f64) {
        self.ffmpeg.before_each(&format!("sleep {seconds}"));
    }

    fn published(&self) -> bool {
        self.out().join("master.m3u8").exists()
    }

    fn records(&self) -> usize {
        folder::records(&self.out()).len()
    }

    /// Expects that a job succeeded, with the bytes of an undisturbed one.
    fn made_the_same(&self, ran: &CommandOutput) {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let made = folder::media(&self.out());
        assert_eq!(made.keys().collect::<Vec<_>>(), self.expected.keys().collect::<Vec<_>>());
        assert!(made == self.expected, "bytes differ");
        // Two rungs of each row of pictures, and the sound.
        assert_eq!(self.records(), 2 * (ROWS - 1) + 1);
    }
}

#[test]
fn a_cluster_makes_the_bytes_of_one_process_and_no_row_twice() {
    let setting = Setting::new();
    let mut cluster = Cluster::start(1, &setting.ffmpeg.path(), &[]);
    setting.take(0.5);
    let running = setting.start(&cluster);
    wait_until("the first encode", DEADLINE, || cluster.executor(0).is_encoding().then_some(()));
    // An executor that joins in the middle gets work at once.
    let late = cluster.add_executor(&[]);
    wait_until("an encode of the new executor", DEADLINE, || {
        cluster.executor(late).is_encoding().then_some(())
    });
    let ran = running.wait();
    setting.made_the_same(&ran);
    assert_eq!(ran.tally(), (2 * (ROWS as u64 - 1) + 1, 0));
    assert_eq!(setting.ffmpeg.encodes().len(), ROWS);
    setting.ffmpeg.clear_log();
    let again = setting.start(&cluster).wait();
    setting.made_the_same(&again);
    assert_eq!(again.tally().0, 0);
    assert!(setting.ffmpeg.encodes().is_empty());
    // The parts, queried through SQL.
    let sql = format!("SELECT count(*) AS n FROM parts('{}')", setting.out().display());
    let rows = cluster.spool(&["sql", "--output", "json", "-c", &sql]).ok().json();
    assert_eq!(rows, serde_json::json!([{ "n": 2 * (ROWS - 1) + 1 }]));
    cluster.stop();
}

#[test]
fn a_killed_executor_costs_only_its_running_row() {
    let setting = Setting::new();
    let mut cluster = Cluster::start(3, &setting.ffmpeg.path(), &TIMEOUT);
    setting.take(0.5);
    let running = setting.start(&cluster);
    wait_until("some records", DEADLINE, || (setting.records() > 4).then_some(()));
    wait_until("an encode", DEADLINE, || cluster.executor(1).is_encoding().then_some(()));
    cluster.kill_executor(1);
    let killed = Instant::now();
    wait_until("the detection of the loss", Duration::from_secs(5), || {
        (cluster.demand()?["slots"] == 2).then_some(())
    });
    println!("noticed after {} ms", killed.elapsed().as_millis());
    setting.made_the_same(&running.wait());
    let encodes = setting.ffmpeg.encodes().len();
    assert!(encodes <= ROWS + 1, "{encodes} encodes for {ROWS} rows and one that was lost");
    cluster.stop();
}

#[test]
fn a_draining_executor_finishes_its_row() {
    let setting = Setting::new();
    let mut cluster = Cluster::start(2, &setting.ffmpeg.path(), &[]);
    setting.take(0.7);
    let running = setting.start(&cluster);
    wait_until("an encode", DEADLINE, || cluster.executor(0).is_encoding().then_some(()));
    assert_eq!(cluster.drain_executor(0, DEADLINE), Some(0));
    setting.made_the_same(&running.wait());
    assert_eq!(setting.ffmpeg.encodes().len(), ROWS, "a row was canceled");
    cluster.stop();
}

/// `SPOOL_DRAINS=100` drains so many.
#[test]
fn draining_executors_one_by_one_loses_no_row() {
    let drains = std::env::var("SPOOL_DRAINS").ok().and_then(|text| text.parse::<usize>().ok()).unwrap_or(3);
    let setting = Setting::new();
    let mut cluster = Cluster::start(2, &setting.ffmpeg.path(), &[]);
    setting.take(0.4);
    let (mut done, mut jobs) = (0, 0);
    while done < drains {
        let running = setting.start(&cluster);
        jobs += 1;
        for number in cluster.numbers() {
            wait_until("an encode, or the end", DEADLINE, || {
                (cluster.executor(number).is_encoding() || setting.published()).then_some(())
            });
            cluster.add_executor(&[]);
            assert_eq!(cluster.drain_executor(number, DEADLINE), Some(0));
            done += 1;
        }
        setting.made_the_same(&running.wait());
        assert_eq!(setting.ffmpeg.encodes().len(), ROWS * jobs, "a row was canceled, after {done} drains");
        std::fs::remove_dir_all(setting.out()).unwrap();
    }
    println!("{done} drains, {jobs} jobs");
    cluster.stop();
}

#[test]
fn an_idle_executor_leaves_after_the_idle_timeout() {
    let setting = Setting::new();
    let mut cluster = Cluster::start(1, &setting.ffmpeg.path(), &[]);
    let passing = cluster.add_executor(&["--idle-timeout", "4"]);
    cluster.wait_for_slots(2);
    // Longer than the idle timeout, so that an executor that left in the middle of a row would show.
    setting.take(5.0);
    let running = setting.start(&cluster);
    wait_until("an encode", DEADLINE, || cluster.executor(passing).is_encoding().then_some(()));
    setting.made_the_same(&running.wait());
    assert_eq!(setting.ffmpeg.encodes().len(), ROWS, "the executor left in the middle of a row");
    let role = cluster.executor(passing);
    assert_eq!(role.wait(DEADLINE), Some(0), "{}", role.log());
    role.expect_clean();
    cluster.remove_executor(passing);
    assert_eq!(cluster.demand().unwrap()["executors"], 1);
    cluster.stop();
}

#[test]
fn rows_are_canceled_after_the_drain_timeout() {
    let setting = Setting::new();
    let mut cluster = Cluster::start(1, &setting.ffmpeg.path(), &[]);
    let hasty = cluster.add_executor(&["--drain-timeout", "1"]);
    cluster.wait_for_slots(2);
    setting.take(3.0);
    let running = setting.start(&cluster);
    wait_until("an encode", DEADLINE, || cluster.executor(hasty).is_encoding().then_some(()));
    let sent = Instant::now();
    assert_eq!(cluster.drain_executor(hasty, DEADLINE), Some(0));
    assert!(sent.elapsed() < Duration::from_secs(10), "it took {:?}", sent.elapsed());
    setting.take(0.0);
    setting.made_the_same(&running.wait());
    cluster.stop();
}

#[test]
fn a_frozen_executor_is_replaced_and_does_no_harm_when_it_thaws() {
    let setting = Setting::new();
    let mut cluster = Cluster::start(2, &setting.ffmpeg.path(), &TIMEOUT);
    setting.take(0.5);
    let running = setting.start(&cluster);
    wait_until("an encode", DEADLINE, || cluster.executor(0).is_encoding().then_some(()));
    cluster.executor(0).signal(Signal::SIGSTOP);
    setting.made_the_same(&running.wait());
    assert_eq!(cluster.demand().unwrap()["executors"], 1);
    cluster.executor(0).signal(Signal::SIGCONT);
    cluster.wait_for_slots(2);
    let files = folder::files(&setting.out());
    setting.ffmpeg.clear_log();
    setting.made_the_same(&setting.start(&cluster).wait());
    assert!(setting.ffmpeg.encodes().is_empty());
    assert!(folder::files(&setting.out()) == files, "the frozen executor changed a file");
    cluster.stop();
}

/// `SPOOL_OUTAGE_SECONDS=60` keeps the scheduler away for so long.
#[test]
fn a_restarted_scheduler_gets_its_executors_and_clients_back() {
    let away = Duration::from_secs(
        std::env::var("SPOOL_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0),
    );
    let setting = Setting::new();
    let mut cluster = Cluster::start(2, &setting.ffmpeg.path(), &[]);
    setting.take(0.5);
    let running = setting.start(&cluster);
    wait_until("some records", DEADLINE, || (setting.records() > 4).then_some(()));
    let done = setting.records() / 2;
    // These would run for minutes.
    setting.ffmpeg.slow_after(0);
    for number in cluster.numbers() {
        wait_until("a slow encode", DEADLINE, || cluster.executor(number).is_encoding_slowly().then_some(()));
    }
    cluster.kill_scheduler();
    let died = Instant::now();
    for number in cluster.numbers() {
        // No client waits for the rows that they ran.
        wait_until("the end of orphaned encodes", Duration::from_secs(10), || {
            (!cluster.executor(number).is_encoding()).then_some(())
        });
    }
    setting.ffmpeg.full_speed();
    wait_until("the end of the outage", away + DEADLINE, || (died.elapsed() >= away).then_some(()));
    cluster.start_scheduler();
    cluster.wait_for_slots(2);
    setting.made_the_same(&running.wait());
    let encodes = setting.ffmpeg.encodes().len();
    // Two rows ran when the scheduler died.
    assert!(encodes <= ROWS + 2, "{encodes} encodes, though {done} rows were done");
    cluster.stop();
}

#[test]
fn a_cancellation_reaches_ffmpeg_within_a_second() {
    let setting = Setting::new();
    let mut cluster = Cluster::start(2, &setting.ffmpeg.path(), &[]);
    setting.ffmpeg.slow_after(0);
    for by_http in [false, true] {
        let running = setting.start(&cluster);
        for number in cluster.numbers() {
            wait_until("an encode", DEADLINE, || cluster.executor(number).is_encoding().then_some(()));
        }
        let sent = Instant::now();
        if by_http {
            let listed: serde_json::Value =
                serde_json::from_str(&cluster.http("GET", "/statements").unwrap()).unwrap();
            let id = listed[0]["id"].as_u64().unwrap();
            cluster.http("DELETE", &format!("/statements/{id}")).unwrap();
        } else {
            running.signal(Signal::SIGINT);
        }
        for number in cluster.numbers() {
            wait_until("the end of the encodes", Duration::from_secs(2), || {
                (!cluster.executor(number).is_encoding()).then_some(())
            });
        }
        println!("gone {} ms after the cancellation", sent.elapsed().as_millis());
        let ran = running.wait();
        assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    }
    setting.ffmpeg.full_speed();
    setting.made_the_same(&setting.start(&cluster).wait());
    cluster.stop();
}

#[test]
fn an_executor_whose_disk_is_full_gets_no_rows_until_there_is_space() {
    let Some(network) = privilege::require(Network::new()) else { return };
    let setting = Setting::new();
    let mut cluster = Cluster::start_in(Some(network), Some(8 << 20), 2, &setting.ffmpeg.path(), &[]);
    let filler = cluster.executor(0).fill_scratch();
    wait_until("the report of the full disk", DEADLINE, || (cluster.demand()?["slots"] == 1).then_some(()));
    let listed = cluster.http("GET", "/executors").unwrap();
    assert!(listed.contains("scratch space is full: 0 MiB left in "), "{listed}");
    let ran = setting.start(&cluster).wait();
    setting.made_the_same(&ran);
    assert!(!ran.stderr.contains("is retried"), "{}", ran.stderr);
    std::fs::remove_file(filler).unwrap();
    cluster.wait_for_slots(2);
    cluster.stop();
}

#[test]
fn a_slow_link_slows_and_breaks_nothing() {
    let Some(network) = privilege::require(Network::new()) else { return };
    let setting = Setting::new();
    let cluster = Cluster::start_in(Some(network), None, 2, &setting.ffmpeg.path(), &TIMEOUT);
    cluster.network().throttle(0, 256_000);
    cluster.network().throttle(1, 64_000);
    let ran = setting.start(&cluster).wait();
    setting.made_the_same(&ran);
    assert_eq!(setting.ffmpeg.encodes().len(), ROWS, "a row was lost: {}", ran.stderr);
    cluster.stop();
}

#[test]
fn a_clock_that_jumps_loses_no_executor() {
    let setting = Setting::new();
    let mut cluster = Cluster::start(0, &setting.ffmpeg.path(), &TIMEOUT);
    cluster.kill_scheduler();
    let clock = Clock::new(setting.folder.path());
    cluster.set_clock(clock.clone());
    cluster.start_scheduler();
    cluster.add_executor(&[]);
    cluster.add_executor(&[]);
    cluster.wait_for_slots(2);
    setting.take(0.4);
    let running = setting.start(&cluster);
    for (hours, records) in [(5, 2), (-30, 6)] {
        wait_until("some records", DEADLINE, || (setting.records() > records).then_some(()));
        clock.jump(hours);
    }
    setting.made_the_same(&running.wait());
    assert_eq!(setting.ffmpeg.encodes().len(), ROWS);
    let log = cluster.scheduler().log();
    assert!(!log.contains("executor left"), "{log}");
    // The process did use that clock: the times of its log show it.
    let days = log.lines().filter_map(|line| line.get(..10)).collect::<std::collections::BTreeSet<_>>();
    assert!(days.len() > 1, "{log}");
    cluster.stop();
}

#[test]
fn a_row_that_fails_on_one_executor_is_retried_on_another() {
    let setting = Setting::new();
    // The FFmpeg of this executor is always killed, as if by the OOM killer; it reports an equal build.
    let broken = FfmpegWrapper::new();
    broken.before_each("kill -KILL $$");
    let mut cluster = Cluster::start(1, &setting.ffmpeg.path(), &[]);
    cluster.add_executor_with_ffmpeg(&[], Some(broken.path()));
    cluster.wait_for_slots(2);
    setting.take(0.3);
    let ran = setting.start(&cluster).wait();
    setting.made_the_same(&ran);
    assert!(ran.stderr.contains("is retried") && ran.stderr.contains("killed by SIGKILL"), "{}", ran.stderr);
    assert!(!broken.encodes().is_empty());
    cluster.stop();
}

#[test]
fn a_row_that_always_fails_fails_the_job_at_once() {
    let setting = Setting::new();
    let cluster = Cluster::start(2, &setting.ffmpeg.path(), &[]);
    setting
        .ffmpeg
        .before_each("case \"$*\" in *start_pts=0:*) echo 'the flux capacitor is empty' >&2; exit 1 ;; esac");
    let ran = setting.start(&cluster).wait();
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for words in ["segment 0", "ffmpeg ended with exit code 1", "the flux capacitor is empty"] {
        assert!(ran.stderr.contains(words), "{words:?} is not in: {}", ran.stderr);
    }
    assert!(ran.took < Duration::from_secs(20), "{:?}", ran.took);
    assert!(!setting.out().join("master.m3u8").exists());
    cluster.stop();
}

#[test]
fn a_straggler_is_speculated_and_the_first_attempt_to_finish_counts() {
    let setting = Setting::new();
    let slow = FfmpegWrapper::new();
    slow.slow_after(0);
    let mut cluster = Cluster::start(1, &setting.ffmpeg.path(), &[]);
    cluster.add_executor_with_ffmpeg(&[], Some(slow.path()));
    cluster.wait_for_slots(2);
    let ran = setting.start(&cluster).wait();
    setting.made_the_same(&ran);
    assert!(ran.stderr.contains("far behind"), "{}", ran.stderr);
    wait_until("the end of the slow attempt", Duration::from_secs(5), || {
        (!cluster.executor(1).is_encoding()).then_some(())
    });
    cluster.stop();
}

#[test]
fn an_executor_answers_probes_by_its_state() {
    let ffmpeg = FfmpegWrapper::new();
    let mut cluster = Cluster::start(0, &ffmpeg.path(), &[]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    cluster.add_executor(&["--http", &address]);
    let says = |path: &str| {
        spool_tests::cluster::http("GET", &format!("http://{address}{path}")).unwrap_or_default()
    };
    wait_until("readiness", DEADLINE, || (says("/readyz") == "ok").then_some(()));
    assert_eq!(says("/livez"), "ok");
    assert!(says("/metrics").contains("\nspool_executor_ready 1\n"), "{}", says("/metrics"));
    cluster.kill_scheduler();
    wait_until("the loss", DEADLINE, || (says("/readyz") == "connecting to the scheduler").then_some(()));
    assert_eq!(cluster.drain_executor(0, DEADLINE), Some(0));
}

#[test]
fn an_incompatible_peer_is_refused_with_the_remedy() {
    let setting = Setting::new();
    let mut cluster =
        Cluster::start(0, &setting.ffmpeg.path(), &["--token", "open sesame", "--no-executor-timeout", "2"]);
    // Another build of FFmpeg, by its report.
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("ffmpeg");
    let real = spool_tests::ffmpeg_wrapper::which("ffmpeg");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -version ] && echo 'ffmpeg version 99' && exit 0\nexec {} \"$@\"\n",
        real.display()
    );
    spool_tests::ffmpeg_wrapper::write_program(&other, &script);
    let cases = [
        (cluster.add_executor(&[]), "SPOOL_TOKEN"),
        (cluster.add_executor(&["--token", "open barley"]), "SPOOL_TOKEN"),
        (cluster.add_executor_with_ffmpeg(&["--token", "open sesame"], Some(other)), "another build"),
    ];
    for (number, words) in cases {
        let role = cluster.executor(number);
        assert_eq!(role.wait(DEADLINE), Some(1), "{}", role.log());
        assert!(
            role.log().contains("error: the scheduler at") && role.log().contains(words),
            "{}",
            role.log()
        );
        role.expect_clean();
    }
    let ran = cluster.spool(&["sql", "-c", "SELECT 1"]).run();
    assert_eq!((ran.code, ran.stderr.contains("SPOOL_TOKEN")), (Some(4), true), "{}", ran.stderr);
    let ran = cluster.spool(&["sql", "--token", "open sesame", "-c", "SELECT 1"]).run();
    assert_eq!((ran.code, ran.stderr.contains("no executor joined")), (Some(5), true), "{}", ran.stderr);
    assert!(cluster.http_with(None, "GET", "/statements").unwrap().contains("SPOOL_TOKEN"));
    assert_eq!(cluster.http("GET", "/livez").unwrap(), "ok");
}

#[test]
fn a_missing_scheduler_is_reported() {
    let ran = Spool::new(["sql", "-c", "SELECT 1", "--cluster", "127.0.0.1:9"]).run();
    assert_eq!(ran.code, Some(5), "{}", ran.stderr);
    assert!(ran.stderr.contains("failed to reach the scheduler at 127.0.0.1:9"), "{}", ran.stderr);
    assert!(ran.took < Duration::from_secs(15), "{:?}", ran.took);
    let ran = Spool::new(["sql", "-c", "SELECT 1", "--cluster", "nonsense"]).run();
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = Spool::new(["scheduler", "--listen", &address, "--token", "secret"]).run();
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains(&format!("failed to listen on {address}")), "{}", ran.stderr);
    ran.expect_no_leftovers();
}
