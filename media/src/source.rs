//! Sources: their tracks, the times and byte positions of their frames, and the parts that a row reads.

use spool_storage::ErrorKind;

pub mod index;
pub(crate) mod language;
pub mod probe;
pub mod source_cache;
pub mod window;

/// Reason why a source does not fit a row.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The row's source is not the one that was planned.
    #[error("{uri} changed after it was planned (ETag {planned:?}, now {found:?}): run the statement again")]
    SourceChanged {
        /// The source.
        uri: String,
        /// ETag in the row.
        planned: String,
        /// ETag now.
        found: String,
    },
    /// Frames could not be decoded, in strict mode.
    #[error(
        "{uri} is damaged, {damaged_frames} frames of it: leave out --strict (spool.strict) to have what can be decoded"
    )]
    Damaged {
        /// The source.
        uri: String,
        /// Number of damaged frames.
        damaged_frames: u64,
    },
    /// The source is truncated, in strict mode.
    #[error(
        "{uri} was cut off, {} s are missing: upload it again, or leave out --strict (spool.strict) to have what is there",
        lost_ms / 1000
    )]
    CutOff {
        /// The source.
        uri: String,
        /// Missing milliseconds.
        lost_ms: i64,
    },
    /// The row names a track that the source does not have.
    #[error("{uri} has no {track} {index}")]
    NoSuchTrack {
        /// The source.
        uri: String,
        /// Kind of track.
        track: &'static str,
        /// Number of the track.
        index: u32,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadInput
    }
}
