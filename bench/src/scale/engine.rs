//! Cost of rows whose part records exist: planning, scheduling, look-ups and merging alone.

use std::{fs, path::Path};

use spool_tests::cluster::Cluster;
use tokio::runtime::Runtime;

use super::{run_at_once, statement};
use crate::{inputs, process::usage, report::Table, simulation::Simulation};

/// Rows of a job, of three frames each.
const ROWS: u32 = 1000;
const FRAMES: u32 = 3;
const SECONDS: f64 = FRAMES as f64 / inputs::FPS as f64;

/// Jobs that run at once.
const JOBS: [usize; 4] = [1, 5, 10, 20];

/// Executors, and slots per executor.
const EXECUTORS: usize = 2;
const SLOTS: usize = 4;

/// Rounds per measurement; the median counts.
const ROUNDS: usize = 3;

pub(super) fn measure(runtime: &Runtime) -> Table {
    let mut table = Table::new(
        "Rows whose parts exist",
        &[
            "jobs",
            "rows",
            "wall s",
            "wall ms per row",
            "scheduler CPU ms per row",
            "executors CPU ms per row",
            "scheduler MB",
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let source =
        inputs::many_rows(folder.path(), "rows.mp4", ROWS * FRAMES, &format!("expr:not(mod(n,{FRAMES}))"));
    let simulation = Simulation::new();
    let mut cluster = Cluster::start(0, &simulation.path(), &[]);
    for _ in 0..EXECUTORS {
        cluster.add_executor_with_slots(SLOTS, &[]);
    }
    cluster.wait_for_slots(EXECUTORS * SLOTS);
    let out = |job: usize| folder.path().join(format!("out-{job}"));
    run_at_once(runtime, &cluster, &[statement(&source, &out(0), SECONDS, SECONDS)]);
    (1..JOBS[JOBS.len() - 1]).for_each(|job| copy(&out(0), &out(job)));
    for jobs in JOBS {
        let statements: Vec<String> =
            (0..jobs).map(|job| statement(&source, &out(job), SECONDS, SECONDS)).collect();
        let rows = (jobs * ROWS as usize) as f64;
        let mut rounds: Vec<(f64, f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let cpu = |cluster: &mut Cluster| {
                    let scheduler = usage(cluster.scheduler().id()).unwrap().cpu.as_secs_f64();
                    let executors = cluster
                        .numbers()
                        .iter()
                        .map(|n| usage(cluster.executor(*n).id()).unwrap().cpu.as_secs_f64())
                        .sum::<f64>();
                    (scheduler, executors)
                };
                let before = cpu(&mut cluster);
                let ends = run_at_once(runtime, &cluster, &statements);
                let after = cpu(&mut cluster);
                (ends.iter().max().unwrap().as_secs_f64(), after.0 - before.0, after.1 - before.1)
            })
            .collect();
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (wall, scheduler, executors) = rounds[ROUNDS / 2];
        let ms = |seconds: f64| format!("{:.2}", seconds * 1000.0 / rows);
        let peak = usage(cluster.scheduler().id()).unwrap().peak_mb;
        table.add(vec![
            jobs.to_string(),
            rows.to_string(),
            format!("{wall:.2}"),
            ms(wall),
            ms(scheduler),
            ms(executors),
            format!("{peak:.0}"),
        ]);
    }
    assert!(simulation.take_runs().is_empty(), "something was encoded again");
    cluster.stop();
    table
}

/// Copies a published folder. Part records name their objects by relative paths, so the copy is valid.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(path, copied).unwrap();
        }
    }
}
