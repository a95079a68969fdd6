//! Flags of `spool jobs`, the client of the HTTP API.

use clap::{Args, Subcommand};

use super::OutputFormat;

#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// Submit a job and print its identifier.
    Submit(JobSubmitArgs),
    /// List jobs, newest first.
    Ls(JobListArgs),
    /// Show a job.
    Get(JobArgs),
    /// Follow a job until it ends, and exit with 1 unless it was published.
    Watch(JobArgs),
    /// Cancel a job.
    Cancel(JobArgs),
    /// Run a failed or canceled job again.
    Retry(JobArgs),
}

/// API to call, and the format of results.
#[derive(Debug, Args)]
pub struct ApiClientArgs {
    /// URL of the API.
    #[arg(long, env = "SPOOL_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub server: url::Url,
    /// API key. An API that runs with --auth keys requires one.
    #[arg(long, env = "SPOOL_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Authority that must have signed the API's certificate, in PEM, beside those of the system.
    #[arg(long, env = "SPOOL_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<std::path::PathBuf>,
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
pub struct JobSubmitArgs {
    /// Video: a path or URI that the cluster can read. Relative paths are resolved on this machine.
    #[arg(value_name = "SOURCE", required_unless_present = "sql", conflicts_with = "sql")]
    pub source: Option<String>,
    /// Folder or URI prefix to publish to; `{video}` stands for the video's identifier. Default: a folder in
    /// the API's --media.
    #[arg(short = 'o', long, env = "SPOOL_DESTINATION", value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// Ladder: a preset (web, mobile, uhd, preview) or a list such as
    /// 1080p-av1,720p:2800k@crf25,480p,aac,opus:96k. Default: web.
    #[arg(long, env = "SPOOL_LADDER", value_name = "LADDER")]
    pub ladder: Option<String>,
    /// Delete the source after it is published, unless the source has changed since it was planned.
    #[arg(long, conflicts_with = "sql")]
    pub delete_source: bool,
    /// SQL statement to run instead of transcoding a source.
    #[arg(long, value_name = "SQL")]
    pub sql: Option<String>,
    /// Priority, from -100 to 100. Jobs of a tenant with a higher priority run first.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(-100..=100)
    )]
    pub priority: i64,
    /// Identifies this request: sending it again with the same key creates no second job.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    #[command(flatten)]
    pub api: ApiClientArgs,
}

#[derive(Debug, Args)]
pub struct JobListArgs {
    /// Only jobs in this state: pending, processing, published, failed or canceled. Default: all states.
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Most jobs to list.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub limit: u32,
    #[command(flatten)]
    pub api: ApiClientArgs,
}

#[derive(Debug, Args)]
pub struct JobArgs {
    /// Identifier of the job: job_…
    pub id: String,
    #[command(flatten)]
    pub api: ApiClientArgs,
}
