//! Sample tables: the samples of a track before its edit list is applied.
//!
//! Results follow FFmpeg (its `mov` demuxer reads the indexed samples) where it differs from ISO/IEC 14496-12
//! sections 8.6 and 8.7: `ctts` is signed in every version, and uncompressed sound comes in packets of up to
//! 1,024 frames.

use super::{
    WholeFile,
    boxes::{child, children, entries, u32_at, word},
    sound,
};
use crate::source::index::{Error, Sample, TrackKind};

/// Most samples of one source, which are kept in memory at 40 bytes each. A day of 60 fps and 48 kHz AAC has
/// 9.2 million.
pub const MAX_SAMPLES: usize = 10_000_000;

/// Frames of uncompressed sound in one packet of FFmpeg's demuxer.
pub(crate) const PCM_PACKET_FRAMES: u32 = 1024;

/// Largest composition offset: FFmpeg ignores a table with a larger one.
pub(crate) const MAX_COMPOSITION_OFFSET: i64 = 1 << 28;

/// Largest sample that FFmpeg accepts.
const MAX_SAMPLE_BYTES: u32 = 0x3fff_ffff;

/// A track's samples in media time: `dts` from 0, less [`Media::dts_shift`].
#[derive(Debug, Default)]
pub(super) struct Media {
    /// Samples in decoding order.
    pub(super) samples: Vec<Sample>,
    /// Ticks by which FFmpeg moves decoding times back, so that presentation times with negative composition
    /// offsets are not before them.
    pub(super) dts_shift: i64,
    /// Whether there is a composition offset table.
    pub(super) reordered: bool,
    /// Size that `stsz` gives to all samples, if they have the same size.
    pub(super) uniform_bytes: Option<u32>,
    /// Whether this is sound with one table entry per PCM frame, so that a [`Sample`] is a packet of several.
    pub(super) pcm: bool,
    /// Runs of samples of one sample description: first sample, description's number from 1.
    pub(super) descriptions: Vec<(usize, u32)>,
    /// Whether `stts` is empty. FFmpeg then treats the edit lists of later tracks differently.
    pub(super) no_times: bool,
}

/// Reads the sample tables of track number `track`. `room` is the number of samples that may still be kept,
/// `len` the length of the file in bytes.
pub(super) fn read(
    track: usize,
    kind: TrackKind,
    stbl: &[u8],
    room: usize,
    len: u64,
) -> Result<Media, Error> {
    let damaged = |what| Error::DamagedTrack { track, what };
    let whole = |why: fn(usize) -> WholeFile| Error::NeedsWholeFile { why: why(track) };
    let tables = Tables::find(stbl).map_err(damaged)?;
    let count = tables.sizes.count();
    let no_times = count == 0 && tables.times.is_empty() && tables.chunks.len() == 0;
    let mut media = Media { no_times, ..Media::default() };
    if count == 0 {
        return Ok(media);
    }
    let chunks = tables.check(count).map_err(damaged)?;
    // Checked before the allocation: a dozen bytes can declare any number of samples.
    if tables.sizes.uniform().is_some_and(|size| u64::from(size) * count > len) {
        return Err(damaged(
            "its samples add up to more than the file: it is truncated, or the table is wrong",
        ));
    }
    if tables.times.iter().any(|entry| word(entry, 0) == 0 || word(entry, 1) > i32::MAX as u32) {
        return Err(whole(WholeFile::Times));
    }
    let stsd = child(stbl, b"stsd").ok_or(damaged("no stsd"))?;
    if let (TrackKind::Audio, [only]) = (kind, tables.times)
        && word(only, 1) == 1
    {
        let frame_bytes =
            sound::pcm_frame_bytes(stsd, tables.sizes.uniform()).ok_or(whole(WholeFile::Sound))?;
        if tables.offsets.is_some() || tables.runs.iter().any(|run| word(run, 2) != 1) {
            return Err(whole(WholeFile::Sound));
        }
        media.uniform_bytes = tables.sizes.uniform();
        media.pcm = true;
        media.descriptions = vec![(0, 1)];
        media.samples = pcm_packets(&tables, chunks, frame_bytes, room)?;
        return Ok(media);
    }
    if sound::table_size_is_overridden(kind, stsd, tables.sizes.uniform()) {
        return Err(whole(WholeFile::Sound));
    }
    if count > room as u64 {
        return Err(Error::TooManySamples { limit: MAX_SAMPLES });
    }
    let offsets = tables.offsets.filter(|offsets| !absurd(offsets));
    media.reordered = offsets.is_some();
    media.dts_shift = offsets.map_or(0, dts_shift);
    media.uniform_bytes = tables.sizes.uniform();
    place(&tables, kind, chunks, offsets.unwrap_or_default(), &mut media).map_err(damaged)?;
    Ok(media)
}

/// Computes the position, times and key flag of every sample, chunk by chunk.
fn place(
    tables: &Tables<'_>,
    kind: TrackKind,
    chunks: usize,
    offsets: &[[u8; 8]],
    media: &mut Media,
) -> Result<(), &'static str> {
    let count = usize::try_from(tables.sizes.count()).map_err(|_| "too many samples")?;
    let mut samples = Vec::with_capacity(count);
    let mut times = Runs::new(tables.times);
    let mut offsets = Runs::new(offsets);
    let mut keys = Keys::new(tables, kind);
    let mut dts = -media.dts_shift;
    for (chunk, in_chunk, description) in tables.chunk_runs(chunks) {
        let mut offset = tables.chunks.offset(chunk).ok_or("stco is cut off")?;
        if media.descriptions.last().is_none_or(|last| last.1 != description) {
            media.descriptions.push((samples.len(), description));
        }
        for in_this_chunk in 0..in_chunk {
            let sample = samples.len();
            let size = tables.sizes.size(sample).ok_or("stsz is cut off")?;
            if size > MAX_SAMPLE_BYTES {
                return Err("a sample is larger than 1 GiB");
            }
            let duration = times.next().unwrap_or(0);
            let shift = i64::from(offsets.next().unwrap_or(0).cast_signed()) + media.dts_shift;
            let key = keys.next(sample, chunk == 0 && in_this_chunk == 0);
            samples.push(Sample { pts: dts + shift, dts, duration, offset, size, key });
            offset = offset.checked_add(u64::from(size)).ok_or("a sample ends past the end of all files")?;
            dts += i64::from(duration);
        }
    }
    media.samples = samples;
    Ok(())
}

/// Cuts chunks of uncompressed sound into packets.
fn pcm_packets(
    tables: &Tables<'_>,
    chunks: usize,
    frame_bytes: u32,
    room: usize,
) -> Result<Vec<Sample>, Error> {
    let mut samples = Vec::new();
    let mut dts = 0_i64;
    for (chunk, in_chunk, _) in tables.chunk_runs(chunks) {
        let mut offset = tables.chunks.offset(chunk).unwrap_or(u64::MAX);
        let mut left = in_chunk;
        while left > 0 {
            if samples.len() >= room {
                return Err(Error::TooManySamples { limit: MAX_SAMPLES });
            }
            let duration = left.min(PCM_PACKET_FRAMES);
            let size = duration.saturating_mul(frame_bytes);
            samples.push(Sample { pts: dts, dts, duration, offset, size, key: true });
            offset = offset.saturating_add(u64::from(size));
            dts += i64::from(duration);
            left -= duration;
        }
    }
    Ok(samples)
}

/// Returns whether FFmpeg ignores the composition offset table: an offset is too large, except the last two.
fn absurd(offsets: &[[u8; 8]]) -> bool {
    let most = offsets.len().saturating_sub(2);
    offsets
        .iter()
        .take(most)
        .any(|entry| i64::from(word(entry, 1).cast_signed()).abs() > MAX_COMPOSITION_OFFSET)
}

/// Returns the shift of decoding times: the most negative offset, in all entries but the last two, as in
/// FFmpeg.
fn dts_shift(offsets: &[[u8; 8]]) -> i64 {
    let most = offsets.len().saturating_sub(2);
    offsets.iter().take(most).map(|entry| -i64::from(word(entry, 1).cast_signed())).max().unwrap_or(0).max(0)
}

/// Tables of `stbl`.
struct Tables<'a> {
    sizes: Sizes<'a>,
    chunks: Chunks<'a>,
    /// First chunk, samples per chunk, sample description.
    runs: &'a [[u8; 12]],
    /// Number of samples, duration of each.
    times: &'a [[u8; 8]],
    /// Number of samples, composition offset of each.
    offsets: Option<&'a [[u8; 8]]>,
    sync: Option<&'a [[u8; 4]]>,
    /// QuickTime's partial sync samples: open GOPs.
    partial_sync: &'a [[u8; 4]],
    /// Number of samples, group: a group other than 0 of type `rap ` is a random access point.
    random_access: &'a [[u8; 8]],
}

impl<'a> Tables<'a> {
    fn find(stbl: &'a [u8]) -> Result<Self, &'static str> {
        let sizes = match (child(stbl, b"stsz"), child(stbl, b"stz2")) {
            (Some(body), _) => match u32_at(body, 4) {
                Some(0) => Sizes::Each(entries(body, 8).ok_or("stsz is cut off")?),
                Some(size) => Sizes::Same { size, count: u32_at(body, 8).ok_or("stsz is cut off")? },
                None => return Err("stsz is cut off"),
            },
            (None, Some(body)) => Sizes::packed(body).ok_or("stz2 is cut off")?,
            (None, None) => Sizes::Each(&[]),
        };
        let chunks = match (child(stbl, b"stco"), child(stbl, b"co64")) {
            (Some(body), _) => Chunks::Near(entries(body, 4).ok_or("stco is cut off")?),
            (None, Some(body)) => Chunks::Far(entries(body, 4).ok_or("co64 is cut off")?),
            (None, None) => Chunks::Near(&[]),
        };
        let rap = children(stbl)
            .find(|(kind, body)| kind == b"sbgp" && body.get(4..8) == Some(b"rap "))
            .map(|(_, body)| body);
        Ok(Self {
            sizes,
            chunks,
            runs: table(stbl, b"stsc", "stsc is cut off")?.unwrap_or_default(),
            times: table(stbl, b"stts", "stts is cut off")?.unwrap_or_default(),
            offsets: table(stbl, b"ctts", "ctts is cut off")?.filter(|entries| !entries.is_empty()),
            sync: table(stbl, b"stss", "stss is cut off")?,
            partial_sync: table(stbl, b"stps", "stps is cut off")?.unwrap_or_default(),
            random_access: match rap {
                Some(body) => {
                    entries(body, if body.first() == Some(&1) { 12 } else { 8 }).ok_or("sbgp is cut off")?
                }
                None => &[],
            },
        })
    }

    /// Checks that the tables agree with each other. Returns the number of chunks.
    fn check(&self, count: u64) -> Result<usize, &'static str> {
        let chunks = self.chunks.len();
        if self.runs.first().is_none_or(|run| word(run, 0) != 1) {
            return Err("stsc does not start with the first chunk");
        }
        if !self.runs.is_sorted_by(|a, b| word(a, 0) < word(b, 0))
            || self.runs.iter().any(|run| word(run, 1) == 0 || word(run, 2) == 0)
        {
            return Err("stsc is not in order");
        }
        if self.runs.last().is_some_and(|run| word(run, 0) as usize > chunks) {
            return Err("stsc names a chunk that stco does not have");
        }
        let placed: u64 = self
            .run_lengths(chunks)
            .map(|(run, chunks)| u64::from(word(run, 1)) * chunks)
            .fold(0, u64::saturating_add);
        if placed != count {
            return Err("stsc and stco place another number of samples than stsz has");
        }
        if total(self.times) != count {
            return Err("stts and stsz disagree on the number of samples");
        }
        if self.offsets.is_some_and(|offsets| total(offsets) != count) {
            return Err("ctts and stsz disagree on the number of samples");
        }
        Ok(chunks)
    }

    /// Returns every run of `stsc`, and the number of chunks that it covers.
    fn run_lengths(&self, chunks: usize) -> impl Iterator<Item = (&'a [u8; 12], u64)> {
        let firsts = self.runs.iter().skip(1).map(|run| u64::from(word(run, 0)));
        let ends = firsts.chain([chunks as u64 + 1]);
        self.runs.iter().zip(ends).map(|(run, end)| (run, end.saturating_sub(u64::from(word(run, 0)))))
    }

    /// Returns every chunk: its number from 0, its number of samples, and their description.
    fn chunk_runs(&self, chunks: usize) -> impl Iterator<Item = (usize, u32, u32)> {
        let runs = self.run_lengths(chunks);
        runs.flat_map(|(run, chunks)| (0..chunks).map(move |_| (word(run, 1), word(run, 2))))
            .enumerate()
            .map(|(at, run)| (at, run.0, run.1))
    }
}

/// Returns the entries of an optional table.
fn table<'a, const N: usize>(
    stbl: &'a [u8],
    kind: &[u8; 4],
    cut: &'static str,
) -> Result<Option<&'a [[u8; N]]>, &'static str> {
    child(stbl, kind).map(|body| entries(body, 4).ok_or(cut)).transpose()
}

fn total(runs: &[[u8; 8]]) -> u64 {
    runs.iter().map(|run| u64::from(word(run, 0))).sum()
}

enum Sizes<'a> {
    Same { size: u32, count: u32 },
    Each(&'a [[u8; 4]]),
    Packed { bits: u8, count: u32, bytes: &'a [u8] },
}

impl<'a> Sizes<'a> {
    /// Reads `stz2`: 4, 8 or 16 bits per sample.
    fn packed(body: &'a [u8]) -> Option<Self> {
        let bits = *body.get(7)?;
        let count = u32_at(body, 8)?;
        let bytes = body.get(12..)?;
        let enough = (u64::from(count) * u64::from(bits)).div_ceil(8) <= bytes.len() as u64;
        (enough && matches!(bits, 4 | 8 | 16)).then_some(Self::Packed { bits, count, bytes })
    }

    fn count(&self) -> u64 {
        match self {
            Self::Same { count, .. } | Self::Packed { count, .. } => u64::from(*count),
            Self::Each(sizes) => sizes.len() as u64,
        }
    }

    fn uniform(&self) -> Option<u32> {
        if let Self::Same { size, .. } = self { Some(*size) } else { None }
    }

    fn size(&self, sample: usize) -> Option<u32> {
        match self {
            Self::Same { size, .. } => Some(*size),
            Self::Each(sizes) => sizes.get(sample).map(|size| u32::from_be_bytes(*size)),
            Self::Packed { bits: 16, bytes, .. } => Some(u32::from(super::boxes::u16_at(bytes, sample * 2)?)),
            Self::Packed { bits: 8, bytes, .. } => bytes.get(sample).map(|size| u32::from(*size)),
            Self::Packed { bytes, .. } => {
                let both = bytes.get(sample / 2)?;
                Some(u32::from(if sample.is_multiple_of(2) { both >> 4 } else { both & 15 }))
            }
        }
    }
}

enum Chunks<'a> {
    Near(&'a [[u8; 4]]),
    Far(&'a [[u8; 8]]),
}

impl Chunks<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Near(offsets) => offsets.len(),
            Self::Far(offsets) => offsets.len(),
        }
    }

    fn offset(&self, chunk: usize) -> Option<u64> {
        match self {
            Self::Near(offsets) => offsets.get(chunk).map(|offset| u64::from(u32::from_be_bytes(*offset))),
            Self::Far(offsets) => offsets.get(chunk).map(|offset| u64::from_be_bytes(*offset)),
        }
    }
}

/// A run-length table, value by value.
struct Runs<'a> {
    entries: std::slice::Iter<'a, [u8; 8]>,
    left: u32,
    value: u32,
}

impl<'a> Runs<'a> {
    fn new(entries: &'a [[u8; 8]]) -> Self {
        Self { entries: entries.iter(), left: 0, value: 0 }
    }

    fn next(&mut self) -> Option<u32> {
        while self.left == 0 {
            let entry = self.entries.next()?;
            (self.left, self.value) = (word(entry, 0), word(entry, 1));
        }
        self.left -= 1;
        Some(self.value)
    }
}

/// Key samples: those in `stss` (all, without that box), in `stps`, and in a random access group.
struct Keys<'a> {
    sync: Numbers<'a>,
    partial: Numbers<'a>,
    groups: Runs<'a>,
    all: bool,
    /// Whether there is an empty `stss` and nothing else: decoding can start anywhere in sound, and at the
    /// first sample of video.
    none_told: bool,
}

impl<'a> Keys<'a> {
    fn new(tables: &Tables<'a>, kind: TrackKind) -> Self {
        let sync = tables.sync.unwrap_or_default();
        // FFmpeg reads the numbers as zero-based unless a table starts above 0.
        let first =
            |numbers: &[[u8; 4]]| numbers.first().is_some_and(|number| u32::from_be_bytes(*number) > 0);
        let base = u64::from(first(sync) || first(tables.partial_sync));
        let none_told = tables.sync.is_some()
            && sync.is_empty()
            && tables.partial_sync.is_empty()
            && tables.random_access.is_empty();
        Self {
            sync: Numbers { numbers: sync, base },
            partial: Numbers { numbers: tables.partial_sync, base },
            groups: Runs::new(tables.random_access),
            all: tables.sync.is_none() || (none_told && kind == TrackKind::Audio),
            none_told,
        }
    }

    fn next(&mut self, sample: usize, first: bool) -> bool {
        let grouped = self.groups.next().is_some_and(|group| group > 0);
        let listed = self.sync.next(sample) || self.partial.next(sample);
        self.all || listed || grouped || (self.none_told && first)
    }
}

/// An ascending list of sample numbers.
struct Numbers<'a> {
    numbers: &'a [[u8; 4]],
    base: u64,
}

impl Numbers<'_> {
    fn next(&mut self, sample: usize) -> bool {
        let Some((number, rest)) = self.numbers.split_first() else { return false };
        let here = u64::from(u32::from_be_bytes(*number)) == sample as u64 + self.base;
        // The last number stays, as in FFmpeg: it cannot match again.
        if here && !rest.is_empty() {
            self.numbers = rest;
        }
        here
    }
}
