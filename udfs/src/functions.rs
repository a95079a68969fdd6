//! The SQL functions, in the order in which a transcode uses them.

mod literals;
mod rows;

pub mod media;
pub mod probe;
pub mod segments;

pub mod ladder;
pub mod transcode;

pub mod hls_ladder;
pub mod parts;
pub mod publish;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::logical_expr::Documentation;
use spool_media::encode::worker::Worker;

/// The section that our functions are documented under.
pub const SECTION: &str = "Video Functions";

/// What a function needs from the process that it runs in. All are equal: a function is known by its name, and each role
/// brings its own machine.
#[derive(Clone)]
pub(crate) struct Host(pub(crate) Arc<Worker>);

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

impl PartialEq for Host {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Host {}

impl Hash for Host {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The kind of a function, for the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Kind {
    Table,
    Scalar,
    Aggregate,
}

/// Every function with its kind and documentation, in reading order.
pub(crate) fn documented(worker: &Arc<Worker>) -> Vec<(&'static str, Kind, Option<Documentation>)> {
    use datafusion::logical_expr::{AggregateUDFImpl, ScalarUDFImpl};
    let host = Host(worker.clone());
    vec![
        (media::NAME, Kind::Table, media::Media::new(host.clone()).documentation().cloned()),
        (probe::NAME, Kind::Scalar, probe::Probe::new(host.clone()).documentation().cloned()),
        (segments::NAME, Kind::Table, segments::Segments::new(host.clone()).documentation().cloned()),
        (ladder::NAME, Kind::Scalar, ladder::Ladder::new().documentation().cloned()),
        (transcode::NAME, Kind::Scalar, transcode::Transcode::new(host.clone()).documentation().cloned()),
        (hls_ladder::NAME, Kind::Aggregate, hls_ladder::HlsLadder::new().documentation().cloned()),
        (publish::NAME, Kind::Scalar, publish::Publish::new(host.clone()).documentation().cloned()),
        (parts::NAME, Kind::Table, parts::Parts::new(host).documentation().cloned()),
    ]
}
