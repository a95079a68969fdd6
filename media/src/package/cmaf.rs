//! CMAF packager: makes media segments that join of encoded samples.
//!
//! Every segment of a video is encoded by an FFmpeg run of its own. The output of FFmpeg's muxer does not
//! join, so the packager reads the samples from its fragmented MP4 and writes them again: one init segment
//! per rendition, the same bytes for every part of it, and media segments timed by integer ticks of the grid.
//! It streams: one media segment is in memory at a time.
//!
//! Source: ISO/IEC 14496-12 (boxes), ISO/IEC 23000-19 (CMAF tracks, brand `cmfc`), RFC 8216 section 3.3 (fMP4
//! media segments).

mod boxes;
mod read;
mod sample_entry;
mod segmenter;
mod write;

use std::io::Read;

use bytes::Bytes;

use crate::time::Rational;
use spool_storage::ErrorKind;

/// Place of a video file in its rendition, and its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoSpec {
    /// Grid frames per second.
    pub rate: Rational,
    /// Grid number of the file's first frame: a multiple of `media_segment_frames`.
    pub first_frame: u64,
    /// Frames that the file must hold.
    pub frames: u64,
    /// Grid frames per media segment; the last one of the file may be shorter.
    pub media_segment_frames: u32,
    /// Number of frames by which the rendition's decoding order may run ahead of its display order (2 for
    /// x264 with a B-pyramid). It is the same for all parts of a rendition, whatever each of them needs,
    /// because the init segment holds it.
    pub reorder_frames: u32,
}

/// Cuts of an audio track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioSpec {
    /// Seconds per grid frame of the accompanying video.
    pub grid_timebase: Rational,
    /// Grid frames per media segment.
    pub media_segment_frames: u32,
    /// ISO 639-2 code such as `eng`; anything else is written as `und`.
    pub language: Option<String>,
}

/// One media segment: `styp`, one `moof`, one `mdat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaSegment {
    /// Number within the rendition, from 0; the same number starts at the same grid time on every rendition.
    pub number: u32,
    /// Start of presentation, in ticks of the track's timescale from the start of the video.
    pub start_ticks: u64,
    /// Duration of presentation in ticks: `start_ticks + duration_ticks` is the next media segment's
    /// `start_ticks`.
    pub duration_ticks: u64,
    /// The object's content.
    pub bytes: Bytes,
}

/// The init segment: the configuration that a decoder needs before the first media segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// `ftyp` and `moov`: byte-identical for all parts with the same decoder configuration.
    pub bytes: Bytes,
    /// The decoder configuration as RFC 6381 writes it, such as `avc1.64001f` or `mp4a.40.2`.
    pub codecs: String,
    /// Ticks per second.
    pub timescale: u32,
    /// Display width in pixels; 0 for sound.
    pub width: u32,
    /// Display height in pixels; 0 for sound.
    pub height: u32,
}

/// The clock of a video track: a whole number of ticks per frame and at least [`Clock::MIN_TIMESCALE`] ticks
/// per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Ticks per second.
    pub timescale: u32,
    /// Ticks per grid frame.
    pub frame_ticks: u32,
}

impl Clock {
    /// Smallest timescale. Players round to their own clocks (90 kHz, microseconds); with fewer ticks per
    /// second the rounding would matter.
    pub const MIN_TIMESCALE: u32 = 10_000;

    /// Returns the clock of a grid: the numerator of its rate times the smallest factor that reaches
    /// [`Self::MIN_TIMESCALE`].
    ///
    /// # Errors
    /// Returns [`Error::Spec`] if a frame is so long that its ticks don't fit 32 bits.
    pub fn of(rate: Rational) -> Result<Self, Error> {
        let factor = Self::MIN_TIMESCALE.div_ceil(rate.num());
        let ticks = rate.num().checked_mul(factor).zip(rate.den().checked_mul(factor));
        let (timescale, frame_ticks) =
            ticks.ok_or(Error::Spec("a frame of this rate is too long to be counted in ticks"))?;
        Ok(Self { timescale, frame_ticks })
    }
}

/// Reads FFmpeg's fragmented MP4 of one track and yields media segments, one at a time.
///
/// The input is read once, front to back, so it can be a pipe. Iteration ends after the last media segment or
/// the first error; the file is known to be complete only when the iterator has ended without an error.
#[derive(Debug)]
pub struct Packager<R> {
    reader: read::Reader<R>,
    init: Init,
    cutter: segmenter::Cutter,
    ended: bool,
}

impl<R: Read> Packager<R> {
    /// Opens the file of one segment of a video at one rung; reads up to its `moov`.
    ///
    /// Times are computed from the grid: frame `n` of the video is decoded at `n` and shown at `n` frames of
    /// [`Clock`] (the init segment's one-entry edit list subtracts the reordering delay). FFmpeg's own times
    /// are checked, not used.
    ///
    /// # Errors
    /// Returns [`Error::Spec`] if `spec` is invalid, and other errors if the header is.
    pub fn video(input: R, spec: &VideoSpec) -> Result<Self, Error> {
        let cutter = segmenter::Video::new(spec)?;
        let reader = read::Reader::open(input, read::Kind::Video)?;
        let entry = sample_entry::SampleEntry::parse(&reader.track().entry)?;
        let init = write::init(reader.track(), &entry, cutter.timescale(), cutter.media_time(), "und")?;
        Ok(Self { reader, init, cutter: segmenter::Cutter::Video(cutter), ended: false })
    }

    /// Opens the file of one whole audio track; reads up to its `moov`.
    ///
    /// Media segment `k` starts with the first audio frame that is heard at or after the grid time of video
    /// media segment `k`. The encoder's delay (priming) is read from FFmpeg's edit list, which it writes only
    /// with `-movflags +delay_moov`. Without an edit list it is Opus' pre-skip, or the constant of FFmpeg's
    /// own AAC encoder.
    ///
    /// # Errors
    /// Returns [`Error::Spec`] if `spec` is invalid, and other errors if the header is.
    pub fn audio(input: R, spec: &AudioSpec) -> Result<Self, Error> {
        let reader = read::Reader::open(input, read::Kind::Audio)?;
        let entry = sample_entry::SampleEntry::parse(&reader.track().entry)?;
        let timescale = reader.track().timescale;
        let priming = reader.track().media_time.unwrap_or_else(|| entry.priming());
        let cutter = segmenter::Audio::new(spec, timescale, priming, entry.frame_ticks())?;
        let init = write::init(
            reader.track(),
            &entry,
            timescale,
            priming,
            spec.language.as_deref().unwrap_or("und"),
        )?;
        Ok(Self { reader, init, cutter: segmenter::Cutter::Audio(cutter), ended: false })
    }

    /// Returns the rendition's init segment.
    pub fn init(&self) -> &Init {
        &self.init
    }
}

impl<R: Read> Iterator for Packager<R> {
    type Item = Result<MediaSegment, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = match &mut self.cutter {
            segmenter::Cutter::Video(cutter) => cutter.next(&mut self.reader),
            segmenter::Cutter::Audio(cutter) => cutter.next(&mut self.reader),
        };
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

/// Failure to package an encoder's output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input could not be read.
    #[error("cannot read the encoder's output")]
    Read(#[source] std::io::Error),
    /// The input ends too early.
    #[error("the encoder's output ends {0}: the encoder did not finish")]
    Truncated(&'static str),
    /// The input is not a file as FFmpeg writes it.
    #[error("the encoder's output is malformed: {0}")]
    Malformed(&'static str),
    /// A box cannot be decoded.
    #[error("the encoder's output has a malformed {kind} box")]
    Box {
        /// Name of the box.
        kind: mp4_atom::FourCC,
        /// The decoder's error.
        source: mp4_atom::Error,
    },
    /// A size or count exceeds its limit.
    #[error("{what} of {amount} exceeds the limit of {limit}")]
    TooLarge {
        /// The quantity, with its unit.
        what: &'static str,
        /// The amount, found or announced.
        amount: u64,
        /// Largest amount that is accepted.
        limit: u64,
    },
    /// The packager does not support the codec.
    #[error("cannot package sample entry {0}: no codecs string is known for it")]
    Codec(mp4_atom::FourCC),
    /// A box could not be written.
    #[error("cannot write a box")]
    Write(#[source] mp4_atom::Error),
    /// The spec is invalid.
    #[error("{0}")]
    Spec(&'static str),
    /// The number of frames is wrong.
    #[error("the encoder wrote {found} frames where the segment has {expected}")]
    FrameCount {
        /// Frames of the segment.
        expected: u64,
        /// Frames of the file.
        found: u64,
    },
    /// The frames don't follow the grid.
    #[error(
        "frame {frame} of the encoder's output is not on the grid: shown {ticks}/{timescale} s after the first at {rate} Hz"
    )]
    OffGrid {
        /// Number in display order, from 0.
        frame: u64,
        /// FFmpeg's presentation time relative to the first frame's.
        ticks: i64,
        /// FFmpeg's ticks per second.
        timescale: u32,
        /// The grid's rate.
        rate: Rational,
    },
    /// A media segment would not be independent.
    #[error("media segment {number} does not start with a keyframe: force one every media segment")]
    NotKey {
        /// Number of the media segment within the rendition.
        number: u32,
    },
    /// The encoder reorders frames more than the rendition allows.
    #[error(
        "grid frame {frame} is decoded {late} frames after the {reorder_frames} frames of reordering that the rendition allows"
    )]
    Reorder {
        /// Grid number of the frame, in decoding order.
        frame: u64,
        /// Number of frames by which its composition offset is negative.
        late: u64,
        /// Frames of reordering that are allowed.
        reorder_frames: u32,
    },
    /// An audio track does not start at 0, or has a gap.
    #[error(
        "audio frame {index} is at tick {ticks} where {expected} is due: fill gaps before encoding (aresample=async=1:first_pts=0)"
    )]
    AudioGap {
        /// Number of the frame, from 0.
        index: u64,
        /// FFmpeg's time of the frame, in ticks.
        ticks: i64,
        /// End of the frame before, in ticks.
        expected: u64,
    },
    /// The frames of an audio track differ in length, so that times do not follow from frame numbers.
    #[error("audio frame {index} lasts {ticks} ticks in the middle of a track of {expected}-tick frames")]
    AudioStep {
        /// Number of the frame, from 0.
        index: u64,
        /// Duration of the frame in ticks.
        ticks: u32,
        /// Duration in ticks that all frames but the last must have.
        expected: u32,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read(_) | Self::Truncated(_) => ErrorKind::Transient,
            // A damaged source decodes to fewer frames than its index promised, every time.
            Self::FrameCount { .. } => ErrorKind::BadInput,
            _ => ErrorKind::Bug,
        }
    }
}

#[cfg(test)]
mod tests;
