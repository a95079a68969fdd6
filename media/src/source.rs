//! Sources: which tracks a video has, where their frames and bytes are, and the parts of it that a row reads.

use spool_storage::ErrorKind;

pub mod index;
pub(crate) mod language;
pub mod probe;
pub mod source_cache;
pub mod window;

/// Why a source is not what a row needs.
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
    /// Frames could not be decoded, and that is not wanted.
    #[error(
        "{uri} is damaged, {damaged_frames} frames of it: leave out --strict (spool.strict) to have what can be decoded"
    )]
    Damaged {
        /// The source.
        uri: String,
        /// How many.
        damaged_frames: u64,
    },
    /// The source is not all there, and that is not wanted.
    #[error(
        "{uri} was cut off, {} s are missing: upload it again, or leave out --strict (spool.strict) to have what is there",
        lost_ms / 1000
    )]
    CutOff {
        /// The source.
        uri: String,
        /// How much is missing, in milliseconds.
        lost_ms: i64,
    },
    /// The row names a track that the source does not have.
    #[error("{uri} has no {track} {index}")]
    NoSuchTrack {
        /// The source.
        uri: String,
        /// What was asked for.
        track: &'static str,
        /// Its number.
        index: u32,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadInput
    }
}
