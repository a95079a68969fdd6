//! Efficiency of many slots: simulated encodes of about 30 s, four rows per slot.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use spool_media::predict::cost_model::longest_first;
use spool_tests::cluster::Cluster;
use tokio::runtime::Runtime;

use super::{run_at_once, statement};
use crate::{
    inputs,
    report::Table,
    simulation::{Pace, Simulation},
};

/// Executors, and slots per executor.
const SLOTS: [(usize, usize); 4] = [(1, 4), (2, 8), (4, 16), (8, 32)];

/// Rows per slot.
const ROWS: usize = 4;

/// Frames of rows, which are cut at keyframes a whole number of media segments apart. They vary by a quarter
/// around the usual length.
const LENGTHS: [u32; 8] = [12, 9, 15, 9, 12, 15, 15, 9];
const MEDIA_SEGMENT: f64 = 3.0 / inputs::FPS as f64;
const SEGMENT: f64 = 12.0 / inputs::FPS as f64;

/// Seconds that a row of the usual length takes.
const ROW_SECONDS: f64 = 30.0;

pub(super) fn measure(runtime: &Runtime) -> Table {
    let mut table = Table::new(
        "Simulated encodes of 30 s, varying by a quarter",
        &[
            "slots",
            "executors",
            "rows",
            "lengths",
            "work s",
            "longest first s",
            "wall s",
            "efficiency",
            "of longest first",
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::new();
    // Either the time of a row follows its length, which the scheduler knows, or all have one length and
    // unpredictable times.
    for known in [true, false] {
        for (executors, each) in SLOTS {
            table.add(run(runtime, folder.path(), &simulation, (executors, each), known));
        }
    }
    table
}

/// Runs one job on a number of executors with a number of slots each.
fn run(
    runtime: &Runtime,
    folder: &Path,
    simulation: &Simulation,
    (executors, each): (usize, usize),
    known: bool,
) -> Vec<String> {
    let slots = executors * each;
    let mut cluster = Cluster::start(0, &simulation.path(), &[]);
    for _ in 0..executors {
        cluster.add_executor_with_slots(each, &[]);
    }
    cluster.wait_for_slots(slots);
    let name = format!("{slots}-{known}.mp4");
    let source = if known { uneven(folder, &name, ROWS * slots) } else { even(folder, &name, ROWS * slots) };
    let job = |out: &str| {
        statement(&source, &folder.join(format!("{out}-{slots}-{known}")), SEGMENT, MEDIA_SEGMENT)
    };
    simulation.set(&Pace::default());
    run_at_once(runtime, &cluster, &[job("warm")]);
    simulation.set(&Pace {
        seconds_per_media_second: ROW_SECONDS / SEGMENT,
        spread: if known { 0.0 } else { 0.25 },
    });
    simulation.take_runs();
    let wall = run_at_once(runtime, &cluster, &[job("out")])[0].as_secs_f64();
    cluster.stop();
    let work: Vec<Duration> = simulation.take_runs().iter().map(|run| run.took).collect();
    assert_eq!(work.len(), ROWS * slots, "rows were not cut at the intended keyframes");
    let sum = work.iter().sum::<Duration>().as_secs_f64();
    let (rows, best) = (work.len(), longest_first(work, slots).as_secs_f64());
    vec![
        slots.to_string(),
        executors.to_string(),
        rows.to_string(),
        if known { "known" } else { "unknown" }.to_owned(),
        format!("{sum:.0}"),
        format!("{best:.1}"),
        format!("{wall:.1}"),
        format!("{:.3}", sum / (slots as f64 * wall)),
        format!("{:.3}", best / wall),
    ]
}

/// Makes a source of rows with different lengths.
fn uneven(folder: &Path, name: &str, rows: usize) -> PathBuf {
    let lengths: Vec<u32> = LENGTHS.iter().copied().cycle().take(rows).collect();
    let keyframes: Vec<String> = lengths
        .iter()
        .scan(0, |at, length| {
            let key = *at;
            *at += length;
            Some(format!("{:.4}", f64::from(key) / f64::from(inputs::FPS)))
        })
        .collect();
    inputs::many_rows(folder, name, lengths.iter().sum(), &keyframes.join(","))
}

/// Makes a source of rows with one length.
fn even(folder: &Path, name: &str, rows: usize) -> PathBuf {
    inputs::many_rows(folder, name, rows as u32 * 12, "expr:not(mod(n,12))")
}
