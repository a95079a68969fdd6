//! Flags of `spool watches`: places whose new files become jobs.

use clap::{Args, Subcommand};

use super::DatabaseArgs;

#[derive(Debug, Subcommand)]
pub enum WatchesCommand {
    /// Watch a bucket or a folder, and create a job from each file in it.
    ///
    /// New files are noticed in one of three ways: notifications sent to POST /v1/events/s3 (S3 by
    /// EventBridge, MinIO, Ceph) with a key of the tenant; an Amazon SQS queue (--queue); or a listing at an
    /// interval (--scan-interval), which works with every object store and with folders. Files that exist
    /// already are found only by a listing.
    Add(WatchAddArgs),
    /// List watches with their last error.
    Ls(WatchListArgs),
    /// Remove a watch. Jobs that it created stay.
    Rm(WatchRemoveArgs),
}

#[derive(Debug, Args)]
pub struct WatchAddArgs {
    /// Place to watch: s3://in/acme/, a prefix of another object store, or a folder.
    #[arg(value_name = "PREFIX")]
    pub prefix: String,
    /// Tenant that owns the jobs; created if missing.
    #[arg(long, value_name = "TENANT", default_value = "default")]
    pub tenant: String,
    /// Job to create from each file: the document of POST /v1/jobs without its source.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub job: String,
    /// SQS queue that receives the bucket's notifications. It must have a dead-letter queue.
    #[arg(long, value_name = "URL")]
    pub queue: Option<String>,
    /// Seconds between listings of the place. Default: no listings.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..=7 * 24 * 3600))]
    pub scan_interval: Option<u64>,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct WatchListArgs {
    /// Only watches of this tenant. Default: all tenants.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct WatchRemoveArgs {
    /// Identifier of the watch, as `spool watches ls` lists it: watch_…
    pub id: String,
    #[command(flatten)]
    pub database: DatabaseArgs,
}
