//! Selects the samples of a window, and builds the edit list that gives them the source's times.

use std::ops::Range;

use super::Error;
use crate::source::index::{
    Sample, Track, TrackKind,
    mp4::{Edit, MAX_COMPOSITION_OFFSET, TrackHeader},
};

/// Samples of each video track in the file that is probed: enough for ffprobe to see a GOP's beginning.
const PROBE_VIDEO_SAMPLES: usize = 8;

/// Samples of each audio track in the file that is probed.
const PROBE_AUDIO_SAMPLES: usize = 4;

/// Part of a track that a row needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// The whole track, with the source's own edit list (and so its priming), for audio rows.
    All,
    /// Every frame of a video track that is on screen in `first..end`, in ticks of the track: those whose PTS
    /// is in the range, and the one before it that is still shown at `first`.
    Pts {
        /// First tick.
        first: i64,
        /// One past the last tick.
        end: i64,
    },
}

/// A run of samples, and the parameters for writing its times.
#[derive(Debug)]
pub(super) struct Selected {
    /// Samples, contiguous in decoding order.
    pub(super) samples: Range<usize>,
    /// The window's edit list.
    pub(super) edits: Vec<Edit>,
    /// Ticks per second of the edit list; `None`: the source's.
    pub(super) movie_timescale: Option<u32>,
    /// Ticks that are added to `pts - dts` of every sample to make its composition offset.
    pub(super) bias: i64,
    /// Whether a composition offset table is written.
    pub(super) reordered: bool,
}

/// Selects the samples of one row's window.
pub(super) fn window(
    stream: usize,
    track: &Track,
    header: &TrackHeader,
    span: Span,
) -> Result<Selected, Error> {
    match (track.kind, span) {
        (TrackKind::Video, Span::Pts { first, end }) => cut(stream, track, header, first, end),
        (TrackKind::Video, Span::All) => cut(stream, track, header, i64::MIN, i64::MAX),
        (_, Span::All) => Ok(copy(track, header)),
        (_, Span::Pts { .. }) => Err(Error::NotVideo { stream }),
    }
}

/// Selects the first samples of a track. Its edits start with the first sample, since hidden preroll would be
/// of little use to ffprobe, and are as long as the source's: FFmpeg computes the track's duration from them.
pub(super) fn probe(track: &Track, header: &TrackHeader) -> Selected {
    let most = match track.kind {
        TrackKind::Video => PROBE_VIDEO_SAMPLES,
        TrackKind::Audio => PROBE_AUDIO_SAMPLES,
        TrackKind::Other => 0,
    };
    let key = track.samples.iter().position(|sample| sample.key).unwrap_or(0);
    let samples = key..(key + most).min(track.samples.len());
    let edits =
        header.edits.iter().map(|edit| Edit { media_time: edit.media_time.min(0), ..*edit }).collect();
    Selected { samples, edits, movie_timescale: None, bias: -header.dts_shift, reordered: header.reordered }
}

/// Selects the whole track. Samples that FFmpeg would not read are missing, so the media starts later, and so
/// does the edit.
fn copy(track: &Track, header: &TrackHeader) -> Selected {
    let moved = |edit: &Edit| match edit.media_time {
        -1 => *edit,
        time => Edit { media_time: (time - header.media_start).max(0), ..*edit },
    };
    Selected {
        samples: 0..track.samples.len(),
        edits: header.edits.iter().map(moved).collect(),
        movie_timescale: None,
        bias: -header.dts_shift,
        reordered: header.reordered,
    }
}

/// Selects from the key sample that the first frame needs up to the last frame, in decoding order, that is on
/// screen.
fn cut(stream: usize, track: &Track, header: &TrackHeader, first: i64, end: i64) -> Result<Selected, Error> {
    let all = &track.samples;
    let shown = all.iter().filter(|sample| header.shown.contains(&sample.pts)).map(|sample| sample.pts);
    let held = shown.clone().filter(|pts| *pts <= first).max();
    let nothing = Error::NothingShown { stream, end };
    let from = match held {
        Some(held) => held,
        None => shown.clone().filter(|pts| *pts < end).min().ok_or(nothing)?,
    };
    let until = header.shown.end.min(end);
    let needed = |sample: &Sample| sample.pts == from || (from..until).contains(&sample.pts);
    let (Some(earliest), Some(last)) = (all.iter().position(needed), all.iter().rposition(needed)) else {
        return Err(Error::NothingShown { stream, end });
    };
    // Pictures that follow a key but are shown before it (in an open GOP) may refer to pictures before the
    // key.
    let opens = |sample: &Sample| sample.key && sample.pts <= from;
    let start = all.iter().take(earliest + 1).rposition(opens).unwrap_or(0);
    let run = all.get(start..=last).unwrap_or_default();
    let origin = run.first().map_or(0, |sample| sample.dts);
    if from < 0 {
        return before_zero(stream, start..last + 1, run, origin);
    }
    // A picture is shown before it is decoded only if a source's tables are invalid. A later presentation
    // makes the offset non-negative again.
    let bias = run.iter().map(|sample| sample.dts - sample.pts).max().unwrap_or(0).max(0);
    let widest = run.iter().map(|sample| sample.pts - sample.dts + bias).max().unwrap_or(0);
    if widest > MAX_COMPOSITION_OFFSET {
        return Err(Error::Reordering { stream, ticks: widest });
    }
    // At least as long as the run: an edit that ends early would drop frames.
    let span = run.iter().map(|sample| sample.pts).max().unwrap_or(from) - from;
    let decoding = run.last().map_or(0, |sample| sample.dts - origin + i64::from(sample.duration));
    let media = Edit { duration: span + decoding + 1, media_time: from - origin + bias };
    let empty = Edit { duration: from, media_time: -1 };
    Ok(Selected {
        samples: start..last + 1,
        // FFmpeg shows the earliest picture of the edit at the end of the empty one, and only decodes
        // pictures before the edit.
        edits: if from > 0 { vec![empty, media] } else { vec![media] },
        movie_timescale: Some(track.timebase.den()),
        bias,
        reordered: widest > 0,
    })
}

/// Selects a window with times before zero, which no edit list can express: composition offsets do, within
/// their range.
fn before_zero(stream: usize, samples: Range<usize>, run: &[Sample], origin: i64) -> Result<Selected, Error> {
    let widest = run.iter().map(|sample| (sample.pts - sample.dts + origin).abs()).max().unwrap_or(0);
    if widest > MAX_COMPOSITION_OFFSET {
        return Err(Error::Reordering { stream, ticks: widest });
    }
    Ok(Selected { samples, edits: Vec::new(), movie_timescale: None, bias: origin, reordered: true })
}
