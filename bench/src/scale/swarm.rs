//! What happens when a thousand short clips come at once? All are done, the first soon, and the scheduler does not grow.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use spool_tests::{cluster::Cluster, footage};
use tokio::runtime::Runtime;

use super::{run_at_once, statement};
use crate::{
    process::taken,
    report::Table,
    simulation::{Pace, Simulation},
};

const JOBS: usize = 1000;

/// Length of the clip: a row of pictures and one of sound.
const SECONDS: u32 = 4;

/// Seconds that an encode of a second of media takes.
const PACE: f64 = 0.1;

/// Executors, and slots of each.
const EXECUTORS: usize = 4;
const SLOTS: usize = 4;

/// How often all of them come.
const WAVES: usize = 3;

/// How often the scheduler's memory is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn measure(runtime: &Runtime) -> Table {
    let mut table = Table::new(
        "A thousand jobs of one short clip at once",
        &[
            "wave",
            "jobs",
            "first done s",
            "half done s",
            "all done s",
            "scheduler MB before",
            "most",
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
        let before = taken(scheduler).unwrap().rss_mb;
        let done = AtomicBool::new(false);
        let (mut ends, most) = std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut most = before;
                while !done.load(Ordering::Relaxed) {
                    most = most.max(taken(scheduler).unwrap().rss_mb);
                    std::thread::sleep(LOOK);
                }
                most
            });
            let ends = run_at_once(runtime, &cluster, &statements);
            done.store(true, Ordering::Relaxed);
            (ends, looking.join().unwrap())
        });
        ends.sort_unstable();
        let seconds = |at: usize| format!("{:.1}", ends[at].as_secs_f64());
        let after = taken(scheduler).unwrap().rss_mb;
        let mb = |value: f64| format!("{value:.0}");
        table.add(vec![
            wave.to_string(),
            JOBS.to_string(),
            seconds(0),
            seconds(JOBS / 2),
            seconds(JOBS - 1),
            mb(before),
            mb(most),
            mb(after),
        ]);
    }
    cluster.stop();
    table
}
