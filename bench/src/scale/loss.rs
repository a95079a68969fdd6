//! What does a killed executor cost? Simulated encodes on three executors of one slot, one of them killed in the middle of its row.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use spool_tests::{cluster::Cluster, run::wait_until};
use tokio::runtime::Runtime;

use super::{run_at_once, statement};
use crate::{
    inputs,
    report::Table,
    simulation::{Pace, Simulation},
};

/// Rows of one length, and what each takes.
const ROWS: u32 = 12;
const FRAMES: u32 = 12;
const SEGMENT: f64 = FRAMES as f64 / inputs::FPS as f64;
const TAKES: Duration = Duration::from_secs(10);

/// The executor is killed when so much of the work has passed: in the middle of its second row.
const KILLED: Duration = Duration::from_secs(15);

const EXECUTORS: usize = 3;

const ROUNDS: usize = 3;

pub(super) fn measure(runtime: &Runtime) -> Table {
    let mut table = Table::new(
        "One of three executors killed in the middle of a row of 10 s",
        &[
            "round",
            "undisturbed s",
            "noticed after ms",
            "on two executors from then on, at best s",
            "took s",
            "lost s",
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let source =
        inputs::many_rows(folder.path(), "rows.mp4", ROWS * FRAMES, &format!("expr:not(mod(n,{FRAMES}))"));
    let simulation = Simulation::new();
    for round in 1..=ROUNDS {
        let mut cluster = Cluster::start(EXECUTORS, &simulation.path(), &[]);
        let job =
            |out: &str| statement(&source, &folder.path().join(format!("{out}-{round}")), SEGMENT, SEGMENT);
        simulation.set(&Pace::default());
        run_at_once(runtime, &cluster, &[job("warm")]);
        simulation.set(&Pace { seconds_per_media_second: TAKES.as_secs_f64() / SEGMENT, spread: 0.0 });
        let undisturbed = run_at_once(runtime, &cluster, &[job("undisturbed")])[0];
        let (disturbed, noticed) = std::thread::scope(|scope| {
            let address = cluster.address();
            let begun = Instant::now();
            let statements = [job("disturbed")];
            let running = scope.spawn(move || super::run_at(runtime, &address, &statements)[0]);
            // The moment is what is measured: there is no condition to wait for.
            sleep(KILLED.saturating_sub(begun.elapsed()));
            cluster.kill_executor(0);
            let killed = Instant::now();
            wait_until("the loss being noticed", Duration::from_secs(60), || {
                (cluster.demand()?["slots"] == EXECUTORS - 1).then_some(())
            });
            let noticed = killed.elapsed();
            (running.join().unwrap(), noticed)
        });
        // By then one row of each is done; the other two end theirs, and then share what is left: also the row that was lost.
        let left = ROWS - 3 - 2;
        let best = TAKES * 2 + TAKES * left.div_ceil(2);
        table.add(vec![
            round.to_string(),
            format!("{:.1}", undisturbed.as_secs_f64()),
            noticed.as_millis().to_string(),
            format!("{:.1}", best.as_secs_f64()),
            format!("{:.1}", disturbed.as_secs_f64()),
            format!("{:.1}", disturbed.as_secs_f64() - best.as_secs_f64()),
        ]);
        cluster.stop();
    }
    table
}
