//! Flags of every command: scratch space, sandbox, reachable sources, limits and logs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use spool_media::limits::{Limits, MAX_TITLE_SECONDS, PIXELS_MAX, STREAMS_MAX};

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Folder for intermediate files. Default: the system's temporary folder.
    #[arg(long, global = true, env = "SPOOL_SCRATCH", value_name = "FOLDER")]
    pub scratch: Option<PathBuf>,
    /// Confine FFmpeg, which reads untrusted files, to its input and its own folder.
    #[arg(
        long,
        global = true,
        env = "SPOOL_SANDBOX",
        value_name = "MODE",
        value_enum,
        default_value_t = Sandbox::On
    )]
    pub sandbox: Sandbox,
    /// Folders with libraries that a confined FFmpeg may load, beside the system's folders and FFmpeg's own.
    #[arg(
        long,
        global = true,
        env = "SPOOL_SANDBOX_LIBRARIES",
        value_name = "FOLDER:FOLDER",
        value_delimiter = ':'
    )]
    pub sandbox_libraries: Vec<PathBuf>,
    /// Addresses that http and https sources may have. `spool serve --auth keys` always uses `public`.
    #[arg(
        long,
        global = true,
        env = "SPOOL_HTTP_SOURCES",
        value_name = "REACH",
        value_enum,
        default_value_t = NetworkReach::Any
    )]
    pub http_sources: NetworkReach,
    /// Log more: -v logs what Spool does, -vv also what the engine does.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Format of logs on stderr.
    #[arg(
        long,
        global = true,
        env = "SPOOL_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t = LogFormat::Text
    )]
    pub log_format: LogFormat,
    /// Log filter in the syntax of `tracing`, such as `spool_media=debug`. Overrides --verbose.
    #[arg(long, global = true, env = "SPOOL_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Limits on sources and on the work that one source may cause.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Limits of sources")]
pub struct LimitArgs {
    /// Largest frame, in pixels.
    #[arg(
        long,
        global = true,
        env = "SPOOL_MAX_PIXELS",
        value_name = "PIXELS",
        default_value_t = Limits::default().pixels,
        value_parser = clap::value_parser!(u64).range(1..=PIXELS_MAX)
    )]
    pub max_pixels: u64,
    /// Longest source, in seconds.
    #[arg(
        long,
        global = true,
        env = "SPOOL_MAX_DURATION",
        value_name = "SECONDS",
        default_value_t = Limits::default().duration_s,
        value_parser = clap::value_parser!(u64).range(1..=u64::from(MAX_TITLE_SECONDS))
    )]
    pub max_duration: u64,
    /// Most streams in a source.
    #[arg(
        long,
        global = true,
        env = "SPOOL_MAX_STREAMS",
        value_name = "STREAMS",
        default_value_t = Limits::default().streams as u64,
        value_parser = clap::value_parser!(u64).range(1..=STREAMS_MAX as u64)
    )]
    pub max_streams: u64,
    /// Highest frame rate, in frames per second.
    #[arg(
        long,
        global = true,
        env = "SPOOL_MAX_FPS",
        value_name = "FPS",
        default_value_t = Limits::default().fps,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_fps: u32,
    /// Longest encoding time, in seconds for each second of media.
    #[arg(
        long,
        global = true,
        env = "SPOOL_MAX_ENCODE_RATIO",
        value_name = "RATIO",
        default_value_t = Limits::default().work,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_encode_ratio: u32,
    /// Address space of one FFmpeg process, in MiB.
    #[arg(
        long,
        global = true,
        env = "SPOOL_MAX_MEMORY",
        value_name = "MIB",
        default_value_t = Limits::default().memory_bytes >> 20,
        value_parser = clap::value_parser!(u64).range(1024..1 << 40)
    )]
    pub max_memory: u64,
    /// Largest file that one FFmpeg process may write, in MiB. Less where the rates of the ladder allow less.
    #[arg(
        long,
        global = true,
        env = "SPOOL_MAX_OUTPUT",
        value_name = "MIB",
        default_value_t = Limits::default().written_bytes >> 20,
        value_parser = clap::value_parser!(u64).range(1..1 << 40)
    )]
    pub max_output: u64,
}

impl LimitArgs {
    /// Returns the limits that these flags set.
    pub fn limits(self) -> Limits {
        Limits {
            pixels: self.max_pixels,
            duration_s: self.max_duration,
            streams: usize::try_from(self.max_streams).unwrap_or(STREAMS_MAX),
            fps: self.max_fps,
            work: self.max_encode_ratio,
            memory_bytes: self.max_memory << 20,
            written_bytes: self.max_output << 20,
            ..Limits::default()
        }
    }
}

/// Confinement of FFmpeg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// No other files, no network and no other programs, as far as the kernel can enforce it (see `spool
    /// doctor`).
    On,
    /// Resource limits only.
    Off,
}

/// Addresses that a request of Spool may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkReach {
    /// Any address.
    Any,
    /// Public addresses only: none of this machine, of its network, or of a cloud's metadata services.
    Public,
}

/// Format of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object per line.
    Json,
}
