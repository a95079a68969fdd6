//! Which commands and flags are there? The doc comments are the help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 job failed, 2 usage, 3 not found, 4 not allowed, \
130 interrupted.";

/// Spool cuts videos into segments, transcodes them with FFmpeg on Ballista executors, and publishes HLS.
#[derive(Debug, Parser)]
#[command(name = "spool", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Folder for intermediate files; the system's temporary folder unless given.
    #[arg(long, global = true, env = "SPOOL_SCRATCH", value_name = "FOLDER", help_heading = "Global options")]
    pub scratch: Option<PathBuf>,
    /// Log more: -v what Spool does, -vv also what the engine does.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Log filter in tracing's syntax, such as `spool_media=debug`.
    #[arg(long, global = true, env = "SPOOL_LOG", value_name = "FILTER", help_heading = "Global options")]
    pub log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Transcode videos into HLS ladders.
    Transcode(Transcode),
    /// Run SQL over videos.
    Sql(Sql),
    /// Show what is in a video.
    Probe(Probe),
    /// Show the segments that a video would be cut into.
    Plan(Plan),
    /// Delete what nothing refers to any more.
    Sweep(Sweep),
    /// Check whether this machine is able to transcode.
    Doctor,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How segments are cut.
#[derive(Debug, Args)]
pub struct Cut {
    /// About how long a segment is: one row, one FFmpeg run.
    #[arg(long, env = "SPOOL_SEGMENT", value_name = "SECONDS", default_value_t = 30.0, allow_negative_numbers = true)]
    pub segment: f64,
    /// How long an HLS media segment is.
    #[arg(long, env = "SPOOL_MEDIA_SEGMENT", value_name = "SECONDS", default_value_t = 4.0, allow_negative_numbers = true)]
    pub media_segment: f64,
}

/// How much of this machine is used.
#[derive(Debug, Args)]
pub struct Engine {
    /// Segments that are encoded at a time; as many as cores allow unless given.
    #[arg(long, env = "SPOOL_SLOTS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub slots: Option<u16>,
    /// Threads of each encode. The bytes depend on it, the slots do not matter to them.
    #[arg(long, env = "SPOOL_THREADS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
}

#[derive(Debug, Args)]
pub struct Transcode {
    /// Videos: paths or URIs (file, s3, gs, az, http, https).
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Folder or URI prefix to publish to; with several sources each gets a folder of its own name in it.
    #[arg(short = 'o', long, env = "SPOOL_DESTINATION", value_name = "DESTINATION")]
    pub destination: String,
    /// A preset (`web`) or the short form (`1080p,720p:2800k,480p`).
    #[arg(long, env = "SPOOL_LADDER", value_name = "LADDER", default_value = "web")]
    pub ladder: String,
    #[command(flatten)]
    pub cut: Cut,
    #[command(flatten)]
    pub engine: Engine,
    /// How the result is printed on stdout.
    #[arg(long, env = "SPOOL_OUTPUT", value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// How progress is shown on stderr.
    #[arg(long, env = "SPOOL_PROGRESS", value_enum, default_value_t = Progress::Auto)]
    pub progress: Progress,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    /// Bars.
    Bar,
    /// A line now and then.
    Plain,
    /// A JSON object per event and line.
    Json,
    /// Nothing.
    None,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowFormat {
    /// A table for people.
    Table,
    /// A JSON array of objects.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false, id = "statement")]
pub struct Statement {
    /// The statement.
    #[arg(short = 'c', long, value_name = "SQL")]
    pub command: Option<String>,
    /// A file that holds the statement; `-` is standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Sql {
    #[command(flatten)]
    pub statement: Statement,
    #[command(flatten)]
    pub engine: Engine,
    /// How rows are printed on stdout.
    #[arg(long, env = "SPOOL_OUTPUT", value_enum, default_value_t = RowFormat::Table)]
    pub output: RowFormat,
}

#[derive(Debug, Args)]
pub struct Probe {
    /// Path or URI of the video.
    pub source: String,
    /// How the result is printed on stdout.
    #[arg(long, env = "SPOOL_OUTPUT", value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct Plan {
    /// Path or URI of the video.
    pub source: String,
    /// A preset or the short form: shows the renditions too.
    #[arg(long, env = "SPOOL_LADDER", value_name = "LADDER", default_value = "web")]
    pub ladder: String,
    #[command(flatten)]
    pub cut: Cut,
    /// How the result is printed on stdout.
    #[arg(long, env = "SPOOL_OUTPUT", value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct Sweep {
    /// Folder or URI prefix that was published to.
    pub destination: String,
    /// What is younger stays, since a job that still runs may have written it: longer than your longest job. Objects of a part that a
    /// sweep takes out of use stay as long again, and go with a later sweep; 0 deletes all at once.
    #[arg(long, env = "SPOOL_GRACE_HOURS", value_name = "HOURS", default_value_t = 24.0, allow_negative_numbers = true)]
    pub grace_hours: f64,
    /// Only say what would be deleted.
    #[arg(long)]
    pub dry_run: bool,
    /// How the result is printed on stdout.
    #[arg(long, env = "SPOOL_OUTPUT", value_enum, default_value_t = Format::Table)]
    pub output: Format,
}
