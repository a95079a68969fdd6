//! Flags of long-running roles: `spool serve`, `spool api`, `spool scheduler` and `spool executor`.

use std::{net::SocketAddr, time::Duration};

use clap::Args;

use super::{AuthArgs, ClientTlsArgs, ServerTlsArgs, SlotArgs, TokenArgs, host_port};

const SECONDS_PER_HOUR: f64 = 3600.0;

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Folder for the database, and for media and uploads that have no other place.
    #[arg(long, env = "SPOOL_DATA", value_name = "FOLDER", default_value = "spool-data")]
    pub data: String,
    /// Database of jobs and keys: an SQLite file on a local disk, or postgres://USER@HOST/DATABASE. Default:
    /// jobs.db in the data folder.
    #[arg(long, env = "SPOOL_DATABASE", value_name = "DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    /// Folder or URI prefix for videos of jobs without a destination. Default: media in the data folder.
    #[arg(long, env = "SPOOL_MEDIA", value_name = "DESTINATION")]
    pub media: Option<String>,
    /// Folder or URI prefix for uploaded files. Default: uploads in the data folder.
    #[arg(long, env = "SPOOL_UPLOADS", value_name = "DESTINATION")]
    pub uploads: Option<String>,
    #[command(flatten)]
    pub gc: GcGraceArgs,
    #[command(flatten)]
    pub auth: AuthArgs,
    #[command(flatten)]
    pub slots: SlotArgs,
    #[command(flatten)]
    pub dispatcher: DispatcherArgs,
}

#[derive(Debug, Args)]
pub struct ApiArgs {
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Database of jobs and keys: postgres://USER@HOST/DATABASE, or an SQLite file on a local disk.
    #[arg(long, env = "SPOOL_DATABASE", value_name = "DATABASE", hide_env_values = true)]
    pub database: String,
    /// Folder or URI prefix for videos of jobs without a destination. Default: such jobs are refused.
    #[arg(long, env = "SPOOL_MEDIA", value_name = "DESTINATION")]
    pub media: Option<String>,
    /// Folder or URI prefix for uploaded files.
    #[arg(long, env = "SPOOL_UPLOADS", value_name = "DESTINATION")]
    pub uploads: String,
    #[command(flatten)]
    pub gc: GcGraceArgs,
    #[command(flatten)]
    pub auth: AuthArgs,
}

/// Address of the HTTP API.
#[derive(Debug, Args)]
pub struct ListenArgs {
    /// Address to listen on. Beyond loopback it needs --auth keys and TLS.
    #[arg(
        id = "listen",
        long = "listen",
        env = "SPOOL_API_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub address: SocketAddr,
    #[command(flatten)]
    pub tls: ServerTlsArgs,
}

/// Garbage collection of the videos that the API keeps.
#[derive(Debug, Args)]
pub struct GcGraceArgs {
    /// Hours after which unreferenced part records under --media are deleted; their objects are deleted as
    /// many hours later. Choose more than the longest job takes; 0 disables garbage collection.
    #[arg(
        long = "gc-grace-hours",
        env = "SPOOL_GC_GRACE_HOURS",
        value_name = "HOURS",
        default_value_t = 48.0,
        value_parser = hours
    )]
    pub gc_grace_hours: f64,
}

impl GcGraceArgs {
    /// Returns the grace period of garbage collection, or `None` if it is disabled.
    pub fn grace(&self) -> Option<Duration> {
        Some(Duration::from_secs_f64(self.gc_grace_hours * SECONDS_PER_HOUR)).filter(|grace| !grace.is_zero())
    }
}

/// Dispatch of jobs from the database.
#[derive(Debug, Clone, Copy, Args)]
pub struct DispatcherArgs {
    /// Jobs to run at once; further jobs wait in the database.
    #[arg(
        long,
        env = "SPOOL_MAX_CONCURRENT_JOBS",
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub max_concurrent_jobs: u16,
    /// Seconds for which a lease on a job holds. A job whose lease is not renewed is taken over by another
    /// scheduler.
    #[arg(
        long,
        env = "SPOOL_LEASE",
        value_name = "SECONDS",
        default_value_t = 15,
        value_parser = clap::value_parser!(u64).range(2..=3600)
    )]
    pub lease: u64,
}

#[derive(Debug, Args)]
pub struct SchedulerArgs {
    /// Address to listen on for executors, clients, Flight SQL, KEDA and HTTP. Beyond loopback it needs TLS.
    #[arg(long, env = "SPOOL_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:50050")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub token: TokenArgs,
    #[command(flatten)]
    pub tls: ServerTlsArgs,
    /// Address for health probes and Prometheus, which need no token there: /livez, /readyz and /metrics.
    /// Default: none.
    #[arg(long, env = "SPOOL_HTTP", value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,
    /// Seconds without a heartbeat after which an executor counts as lost.
    #[arg(
        long,
        env = "SPOOL_EXECUTOR_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(3..=3600)
    )]
    pub executor_timeout: u64,
    /// Seconds that a statement waits for a first executor before it fails.
    #[arg(long, env = "SPOOL_NO_EXECUTOR_TIMEOUT", value_name = "SECONDS", default_value_t = 600)]
    pub no_executor_timeout: u64,
    /// Database to run jobs from: postgres://USER@HOST/DATABASE, or an SQLite file on a local disk. Several
    /// schedulers may share one. Default: no jobs, only statements of clients.
    #[arg(long, env = "SPOOL_DATABASE", value_name = "DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    #[command(flatten)]
    pub dispatcher: DispatcherArgs,
    /// Accept executors with another version of Spool or another build of FFmpeg. Equal rows may then have
    /// different bytes.
    #[arg(long, env = "SPOOL_ALLOW_VERSION_SKEW")]
    pub allow_version_skew: bool,
}

#[derive(Debug, Args)]
pub struct ExecutorArgs {
    /// Scheduler to join.
    #[arg(long, env = "SPOOL_SCHEDULER", value_name = "HOST:PORT", value_parser = host_port)]
    pub scheduler: String,
    #[command(flatten)]
    pub token: TokenArgs,
    #[command(flatten)]
    pub tls: ClientTlsArgs,
    #[command(flatten)]
    pub slots: SlotArgs,
    /// Seconds that running rows get to finish after SIGTERM, before they are canceled and run elsewhere.
    #[arg(long, env = "SPOOL_DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 300)]
    pub drain_timeout: u64,
    /// Seconds without a row after which the executor exits with code 0. Default: it stays.
    #[arg(
        long,
        env = "SPOOL_IDLE_TIMEOUT",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub idle_timeout: Option<u64>,
    /// Address for health probes and Prometheus: /livez, /readyz and /metrics. Default: none.
    #[arg(long, env = "SPOOL_HTTP", value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,
}

/// Parses a length of time in hours.
fn hours(text: &str) -> Result<f64, String> {
    let hours = text.parse::<f64>().ok().filter(|hours| (0.0..=8760.0).contains(hours));
    hours.ok_or_else(|| "expected hours, from 0 to 8760".to_owned())
}
