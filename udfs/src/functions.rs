//! SQL functions, in the order in which a transcode uses them.

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

/// The section of the documentation that holds the functions of this crate.
pub const SECTION: &str = "Video Functions";

/// The parts of a process that functions use. All hosts compare equal: a function is identified by its name,
/// and each role has a host of its own.
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

/// The kind of a function, for the function reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are SQL's terms")]
pub enum FunctionKind {
    Table,
    Scalar,
    Aggregate,
}

/// Returns every function with its kind and documentation, in reading order.
pub(crate) fn documented_functions(
    worker: &Arc<Worker>,
) -> Vec<(&'static str, FunctionKind, Option<Documentation>)> {
    use datafusion::logical_expr::{AggregateUDFImpl, ScalarUDFImpl};
    let host = Host(worker.clone());
    vec![
        (media::NAME, FunctionKind::Table, media::Media::new(host.clone()).documentation().cloned()),
        (probe::NAME, FunctionKind::Scalar, probe::Probe::new(host.clone()).documentation().cloned()),
        (segments::NAME, FunctionKind::Table, segments::Segments::new(host.clone()).documentation().cloned()),
        (ladder::NAME, FunctionKind::Scalar, ladder::Ladder::new().documentation().cloned()),
        (
            transcode::NAME,
            FunctionKind::Scalar,
            transcode::Transcode::new(host.clone()).documentation().cloned(),
        ),
        (hls_ladder::NAME, FunctionKind::Aggregate, hls_ladder::HlsLadder::new().documentation().cloned()),
        (publish::NAME, FunctionKind::Scalar, publish::Publish::new(host.clone()).documentation().cloned()),
        (parts::NAME, FunctionKind::Table, parts::Parts::new(host).documentation().cloned()),
    ]
}
