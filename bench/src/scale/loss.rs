//! Cost of a killed executor: simulated encodes on three executors of one slot, one of which is killed in the
//! middle of a row.

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

/// Rows of one length, and the time that each takes.
const ROWS: u32 = 12;
const FRAMES: u32 = 12;
const SEGMENT: f64 = FRAMES as f64 / inputs::FPS as f64;
const ROW_TIME: Duration = Duration::from_secs(10);

/// Time at which the executor is killed: in the middle of its second row.
const KILL_AFTER: Duration = Duration::from_secs(15);

const EXECUTORS: usize = 3;

const ROUNDS: usize = 3;

pub(super) fn measure(runtime: &Runtime) -> Table {
    let mut table = Table::new(
        "One of three executors killed in the middle of a row of 10 s",
        &[
            "round",
            "undisturbed s",
            "noticed after ms",
            "best time with two executors from then on, s",
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
        simulation.set(&Pace { seconds_per_media_second: ROW_TIME.as_secs_f64() / SEGMENT, spread: 0.0 });
        let undisturbed = run_at_once(runtime, &cluster, &[job("undisturbed")])[0];
        let (disturbed, noticed) = std::thread::scope(|scope| {
            let client = super::client(&cluster);
            let started = Instant::now();
            let statements = [job("disturbed")];
            let running = scope.spawn(move || super::run_by(runtime, &client, &statements)[0]);
            // A fixed time, since there is no condition to wait for.
            sleep(KILL_AFTER.saturating_sub(started.elapsed()));
            cluster.kill_executor(0);
            let killed = Instant::now();
            wait_until("the loss being noticed", Duration::from_secs(60), || {
                (cluster.demand()?["slots"] == EXECUTORS - 1).then_some(())
            });
            let noticed = killed.elapsed();
            (running.join().unwrap(), noticed)
        });
        // By then each executor has finished one row. The other two finish their second, and share the rest
        // with the lost row.
        let remaining = ROWS - 3 - 2;
        let best = ROW_TIME * 2 + ROW_TIME * remaining.div_ceil(2);
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
