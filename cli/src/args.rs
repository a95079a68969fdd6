//! Which commands and flags are there? The doc comments are the help.

mod access;
mod jobs;
mod slurm;
mod watches;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use spool_media::{
    limits::{Limits, PIXELS_MAX, STREAMS_MAX},
    plan::{deinterlace::Deinterlace, grid::MAX_TITLE_SECONDS},
};

pub use access::{Access, Entry, Kept, KeyCreate, KeyList, KeyRevoke, Keys, TenantSet, Tenants};
pub use jobs::{Api, JobList, Jobs, OneJob, Serve, Server, Submit};
pub use slurm::{Batch, Common, Slurm, SlurmExecutors, SlurmJob, SlurmScheduler};
pub use watches::{WatchAdd, WatchList, WatchRemove, Watches};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 job failed, 2 usage, 3 not found, 4 not allowed, \
5 cluster unreachable, 130 interrupted.";

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
    #[arg(
        long,
        global = true,
        env = "SPOOL_SCRATCH",
        value_name = "FOLDER",
        help_heading = "Global options"
    )]
    pub scratch: Option<PathBuf>,
    /// What FFmpeg is kept from, which reads strangers' files: other files, the network and other programs, or nothing but its limits.
    #[arg(long, global = true, env = "SPOOL_SANDBOX", value_enum, default_value_t = Sandbox::On, help_heading = "Global options")]
    pub sandbox: Sandbox,
    /// Folders with libraries that FFmpeg needs, where they are neither the system's nor beside it.
    #[arg(
        long,
        global = true,
        env = "SPOOL_SANDBOX_LIBRARIES",
        value_name = "FOLDER:FOLDER",
        value_delimiter = ':',
        help_heading = "Global options"
    )]
    pub sandbox_libraries: Vec<PathBuf>,
    /// Which http(s) sources are read: any, or only those that everybody can reach, where jobs come from strangers.
    #[arg(long, global = true, env = "SPOOL_WEB", value_enum, default_value_t = Web::Any, help_heading = "Global options")]
    pub web: Web,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Log more: -v what Spool does, -vv also what the engine does.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// How logs are written on stderr.
    #[arg(long, global = true, env = "SPOOL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, help_heading = "Global options")]
    pub log_format: LogFormat,
    /// Log filter in tracing's syntax, such as `spool_media=debug`.
    #[arg(long, global = true, env = "SPOOL_LOG", value_name = "FILTER", help_heading = "Global options")]
    pub log: Option<String>,
}

/// What is taken for a video, and what may be spent on it.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Limits of sources")]
pub struct LimitArgs {
    /// Pixels of a frame.
    #[arg(long, global = true, env = "SPOOL_MAX_PIXELS", value_name = "PIXELS", default_value_t = Limits::default().pixels, value_parser = clap::value_parser!(u64).range(1..=PIXELS_MAX))]
    pub max_pixels: u64,
    /// Length of a source.
    #[arg(long, global = true, env = "SPOOL_MAX_DURATION", value_name = "SECONDS", default_value_t = Limits::default().duration_s, value_parser = clap::value_parser!(u64).range(1..=u64::from(MAX_TITLE_SECONDS)))]
    pub max_duration: u64,
    /// Streams of a source.
    #[arg(long, global = true, env = "SPOOL_MAX_STREAMS", value_name = "STREAMS", default_value_t = Limits::default().streams as u64, value_parser = clap::value_parser!(u64).range(1..=STREAMS_MAX as u64))]
    pub max_streams: u64,
    /// Frames per second.
    #[arg(long, global = true, env = "SPOOL_MAX_FPS", value_name = "FPS", default_value_t = Limits::default().fps, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_fps: u32,
    /// Seconds that encoding may take for each second of media.
    #[arg(long, global = true, env = "SPOOL_MAX_WORK", value_name = "SECONDS", default_value_t = Limits::default().work, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_work: u32,
    /// Address space of one FFmpeg.
    #[arg(long, global = true, env = "SPOOL_MAX_MEMORY", value_name = "MIB", default_value_t = Limits::default().memory_bytes >> 20, value_parser = clap::value_parser!(u64).range(1024..1 << 40))]
    pub max_memory: u64,
    /// Largest file that one FFmpeg may write, if its rates allow as much.
    #[arg(long, global = true, env = "SPOOL_MAX_WRITTEN", value_name = "MIB", default_value_t = Limits::default().written_bytes >> 20, value_parser = clap::value_parser!(u64).range(1..1 << 40))]
    pub max_written: u64,
}

impl LimitArgs {
    /// The same as limits.
    pub fn limits(self) -> Limits {
        Limits {
            pixels: self.max_pixels,
            duration_s: self.max_duration,
            streams: usize::try_from(self.max_streams).unwrap_or(STREAMS_MAX),
            fps: self.max_fps,
            work: self.max_work,
            memory_bytes: self.max_memory << 20,
            written_bytes: self.max_written << 20,
            ..Limits::default()
        }
    }
}

/// Whether FFmpeg runs in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// As far as the kernel can; `spool doctor` tells how far that is.
    On,
    /// No more than limits.
    Off,
}

/// Which http(s) sources are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Web {
    /// Any.
    Any,
    /// Those at public addresses: none of this machine, of this network, or of a cloud's own services.
    Public,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object per line.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Transcode videos into HLS ladders.
    Transcode(Transcode),
    /// Run SQL over videos.
    Sql(Sql),
    /// Show what is in a video.
    Probe(Probe),
    /// Show the segments that a video would be cut into, and what they will take: some seconds of it are encoded to see.
    Plan(Plan),
    /// Delete what nothing refers to any more.
    Sweep(Sweep),
    /// Run everything on this machine: an HTTP API to ask for jobs, and what works them off.
    Serve(Serve),
    /// Run the HTTP API alone: several answer for one store, whose jobs schedulers work off.
    Server(Server),
    /// Ask a server for jobs, and see what becomes of them.
    #[command(subcommand)]
    Jobs(Jobs),
    /// Run statements for clients, on the executors that join.
    Scheduler(Scheduler),
    /// Encode rows for a scheduler.
    Executor(Executor),
    /// Say who may ask a server: make, list and revoke keys.
    #[command(subcommand)]
    Keys(Keys),
    /// Say what tenants may do: places, and limits.
    #[command(subcommand)]
    Tenants(Tenants),
    /// Say where files arrive that jobs are made of.
    #[command(subcommand)]
    Watches(Watches),
    /// Run on a cluster of Slurm: write jobs for it, and submit them.
    #[command(subcommand)]
    Slurm(Slurm),
    /// Check whether this machine is able to transcode.
    Doctor,
    /// Ask a role that runs whether it is well: its /livez or /readyz. For probes of containers.
    Health {
        /// What to ask.
        #[arg(value_name = "URL", env = "SPOOL_HEALTH_URL", default_value = "http://127.0.0.1:8080/readyz")]
        url: url::Url,
    },
    /// Write the manual pages into a folder.
    Man {
        /// The folder.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How segments are cut.
#[derive(Debug, Args)]
pub struct Cut {
    /// About how long a segment is: one row, one FFmpeg run. Unless given 30, or a quarter of the video if that is shorter; with --live, as
    /// long as a media segment.
    #[arg(long, env = "SPOOL_SEGMENT", value_name = "SECONDS", allow_negative_numbers = true)]
    pub segment: Option<f64>,
    /// How long an HLS media segment is.
    #[arg(
        long,
        env = "SPOOL_MEDIA_SEGMENT",
        value_name = "SECONDS",
        default_value_t = 4.0,
        allow_negative_numbers = true
    )]
    pub media_segment: f64,
    /// What becomes of an interlaced frame: one picture (frame), or one of each field at twice the rate (field).
    #[arg(long, env = "SPOOL_DEINTERLACE", value_name = "frame|field", default_value = "frame")]
    pub deinterlace: Deinterlace,
}

impl Cut {
    /// How long segments are, if that is told.
    pub fn segment(&self, live: bool) -> Option<f64> {
        self.segment.or(live.then_some(self.media_segment))
    }

    /// The same, as a request has it.
    pub fn request(&self) -> spool_jobs::Cut {
        spool_jobs::Cut {
            segment_seconds: self.segment,
            media_segment_seconds: self.media_segment,
            deinterlace: self.deinterlace,
        }
    }
}

/// Where the work is done.
#[derive(Debug, Args)]
pub struct Engine {
    /// Scheduler to submit to; a cluster in this process unless given.
    #[arg(long, env = "SPOOL_CLUSTER", value_name = "HOST:PORT", value_parser = host_port, conflicts_with = "slots")]
    pub cluster: Option<String>,
    /// What the scheduler wants to be shown.
    #[arg(long, env = "SPOOL_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    #[command(flatten)]
    pub share: Share,
}

/// How much of this machine is used.
#[derive(Debug, Clone, Copy, Args)]
pub struct Share {
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
    /// A preset (`web`) or the short form (`1080p-av1,720p:2800k@crf25,480p,aac,opus:96k`).
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
    /// Keep what is encoded so far playable, as live.m3u8 at the destination. Segments are short then, which costs some percent.
    #[arg(long, env = "SPOOL_LIVE")]
    pub live: bool,
    /// Refuse a file that is damaged or was cut off, instead of transcoding what can be decoded of it.
    #[arg(long, env = "SPOOL_STRICT")]
    pub strict: bool,
    /// Tell where the time went, at the end.
    #[arg(long, env = "SPOOL_PROFILE")]
    pub profile: bool,
    /// Write where the time went as a trace, for Perfetto (ui.perfetto.dev) or Chrome (chrome:tracing).
    #[arg(long, env = "SPOOL_TRACE", value_name = "FILE")]
    pub trace: Option<PathBuf>,
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
    #[command(flatten)]
    pub share: Share,
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
    #[arg(
        long,
        env = "SPOOL_GRACE_HOURS",
        value_name = "HOURS",
        default_value_t = 24.0,
        allow_negative_numbers = true
    )]
    pub grace_hours: f64,
    /// Only say what would be deleted.
    #[arg(long)]
    pub dry_run: bool,
    /// How the result is printed on stdout.
    #[arg(long, env = "SPOOL_OUTPUT", value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How jobs are worked off.
#[derive(Debug, Clone, Copy, Args)]
pub struct Dispatch {
    /// Jobs that are worked on at a time; the others wait in the store.
    #[arg(long, env = "SPOOL_ACTIVE", value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub active: u16,
    /// How long a job waits for its scheduler's word before another takes it over.
    #[arg(long, env = "SPOOL_LEASE", value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub lease: u64,
}

#[derive(Debug, Args)]
pub struct Scheduler {
    /// Address to listen on, for executors, clients, Flight SQL, KEDA and HTTP. There is no TLS: bind to a private address.
    #[arg(long, env = "SPOOL_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:50050")]
    pub listen: std::net::SocketAddr,
    /// What executors and clients have to show; nothing unless given.
    #[arg(long, env = "SPOOL_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Silence after which an executor counts as lost.
    #[arg(long, env = "SPOOL_EXECUTOR_TIMEOUT", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(3..=3600))]
    pub executor_timeout: u64,
    /// How long a statement waits where there is no executor at all.
    #[arg(long, env = "SPOOL_PATIENCE", value_name = "SECONDS", default_value_t = 600)]
    pub patience: u64,
    /// Work off the jobs that are kept here: postgres://USER@HOST/DATABASE, or a file of SQLite on a disk of this machine. Several
    /// schedulers may work off one store.
    #[arg(long, env = "SPOOL_STORE", value_name = "STORE", hide_env_values = true)]
    pub store: Option<String>,
    #[command(flatten)]
    pub dispatch: Dispatch,
    /// Take in executors of another version, or with another build of FFmpeg: then equal rows may have other bytes.
    #[arg(long, env = "SPOOL_ALLOW_OTHERS")]
    pub allow_others: bool,
}

#[derive(Debug, Args)]
pub struct Executor {
    /// The scheduler to work for.
    #[arg(long, env = "SPOOL_SCHEDULER", value_name = "HOST:PORT", value_parser = host_port)]
    pub scheduler: String,
    /// What the scheduler wants to be shown.
    #[arg(long, env = "SPOOL_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    #[command(flatten)]
    pub share: Share,
    /// Address that the scheduler reaches this machine at; that of the way to the scheduler unless given.
    #[arg(long, env = "SPOOL_ADDRESS", value_name = "ADDRESS")]
    pub address: Option<std::net::IpAddr>,
    /// How long rows in hand may take to finish after SIGTERM, before they are given up.
    #[arg(long, env = "SPOOL_GRACE", value_name = "SECONDS", default_value_t = 300)]
    pub grace: u64,
    /// Leave, with exit code 0, after so long without a row: where machines are paid for by the hour, or wanted by others.
    #[arg(long, env = "SPOOL_LEAVE_IDLE", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub leave_idle: Option<u64>,
    /// Address for probes and Prometheus: /livez, /readyz, /metrics. Nothing listens unless given.
    #[arg(long, env = "SPOOL_HTTP", value_name = "ADDRESS:PORT")]
    pub http: Option<std::net::SocketAddr>,
}

/// A name or an address, and a port.
fn host_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("give a host and a port, such as scheduler.example:50050".to_owned()),
    }
}
