//! `Error`: any failure of the video domain, and its class.

use crate::{
    encode::worker,
    environment, ffmpeg, listing,
    package::{cmaf, gc, merge, parts, playlists, publish},
    plan::{
        grid, ladder,
        segments::{self, Segment, SegmentTrack},
    },
    source::{self, index, probe, window},
};
use spool_storage::{ErrorKind, path_policy};

/// Result of functions of this crate that involve more than one module.
pub type Result<T> = std::result::Result<T, Error>;

/// Any failure of the video domain. Each module defines its own error.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is one module's error, documented there")]
pub enum Error {
    #[error(transparent)]
    Store(#[from] spool_storage::Error),
    #[error(transparent)]
    Index(#[from] index::Error),
    #[error(transparent)]
    Probe(#[from] probe::Error),
    #[error(transparent)]
    Grid(#[from] grid::Error),
    #[error(transparent)]
    Segments(#[from] segments::Error),
    #[error(transparent)]
    Ladder(#[from] ladder::Error),
    #[error(transparent)]
    Window(#[from] window::Error),
    #[error(transparent)]
    Ffmpeg(#[from] ffmpeg::Error),
    #[error(transparent)]
    Cmaf(#[from] cmaf::Error),
    #[error(transparent)]
    Parts(#[from] parts::Error),
    #[error(transparent)]
    Playlists(#[from] playlists::Error),
    #[error(transparent)]
    Environment(#[from] environment::Error),
    #[error(transparent)]
    Worker(#[from] worker::Error),
    #[error(transparent)]
    OpenSource(#[from] source::Error),
    #[error(transparent)]
    Merge(#[from] merge::Error),
    #[error(transparent)]
    Publish(#[from] publish::Error),
    #[error(transparent)]
    Sweep(#[from] gc::Error),
    #[error(transparent)]
    Catalog(#[from] listing::Error),
    #[error(transparent)]
    PathPolicy(#[from] path_policy::Error),
    #[error("{uri}: {source}")]
    Source { uri: String, source: Box<Error> },
    #[error("{}{} {index}: {source}", uri.as_ref().map_or_else(String::new, |uri| format!("{uri}: ")), name(*.track))]
    Row { uri: Option<String>, track: SegmentTrack, index: u32, source: Box<Error> },
}

impl Error {
    /// Adds the source's URI, unless the error names it already.
    pub(crate) fn of(self, uri: &str) -> Self {
        if self.names_its_source() {
            self
        } else {
            Self::Source { uri: uri.to_owned(), source: Box::new(self) }
        }
    }

    /// Adds the row.
    pub(crate) fn of_row(self, segment: &Segment) -> Self {
        let uri = (!self.names_its_source()).then(|| spool_storage::redact(&segment.source));
        Self::Row { uri, track: segment.track, index: segment.index, source: Box::new(self) }
    }

    fn names_its_source(&self) -> bool {
        matches!(
            self,
            Self::Store(_)
                | Self::Parts(_)
                | Self::PathPolicy(_)
                | Self::Source { .. }
                | Self::Index(index::Error::Store(_))
        )
    }

    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Index(e) => e.kind(),
            Self::Probe(e) => e.kind(),
            Self::Grid(e) => e.kind(),
            Self::Segments(e) => e.kind(),
            Self::Ladder(e) => e.kind(),
            Self::Window(e) => e.kind(),
            Self::Ffmpeg(e) => e.kind(),
            Self::Cmaf(e) => e.kind(),
            Self::Parts(e) => e.kind(),
            Self::Playlists(e) => e.kind(),
            Self::Environment(e) => e.kind(),
            Self::Worker(e) => e.kind(),
            Self::OpenSource(e) => e.kind(),
            Self::Merge(e) => e.kind(),
            Self::Publish(e) => e.kind(),
            Self::Sweep(e) => e.kind(),
            Self::Catalog(e) => e.kind(),
            Self::PathPolicy(e) => e.kind(),
            Self::Source { source, .. } | Self::Row { source, .. } => source.kind(),
        }
    }
}

/// Returns the word for a row in messages.
fn name(track: SegmentTrack) -> &'static str {
    match track {
        SegmentTrack::Video => "segment",
        SegmentTrack::Audio => "sound track",
    }
}
