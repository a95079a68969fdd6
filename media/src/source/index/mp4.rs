//! Index of an MP4 or MOV, from its `moov` alone.
//!
//! Source: ISO/IEC 14496-12 section 8 and the QuickTime File Format; times are those of FFmpeg's `mov`
//! demuxer.

pub(crate) mod boxes;
mod find;
mod sound;
mod tables;
mod timeline;

use std::ops::Range;

use bytes::Bytes;

use self::{
    boxes::{child, children, u32_at},
    tables::Media,
    timeline::Placed,
};
pub use self::{
    find::{MAX_HEADER_BYTES, sniff},
    tables::MAX_SAMPLES,
};
pub(crate) use self::{
    tables::{MAX_COMPOSITION_OFFSET, PCM_PACKET_FRAMES},
    timeline::Edit,
};
use spool_storage::ReadAt;

use super::{Container, Error, Index, Track, TrackKind};
use crate::time::Rational;

/// Cover art in iTunes metadata, which is a stream in FFmpeg.
const COVER_ART: &[u8; 4] = b"covr";

/// Most tracks of a source. Real files have a handful; FFmpeg itself stops at 1,000 streams.
const MAX_TRACKS: usize = 256;

/// Parts of `moov` that a window copies verbatim.
#[derive(Debug, Clone)]
pub struct Movie {
    /// Body of `ftyp`: brands decide how audio sample descriptions are read. Old QuickTime files have none.
    pub(crate) ftyp: Option<Bytes>,
    /// Body of `mvhd`, for its matrix.
    pub(crate) mvhd: Bytes,
    /// Ticks per second of edit lists.
    pub(crate) timescale: u32,
    /// Headers, one for every track of the index.
    pub(crate) tracks: Vec<TrackHeader>,
}

/// Bodies of one track's boxes, and properties of its tables besides the samples.
#[derive(Debug, Clone)]
pub(crate) struct TrackHeader {
    pub(crate) tkhd: Bytes,
    pub(crate) tref: Option<Bytes>,
    pub(crate) mdhd: Bytes,
    pub(crate) hdlr: Bytes,
    /// `vmhd`, `smhd` or another, with its four characters.
    pub(crate) media_header: Option<([u8; 4], Bytes)>,
    pub(crate) stsd: Bytes,
    /// Entries of the edit list; empty if FFmpeg applies none.
    pub(crate) edits: Vec<Edit>,
    /// Media time in ticks at which the first sample of the index decodes: above 0 if FFmpeg skips earlier
    /// samples.
    pub(crate) media_start: i64,
    /// Times in ticks of the track at which its edit list shows it.
    pub(crate) shown: Range<i64>,
    /// Size that `stsz` gives to all samples, if they have the same size.
    pub(crate) uniform_bytes: Option<u32>,
    /// Whether this is uncompressed sound, so that a [`super::Sample`] is a packet of `duration` table
    /// entries.
    pub(crate) pcm: bool,
    /// Ticks that FFmpeg subtracts from decoding times because of negative composition offsets.
    pub(crate) dts_shift: i64,
    /// Whether there is a composition offset table.
    pub(crate) reordered: bool,
    /// Runs of samples of one sample description: first sample, description's number from 1.
    pub(crate) descriptions: Vec<(usize, u32)>,
}

/// Reason why a valid file cannot be read in windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WholeFile {
    /// Samples lie in movie fragments.
    #[error("because it is fragmented")]
    Fragmented,
    /// `moov` is compressed (`cmov`).
    #[error("because its header is compressed")]
    CompressedHeader,
    /// Several edits, an edit at another speed, or one that shows nothing.
    #[error("because of the edit list of track {0}")]
    EditList(usize),
    /// Cover art that comes before a track takes its stream number in FFmpeg.
    #[error("because cover art comes before its tracks")]
    CoverArtFirst,
    /// Sample descriptions of several codecs in one track.
    #[error("because track {0} mixes codecs")]
    MixedCodecs(usize),
    /// Compressed sound in QuickTime's old form, or PCM whose tables disagree.
    #[error("because of the old sound description of track {0}")]
    Sound(usize),
    /// Negative sample durations, or runs of none.
    #[error("because of odd sample durations in track {0}")]
    Times(usize),
}

/// Reads the index of an MP4 or MOV from its header, in two or three ranged reads.
///
/// Times, sizes, positions and key flags of audio and video are those of FFmpeg's packets (`ffprobe
/// -show_packets`), in decoding order. A track of another kind whose tables are invalid has no samples.
///
/// # Errors
/// Returns [`Error::NeedsWholeFile`] for a valid file that cannot be read in windows, [`Error::Truncated`] if
/// all samples lie beyond the end of the file, and other errors for a damaged file.
pub async fn read(reader: &impl ReadAt) -> Result<Index, Error> {
    let found = find::moov(reader).await?;
    parse(found.ftyp.as_deref(), &found.moov, reader.len())
}

/// Returns the index from the bodies of `ftyp` and `moov` of a file of `len` bytes.
fn parse(ftyp: Option<&[u8]>, moov: &[u8], len: u64) -> Result<Index, Error> {
    let whole = |why| Error::NeedsWholeFile { why };
    if child(moov, b"cmov").is_some() {
        return Err(whole(WholeFile::CompressedHeader));
    }
    if child(moov, b"mvex").is_some() {
        return Err(whole(WholeFile::Fragmented));
    }
    let mvhd = child(moov, b"mvhd").ok_or(Error::Damaged { what: "no mvhd in moov" })?;
    let at = if mvhd.first() == Some(&1) { 20 } else { 12 };
    // FFmpeg reads an invalid timescale as 1.
    let timescale = u32_at(mvhd, at).ok_or(Error::Damaged { what: "mvhd is cut off" })?;
    let timescale = if timescale == 0 || i32::try_from(timescale).is_err() { 1 } else { timescale };
    let mut movie = Movie {
        ftyp: ftyp.map(Bytes::copy_from_slice),
        mvhd: Bytes::copy_from_slice(mvhd),
        timescale,
        tracks: Vec::new(),
    };
    let mut tracks = Vec::new();
    let mut room = MAX_SAMPLES;
    let mut edits_apply = true;
    let mut cover_art = false;
    for (kind, body) in children(moov) {
        match &kind {
            b"trak" if cover_art => return Err(whole(WholeFile::CoverArtFirst)),
            b"trak" if tracks.len() == MAX_TRACKS => return Err(Error::Damaged { what: "too many tracks" }),
            b"trak" => {
                let (header, track) = trak(tracks.len(), body, timescale, room, &mut edits_apply, len)?;
                room = room.saturating_sub(track.samples.len());
                movie.tracks.push(header);
                tracks.push(track);
            }
            b"udta" | b"meta" => cover_art |= body.windows(COVER_ART.len()).any(|bytes| bytes == COVER_ART),
            _ => {}
        }
    }
    if tracks.is_empty() {
        return Err(Error::Damaged { what: "no track in moov" });
    }
    Ok(Index { container: Container::Mp4(movie), tracks })
}

/// Parses one track. A track without sample times clears `edits_apply`, for it and all later tracks, as in
/// FFmpeg.
fn trak(
    number: usize,
    trak: &[u8],
    movie_timescale: u32,
    room: usize,
    edits_apply: &mut bool,
    len: u64,
) -> Result<(TrackHeader, Track), Error> {
    let damaged = |what| Error::DamagedTrack { track: number, what };
    let mdia = child(trak, b"mdia").ok_or(damaged("no mdia"))?;
    let hdlr = child(mdia, b"hdlr").unwrap_or_default();
    let kind = match hdlr.get(8..12) {
        Some(b"vide") => TrackKind::Video,
        Some(b"soun") => TrackKind::Audio,
        _ => TrackKind::Other,
    };
    let mdhd = child(mdia, b"mdhd").unwrap_or_default();
    let timescale = u32_at(mdhd, if mdhd.first() == Some(&1) { 20 } else { 12 });
    let timescale =
        timescale.filter(|scale| (1..=i32::MAX as u32).contains(scale)).unwrap_or(movie_timescale);
    let timebase = Rational::new(1, timescale).ok_or(damaged("no timescale"))?;
    let movie_timebase = Rational::new(1, movie_timescale).ok_or(damaged("no timescale"))?;
    let minf = child(mdia, b"minf").unwrap_or_default();
    let stbl = child(minf, b"stbl").unwrap_or_default();
    let elst = child(trak, b"edts").and_then(|edts| child(edts, b"elst")).unwrap_or_default();
    let mut read = || {
        let mut media = tables::read(number, kind, stbl, room, len)?;
        *edits_apply &= !media.no_times;
        let unusual = |_| Error::NeedsWholeFile { why: WholeFile::EditList(number) };
        let mut edits = timeline::edits(elst).map_err(unusual)?;
        if !*edits_apply {
            // FFmpeg then shifts times by the first edits, and ignores the rest of the edit list.
            if edits.iter().any(|edit| edit.media_time != 0) && !media.samples.is_empty() {
                return Err(unusual(timeline::Unusual));
            }
            edits.clear();
        }
        let mut placed = Placed { kept: 0..0, cut: 0, offset: 0, shown: i64::MIN..i64::MAX };
        if !media.samples.is_empty() {
            placed = timeline::place(&media, &edits, kind, movie_timebase, timebase).map_err(unusual)?;
            check_place(number, &media, &mut placed, len)?;
        }
        let lost_ticks = lost_ticks(&media, &placed);
        let media_start = shift(&mut media, &placed);
        Ok((media, edits, placed.shown, media_start, lost_ticks))
    };
    let (media, edits, shown, media_start, lost_ticks) = match read() {
        Err(_) if kind == TrackKind::Other => (Media::default(), Vec::new(), i64::MIN..i64::MAX, 0, 0),
        result => result?,
    };
    let stsd = child(stbl, b"stsd").unwrap_or_default();
    if kind != TrackKind::Other && !media.samples.is_empty() {
        check_descriptions(number, stsd, &media.descriptions)?;
        check_self_contained(number, minf)?;
    }
    let copy = Bytes::copy_from_slice;
    let media_header = children(minf)
        .find(|(kind, _)| matches!(kind, b"vmhd" | b"smhd" | b"nmhd" | b"hmhd" | b"gmhd" | b"sthd"));
    let header = TrackHeader {
        tkhd: copy(child(trak, b"tkhd").ok_or(damaged("no tkhd"))?),
        tref: child(trak, b"tref").map(copy),
        mdhd: copy(mdhd),
        hdlr: copy(hdlr),
        media_header: media_header.map(|(kind, body)| (kind, copy(body))),
        stsd: copy(stsd),
        edits,
        media_start,
        shown,
        uniform_bytes: media.uniform_bytes,
        pcm: media.pcm,
        dts_shift: media.dts_shift,
        reordered: media.reordered,
        descriptions: media.descriptions,
    };
    Ok((header, Track { kind, timebase, samples: media.samples, lost_ticks }))
}

/// Checks that the samples that FFmpeg reads lie within the file and do not add up to more than it.
/// (Overlapping samples could make a window far larger than the file.) Of a truncated file, the samples
/// before the first incomplete one are kept.
fn check_place(track: usize, media: &Media, placed: &mut Placed, len: u64) -> Result<(), Error> {
    let mut total = 0_u64;
    for (number, sample) in media.samples.iter().enumerate().take(placed.kept.end).skip(placed.kept.start) {
        let end = sample.offset.saturating_add(u64::from(sample.size));
        if end > len {
            if number == placed.kept.start {
                return Err(Error::Truncated { track, sample: number, end, bytes: len });
            }
            placed.cut = placed.kept.end - number;
            placed.kept.end = number;
            break;
        }
        total = total.saturating_add(u64::from(sample.size));
    }
    if total > len {
        return Err(Error::DamagedTrack { track, what: "its samples add up to more than the file" });
    }
    Ok(())
}

/// Returns the ticks by which a track ends earlier because of the samples that are not in the file.
fn lost_ticks(media: &Media, placed: &Placed) -> i64 {
    let end =
        |samples: &[super::Sample]| samples.iter().map(|s| s.pts.saturating_add(i64::from(s.duration))).max();
    let there = media.samples.get(placed.kept.clone()).and_then(end);
    let announced = media.samples.get(placed.kept.start..placed.kept.end + placed.cut).and_then(end);
    there.zip(announced).map_or(0, |(there, announced)| announced.saturating_sub(there))
}

/// Keeps the samples that FFmpeg reads, at FFmpeg's times. Returns the media time of the first.
fn shift(media: &mut Media, placed: &Placed) -> i64 {
    let samples = &mut media.samples;
    samples.truncate(placed.kept.end);
    let dropped = placed.kept.start.min(samples.len());
    samples.drain(..dropped);
    samples.shrink_to_fit();
    let media_start = samples.first().map_or(0, |first| first.dts + media.dts_shift);
    for sample in samples.iter_mut() {
        sample.pts += placed.offset;
        sample.dts += placed.offset;
    }
    let first = media.descriptions.iter().rposition(|run| run.0 <= dropped).unwrap_or(0);
    media.descriptions.drain(..first.min(media.descriptions.len()));
    for run in &mut media.descriptions {
        run.0 = run.0.saturating_sub(dropped);
    }
    media.descriptions.retain(|run| run.0 < samples.len().max(1));
    media_start
}

/// Checks that every sample's description exists, that no sample is encrypted, and that there is one codec.
fn check_descriptions(track: usize, stsd: &[u8], used: &[(usize, u32)]) -> Result<(), Error> {
    let damaged = |what| Error::DamagedTrack { track, what };
    let listed = u32_at(stsd, 4).ok_or(damaged("no stsd"))?;
    let kinds: Vec<_> =
        children(stsd.get(8..).unwrap_or_default()).map(|(kind, _)| kind).take(listed as usize).collect();
    if kinds.is_empty() || kinds.len() != listed as usize || used.iter().any(|run| run.1 > listed) {
        return Err(damaged("a sample description is missing"));
    }
    if kinds.iter().any(|kind| matches!(kind, b"encv" | b"enca" | b"drmi" | b"drms")) {
        return Err(Error::Encrypted { track });
    }
    if kinds.windows(2).any(|pair| pair.first() != pair.last()) {
        return Err(Error::NeedsWholeFile { why: WholeFile::MixedCodecs(track) });
    }
    Ok(())
}

/// Checks that all samples are in this file: flag 1 of each data reference (ISO/IEC 14496-12 section 8.7.2).
fn check_self_contained(track: usize, minf: &[u8]) -> Result<(), Error> {
    let dref = child(minf, b"dinf")
        .and_then(|dinf| child(dinf, b"dref"))
        .and_then(|dref| dref.get(8..))
        .unwrap_or_default();
    if children(dref).any(|(_, body)| u32_at(body, 0).is_some_and(|flags| flags & 1 == 0)) {
        return Err(Error::External { track });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod clips;
#[cfg(test)]
mod tests;
