//! Flags of places where files arrive.

use clap::{Args, Subcommand};

use super::Kept;

#[derive(Debug, Subcommand)]
pub enum Watches {
    /// Have a job made of each file that arrives in a place.
    ///
    /// The store tells a server at POST /v1/events/s3 (S3 by EventBridge, MinIO, Ceph's gateway; as the key's owner), or a queue of Amazon's is
    /// read (--queue), or the place is listed (--list-every), which works with every store and with folders. Files that are there already are
    /// found by a listing.
    Add(WatchAdd),
    /// List them, and how each stands.
    Ls(WatchList),
    /// Have no more jobs made of what arrives there. Jobs that are made stay.
    Rm(WatchRemove),
}

#[derive(Debug, Args)]
pub struct WatchAdd {
    /// The place: s3://in/acme/, another store's, or a folder.
    #[arg(value_name = "PREFIX")]
    pub prefix: String,
    /// Whose jobs are made. The tenant is made where there is none of this name.
    #[arg(long, value_name = "TENANT", default_value = "default")]
    pub tenant: String,
    /// What is made of each file: the document of a job, without its source.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub job: String,
    /// The queue (SQS) that the bucket's notifications go to. It needs a dead-letter queue.
    #[arg(long, value_name = "URL")]
    pub queue: Option<String>,
    /// How often it is looked for what has arrived.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..=7 * 24 * 3600))]
    pub list_every: Option<u64>,
    #[command(flatten)]
    pub kept: Kept,
}

#[derive(Debug, Args)]
pub struct WatchList {
    /// Whose watches; everybody's unless given.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    #[command(flatten)]
    pub kept: Kept,
}

#[derive(Debug, Args)]
pub struct WatchRemove {
    /// The watch: watch_…
    pub id: String,
    #[command(flatten)]
    pub kept: Kept,
}
