//! `spool-bench`: measures what Spool costs. `make bench` and `make bench-scale` run it.

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
    /// File to write the figures to as JSON, beside the tables on stdout.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Compare Spool with one FFmpeg, with Spool's own commands run without Spool, and with Spark.
    Encode(encode::Args),
    /// Compare predicted with actual processor time.
    Predict {
        /// Folder for the source, which is kept, and for outputs, which are deleted.
        #[arg(long, default_value = ".cache/bench")]
        folder: PathBuf,
    },
    /// Measure bytes read from an object store, and the time until the first FFmpeg starts.
    Overhead {
        /// Sources to transcode.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Source::Minute, Source::FourK])]
        sources: Vec<Source>,
        /// Folder for the sources, which are kept, and for outputs, which are deleted.
        #[arg(long, default_value = ".cache/bench")]
        folder: PathBuf,
    },
    /// Measure the cluster without FFmpeg: cost per row, many jobs, many slots, a lost executor.
    Scale {
        /// Measurements to make. Default: all.
        #[arg(value_enum)]
        measurements: Vec<Measurement>,
    },
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let tables = match args.command {
        Command::Encode(args) => encode::measure(&args),
        Command::Overhead { sources, folder } => overhead::measure(&folder, &sources),
        Command::Predict { folder } => predict::measure(&folder),
        Command::Scale { measurements } => scale::measure(&measurements),
    };
    if let Some(path) = args.json {
        std::fs::write(path, serde_json::to_string_pretty(&tables)?)?;
    }
    for table in tables {
        println!("{}", table.markdown());
    }
    Ok(())
}
