//! Measures the cost of a source of 2 GB. `scripts/big-source` runs it: it takes minutes and 5 GB of disk.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made has failed")]

use std::{fs, path::PathBuf, time::Duration};

use spool_tests::{
    footage,
    run::{Spool, wait_until},
    web::{Behavior, Web},
};

/// Repetitions of 78 MB each.
const TIMES: u32 = 28;
const SOURCE_BYTES: u64 = 2_000_000_000;

/// Planning reads the index.
const PLANNING_PERCENT: f64 = 2.0;
/// The job reads each byte once, and a few twice: from keyframes before the cuts, and sound between the
/// pictures.
const JOB_TIMES: f64 = 1.10;
/// Resident memory of Spool itself, without FFmpeg: it must not grow with the source.
const RSS_MB: f64 = 300.0;

/// Time limit of the job on a slow machine.
const WITHIN: Duration = Duration::from_secs(1800);

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let source = footage::heavy(folder.path(), "big.mp4", TIMES);
    let bytes = source.metadata().unwrap().len();
    assert!(bytes >= SOURCE_BYTES, "the source has only {bytes} bytes");
    println!("source: {:.2} GB", bytes as f64 / 1e9);
    let web = Web::start(&source, Behavior { ranges: true, etag: true });

    let plan = Spool::new(["plan", &web.address, "--ladder", "360p", "--output", "json"]).ok().json();
    assert_eq!((&plan["bytes"], &plan["reading"]), (&bytes.into(), &"windows".into()));
    let planning = web.bytes_sent();
    // Spool requests one byte of a web server to learn whether it serves ranges.
    assert_eq!(plan["planning_bytes"].as_u64().unwrap() + 1, planning);
    let planning_percent = planning as f64 * 100.0 / bytes as f64;
    println!(
        "planning read {:.2} MB, {planning_percent:.3}% of the source (limit {PLANNING_PERCENT}%)",
        planning as f64 / 1e6
    );

    web.clear_log();
    let out = folder.path().join("out");
    let args =
        ["transcode", &web.address, "-o", out.to_str().unwrap(), "--ladder", "360p", "--output", "json"];
    let mut running = Spool::new(args).start();
    let status = PathBuf::from(format!("/proc/{}/status", running.child.id()));
    let mut peak_kb = 0;
    wait_until("the end of the job", WITHIN, || {
        peak_kb = peak(&status).unwrap_or(peak_kb);
        running.child.try_wait().unwrap().map(|_| ())
    });
    let ran = running.wait();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.expect_no_leftovers();
    let length_ms = u64::from(TIMES) * 5120;
    assert_eq!(ran.json()["published"][0]["duration_ms"], length_ms);
    let job_times = web.bytes_sent() as f64 / bytes as f64;
    let rss_mb = peak_kb as f64 * 1024.0 / 1e6;
    println!(
        "the job read {job_times:.4} times the source (limit {JOB_TIMES}) in {} requests",
        web.log().len()
    );
    println!("spool itself took {rss_mb:.0} MB of memory at most (limit {RSS_MB})");
    println!("the job took {:.1} s for {:.1} s of video", ran.took.as_secs_f64(), length_ms as f64 / 1e3);

    assert!(planning_percent <= PLANNING_PERCENT);
    assert!(job_times <= JOB_TIMES);
    assert!(rss_mb > 1.0 && rss_mb <= RSS_MB);
}

/// Returns the peak resident memory of a process, in kB; `None` once it is gone.
fn peak(status: &PathBuf) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}
