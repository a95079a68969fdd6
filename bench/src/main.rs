//! `spool-bench`: what Spool costs, measured. `make bench` and `make bench-scale` run it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use spool_bench::{
    encode,
    inputs::Source,
    overhead, predict,
    scale::{self, Measurement},
};

#[derive(Parser)]
#[command(about)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Where to write the figures as JSON too.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Spool against one FFmpeg, against the same commands without Spool, and against Spark.
    Encode(encode::Args),
    /// Predicted processor time against what it was.
    Predict {
        /// Folder for the source, which is kept, and for what is made of it, which is not.
        #[arg(long, default_value = ".cache/bench")]
        folder: PathBuf,
    },
    /// Bytes read from a store, and the time before the first FFmpeg.
    Overhead {
        /// Sources to transcode.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Source::Minute, Source::FourK])]
        sources: Vec<Source>,
        /// Folder for the sources, which are kept, and for what is made of them, which is not.
        #[arg(long, default_value = ".cache/bench")]
        folder: PathBuf,
    },
    /// The cluster without FFmpeg: cost per row, many jobs, many slots, a lost executor.
    Scale {
        /// What to measure; everything unless named.
        #[arg(value_enum)]
        what: Vec<Measurement>,
    },
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let tables = match args.command {
        Command::Encode(args) => encode::measure(&args),
        Command::Overhead { sources, folder } => overhead::measure(&folder, &sources),
        Command::Predict { folder } => predict::measure(&folder),
        Command::Scale { what } => scale::measure(&what),
    };
    if let Some(path) = args.json {
        std::fs::write(path, serde_json::to_string_pretty(&tables)?)?;
    }
    for table in tables {
        println!("{}", table.markdown());
    }
    Ok(())
}
