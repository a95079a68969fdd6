//! Reader of FFmpeg's fragmented MP4: yields samples, with one fragment in memory at a time.

use std::{collections::VecDeque, io::Read};

use bytes::Bytes;
use mp4_atom::{Elst, FourCC, Mdhd, Tfdt, Tfhd, Tkhd, Trex, Trun};

use super::{
    Error,
    boxes::{children, decode, find, need},
};

/// Largest `moov`. An encoder's holds one sample description and no samples: below 1 KiB, with any side data.
const MAX_MOOV_BYTES: u64 = 1 << 20;
/// Largest fragment, which is one GOP of video or one second of sound: 10 s at 200 Mbit/s are 250 MB.
const MAX_FRAGMENT_BYTES: u64 = 256 << 20;
/// Most samples of a fragment: a GOP of a minute at 240 Hz has 14,400 frames.
const MAX_FRAGMENT_SAMPLES: usize = 1 << 16;
/// Bytes that are allocated on a box's declared size alone; more are allocated as bytes arrive.
const INITIAL_CAPACITY: u64 = 1 << 16;
/// `sample_is_non_sync_sample` of ISO/IEC 14496-12 section 8.8.3.1.
const NON_SYNC: u32 = 0x0001_0000;

/// Kind of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Video,
    Audio,
}

/// The only track, as `moov` describes it.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) kind: Kind,
    /// Ticks per second of every time in the file.
    pub(super) timescale: u32,
    /// Width, height and the rest of the track header.
    pub(super) header: Tkhd,
    /// The sample entry: a whole box, verbatim.
    pub(super) entry: Vec<u8>,
    /// Media time at which the presentation starts, if the file has an edit list.
    pub(super) media_time: Option<u64>,
    defaults: Trex,
}

/// One encoded frame.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) data: Bytes,
    /// Ticks of the file's timescale.
    pub(super) duration: u32,
    /// Presentation time in ticks, before the edit list.
    pub(super) pts: i64,
    /// Whether decoding can start here.
    pub(super) key: bool,
}

/// Reads a file or a pipe front to back.
#[derive(Debug)]
pub(super) struct Reader<R> {
    input: Counted<R>,
    track: Track,
    queue: VecDeque<Sample>,
    next_dts: u64,
    complete: bool,
}

impl<R: Read> Reader<R> {
    /// Reads up to and including `moov`.
    pub(super) fn open(input: R, kind: Kind) -> Result<Self, Error> {
        let mut input = Counted { inner: input, offset: 0 };
        loop {
            let (name, bytes) = input.header()?.ok_or(Error::Truncated("before its header"))?;
            match name.as_ref() {
                b"moov" => {
                    let moov = input.body(bytes, "moov in bytes", MAX_MOOV_BYTES)?;
                    let track = parse_moov(&moov)?;
                    if track.kind != kind {
                        return Err(Error::Malformed("its track is of another kind than was asked for"));
                    }
                    return Ok(Self { input, track, queue: VecDeque::new(), next_dts: 0, complete: false });
                }
                b"moof" | b"mdat" => return Err(Error::Malformed("samples come before the header")),
                _ => input.skip(bytes)?,
            }
        }
    }

    /// Returns the track as the header describes it.
    pub(super) fn track(&self) -> &Track {
        &self.track
    }

    /// Returns the next sample in decoding order, without consuming it.
    pub(super) fn peek(&mut self) -> Result<Option<&Sample>, Error> {
        while self.queue.is_empty() {
            if !self.read_fragment()? {
                return Ok(None);
            }
        }
        Ok(self.queue.front())
    }

    /// Returns the next sample in decoding order; `None` after the file's trailer.
    pub(super) fn next(&mut self) -> Result<Option<Sample>, Error> {
        self.peek()?;
        Ok(self.queue.pop_front())
    }

    /// Reads one `moof` and its `mdat` into the queue. Returns false at the end.
    fn read_fragment(&mut self) -> Result<bool, Error> {
        loop {
            let start = self.input.offset;
            let Some((name, bytes)) = self.input.header()? else {
                // FFmpeg ends a fragmented file with `mfra`: without it the encoder was killed between two
                // fragments.
                return if self.complete { Ok(false) } else { Err(Error::Truncated("without its trailer")) };
            };
            match name.as_ref() {
                b"moof" => {
                    let moof = self.input.body(bytes, "moof in bytes", MAX_FRAGMENT_BYTES)?;
                    let (name, bytes) =
                        self.input.header()?.ok_or(Error::Truncated("between moof and mdat"))?;
                    if name != FourCC::new(b"mdat") {
                        return Err(Error::Malformed("moof is not followed by mdat"));
                    }
                    let data_start = self.input.offset;
                    let data = self.input.body(bytes, "mdat in bytes", MAX_FRAGMENT_BYTES)?;
                    self.parse_moof(&moof, start, data_start, &Bytes::from(data))?;
                    return Ok(true);
                }
                b"mdat" => return Err(Error::Malformed("mdat comes without moof")),
                b"mfra" => {
                    self.input.skip(bytes)?;
                    self.complete = true;
                }
                _ => self.input.skip(bytes)?,
            }
        }
    }

    fn parse_moof(
        &mut self,
        moof: &[u8],
        moof_start: u64,
        data_start: u64,
        data: &Bytes,
    ) -> Result<(), Error> {
        let traf = need(moof, b"traf", "moof has no traf")?;
        let tfhd: Tfhd = decode(need(traf, b"tfhd", "traf has no tfhd")?)?;
        if tfhd.track_id != self.track.defaults.track_id {
            return Err(Error::Malformed("a fragment is of an unknown track"));
        }
        if let Some(tfdt) = find(traf, b"tfdt")? {
            self.next_dts = decode::<Tfdt>(tfdt)?.base_media_decode_time;
        }
        let base = tfhd.base_data_offset.unwrap_or(moof_start);
        let mut position = base;
        for child in children(traf) {
            let child = child?;
            if child.kind != FourCC::new(b"trun") {
                continue;
            }
            let trun: Trun = decode(child.body)?;
            if let Some(offset) = trun.data_offset {
                position = base
                    .checked_add_signed(offset.into())
                    .ok_or(Error::Malformed("trun points before the file"))?;
            }
            let samples = self.queue.len().saturating_add(trun.samples.len());
            if samples > MAX_FRAGMENT_SAMPLES {
                let (amount, limit) = (samples as u64, MAX_FRAGMENT_SAMPLES as u64);
                return Err(Error::TooLarge { what: "a fragment in samples", amount, limit });
            }
            for entry in &trun.samples {
                let defaults = &self.track.defaults;
                let size = entry.size.or(tfhd.default_sample_size).unwrap_or(defaults.default_sample_size);
                let duration = entry
                    .duration
                    .or(tfhd.default_sample_duration)
                    .unwrap_or(defaults.default_sample_duration);
                let flags =
                    entry.flags.or(tfhd.default_sample_flags).unwrap_or(defaults.default_sample_flags);
                let sample = slice(data, position.checked_sub(data_start), size)?;
                position = position.saturating_add(size.into());
                let pts =
                    i64::try_from(self.next_dts).ok().and_then(|dts| dts.checked_add(entry.cts.unwrap_or(0)));
                let pts = pts.ok_or(Error::Malformed("a sample's time does not fit 63 bits"))?;
                self.next_dts = self.next_dts.saturating_add(duration.into());
                self.queue.push_back(Sample { data: sample, duration, pts, key: flags & NON_SYNC == 0 });
            }
        }
        Ok(())
    }
}

/// Returns `size` bytes of `data` from `start`, sharing its memory.
fn slice(data: &Bytes, start: Option<u64>, size: u32) -> Result<Bytes, Error> {
    let range = start.and_then(|start| {
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        (size > 0 && end <= data.len()).then_some(start..end)
    });
    range.map(|range| data.slice(range)).ok_or(Error::Malformed("a sample is empty or lies outside its mdat"))
}

fn parse_moov(moov: &[u8]) -> Result<Track, Error> {
    let mut traks = Vec::new();
    for child in children(moov) {
        let child = child?;
        if child.kind == FourCC::new(b"trak") {
            traks.push(child.body);
        }
    }
    let [trak] = traks[..] else { return Err(Error::Malformed("it has not exactly one track")) };
    let mdia = need(trak, b"mdia", "trak has no mdia")?;
    let mdhd: Mdhd = decode(need(mdia, b"mdhd", "mdia has no mdhd")?)?;
    let kind = match need(mdia, b"hdlr", "mdia has no hdlr")?.get(8..12) {
        Some(b"vide") => Kind::Video,
        Some(b"soun") => Kind::Audio,
        _ => return Err(Error::Malformed("its track is neither pictures nor sound")),
    };
    let minf = need(mdia, b"minf", "mdia has no minf")?;
    let stbl = need(minf, b"stbl", "minf has no stbl")?;
    let stsd = need(stbl, b"stsd", "stbl has no stsd")?;
    // Version, flags and the count of entries come first.
    let entries = children(stsd.get(8..).unwrap_or_default()).collect::<Result<Vec<_>, _>>()?;
    let [entry] = entries[..] else { return Err(Error::Malformed("it has not exactly one sample entry")) };
    let mvex = need(moov, b"mvex", "moov has no mvex: it is not a fragmented file")?;
    if mdhd.timescale == 0 {
        return Err(Error::Malformed("its timescale is zero"));
    }
    Ok(Track {
        kind,
        timescale: mdhd.timescale,
        header: decode(need(trak, b"tkhd", "trak has no tkhd")?)?,
        entry: entry.whole.to_vec(),
        media_time: media_time(trak)?,
        defaults: decode(need(mvex, b"trex", "mvex has no trex")?)?,
    })
}

/// Returns the media time at which the presentation starts. Refuses an empty edit, which is a pause before
/// the start and would be lost.
fn media_time(trak: &[u8]) -> Result<Option<u64>, Error> {
    let Some(edts) = find(trak, b"edts")? else { return Ok(None) };
    let Some(elst) = find(edts, b"elst")? else { return Ok(None) };
    match decode::<Elst>(elst)?.entries[..] {
        [] => Ok(None),
        [ref entry] if entry.media_time.is_some() => Ok(entry.media_time),
        _ => Err(Error::Malformed("it does not start at time 0: its edit list is longer than one entry")),
    }
}

/// Input that counts the bytes read.
#[derive(Debug)]
struct Counted<R> {
    inner: R,
    offset: u64,
}

impl<R: Read> Counted<R> {
    /// Reads the next box's header: its name and the length of its body; `None` at the end.
    fn header(&mut self) -> Result<Option<(FourCC, u64)>, Error> {
        let head = self.read(8)?;
        let Some((size, name)) = head.split_first_chunk::<4>() else {
            return if head.is_empty() { Ok(None) } else { Err(Error::Truncated("inside a box's header")) };
        };
        let name = FourCC::new(name.first_chunk().ok_or(Error::Truncated("inside a box's header"))?);
        let body = match u32::from_be_bytes(*size) {
            1 => {
                let large = self.read(8)?;
                let large = large.first_chunk().ok_or(Error::Truncated("inside a box's header"))?;
                u64::from_be_bytes(*large).checked_sub(16)
            }
            // Zero would mean "to the end of the file", which is unknown for a pipe.
            size => u64::from(size).checked_sub(8),
        };
        Ok(Some((name, body.ok_or(Error::Malformed("a box's size is smaller than its header"))?)))
    }

    /// Reads a body of exactly `bytes`.
    fn body(&mut self, bytes: u64, what: &'static str, limit: u64) -> Result<Vec<u8>, Error> {
        if bytes > limit {
            return Err(Error::TooLarge { what, amount: bytes, limit });
        }
        let body = self.read(bytes)?;
        if body.len() as u64 == bytes { Ok(body) } else { Err(Error::Truncated("inside a box")) }
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Error> {
        let skipped =
            std::io::copy(&mut (&mut self.inner).take(bytes), &mut std::io::sink()).map_err(Error::Read)?;
        self.offset = self.offset.saturating_add(skipped);
        if skipped == bytes { Ok(()) } else { Err(Error::Truncated("inside a box")) }
    }

    /// Reads up to `bytes`, fewer only at the end of the input.
    fn read(&mut self, bytes: u64) -> Result<Vec<u8>, Error> {
        let mut buffer = Vec::with_capacity(usize::try_from(bytes.min(INITIAL_CAPACITY)).unwrap_or_default());
        (&mut self.inner).take(bytes).read_to_end(&mut buffer).map_err(Error::Read)?;
        self.offset = self.offset.saturating_add(buffer.len() as u64);
        Ok(buffer)
    }
}
