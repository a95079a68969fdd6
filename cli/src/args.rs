//! Command line: commands and flags. The doc comments are the help texts.

mod auth;
mod connection;
mod global;
mod jobs;
mod roles;
mod slurm;
mod transcode;
mod watches;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use auth::{
    AuthArgs, AuthMode, DatabaseArgs, KeyCreateArgs, KeyListArgs, KeyRevokeArgs, KeysCommand, TenantSetArgs,
    TenantsCommand,
};
pub use connection::{ClientTlsArgs, ServerTlsArgs, TlsInitArgs, TokenArgs};
pub use global::{GlobalArgs, LogFormat, NetworkReach, Sandbox};
pub use jobs::{ApiClientArgs, JobArgs, JobListArgs, JobSubmitArgs, JobsCommand};
pub use roles::{ApiArgs, DispatcherArgs, ExecutorArgs, SchedulerArgs, ServeArgs};
pub use slurm::{
    SlurmBatchArgs, SlurmCommand, SlurmExecutorsArgs, SlurmJob, SlurmJobArgs, SlurmSchedulerArgs,
};
pub use transcode::{EngineArgs, PlanArgs, ProgressMode, SlotArgs, SqlArgs, TranscodeArgs};
pub use watches::{WatchAddArgs, WatchListArgs, WatchRemoveArgs, WatchesCommand};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the job failed
  2    wrong command line or statement
  3    not found
  4    not allowed: credentials or permissions are missing
  5    the API or the cluster is unreachable, or no executor has joined
  130  interrupted";

/// Cuts videos into segments, transcodes them with FFmpeg on Ballista executors, and publishes HLS.
#[derive(Debug, Parser)]
#[command(name = "spool", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Transcode videos into HLS ladders.
    Transcode(TranscodeArgs),
    /// Run a SQL statement over videos.
    Sql(SqlArgs),
    /// Show the container, tracks and format of a video.
    Probe(ProbeArgs),
    /// Show the segments and renditions of a video, and predict processor time, wall time and bytes.
    ///
    /// Encodes a few seconds of the video for the prediction, and publishes nothing.
    Plan(PlanArgs),
    /// Delete part records and media objects that no published playlist refers to.
    Gc(GcArgs),
    /// Run the HTTP API, a scheduler and an executor on this machine.
    Serve(ServeArgs),
    /// Run the HTTP API alone.
    ///
    /// Several API processes may share one database. Its jobs are run by `spool scheduler --database`.
    Api(ApiArgs),
    /// Submit jobs to an API and follow them.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Run statements and jobs on the executors that join.
    Scheduler(SchedulerArgs),
    /// Encode rows for a scheduler.
    Executor(ExecutorArgs),
    /// Create, list and revoke API keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Show and set the allowed prefixes and quotas of tenants.
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Create jobs from files that arrive in a bucket or a folder.
    #[command(subcommand)]
    Watches(WatchesCommand),
    /// Write or submit Slurm jobs that run Spool on a cluster.
    #[command(subcommand)]
    Slurm(SlurmCommand),
    /// Make the certificates of a cluster.
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Check that this machine can transcode.
    Doctor,
    /// Request a health endpoint, and fail unless it succeeds. For container probes.
    Health {
        /// /livez or /readyz of a running API, scheduler or executor.
        #[arg(value_name = "URL", env = "SPOOL_HEALTH_URL", default_value = "http://127.0.0.1:8080/readyz")]
        url: url::Url,
    },
    /// Write the manual pages.
    Man {
        /// Folder to write to; created if missing.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Print a shell completion script.
    Completions {
        /// Shell to complete for.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum TlsCommand {
    /// Make a certificate for this host, and the authority that signs it if the folder has none.
    Init(TlsInitArgs),
}

/// Format of a result on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
}

/// Format of rows on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowFormat {
    /// A table for people.
    Table,
    /// A JSON array of objects.
    Json,
    /// Comma-separated values with a header line.
    Csv,
}

#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Video: a path or URI (file, s3, gs, az, http, https).
    pub source: String,
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

#[derive(Debug, Args)]
pub struct GcArgs {
    /// Folder or URI prefix of a published video.
    pub destination: String,
    /// Hours for which unreferenced records and objects are kept, since a running job may have written them.
    /// Choose more than the longest job takes.
    ///
    /// Objects of a part whose record one run deletes are kept for as long again, and deleted by a later run.
    /// 0 deletes all at once.
    #[arg(
        long,
        env = "SPOOL_GRACE_HOURS",
        value_name = "HOURS",
        default_value_t = 24.0,
        allow_negative_numbers = true
    )]
    pub grace_hours: f64,
    /// Report what would be deleted, and delete nothing.
    #[arg(long)]
    pub dry_run: bool,
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

/// Parses `HOST:PORT`: a name or an address, and a port other than 0.
fn host_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("expected a host and a port, such as scheduler.example:50050".to_owned()),
    }
}
