//! Edit lists: the samples that FFmpeg keeps, when it shows them, and those that it only decodes.
//!
//! This follows FFmpeg's `mov` demuxer (with its default, "advanced" edit lists) rather than ISO/IEC 14496-12
//! section 8.6.6, because FFmpeg decodes the samples. For example, if no picture lies exactly at the edit's
//! start, FFmpeg moves the next one there.

use std::ops::Range;

use super::{
    boxes::{u32_at, u64_at},
    tables::Media,
};
use crate::{source::index::TrackKind, time::Rational};

/// Most entries of an edit list that are read: two non-empty entries are too many already.
const MAX_EDITS: usize = 64;

/// Times beyond this many ticks are invalid, and would overflow.
const MAX_TICKS: i64 = 1 << 60;

/// Normal speed, as 16.16.
const NORMAL_RATE: u32 = 0x1_0000;

/// One entry of an edit list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Duration in ticks of the movie.
    pub(crate) duration: i64,
    /// Start in ticks of the media; -1 shows nothing.
    pub(crate) media_time: i64,
}

/// Error for an edit list that windows do not reproduce.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusual;

/// Reads an `elst`: any number of empty edits, then at most one other at normal speed.
pub(super) fn edits(elst: &[u8]) -> Result<Vec<Edit>, Unusual> {
    let count = u32_at(elst, 4).unwrap_or(0) as usize;
    let (entry_bytes, long) = if elst.first() == Some(&1) { (20, true) } else { (12, false) };
    let entries = elst.get(8..).unwrap_or_default().chunks_exact(entry_bytes).take(count.min(MAX_EDITS + 1));
    let mut edits = Vec::new();
    for entry in entries {
        let (duration, media_time, rate) = if long {
            (
                u64_at(entry, 0).map(u64::cast_signed),
                u64_at(entry, 8).map(u64::cast_signed),
                u32_at(entry, 16),
            )
        } else {
            (
                u32_at(entry, 0).map(i64::from),
                u32_at(entry, 4).map(|time| i64::from(time.cast_signed())),
                u32_at(entry, 8),
            )
        };
        let (duration, media_time) = duration.zip(media_time).ok_or(Unusual)?;
        let plain = (0..MAX_TICKS).contains(&duration) && (-1..MAX_TICKS).contains(&media_time);
        if !plain || (media_time >= 0 && rate != Some(NORMAL_RATE)) {
            return Err(Unusual);
        }
        edits.push(Edit { duration, media_time });
    }
    let empty = edits.iter().take_while(|edit| edit.media_time == -1).count();
    if edits.len() > MAX_EDITS || edits.len() > empty + 1 { Err(Unusual) } else { Ok(edits) }
}

/// Result of applying an edit list to a track's samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    /// The samples that FFmpeg reads.
    pub(super) kept: Range<usize>,
    /// Number of further samples that it would read if they were in the file.
    pub(super) cut: usize,
    /// Ticks to add to the media's times.
    pub(super) offset: i64,
    /// Times (with the offset) of frames that are shown.
    pub(super) shown: Range<i64>,
}

/// Applies an edit list. `movie` and `clock` are the seconds per tick of the movie and of the media.
pub(super) fn place(
    media: &Media,
    edits: &[Edit],
    kind: TrackKind,
    movie: Rational,
    clock: Rational,
) -> Result<Placed, Unusual> {
    let count = media.samples.len();
    let Some((edit, empty)) = edits.split_last() else {
        return Ok(Placed { kept: 0..count, cut: 0, offset: 0, shown: i64::MIN..i64::MAX });
    };
    if edit.media_time < 0 {
        return Err(Unusual); // nothing is ever shown
    }
    let empty = empty.iter().map(|edit| movie.rescale(edit.duration, clock)).fold(0, i64::saturating_add);
    let duration = movie.rescale(edit.duration, clock);
    let (start, end) = (edit.media_time, edit.media_time.saturating_add(duration));
    if empty >= MAX_TICKS || end >= MAX_TICKS {
        return Err(Unusual);
    }
    let first = first_kept(media, start, kind, clock);
    let mut begin: Option<Begin> = None;
    // As in FFmpeg, a negative value means that there is none.
    let mut earliest = -1;
    let mut last = count;
    let mut keys_after = 0;
    for (at, sample) in media.samples.iter().enumerate().skip(first) {
        let next = media.samples.get(at + 1).map(|next| next.dts);
        let length = next.map_or(duration, |next| next - sample.dts);
        if sample.pts >= start && sample.pts < end {
            let begin = begin.get_or_insert(Begin { dts: sample.dts, skipped: 0 });
            let pts = empty + sample.pts - begin.dts - media.dts_shift;
            earliest = if earliest < 0 { pts } else { earliest.min(pts) };
        } else if kind == TrackKind::Audio && sample.pts < start && sample.pts + length > start {
            begin.get_or_insert(Begin { dts: sample.dts, skipped: start - sample.pts });
        }
        if sample.pts.saturating_add(length) >= end && (sample.key || kind == TrackKind::Audio) {
            keys_after += 1;
            // Pictures after the first key past the end may still be shown before it.
            if !media.reordered || kind == TrackKind::Audio || keys_after == 2 {
                last = at + 1;
                break;
            }
        }
    }
    let begin = begin.ok_or(Unusual)?;
    // The first sample decodes at the end of the empty edits, less its skipped ticks and the reordering shift
    // …
    let mut offset = empty - begin.skipped - media.dts_shift - begin.dts;
    // … unless that would show the first picture later: then it is shown at the end of the empty edits.
    if kind == TrackKind::Video {
        offset -= (earliest - empty).max(0);
    }
    Ok(Placed { kept: first..last, cut: 0, offset, shown: start + offset..end + offset })
}

/// The first sample, in decoding order, that is at least partly shown.
struct Begin {
    dts: i64,
    /// Ticks of it that are not shown: sound can start within a packet.
    skipped: i64,
}

/// Returns the sample at which FFmpeg starts to read for an edit at `start`: the key at or before it, or one
/// second earlier for sound.
fn first_kept(media: &Media, start: i64, kind: TrackKind, clock: Rational) -> usize {
    let samples = &media.samples;
    let second = i64::from(clock.den()) / i64::from(clock.num()).max(1);
    let wanted = match (kind, samples.first()) {
        (TrackKind::Audio, Some(first)) => (start - second).max(first.dts),
        _ => start,
    };
    // Decoding times and `wanted` both carry the reordering shift.
    let wanted = wanted - media.dts_shift;
    let upto = samples.partition_point(|sample| sample.dts <= wanted);
    let earlier = samples.get(..upto).unwrap_or_default();
    let key = earlier.iter().rposition(|sample| sample.key);
    let Some(mut at) = key.or(if media.reordered { None } else { upto.checked_sub(1) }) else { return 0 };
    // Of several samples with the same decoding time, the first key.
    let time = samples.get(at).map(|sample| sample.dts);
    for (index, sample) in
        earlier.iter().enumerate().take(at).rev().take_while(|(_, sample)| Some(sample.dts) == time)
    {
        if sample.key || key.is_none() {
            at = index;
        }
    }
    if !media.reordered {
        return at;
    }
    let shown_by =
        |sample: &crate::source::index::Sample| sample.key && sample.pts - media.dts_shift <= wanted;
    samples.iter().take(at + 1).rposition(shown_by).unwrap_or(0)
}
