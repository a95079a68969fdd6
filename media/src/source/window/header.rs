//! Header of a window: descriptions as in the source, tables rebuilt for its samples.
//!
//! Source: ISO/IEC 14496-12 section 8.

use mp4_atom::{
    Co64, Ctts, CttsEntry, Elst, ElstEntry, Encode, Stsc, StscEntry, Stss, Stsz, StszSamples, Stts, SttsEntry,
};

use super::select::Selected;
use crate::source::index::{
    Sample, Track,
    mp4::{Movie, PCM_PACKET_FRAMES, TrackHeader},
};

/// One track of a window.
pub(super) struct Part<'a> {
    pub(super) header: &'a TrackHeader,
    pub(super) track: &'a Track,
    pub(super) selected: Selected,
    /// Whether to write the durations of all the track's samples: FFmpeg computes the frame rate from them.
    pub(super) whole_times: bool,
    /// Whether to write the track's references to other tracks, by which chapter pictures are recognized.
    pub(super) references: bool,
}

impl Part<'_> {
    fn samples(&self) -> &[Sample] {
        self.track.samples.get(self.selected.samples.clone()).unwrap_or_default()
    }
}

/// `dinf` with the one data reference "in this file".
const SELF_CONTAINED: &[u8] = b"\0\0\0\x1cdref\0\0\0\0\0\0\0\x01\0\0\0\x0curl \0\0\0\x01";

/// Bytes of the header of an `mdat` with a 64-bit size.
const MDAT_HEAD_BYTES: u64 = 16;

/// Returns everything before the first sample. The parts' samples follow, one part after the other,
/// `sample_bytes` in total.
pub(super) fn build(
    movie: &Movie,
    timescale: u32,
    parts: &[Part<'_>],
    sample_bytes: u64,
) -> mp4_atom::Result<Vec<u8>> {
    // Offsets are always 64 bits wide: the first pass gives the length that the second needs.
    let length = assemble(movie, timescale, parts, 0)?.len() as u64 + MDAT_HEAD_BYTES;
    let mut out = assemble(movie, timescale, parts, length)?;
    out.extend_from_slice(&1_u32.to_be_bytes());
    out.extend_from_slice(b"mdat");
    out.extend_from_slice(&(sample_bytes + MDAT_HEAD_BYTES).to_be_bytes());
    Ok(out)
}

fn assemble(
    movie: &Movie,
    timescale: u32,
    parts: &[Part<'_>],
    first_sample: u64,
) -> mp4_atom::Result<Vec<u8>> {
    let mut out = Vec::new();
    if let Some(ftyp) = &movie.ftyp {
        verbatim(&mut out, b"ftyp", ftyp);
    }
    let mut at = first_sample;
    boxed(&mut out, b"moov", |out| {
        verbatim(out, b"mvhd", &with_timescale(&movie.mvhd, timescale));
        for part in parts {
            boxed(out, b"trak", |out| trak(out, part, at))?;
            at += part.samples().iter().map(|sample| u64::from(sample.size)).sum::<u64>();
        }
        Ok(())
    })?;
    Ok(out)
}

/// Returns the source's `mvhd` (its matrix may rotate the video) with another timescale.
fn with_timescale(mvhd: &[u8], timescale: u32) -> Vec<u8> {
    let at = if mvhd.first() == Some(&1) { 20 } else { 12 };
    let mut body = mvhd.to_vec();
    if let Some(field) = body.get_mut(at..at + 4) {
        field.copy_from_slice(&timescale.to_be_bytes());
    }
    body
}

fn trak(out: &mut Vec<u8>, part: &Part<'_>, first_sample: u64) -> mp4_atom::Result<()> {
    let header = part.header;
    verbatim(out, b"tkhd", &header.tkhd);
    if let Some(tref) = header.tref.as_ref().filter(|_| part.references) {
        verbatim(out, b"tref", tref);
    }
    if !part.selected.edits.is_empty() {
        boxed(out, b"edts", |out| edit_list(part).encode(out))?;
    }
    boxed(out, b"mdia", |out| {
        verbatim(out, b"mdhd", &header.mdhd);
        verbatim(out, b"hdlr", &header.hdlr);
        boxed(out, b"minf", |out| {
            if let Some((kind, body)) = &header.media_header {
                verbatim(out, kind, body);
            }
            verbatim(out, b"dinf", SELF_CONTAINED);
            boxed(out, b"stbl", |out| stbl(out, part, first_sample))
        })
    })
}

fn edit_list(part: &Part<'_>) -> Elst {
    let entry = |edit: &crate::source::index::mp4::Edit| ElstEntry {
        segment_duration: edit.duration.unsigned_abs(),
        media_time: u64::try_from(edit.media_time).ok(),
        media_rate: 1.into(),
    };
    Elst { entries: part.selected.edits.iter().map(entry).collect() }
}

fn stbl(out: &mut Vec<u8>, part: &Part<'_>, first_sample: u64) -> mp4_atom::Result<()> {
    let samples = part.samples();
    verbatim(out, b"stsd", &part.header.stsd);
    let timed = if part.whole_times { &part.track.samples } else { samples };
    let times = if samples.is_empty() { Stts::default() } else { times(timed, part.header.pcm) };
    times.encode(out)?;
    if part.selected.reordered && !part.header.pcm {
        let offset = |sample: &Sample| sample.pts - sample.dts + part.selected.bias;
        let entries = runs(samples.iter().map(offset));
        Ctts {
            entries: entries
                .map(|(sample_count, sample_offset)| CttsEntry { sample_count, sample_offset })
                .collect(),
        }
        .encode(out)?;
    }
    if !part.header.pcm && samples.iter().any(|sample| !sample.key) {
        // A window starts where decoding starts, so its first sample is a key, whatever the source's flag is.
        let key = |(at, sample): (usize, &Sample)| (at == 0 || sample.key).then_some(at as u32 + 1);
        Stss { entries: samples.iter().enumerate().filter_map(key).collect() }.encode(out)?;
    }
    let chunks = chunks(part, first_sample);
    Stsc { entries: chunk_runs(&chunks) }.encode(out)?;
    Stsz { samples: sizes(samples, part.header) }.encode(out)?;
    Co64 { entries: chunks.iter().map(|chunk| chunk.offset).collect() }.encode(out)
}

fn times(samples: &[Sample], pcm: bool) -> Stts {
    if pcm {
        return Stts { entries: vec![SttsEntry { sample_count: frames(samples), sample_delta: 1 }] };
    }
    let durations = runs(samples.iter().map(|sample| sample.duration));
    Stts {
        entries: durations
            .map(|(sample_count, sample_delta)| SttsEntry { sample_count, sample_delta })
            .collect(),
    }
}

fn sizes(samples: &[Sample], header: &TrackHeader) -> StszSamples {
    match header.uniform_bytes {
        Some(size) if header.pcm => StszSamples::Identical { count: frames(samples), size },
        Some(size) => StszSamples::Identical { count: samples.len() as u32, size },
        None => StszSamples::Different { sizes: samples.iter().map(|sample| sample.size).collect() },
    }
}

/// Returns the table entries of uncompressed sound; the source's own table counts them in 32 bits.
fn frames(samples: &[Sample]) -> u32 {
    samples.iter().fold(0, |frames, sample| frames.saturating_add(sample.duration))
}

/// Contiguous samples of one description.
struct Chunk {
    offset: u64,
    samples: u32,
    description: u32,
}

/// Returns as few chunks as the descriptions allow. Uncompressed sound keeps the source's packets: FFmpeg
/// cuts a chunk into packets of 1,024 frames and a shorter last one.
fn chunks(part: &Part<'_>, first_sample: u64) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut offset = first_sample;
    let mut closed = true;
    let mut description = 1;
    let mut upcoming = part.header.descriptions.iter().peekable();
    for (number, sample) in part.selected.samples.clone().zip(part.samples()) {
        while let Some(run) = upcoming.next_if(|run| run.0 <= number) {
            closed |= run.1 != description;
            description = run.1;
        }
        let entries = if part.header.pcm { sample.duration } else { 1 };
        match chunks.last_mut() {
            Some(last) if !closed => last.samples += entries,
            _ => chunks.push(Chunk { offset, samples: entries, description }),
        }
        closed = part.header.pcm && sample.duration < PCM_PACKET_FRAMES;
        offset += u64::from(sample.size);
    }
    chunks
}

fn chunk_runs(chunks: &[Chunk]) -> Vec<StscEntry> {
    let mut entries: Vec<StscEntry> = Vec::new();
    for (number, chunk) in (1..).zip(chunks) {
        let same = |entry: &&StscEntry| {
            (entry.samples_per_chunk, entry.sample_description_index) == (chunk.samples, chunk.description)
        };
        if entries.last().filter(same).is_none() {
            entries.push(StscEntry {
                first_chunk: number,
                samples_per_chunk: chunk.samples,
                sample_description_index: chunk.description,
            });
        }
    }
    entries
}

/// Returns runs of equal neighbours, as a count and a value.
fn runs<T: PartialEq + Copy>(values: impl Iterator<Item = T>) -> impl Iterator<Item = (u32, T)> {
    let mut values = values.peekable();
    std::iter::from_fn(move || {
        let value = values.next()?;
        let mut count = 1;
        while values.next_if_eq(&value).is_some() {
            count += 1;
        }
        Some((count, value))
    })
}

/// Writes a box whose body is written by `body`.
fn boxed(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    body: impl FnOnce(&mut Vec<u8>) -> mp4_atom::Result<()>,
) -> mp4_atom::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    body(out)?;
    let size = u32::try_from(out.len() - start).map_err(|_| mp4_atom::Error::InvalidSize)?.to_be_bytes();
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&size);
    }
    Ok(())
}

/// Writes a box of the source; an empty body is left out. (No box is larger than the `moov` that it was in.)
fn verbatim(out: &mut Vec<u8>, kind: &[u8; 4], body: &[u8]) {
    if !body.is_empty() {
        out.extend_from_slice(&(body.len() as u32 + 8).to_be_bytes());
        out.extend_from_slice(kind);
        out.extend_from_slice(body);
    }
}
