//! Ingest: objects that arrive under watched prefixes become jobs, by listing, by S3 events, and by SQS.

pub(crate) mod s3_events;
pub(crate) mod sqs;
pub(crate) mod watcher;
