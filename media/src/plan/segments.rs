//! Cuts a video into segments: contiguous runs of whole media segments, soon after the source's keyframes.

use crate::{
    plan::{deinterlace::Deinterlace, grid::Grid},
    source::index::Sample,
    time::Rational,
};
use spool_storage::{ErrorKind, Source, redact};

/// Default length of a segment in milliseconds: long, because each costs a start and up to a GOP of preroll;
/// short enough to repeat.
const DEFAULT_SEGMENT_MS: u32 = 30_000;
/// Least number of segments by default: a short video is cut into about as many, so that slots can work in
/// parallel.
const SHORT_TITLE_SEGMENTS: u64 = 4;
/// Default length of a media segment in seconds.
pub const DEFAULT_MEDIA_SEGMENT_SECONDS: f64 = 4.0;
/// Shortest media segment, in seconds, that players can be expected to fetch in time.
pub const MIN_MEDIA_SEGMENT_SECONDS: f64 = 0.1;
/// Longest media segment in seconds: a player holds several of them in memory.
pub const MAX_MEDIA_SEGMENT_SECONDS: f64 = 60.0;
/// Longest segment in seconds: a lost executor costs as much.
pub const MAX_SEGMENT_SECONDS: f64 = 3600.0;
/// Most segments of one source. The engine's cost grows with the square of a job's rows and about 1,000 rows
/// are one job, so this is ten jobs; 30 s segments reach it after three and a half days.
pub const MAX_SEGMENTS: usize = 10_000;

/// Videos of at least `TAPERS_FROM` segments end in shorter ones, down to a segment's length divided by
/// `TAPERS_TO`. In a shorter video the starts of more FFmpeg runs would cost more than idle slots.
const TAPERS_FROM: u64 = 10;
const TAPERS_TO: u64 = 4;

/// One row: a run of grid frames of one track of one source, encoded by one FFmpeg run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Segment {
    /// Absolute URI of the source.
    pub source: String,
    /// ETag that pins the source's bytes.
    pub etag: String,
    /// Kind of track.
    pub track: SegmentTrack,
    /// Number of the segment within the video, or of the audio track within the source, from 0.
    pub index: u32,
    /// First grid frame.
    pub first_frame: u64,
    /// Number of grid frames.
    pub frames: u64,
    /// Seconds per grid frame.
    pub timebase: Rational,
    /// Start in milliseconds from the start of the video.
    pub start_ms: i64,
    /// Length in milliseconds.
    pub duration_ms: i64,
    /// Grid frames per media segment; the last of the video may be shorter.
    pub media_segment_frames: u32,
    /// Length of the whole video in grid frames.
    pub title_frames: u64,
    /// Milliseconds that are missing from the source, according to its declared length: above 0 for a
    /// truncated file.
    #[serde(default)]
    pub lost_ms: i64,
    /// Mode of deinterlacing.
    #[serde(default)]
    pub deinterlace: Deinterlace,
}

impl Segment {
    /// Returns the segment with a redacted source, for display and storage.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        Self { source: redact(&self.source), ..self.clone() }
    }
}

/// Kind of a segment's track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum SegmentTrack {
    Video,
    Audio,
}

/// Requested lengths of segments and media segments. In whole milliseconds, so that equal arguments give
/// equal cuts everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    segment_ms: Option<u32>,
    media_segment_ms: u32,
}

impl Lengths {
    /// Creates lengths from seconds, rounded to milliseconds. The default length of a segment is 30 s, or a
    /// quarter of the video if that is shorter.
    ///
    /// # Errors
    /// Returns [`Error::Length`] for a media segment outside of 0.1 to 60 s, and for a segment that is
    /// shorter than a media segment or longer than an hour.
    pub fn new(segment_seconds: Option<f64>, media_segment_seconds: f64) -> Result<Self, Error> {
        let media_segment_ms = milliseconds(
            "media segment",
            media_segment_seconds,
            MIN_MEDIA_SEGMENT_SECONDS,
            MAX_MEDIA_SEGMENT_SECONDS,
        )?;
        let segment_ms = segment_seconds
            .map(|seconds| milliseconds("segment", seconds, media_segment_seconds, MAX_SEGMENT_SECONDS))
            .transpose()?;
        Ok(Self { segment_ms, media_segment_ms })
    }

    /// Returns the grid frames per media segment: the whole number nearest to the requested length, and at
    /// least 1.
    pub fn media_segment_frames(self, grid: &Grid) -> u32 {
        u32::try_from(frames_in(self.media_segment_ms, grid)).unwrap_or(u32::MAX)
    }

    /// Returns the grid frames per segment that the cuts aim at.
    fn segment_frames(self, grid: &Grid) -> u64 {
        let media = u64::from(self.media_segment_frames(grid));
        let frames = match self.segment_ms {
            Some(ms) => frames_in(ms, grid),
            None => frames_in(DEFAULT_SEGMENT_MS, grid).min(grid.frames.div_ceil(SHORT_TITLE_SEGMENTS)),
        };
        frames.max(media)
    }
}

impl Default for Lengths {
    /// Returns segments of 30 s or a quarter of the video, and media segments of 4 s.
    fn default() -> Self {
        Self { segment_ms: None, media_segment_ms: (DEFAULT_MEDIA_SEGMENT_SECONDS * 1000.0) as u32 }
    }
}

fn milliseconds(what: &'static str, seconds: f64, least: f64, most: f64) -> Result<u32, Error> {
    if !(least..=most).contains(&seconds) {
        return Err(Error::Length { what, seconds, least, most });
    }
    Ok((seconds * 1000.0).round() as u32)
}

fn frames_in(ms: u32, grid: &Grid) -> u64 {
    let (product, divisor) = (u64::from(ms) * u64::from(grid.rate.num()), 1000 * u64::from(grid.rate.den()));
    (product.saturating_add(divisor / 2) / divisor).max(1)
}

/// One run of grid frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// First grid frame, a multiple of the frames of a media segment.
    pub first_frame: u64,
    /// Number of grid frames: whole media segments, except at the end of the video.
    pub frames: u64,
}

/// Returns the presentation times of the samples at which decoding can start, sorted, for [`cut`].
pub fn keys(samples: &[Sample]) -> Vec<i64> {
    let mut keys: Vec<i64> = samples.iter().filter(|sample| sample.key).map(|sample| sample.pts).collect();
    keys.sort_unstable();
    keys
}

/// Cuts a video into contiguous runs of about the requested length that cover `0..grid.frames` exactly once.
///
/// Of the media segment boundaries within a quarter of the segment's length around the ideal cut, the one
/// with the fewest frames of preroll since the source's last keyframe is taken, and of equals the nearest.
/// The remainder at the end is a segment of its own if it is at least a third of one; otherwise it is added
/// to the one before. The last segments of a long video become shorter and shorter, so that parallel slots
/// end at about the same time. `keys` are sorted ([`keys`]); without keys, cuts have equal length. The result
/// depends on the arguments alone.
///
/// # Errors
/// Returns [`Error::TooMany`] above [`MAX_SEGMENTS`].
pub fn cut(grid: &Grid, keys: &[i64], lengths: Lengths) -> Result<Vec<Cut>, Error> {
    let media = u64::from(lengths.media_segment_frames(grid));
    let target = lengths.segment_frames(grid);
    let mut cuts = Vec::new();
    let mut first_frame = 0;
    while first_frame < grid.frames {
        if cuts.len() == MAX_SEGMENTS {
            return Err(too_many(grid, lengths));
        }
        let target = tapered(grid, first_frame, target, media);
        let end = boundary(grid, keys, first_frame, target, media);
        let tail = grid.frames.saturating_sub(end);
        let end = if tail < target.div_ceil(3) { grid.frames } else { end };
        cuts.push(Cut { first_frame, frames: end - first_frame });
        first_frame = end;
    }
    Ok(cuts)
}

/// Returns the frames of the segment that starts at `first_frame`, where `target` is the usual number.
fn tapered(grid: &Grid, first_frame: u64, target: u64, media: u64) -> u64 {
    if grid.frames < target.saturating_mul(TAPERS_FROM) {
        return target;
    }
    (grid.frames.saturating_sub(first_frame) / 2).clamp((target / TAPERS_TO).clamp(media, target), target)
}

/// Returns the best media segment boundary for the end of a segment; it may lie past the end of the video.
fn boundary(grid: &Grid, keys: &[i64], first_frame: u64, target: u64, media: u64) -> u64 {
    let ideal = first_frame + target;
    // Fallback: the boundary nearest to `ideal`, at least one media segment after `first_frame`.
    let nearest = (first_frame + media).max((ideal + media / 2) / media * media);
    let least = (ideal - target / 4).next_multiple_of(media).max(first_frame + media);
    let most = (ideal + target / 4) / media * media;
    (least..=most)
        .step_by(usize::try_from(media).unwrap_or(usize::MAX))
        .min_by_key(|&boundary| (preroll(grid, keys, boundary), boundary.abs_diff(ideal)))
        .unwrap_or(nearest)
}

/// Returns the frames between the source's last keyframe at or before a grid frame and that frame, which are
/// decoded but not encoded. Counts from frame 0 if the first keyframe comes later; 0 if no keyframe is known.
pub fn preroll(grid: &Grid, keys: &[i64], frame: u64) -> u64 {
    if keys.is_empty() {
        return 0;
    }
    let at_or_before = keys.partition_point(|&pts| u64::try_from(grid.frame_at(pts)).unwrap_or(0) <= frame);
    let key = at_or_before.checked_sub(1).map_or(0, |last| grid.frame_at(keys[last]));
    frame.saturating_add_signed(key.saturating_neg())
}

fn too_many(grid: &Grid, lengths: Lengths) -> Error {
    // Segments may be a third shorter than requested, if they have few media segments.
    let title_ms =
        u64::try_from(grid.rate.inverse().to_ms(i64::try_from(grid.frames).unwrap_or(i64::MAX))).unwrap_or(0);
    let enough_seconds = (title_ms / 1000 * 3 / 2).div_ceil(MAX_SEGMENTS as u64) + 1;
    let segment_ms = lengths.segment_ms.unwrap_or(DEFAULT_SEGMENT_MS);
    Error::TooMany { segment_ms, title_seconds: title_ms / 1000, enough_seconds }
}

/// Returns the rows of a source: one per audio track first, then the video's in order.
///
/// `audio_ends` has the end of each audio track in grid frames ([`Grid::frames_until`]). An audio row is as
/// long as the video, or as its own track if that is longer. `lost_ms` are the milliseconds that a truncated
/// file lacks. `cuts` is empty for a source without video, whose grid is [`Grid::for_audio`].
pub fn rows(
    source: &Source,
    grid: &Grid,
    cuts: &[Cut],
    lengths: Lengths,
    audio_ends: &[u64],
    lost_ms: i64,
) -> Vec<Segment> {
    let row = |track, index: usize, cut: Cut| {
        let at = |frame: u64| grid.rate.inverse().to_ms(i64::try_from(frame).unwrap_or(i64::MAX));
        let start_ms = at(cut.first_frame);
        Segment {
            source: source.uri.clone(),
            etag: source.etag.clone(),
            track,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            first_frame: cut.first_frame,
            frames: cut.frames,
            timebase: grid.rate.inverse(),
            start_ms,
            // The difference of two rounded times, so that each row ends where the next one starts.
            duration_ms: at(cut.first_frame.saturating_add(cut.frames)).saturating_sub(start_ms),
            media_segment_frames: lengths.media_segment_frames(grid),
            title_frames: grid.frames,
            lost_ms,
            deinterlace: Deinterlace::default(),
        }
    };
    let audio = audio_ends.iter().map(|&end| Cut { first_frame: 0, frames: end.max(grid.frames) });
    let audio = audio.enumerate().map(|(index, cut)| row(SegmentTrack::Audio, index, cut));
    let video = cuts.iter().enumerate().map(|(index, &cut)| row(SegmentTrack::Video, index, cut));
    audio.chain(video).collect()
}

/// Failure to cut a source.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A length is out of range.
    #[error("a {what} of {seconds} s: it must be from {least} to {most} s")]
    Length {
        /// Name of the length.
        what: &'static str,
        /// Requested length in seconds.
        seconds: f64,
        /// The shortest that is allowed.
        least: f64,
        /// The longest that is allowed.
        most: f64,
    },
    /// The video is too long for segments of this length.
    #[error(
        "{title_seconds} s in segments of {segment_ms} ms are more than {MAX_SEGMENTS} rows: ask for segments of {enough_seconds} s or more"
    )]
    TooMany {
        /// Requested length in milliseconds.
        segment_ms: u32,
        /// Length of the video in seconds.
        title_seconds: u64,
        /// Shortest length of a segment that works, in seconds.
        enough_seconds: u64,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Length { .. } | Self::TooMany { .. } => ErrorKind::BadInput,
        }
    }
}

#[cfg(test)]
mod tests;
