//! Comparison of Spool with other ways to run FFmpeg: one source, one ladder and one machine, each peer in
//! turn.

mod peers;
mod quality;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub use peers::Peer;

use crate::{
    command::{self, Usage},
    inputs,
    report::Table,
};

/// Sources that are encoded by default.
const SOURCES: [inputs::Source; 2] = [inputs::Source::Minute, inputs::Source::FourK];

/// Peers that are compared by default.
const PEERS: [Peer; 6] =
    [Peer::Ffmpeg, Peer::Spool, Peer::SpoolEarlyPlayback, Peer::First, Peer::Pieces, Peer::Spark];

/// Flags of the comparison.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Sources to encode.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = SOURCES)]
    sources: Vec<inputs::Source>,
    /// Peers that encode them. The others are compared with the first.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = PEERS)]
    peers: Vec<Peer>,
    /// Runs of each peer.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder for the sources, which are kept, and for outputs, which are deleted.
    #[arg(long, default_value = ".cache/bench")]
    folder: PathBuf,
}

/// Runs of a peer.
struct Runs {
    peer: Peer,
    usages: Vec<Usage>,
}

/// Measures each source.
pub fn measure(args: &Args) -> Vec<Table> {
    fs::create_dir_all(&args.folder).unwrap();
    let folder = args.folder.canonicalize().unwrap();
    args.sources.iter().flat_map(|source| encode(args, &folder, *source)).collect()
}

fn encode(args: &Args, folder: &Path, source: inputs::Source) -> [Table; 2] {
    let path = source.make(folder);
    let scratch = tempfile::tempdir_in(folder).unwrap();
    let setting = peers::Setting::prepare(scratch.path(), &path, &args.peers);
    let mut all: Vec<Runs> = args.peers.iter().map(|peer| Runs { peer: *peer, usages: Vec::new() }).collect();
    let mut qualities = Vec::new();
    for round in 0..args.rounds {
        for runs in &mut all {
            let work = tempfile::tempdir_in(scratch.path()).unwrap();
            let out = work.path().join("out");
            let playable = || setting.is_playable(runs.peer, &out);
            let usage =
                command::run(work.path(), &setting.command(runs.peer, &out), &setting.timed, playable);
            eprintln!(
                "{source:?} round {}: {:?} took {:.1} s, {:.1} s of processor",
                round + 1,
                runs.peer,
                usage.wall.as_secs_f64(),
                usage.cpu.as_secs_f64()
            );
            runs.usages.push(usage);
            if round == 0 && runs.peer.publishes() {
                qualities.push((runs.peer, quality::of(&out, &path)));
            }
        }
    }
    [compare(source, setting.threads(), &all), quality::table(source, &qualities)]
}

fn compare(source: inputs::Source, threads: &str, all: &[Runs]) -> Table {
    let title = format!("{source}: time, compared with the first (one FFmpeg with {threads})");
    let mut table = Table::new(
        &title,
        &[
            "",
            "wall s",
            "wall ratio (min to max)",
            "processor s",
            "processor ratio (min to max)",
            "processor outside FFmpeg s",
            "memory outside FFmpeg MB",
            "largest FFmpeg MB",
            "playable after s",
        ],
    );
    let first = &all[0].usages;
    for Runs { peer, usages } in all {
        let seconds = |of: fn(&Usage) -> Duration| {
            format!("{:.1}", median(usages.iter().map(|usage| of(usage).as_secs_f64())))
        };
        // Runs of one round are compared with each other, since other load on the machine changes slowly.
        let ratio = |of: fn(&Usage) -> Duration| {
            let ratios: Vec<f64> = usages
                .iter()
                .zip(first)
                .map(|(usage, first)| of(usage).as_secs_f64() / of(first).as_secs_f64())
                .collect();
            let (min, max) = ratios
                .iter()
                .fold((f64::MAX, 0.0_f64), |(min, max), ratio| (min.min(*ratio), max.max(*ratio)));
            format!("{:.3} ({min:.3} to {max:.3})", median(ratios.into_iter()))
        };
        table.add(vec![
            peer.to_string(),
            seconds(|usage| usage.wall),
            ratio(|usage| usage.wall),
            seconds(|usage| usage.cpu),
            ratio(|usage| usage.cpu),
            format!(
                "{:.1}",
                median(usages.iter().map(|usage| (usage.cpu.saturating_sub(usage.ffmpeg_cpu)).as_secs_f64()))
            ),
            format!("{:.0}", usages.iter().map(|usage| usage.engine_mb).fold(0.0, f64::max)),
            format!("{:.0}", usages.iter().map(|usage| usage.ffmpeg_mb).fold(0.0, f64::max)),
            match usages
                .iter()
                .map(|usage| usage.playable.map(|after| after.as_secs_f64()))
                .collect::<Option<Vec<f64>>>()
            {
                Some(after) => format!("{:.1}", median(after.into_iter())),
                None => String::new(),
            },
        ]);
    }
    table
}

/// Returns the median; of an even number of values, the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
