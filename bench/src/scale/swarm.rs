//! A thousand concurrent jobs of one short clip: when the first and the last are done, and the memory of the
//! scheduler.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use spool_tests::{cluster::Cluster, footage};
use tokio::runtime::Runtime;

use super::{run_at_once, statement};
use crate::{
    process::usage,
    report::Table,
    simulation::{Pace, Simulation},
};

const JOBS: usize = 1000;

/// Length of the clip, which becomes a video row and an audio row.
const SECONDS: u32 = 4;

/// Seconds of encoding per second of media.
const PACE: f64 = 0.1;

/// Executors, and slots per executor.
const EXECUTORS: usize = 4;
const SLOTS: usize = 4;

/// Times that all jobs are submitted.
const WAVES: usize = 3;

/// Time between two samples of the scheduler's memory.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn measure(runtime: &Runtime) -> Table {
    let mut table = Table::new(
        "A thousand concurrent jobs of one short clip",
        &[
            "wave",
            "jobs",
            "first done s",
            "half done s",
            "all done s",
            "scheduler MB before",
            "peak",
            "after",
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let source = footage::bunny(folder.path(), "clip.mp4", SECONDS, 36);
    let simulation = Simulation::new();
    let mut cluster = Cluster::start(0, &simulation.path(), &[]);
    for _ in 0..EXECUTORS {
        cluster.add_executor_with_slots(SLOTS, &[]);
    }
    cluster.wait_for_slots(EXECUTORS * SLOTS);
    let job = |name: String| statement(&source, &folder.path().join(name), 30.0, 4.0);
    run_at_once(runtime, &cluster, &[job("warm".to_owned())]);
    simulation.set(&Pace { seconds_per_media_second: PACE, spread: 0.0 });
    let scheduler = cluster.scheduler().id();
    for wave in 1..=WAVES {
        let statements: Vec<String> = (0..JOBS).map(|number| job(format!("{wave}-{number}"))).collect();
        let before = usage(scheduler).unwrap().rss_mb;
        let done = AtomicBool::new(false);
        let (mut ends, peak) = std::thread::scope(|scope| {
            let sampling = scope.spawn(|| {
                let mut peak = before;
                while !done.load(Ordering::Relaxed) {
                    peak = peak.max(usage(scheduler).unwrap().rss_mb);
                    std::thread::sleep(POLL_INTERVAL);
                }
                peak
            });
            let ends = run_at_once(runtime, &cluster, &statements);
            done.store(true, Ordering::Relaxed);
            (ends, sampling.join().unwrap())
        });
        ends.sort_unstable();
        let seconds = |at: usize| format!("{:.1}", ends[at].as_secs_f64());
        let after = usage(scheduler).unwrap().rss_mb;
        let mb = |value: f64| format!("{value:.0}");
        table.add(vec![
            wave.to_string(),
            JOBS.to_string(),
            seconds(0),
            seconds(JOBS / 2),
            seconds(JOBS - 1),
            mb(before),
            mb(peak),
            mb(after),
        ]);
    }
    cluster.stop();
    table
}
