//! Windows: compact local files of just the samples that a row needs, with the source's own PTS.

mod fetch;
mod header;
mod select;

use std::{ops::Range, path::Path};

pub use self::select::Span;
use crate::source::index::{Container, Index, Track, mp4::Movie};
use spool_storage::{ErrorKind, ReadAt};

/// Plan of a window: its header, and the positions of its samples in the source.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Everything before the first sample: `ftyp`, `moov` and the header of `mdat`.
    header: Vec<u8>,
    fetches: Vec<fetch::Fetch>,
    sample_bytes: u64,
}

impl Plan {
    /// Returns the bytes read from the source: the samples, and small gaps between them.
    pub fn bytes_read(&self) -> u64 {
        self.fetches.iter().map(fetch::Fetch::bytes).sum()
    }

    /// Returns the number of ranged reads of the source.
    pub fn requests(&self) -> usize {
        self.fetches.len()
    }

    /// Returns the length of the local file in bytes.
    pub fn window_bytes(&self) -> u64 {
        self.header.len() as u64 + self.sample_bytes
    }
}

/// Plans the window of one row: a file of the one track `stream`.
///
/// FFmpeg reads its frames with the PTS of the source, in the source's timebase. Pictures that only serve to
/// decode others (preroll, leading pictures of an open GOP) are included, but marked so that FFmpeg does not
/// output them.
///
/// # Errors
/// Returns [`Error::Whole`] for a source that has no windows, [`Error::NoSuchStream`], [`Error::NotVideo`]
/// for [`Span::Pts`] of anything but video, and [`Error::NothingShown`] if the track shows no frame by the
/// end of the span.
pub fn plan(index: &Index, stream: usize, span: Span) -> Result<Plan, Error> {
    let movie = movie(index)?;
    let (track, header) =
        index.tracks.get(stream).zip(movie.tracks.get(stream)).ok_or(Error::NoSuchStream { stream })?;
    let selected = select::window(stream, track, header, span)?;
    let timescale = selected.movie_timescale.unwrap_or(movie.timescale);
    let part = header::Part { header, track, selected, whole_times: false, references: false };
    assemble(movie, timescale, &[part])
}

/// Plans the file to probe: the first few samples of every audio and video track, tracks and stream numbers
/// as in the source.
///
/// Frame rates, durations and codecs that ffprobe reports for it are those of the source. Start times are
/// not; the index has them.
///
/// # Errors
/// Returns [`Error::Whole`] for a source that has no windows.
pub fn plan_probe(index: &Index) -> Result<Plan, Error> {
    let movie = movie(index)?;
    let tracks = index.tracks.iter().zip(&movie.tracks);
    let parts: Vec<_> = tracks
        .map(|(track, header)| {
            let selected = select::probe(track, header);
            header::Part { header, track, selected, whole_times: true, references: true }
        })
        .collect();
    assemble(movie, movie.timescale, &parts)
}

/// Writes a window to `path`, which is created or replaced. A failure leaves an incomplete file.
///
/// At most 32 MiB are in memory at a time.
///
/// # Errors
/// Returns [`Error::Store`] and [`Error::ShortRead`] if the source can't be read, [`Error::Write`] if the
/// file can't be written.
pub async fn write(plan: &Plan, reader: &impl ReadAt, path: &Path) -> Result<(), Error> {
    fetch::write(&plan.header, &plan.fetches, reader, path).await
}

fn movie(index: &Index) -> Result<&Movie, Error> {
    match &index.container {
        Container::Mp4(movie) => Ok(movie),
        Container::Whole { demuxer } => Err(Error::Whole { demuxer: demuxer.clone() }),
    }
}

fn sizes(track: &Track, samples: &Range<usize>) -> u64 {
    track.samples.get(samples.clone()).unwrap_or_default().iter().map(|sample| u64::from(sample.size)).sum()
}

/// Builds the header, and plans the reads of the samples, part after part.
fn assemble(movie: &Movie, timescale: u32, parts: &[header::Part<'_>]) -> Result<Plan, Error> {
    let sample_bytes = parts.iter().map(|part| sizes(part.track, &part.selected.samples)).sum();
    let header = header::build(movie, timescale, parts, sample_bytes)?;
    let samples = parts
        .iter()
        .flat_map(|part| part.track.samples.get(part.selected.samples.clone()).unwrap_or_default());
    let fetches = fetch::plan(samples, header.len() as u64);
    Ok(Plan { header, fetches, sample_bytes })
}

/// Failure to plan or write a window.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source can only be read as a whole.
    #[error("a {demuxer} source has no windows; use the whole file")]
    Whole {
        /// FFmpeg's demuxer name.
        demuxer: String,
    },
    /// The source has no such stream.
    #[error("the source has no stream {stream}")]
    NoSuchStream {
        /// FFmpeg's stream index.
        stream: usize,
    },
    /// Only pictures are cut by time: sound is encoded as a whole.
    #[error("stream {stream} is not video and can't be cut by time")]
    NotVideo {
        /// FFmpeg's stream index.
        stream: usize,
    },
    /// No frame is on screen by the end of the span.
    #[error("stream {stream} shows no frame before tick {end}")]
    NothingShown {
        /// FFmpeg's stream index.
        stream: usize,
        /// The span's end in ticks.
        end: i64,
    },
    /// A frame is shown so long after it is decoded that the sample tables cannot express it.
    #[error("stream {stream} reorders frames over {ticks} ticks, more than an MP4 can say")]
    Reordering {
        /// FFmpeg's stream index.
        stream: usize,
        /// Largest difference found.
        ticks: i64,
    },
    /// The window's tables could not be written.
    #[error("cannot write the tables of a window")]
    Tables(#[from] mp4_atom::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] spool_storage::Error),
    /// The store returned another number of bytes than requested.
    #[error("asked for bytes {start}..{end} of the source and got {got} bytes")]
    ShortRead {
        /// First byte requested.
        start: u64,
        /// One past the last byte requested.
        end: u64,
        /// Bytes received.
        got: usize,
    },
    /// The scratch folder is full.
    #[error(
        "no space left for the window {path}: free some, or name a larger folder with --scratch or SPOOL_SCRATCH"
    )]
    NoSpace {
        /// The local file.
        path: std::path::PathBuf,
    },
    /// The local file could not be written.
    #[error("cannot write the window {path}: {source}")]
    Write {
        /// The local file.
        path: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Error {
    /// Returns the error for a failure to write the local file: a full disk has a remedy of its own.
    fn write(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == std::io::ErrorKind::StorageFull {
            Self::NoSpace { path }
        } else {
            Self::Write { path, source }
        }
    }

    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::ShortRead { .. } | Self::Write { .. } | Self::NoSpace { .. } => ErrorKind::Transient,
            Self::Whole { .. } | Self::NoSuchStream { .. } | Self::NotVideo { .. } | Self::Tables(_) => {
                ErrorKind::Bug
            }
            Self::NothingShown { .. } | Self::Reordering { .. } => ErrorKind::BadInput,
        }
    }
}

#[cfg(test)]
mod tests;
