//! Flags of whoever serves jobs, and of whoever asks for them.

use clap::{Args, Subcommand};

use super::{Dispatch, Entry, Format, Share};

#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on. Without --access keys it must be one of this machine alone.
    #[arg(long, env = "SPOOL_SERVE_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: std::net::SocketAddr,
    /// Folder for what is kept: the jobs, and videos that come without a destination.
    #[arg(long, env = "SPOOL_DATA", value_name = "FOLDER", default_value = "spool-data")]
    pub data: String,
    /// Where jobs are kept: a file of SQLite, on a disk of this machine, or postgres://USER@HOST/DATABASE. In the folder unless given.
    #[arg(long, env = "SPOOL_STORE", value_name = "STORE", hide_env_values = true)]
    pub store: Option<String>,
    /// Folder or URI prefix for videos that come without a destination. In the folder unless given.
    #[arg(long, env = "SPOOL_MEDIA", value_name = "DESTINATION")]
    pub media: Option<String>,
    /// Folder or URI prefix for what is uploaded. In the folder unless given.
    #[arg(long, env = "SPOOL_UPLOADS", value_name = "DESTINATION")]
    pub uploads: Option<String>,
    /// After how many hours parts that nothing refers to are retired, where the server keeps videos, and after as many more go: longer than the
    /// longest job; 0 for never.
    #[arg(long, env = "SPOOL_SWEEP_HOURS", value_name = "HOURS", default_value_t = 48.0, value_parser = hours)]
    pub sweep_hours: f64,
    #[command(flatten)]
    pub entry: Entry,
    #[command(flatten)]
    pub share: Share,
    #[command(flatten)]
    pub dispatch: Dispatch,
}

#[derive(Debug, Args)]
pub struct Server {
    /// Address to listen on. Without --access keys it must be one of this machine alone.
    #[arg(long, env = "SPOOL_SERVE_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: std::net::SocketAddr,
    /// Where jobs are kept: postgres://USER@HOST/DATABASE, or a file of SQLite on a disk of this machine.
    #[arg(long, env = "SPOOL_STORE", value_name = "STORE", hide_env_values = true)]
    pub store: String,
    /// Folder or URI prefix for videos that come without a destination; such are refused unless given.
    #[arg(long, env = "SPOOL_MEDIA", value_name = "DESTINATION")]
    pub media: Option<String>,
    /// Folder or URI prefix for what is uploaded.
    #[arg(long, env = "SPOOL_UPLOADS", value_name = "DESTINATION")]
    pub uploads: String,
    /// After how many hours parts that nothing refers to are retired, where the server keeps videos, and after as many more go: longer than the
    /// longest job; 0 for never.
    #[arg(long, env = "SPOOL_SWEEP_HOURS", value_name = "HOURS", default_value_t = 48.0, value_parser = hours)]
    pub sweep_hours: f64,
    #[command(flatten)]
    pub entry: Entry,
}

#[derive(Debug, Subcommand)]
pub enum Jobs {
    /// Ask for a job, and print its name.
    Submit(Submit),
    /// List jobs, the newest first.
    Ls(JobList),
    /// Show a job.
    Get(OneJob),
    /// Follow a job until it ends; the exit code is the job's.
    Watch(OneJob),
    /// Ask to stop a job.
    Cancel(OneJob),
    /// Have a job that failed or was canceled tried again.
    Retry(OneJob),
}

/// The server that is asked, and how it is shown.
#[derive(Debug, Args)]
pub struct Api {
    /// The server.
    #[arg(long, env = "SPOOL_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub server: url::Url,
    /// The key that it wants to be shown, where it wants one.
    #[arg(long, env = "SPOOL_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// How the result is printed on stdout.
    #[arg(long, env = "SPOOL_OUTPUT", value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct Submit {
    /// Video: a path or URI as the server has it.
    #[arg(value_name = "SOURCE", required_unless_present = "sql", conflicts_with = "sql")]
    pub source: Option<String>,
    /// Folder or URI prefix to publish to; `{video}` in it stands for the video's name. Where the server keeps its videos unless given.
    #[arg(short = 'o', long, env = "SPOOL_DESTINATION", value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// A preset (`web`) or the short form (`1080p-av1,720p:2800k@crf25,480p,aac,opus:96k`).
    #[arg(long, env = "SPOOL_LADDER", value_name = "LADDER")]
    pub ladder: Option<String>,
    /// Delete the source once it is published, unless it has changed meanwhile.
    #[arg(long, conflicts_with = "sql")]
    pub delete_source: bool,
    /// A statement, instead of a source.
    #[arg(long, value_name = "SQL")]
    pub sql: Option<String>,
    /// Jobs of a higher one go first.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-100..=100))]
    pub priority: i64,
    /// Stands for this request: sent again, it makes no second job.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    #[command(flatten)]
    pub api: Api,
}

#[derive(Debug, Args)]
pub struct JobList {
    /// Only those in this state: pending, processing, published, failed or canceled.
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    #[command(flatten)]
    pub api: Api,
}

#[derive(Debug, Args)]
pub struct OneJob {
    /// The job.
    pub id: String,
    #[command(flatten)]
    pub api: Api,
}

/// A length of time in hours.
fn hours(text: &str) -> Result<f64, String> {
    let hours = text.parse::<f64>().ok().filter(|hours| (0.0..=8760.0).contains(hours));
    hours.ok_or_else(|| "give hours, from 0 to 8760".to_owned())
}
