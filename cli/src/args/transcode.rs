//! Flags of `spool transcode`, `spool sql` and `spool plan`: segmentation, and the engine that does the work.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use spool_media::plan::deinterlace::Deinterlace;

use super::{ClientTlsArgs, OutputFormat, RowFormat, TokenArgs, host_port};

#[derive(Debug, Args)]
pub struct TranscodeArgs {
    /// Videos: paths or URIs (file, s3, gs, az, http, https).
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Folder or URI prefix to publish to. Each of several sources gets a subfolder with its name.
    #[arg(short = 'o', long, env = "SPOOL_DESTINATION", value_name = "DESTINATION")]
    pub destination: String,
    /// Ladder: a preset (web, mobile, uhd, preview) or a list such as
    /// 1080p-av1,720p:2800k@crf25,480p,aac,opus:96k.
    #[arg(long, env = "SPOOL_LADDER", value_name = "LADDER", default_value = "web")]
    pub ladder: String,
    #[command(flatten)]
    pub segmentation: SegmentArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Format of the result on stdout.
    #[arg(
        long,
        env = "SPOOL_OUTPUT",
        value_name = "FORMAT",
        value_enum,
        default_value_t = OutputFormat::Table
    )]
    pub output: OutputFormat,
    /// Format of progress on stderr.
    #[arg(
        long,
        env = "SPOOL_PROGRESS",
        value_name = "FORMAT",
        value_enum,
        default_value_t = ProgressMode::Auto
    )]
    pub progress: ProgressMode,
    /// Publish early.m3u8 at the destination, which plays what is encoded so far.
    ///
    /// Encodes rows in the order of the video, with segments as long as one media segment unless --segment is
    /// given. Shorter segments cost some percent of processor time.
    #[arg(long, env = "SPOOL_EARLY_PLAYBACK")]
    pub early_playback: bool,
    /// Refuse a damaged or truncated source instead of transcoding what can be decoded.
    #[arg(long, env = "SPOOL_STRICT")]
    pub strict: bool,
    /// Report where the time went, after the result.
    #[arg(long, env = "SPOOL_PROFILE")]
    pub profile: bool,
    /// Write a trace of where the time went, for Perfetto (ui.perfetto.dev) or Chrome (chrome:tracing).
    #[arg(long, env = "SPOOL_TRACE", value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// Segmentation of a source.
#[derive(Debug, Args)]
pub struct SegmentArgs {
    /// Target length of a segment (one row, one FFmpeg run), in seconds. Default: 30, or a quarter of a
    /// shorter video.
    #[arg(long, env = "SPOOL_SEGMENT", value_name = "SECONDS", allow_negative_numbers = true)]
    pub segment: Option<f64>,
    /// Length of an HLS media segment, in seconds.
    #[arg(
        long,
        env = "SPOOL_MEDIA_SEGMENT",
        value_name = "SECONDS",
        default_value_t = 4.0,
        allow_negative_numbers = true
    )]
    pub media_segment: f64,
    /// Pictures made of an interlaced frame: one (frame), or one of each field at twice the rate (field).
    #[arg(long, env = "SPOOL_DEINTERLACE", value_name = "frame|field", default_value = "frame")]
    pub deinterlace: Deinterlace,
}

impl SegmentArgs {
    /// Returns the target length of a segment in seconds, or `None` for the default.
    pub fn segment(&self, early_playback: bool) -> Option<f64> {
        self.segment.or(early_playback.then_some(self.media_segment))
    }

    /// Returns the segmentation as a job request carries it.
    pub fn request(&self) -> spool_jobs::Cut {
        spool_jobs::Cut {
            segment_seconds: self.segment,
            media_segment_seconds: self.media_segment,
            deinterlace: self.deinterlace,
        }
    }
}

/// Engine that runs statements: a scheduler elsewhere, or one of this process.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Scheduler to submit to. Default: a scheduler and an executor in this process.
    #[arg(
        long,
        env = "SPOOL_CLUSTER",
        value_name = "HOST:PORT",
        value_parser = host_port,
        conflicts_with = "slots"
    )]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub token: TokenArgs,
    #[command(flatten)]
    pub tls: ClientTlsArgs,
    #[command(flatten)]
    pub slots: SlotArgs,
}

/// Slots of this process and threads of each.
#[derive(Debug, Clone, Copy, Args)]
pub struct SlotArgs {
    /// Segments to encode at once. Default: the number of cores divided by --threads.
    #[arg(
        long,
        env = "SPOOL_SLOTS",
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub slots: Option<u16>,
    /// Threads of each encode. Changes the output bytes; --slots does not.
    #[arg(
        long,
        env = "SPOOL_THREADS",
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=64)
    )]
    pub threads: u32,
}

impl SlotArgs {
    /// Returns the number of slots: as many as cores allow, unless given.
    ///
    /// One more would fill the gaps while a row is fetched or stored, but was no faster
    /// (docs/decisions/0009).
    pub fn count(self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.slots.map_or_else(|| (cores / self.threads as usize).max(1), usize::from)
    }
}

/// Format of progress on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    /// A bar per video.
    Bar,
    /// A line per video, at most every 10 seconds.
    Plain,
    /// A JSON object per event and line.
    Json,
    /// No progress.
    None,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false, id = "statement")]
pub struct StatementArgs {
    /// Statement to run.
    #[arg(short = 'c', long, value_name = "SQL")]
    pub command: Option<String>,
    /// File with the statement to run; `-` reads standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SqlArgs {
    #[command(flatten)]
    pub statement: StatementArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Format of rows on stdout.
    #[arg(
        long,
        env = "SPOOL_OUTPUT",
        value_name = "FORMAT",
        value_enum,
        default_value_t = RowFormat::Table
    )]
    pub output: RowFormat,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Video: a path or URI (file, s3, gs, az, http, https).
    pub source: String,
    /// Ladder to show renditions and predictions for: a preset or a list, as for `spool transcode`.
    #[arg(long, env = "SPOOL_LADDER", value_name = "LADDER", default_value = "web")]
    pub ladder: String,
    #[command(flatten)]
    pub segmentation: SegmentArgs,
    #[command(flatten)]
    pub slots: SlotArgs,
    /// Format of the result on stdout.
    #[arg(
        long,
        env = "SPOOL_OUTPUT",
        value_name = "FORMAT",
        value_enum,
        default_value_t = OutputFormat::Table
    )]
    pub output: OutputFormat,
}
