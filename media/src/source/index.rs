//! Index of a source: times, keyframes and byte positions of every track's samples.

pub mod mp4;
pub mod scan;

use std::ops::Range;

use crate::time::Rational;
use spool_storage::ErrorKind;

/// All tracks of one source, with all samples.
#[derive(Debug, Clone)]
pub struct Index {
    /// Container, which decides how rows read the source.
    pub container: Container,
    /// Tracks in container order: `tracks[i]` is FFmpeg's stream `i`.
    pub tracks: Vec<Track>,
}

impl Index {
    /// Returns the times, in ticks of the track, at which it is shown. Frames outside are decoded (others may
    /// refer to them) and dropped, by FFmpeg and by every player. The range comes from an edit list; if
    /// FFmpeg has applied it, times before 0 are outside, unless no frame is left then. A transport stream
    /// has no edit list, but its clock may wrap, and FFmpeg counts back from there.
    pub fn shown(&self, stream: usize) -> Range<i64> {
        match &self.container {
            Container::Mp4(movie) => {
                movie.tracks.get(stream).map_or(i64::MIN..i64::MAX, |header| header.shown.clone())
            }
            Container::Whole { demuxer } if ["mpegts", "mpeg"].contains(&demuxer.as_str()) => {
                i64::MIN..i64::MAX
            }
            Container::Whole { .. } => {
                let track = self.tracks.get(stream);
                let has_more = track.is_some_and(|track| track.samples.iter().any(|sample| sample.pts >= 0));
                if has_more { 0..i64::MAX } else { i64::MIN..i64::MAX }
            }
        }
    }
}

/// Container of a source, which decides how rows read it.
#[derive(Debug, Clone)]
pub enum Container {
    /// MP4 or MOV with all its samples in `moov`: rows read windows.
    Mp4(mp4::Movie),
    /// Anything else: rows read the whole file, by FFmpeg's demuxer of this name.
    Whole {
        /// FFmpeg's demuxer name, to be forced with `-f`.
        demuxer: String,
    },
}

/// Kind of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Subtitles, timecode, data, cover art.
    Other,
}

/// One track of a source.
#[derive(Debug, Clone)]
pub struct Track {
    /// Kind of the track.
    pub kind: TrackKind,
    /// Seconds per tick of every time below.
    pub timebase: Rational,
    /// Samples in decoding order.
    pub samples: Vec<Sample>,
    /// Ticks that are missing at the end: samples that the header declares but that the file does not
    /// contain.
    pub lost_ticks: i64,
}

impl Track {
    /// Returns the earliest presentation time in ticks; `None` without samples.
    pub fn first_pts(&self) -> Option<i64> {
        self.samples.iter().map(|sample| sample.pts).min()
    }

    /// Returns the end of the last frame in ticks: the latest presentation time plus that sample's duration;
    /// `None` without samples.
    pub fn end_pts(&self) -> Option<i64> {
        let last = self.samples.iter().max_by_key(|sample| sample.pts)?;
        Some(last.pts.saturating_add(i64::from(last.duration)))
    }
}

/// One encoded frame of a track in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Presentation time in ticks, after the edit list: FFmpeg's `pts` of the packet.
    pub pts: i64,
    /// Decoding time in ticks, on the same clock.
    pub dts: i64,
    /// Duration in ticks; 0 if the container has none.
    pub duration: u32,
    /// First byte in the source.
    pub offset: u64,
    /// Size in bytes.
    pub size: u32,
    /// Whether decoding can start here.
    pub key: bool,
}

/// Failure to index a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] spool_storage::Error),
    /// The packets of a whole file could not be scanned.
    #[error(transparent)]
    Scan(#[from] scan::Error),
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
    /// The file does not start with a box of ISO/IEC 14496-12 or QuickTime.
    #[error("not an MP4 or MOV file")]
    NotMp4,
    /// The file ends without a `moov` box.
    #[error("no moov box in {bytes} bytes; the recording was not finished, or the upload was cut")]
    NoHeader {
        /// Length of the file.
        bytes: u64,
    },
    /// A top-level box reaches past the end of the file.
    #[error("truncated: box {kind:?} ends at byte {end} of {bytes}; upload the file again")]
    TruncatedBox {
        /// The box's four characters.
        kind: String,
        /// Declared end of the box.
        end: u64,
        /// Length of the file.
        bytes: u64,
    },
    /// Even the first sample of a track reaches past the end of the file.
    #[error(
        "truncated: sample {sample} of track {track} ends at byte {end} of {bytes}; upload the file again"
    )]
    Truncated {
        /// FFmpeg's stream index.
        track: usize,
        /// The sample's number in decoding order, from 0.
        sample: usize,
        /// Declared end of the sample.
        end: u64,
        /// Length of the file.
        bytes: u64,
    },
    /// `moov` is larger than Spool reads into memory.
    #[error("moov has {bytes} bytes, more than the limit of {limit}")]
    HeaderTooLarge {
        /// Size of `moov` in bytes.
        bytes: u64,
        /// [`mp4::MAX_HEADER_BYTES`].
        limit: u64,
    },
    /// More samples than Spool keeps in memory.
    #[error("more than {limit} samples")]
    TooManySamples {
        /// [`mp4::MAX_SAMPLES`].
        limit: usize,
    },
    /// The header as a whole is invalid.
    #[error("damaged header: {what}")]
    Damaged {
        /// Description of the problem.
        what: &'static str,
    },
    /// One track's header is invalid.
    #[error("damaged header of track {track}: {what}")]
    DamagedTrack {
        /// FFmpeg's stream index.
        track: usize,
        /// Description of the problem.
        what: &'static str,
    },
    /// The track is encrypted (ISO/IEC 23001-7).
    #[error("track {track} is encrypted; decrypt it first")]
    Encrypted {
        /// FFmpeg's stream index.
        track: usize,
    },
    /// The samples of a track lie in another file (a QuickTime reference movie).
    #[error("the samples of track {track} lie in another file; export a self-contained movie")]
    External {
        /// FFmpeg's stream index.
        track: usize,
    },
    /// The file is valid, but cannot be read in windows: its packets are scanned, and every row reads the
    /// whole file.
    #[error("cannot be read in windows, {why}: the whole file is needed")]
    NeedsWholeFile {
        /// Reason.
        why: mp4::WholeFile,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Scan(error) => error.kind(),
            Self::ShortRead { .. } => ErrorKind::Transient,
            Self::NotMp4
            | Self::NoHeader { .. }
            | Self::TruncatedBox { .. }
            | Self::Truncated { .. }
            | Self::HeaderTooLarge { .. }
            | Self::TooManySamples { .. }
            | Self::Damaged { .. }
            | Self::DamagedTrack { .. }
            | Self::Encrypted { .. }
            | Self::External { .. }
            | Self::NeedsWholeFile { .. } => ErrorKind::BadInput,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_edit_list_hides_is_not_shown_and_a_clock_that_wraps_hides_nothing() {
        let sample = |pts| Sample { pts, dts: pts, duration: 1, size: 1, offset: 0, key: true };
        let shown = |demuxer: &str, pts: &[i64]| {
            let samples = pts.iter().copied().map(sample).collect();
            let timebase = Rational::new(1, 1000).unwrap();
            let track = Track { kind: TrackKind::Video, timebase, samples, lost_ticks: 0 };
            let index =
                Index { container: Container::Whole { demuxer: demuxer.to_owned() }, tracks: vec![track] };
            let range = index.shown(0);
            pts.iter().copied().filter(|pts| range.contains(pts)).collect::<Vec<_>>()
        };
        assert_eq!(shown("mov", &[-2, -1, 0, 1]), [0, 1]);
        assert_eq!(shown("mov", &[-2, -1]), [-2, -1], "nothing else is left");
        assert_eq!(shown("mpegts", &[-2, -1, 0, 1]), [-2, -1, 0, 1]);
    }
}
