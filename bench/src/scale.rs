//! Cost of the cluster itself: real processes on this machine, with FFmpeg simulated or unused.

mod engine;
mod loss;
mod slots;
mod swarm;

use std::{path::Path, time::Duration};

use spool_scheduler::Client;
use spool_tests::cluster::Cluster;
use spool_wire::Address;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::report::Table;

/// Measurement of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measurement {
    /// Rows whose parts exist: all cost is the engine's.
    Engine,
    /// A thousand concurrent jobs of one short clip.
    Swarm,
    /// Simulated encodes on an increasing number of slots.
    Slots,
    /// Loss of an executor.
    Loss,
}

/// Makes the given measurements, or all if none is given.
pub fn measure(measurements: &[Measurement]) -> Vec<Table> {
    use clap::ValueEnum;
    let all = Measurement::value_variants();
    let measurements = if measurements.is_empty() { all } else { measurements };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    measurements
        .iter()
        .map(|measurement| match measurement {
            Measurement::Engine => engine::measure(&runtime),
            Measurement::Swarm => swarm::measure(&runtime),
            Measurement::Slots => slots::measure(&runtime),
            Measurement::Loss => loss::measure(&runtime),
        })
        .collect()
}

/// Returns the statement that transcodes a source with these lengths of rows and media segments, in seconds.
fn statement(source: &Path, out: &Path, segment: f64, media_segment: f64) -> String {
    format!(
        "SELECT publish(hls_ladder(part)) AS published FROM (SELECT transcode(segment, '36p', '{}') AS part \
         FROM segments('{}', {segment}, {media_segment}))",
        out.display(),
        source.display()
    )
}

/// Runs statements concurrently on a cluster, and returns the time at which each ended.
fn run_at_once(runtime: &Runtime, cluster: &Cluster, statements: &[String]) -> Vec<Duration> {
    run_by(runtime, &client(cluster), statements)
}

/// Returns a client of a cluster's scheduler.
fn client(cluster: &Cluster) -> Client {
    Client::new(Address::Tcp { address: cluster.address(), tls: None }, cluster.token())
}

/// Runs statements concurrently by a client, and returns the time at which each ended.
fn run_by(runtime: &Runtime, remote: &Client, statements: &[String]) -> Vec<Duration> {
    let started = std::time::Instant::now();
    let runs = statements.iter().map(|sql| {
        let remote = remote.clone();
        async move {
            let cancel = CancellationToken::new();
            remote.run(sql, &[], &cancel, &|_| {}).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            started.elapsed()
        }
    });
    runtime.block_on(futures::future::join_all(runs))
}
