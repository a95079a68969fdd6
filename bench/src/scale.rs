//! What does the cluster itself cost? Real processes on this machine, with FFmpeg simulated or not needed.

mod engine;
mod loss;
mod slots;
mod swarm;

use std::{path::Path, time::Duration};

use spool_scheduler::Remote;
use spool_tests::cluster::Cluster;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::report::Table;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measurement {
    /// Rows that have nothing to do: what is left is the engine.
    Engine,
    /// A thousand jobs of one short clip at once.
    Swarm,
    /// Simulated encodes on more and more slots.
    Slots,
    /// An executor that is killed.
    Loss,
}

/// Measures what is named, or everything.
pub fn measure(what: &[Measurement]) -> Vec<Table> {
    use clap::ValueEnum;
    let all = Measurement::value_variants();
    let wanted = if what.is_empty() { all } else { what };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    wanted
        .iter()
        .map(|measurement| match measurement {
            Measurement::Engine => engine::measure(&runtime),
            Measurement::Swarm => swarm::measure(&runtime),
            Measurement::Slots => slots::measure(&runtime),
            Measurement::Loss => loss::measure(&runtime),
        })
        .collect()
}

/// The statement that transcodes a source in rows and media segments of so many seconds.
fn statement(source: &Path, out: &Path, segment: f64, media_segment: f64) -> String {
    format!(
        "SELECT publish(hls_ladder(part)) AS published FROM (SELECT transcode(segment, '36p', '{}') AS part \
         FROM segments('{}', {segment}, {media_segment}))",
        out.display(),
        source.display()
    )
}

/// Runs statements at once on a cluster, to their ends; gives when each ended.
fn run_at_once(runtime: &Runtime, cluster: &Cluster, statements: &[String]) -> Vec<Duration> {
    run_at(runtime, &cluster.address(), statements)
}

/// The same, by the scheduler's `HOST:PORT`.
fn run_at(runtime: &Runtime, address: &str, statements: &[String]) -> Vec<Duration> {
    let remote = Remote::new(address, None);
    let begun = std::time::Instant::now();
    let runs = statements.iter().map(|sql| {
        let remote = remote.clone();
        async move {
            let cancel = CancellationToken::new();
            remote.run(sql, &[], &cancel, &|_| {}).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            begun.elapsed()
        }
    });
    runtime.block_on(futures::future::join_all(runs))
}
