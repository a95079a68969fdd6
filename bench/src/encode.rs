//! What does Spool cost against others that run FFmpeg? The same source at the same rungs on the same cores, in turns, in one run.

mod peers;
mod quality;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub use peers::Peer;

use crate::{
    command::{self, Took},
    inputs,
    report::Table,
};

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Sources to encode; those of a minute and of half a minute in 4K unless named.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [inputs::Source::Minute, inputs::Source::FourK])]
    sources: Vec<inputs::Source>,
    /// Who encodes them; the first is what the others are compared with.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Peer::Ffmpeg, Peer::Spool, Peer::SpoolLive, Peer::First, Peer::Pieces, Peer::Spark])]
    peers: Vec<Peer>,
    /// Turns of each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder for the sources, which are kept, and for what is made of them, which is not.
    #[arg(long, default_value = ".cache/bench")]
    folder: PathBuf,
}

/// A peer's turns.
struct Turns {
    peer: Peer,
    took: Vec<Took>,
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
    let mut all: Vec<Turns> = args.peers.iter().map(|peer| Turns { peer: *peer, took: Vec::new() }).collect();
    let mut qualities = Vec::new();
    for round in 0..args.rounds {
        for turns in &mut all {
            let work = tempfile::tempdir_in(scratch.path()).unwrap();
            let out = work.path().join("out");
            let playable = || setting.is_playable(turns.peer, &out);
            let took =
                command::run(work.path(), &setting.command(turns.peer, &out), &setting.timed, playable);
            eprintln!(
                "{source:?} round {}: {:?} took {:.1} s, {:.1} s of processor",
                round + 1,
                turns.peer,
                took.wall.as_secs_f64(),
                took.cpu.as_secs_f64()
            );
            turns.took.push(took);
            if round == 0 && turns.peer.publishes() {
                qualities.push((turns.peer, quality::of(&out, &path)));
            }
        }
    }
    [compare(source, setting.threads(), &all), quality::table(source, &qualities)]
}

fn compare(source: inputs::Source, threads: &str, all: &[Turns]) -> Table {
    let title = format!("{source}: time, next to the first (one FFmpeg with {threads})");
    let mut table = Table::new(
        &title,
        &[
            "",
            "wall s",
            "wall ratio (least to most)",
            "processor s",
            "processor ratio (least to most)",
            "processor outside FFmpeg s",
            "memory outside FFmpeg MB",
            "largest FFmpeg MB",
            "playable after s",
        ],
    );
    let first = &all[0].took;
    for Turns { peer, took } in all {
        let seconds = |of: fn(&Took) -> Duration| {
            format!("{:.1}", median(took.iter().map(|took| of(took).as_secs_f64())))
        };
        // Of each turn to the turn of the first in the same round: what else the machine does changes slowly.
        let ratio = |of: fn(&Took) -> Duration| {
            let ratios: Vec<f64> = took
                .iter()
                .zip(first)
                .map(|(took, first)| of(took).as_secs_f64() / of(first).as_secs_f64())
                .collect();
            let (least, most) = ratios
                .iter()
                .fold((f64::MAX, 0.0_f64), |(least, most), ratio| (least.min(*ratio), most.max(*ratio)));
            format!("{:.3} ({least:.3} to {most:.3})", median(ratios.into_iter()))
        };
        table.add(vec![
            peer.to_string(),
            seconds(|took| took.wall),
            ratio(|took| took.wall),
            seconds(|took| took.cpu),
            ratio(|took| took.cpu),
            format!(
                "{:.1}",
                median(took.iter().map(|took| (took.cpu.saturating_sub(took.ffmpeg_cpu)).as_secs_f64()))
            ),
            format!("{:.0}", took.iter().map(|took| took.engine_mb).fold(0.0, f64::max)),
            format!("{:.0}", took.iter().map(|took| took.ffmpeg_mb).fold(0.0, f64::max)),
            match took
                .iter()
                .map(|took| took.playable.map(|after| after.as_secs_f64()))
                .collect::<Option<Vec<f64>>>()
            {
                Some(after) => format!("{:.1}", median(after.into_iter())),
                None => String::new(),
            },
        ]);
    }
    table
}

/// The value in the middle, or between the two there.
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
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
