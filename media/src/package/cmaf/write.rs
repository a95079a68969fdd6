//! Writer of init and media segments, byte for byte.

use bytes::Bytes;
use mp4_atom::{
    Edts, Elst, ElstEntry, FourCC, Ftyp, Hdlr, Mdhd, Mfhd, Mvhd, Smhd, Styp, Tfdt, Tkhd, Trex, Vmhd,
};

use super::{
    Error, Init,
    boxes::{nest, put},
    read::{Kind, Track},
    sample_entry::SampleEntry,
};

/// Id of a rendition's only track.
const TRACK_ID: u32 = 1;
/// `sample_depends_on = 2`: needs no other sample (ISO/IEC 14496-12 section 8.8.3.1).
pub(super) const SYNC: u32 = 0x0200_0000;
/// `sample_depends_on = 1` and `sample_is_non_sync_sample`.
pub(super) const NON_SYNC: u32 = 0x0101_0000;

/// One sample as a `trun` describes it.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) data: Bytes,
    /// Ticks until the next sample is decoded.
    pub(super) duration: u32,
    /// [`SYNC`] or [`NON_SYNC`].
    pub(super) flags: u32,
    /// Ticks from decoding to presentation, before the edit list.
    pub(super) offset: u32,
}

/// Writes the init segment of a track whose presentation starts at `media_time`.
pub(super) fn init(
    track: &Track,
    entry: &SampleEntry,
    timescale: u32,
    media_time: u64,
    language: &str,
) -> Result<Init, Error> {
    let mut bytes = Vec::new();
    let compatible_brands = vec![FourCC::new(b"iso6"), FourCC::new(b"cmfc"), FourCC::new(b"mp41")];
    put(&mut bytes, &Ftyp { major_brand: FourCC::new(b"cmfc"), minor_version: 0, compatible_brands })?;
    nest(&mut bytes, b"moov", |out| {
        let next_track_id = TRACK_ID + 1;
        put(out, &Mvhd { rate: 1.into(), volume: 1.into(), next_track_id, ..Mvhd::default() })?;
        nest(out, b"trak", |out| {
            put(out, &track_header(track))?;
            // One entry or no edit list: Chromium ignores longer ones. A duration of 0 means "to the end".
            if media_time > 0 {
                let entry =
                    ElstEntry { segment_duration: 0, media_time: Some(media_time), media_rate: 1.into() };
                put(out, &Edts { elst: Some(Elst { entries: vec![entry] }) })?;
            }
            nest(out, b"mdia", |out| media(out, track.kind, entry, timescale, language))
        })?;
        nest(out, b"mvex", |out| {
            put(out, &Trex { track_id: TRACK_ID, default_sample_description_index: 1, ..Trex::default() })
        })
    })?;
    let (width, height) = match track.kind {
        Kind::Video => (track.header.width.integer().into(), track.header.height.integer().into()),
        Kind::Audio => (0, 0),
    };
    Ok(Init { bytes: bytes.into(), codecs: entry.codecs.clone(), timescale, width, height })
}

/// Returns a track header without times: creation time and duration would differ between parts.
fn track_header(track: &Track) -> Tkhd {
    let volume = if track.kind == Kind::Audio { 1 } else { 0 };
    let (width, height) = (track.header.width, track.header.height);
    Tkhd {
        track_id: TRACK_ID,
        enabled: true,
        in_movie: true,
        volume: volume.into(),
        width,
        height,
        ..Tkhd::default()
    }
}

fn media(
    out: &mut Vec<u8>,
    kind: Kind,
    entry: &SampleEntry,
    timescale: u32,
    language: &str,
) -> Result<(), Error> {
    let known = language.len() == 3 && language.bytes().all(|letter| letter.is_ascii_lowercase());
    let language = if known { language } else { "und" }.to_owned();
    put(out, &Mdhd { timescale, language, ..Mdhd::default() })?;
    let handler = FourCC::new(if kind == Kind::Video { b"vide" } else { b"soun" });
    put(out, &Hdlr { handler, name: String::new() })?;
    nest(out, b"minf", |out| {
        match kind {
            Kind::Video => put(out, &Vmhd::default())?,
            Kind::Audio => put(out, &Smhd { balance: 0.into() })?,
        }
        nest(out, b"dinf", |out| {
            nest(out, b"dref", |out| {
                out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
                // Flag 1: the samples are in this file, so there is no URL.
                nest(out, b"url ", |out| {
                    out.extend_from_slice(&[0, 0, 0, 1]);
                    Ok(())
                })
            })
        })?;
        nest(out, b"stbl", |out| {
            nest(out, b"stsd", |out| {
                out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
                out.extend_from_slice(&entry.bytes);
                Ok(())
            })?;
            // Mandatory and empty: the samples are in the fragments. Version, flags and a count each; stsz
            // has a size, too.
            for (table, fields) in [(b"stts", 8), (b"stsc", 8), (b"stsz", 12), (b"stco", 8)] {
                nest(out, table, |out| {
                    out.resize(out.len() + fields, 0);
                    Ok(())
                })?;
            }
            Ok(())
        })
    })
}

/// Writes media segment `number` of a rendition, decoded from `decode_time` on.
pub(super) fn media_segment(number: u32, decode_time: u64, samples: &[Sample]) -> Result<Bytes, Error> {
    let payload: usize = samples.iter().map(|sample| sample.data.len()).sum();
    // Four fields of four bytes per sample at most, and about 150 bytes of boxes.
    let mut out = Vec::with_capacity(payload + samples.len() * 16 + 256);
    let compatible_brands = vec![FourCC::new(b"cmfs"), FourCC::new(b"cmff"), FourCC::new(b"msdh")];
    put(&mut out, &Styp { major_brand: FourCC::new(b"cmfs"), minor_version: 0, compatible_brands })?;
    let moof_start = out.len();
    let mut data_offset_at = 0;
    nest(&mut out, b"moof", |out| {
        put(out, &Mfhd { sequence_number: number.saturating_add(1) })?;
        nest(out, b"traf", |out| {
            let layout = Layout::of(samples);
            track_fragment_header(out, &layout)?;
            put(out, &Tfdt { base_media_decode_time: decode_time })?;
            data_offset_at = track_run(out, &layout, samples)?;
            Ok(())
        })
    })?;
    let data_offset = out.len() - moof_start + 8;
    let data_offset = i32::try_from(data_offset)
        .map_err(|_| Error::Malformed("it has too many samples for one fragment"))?;
    out[data_offset_at..data_offset_at + 4].copy_from_slice(&data_offset.to_be_bytes());
    nest(&mut out, b"mdat", |out| {
        samples.iter().for_each(|sample| out.extend_from_slice(&sample.data));
        Ok(())
    })?;
    Ok(out.into())
}

/// Fields that a run needs: a value that all samples share is written once.
struct Layout {
    duration: u32,
    flags: u32,
    first_flags: Option<u32>,
    each_duration: bool,
    each_flags: bool,
    each_offset: bool,
}

impl Layout {
    fn of(samples: &[Sample]) -> Self {
        let duration = samples.first().map_or(0, |sample| sample.duration);
        let first = samples.first().map_or(SYNC, |sample| sample.flags);
        let flags = samples.get(1).map_or(first, |sample| sample.flags);
        let each_flags = samples.iter().skip(1).any(|sample| sample.flags != flags);
        Self {
            duration,
            flags,
            first_flags: (!each_flags && first != flags).then_some(first),
            each_duration: samples.iter().any(|sample| sample.duration != duration),
            each_flags,
            each_offset: samples.iter().any(|sample| sample.offset != 0),
        }
    }
}

/// Writes `tfhd` (ISO/IEC 14496-12 section 8.8.7). Offsets count from `moof`; the defaults are here, since
/// not all players read `trex`.
fn track_fragment_header(out: &mut Vec<u8>, layout: &Layout) -> Result<(), Error> {
    const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
    const DEFAULT_DURATION: u32 = 0x08;
    const DEFAULT_FLAGS: u32 = 0x20;
    nest(out, b"tfhd", |out| {
        for word in
            [DEFAULT_BASE_IS_MOOF | DEFAULT_DURATION | DEFAULT_FLAGS, TRACK_ID, layout.duration, layout.flags]
        {
            out.extend_from_slice(&word.to_be_bytes());
        }
        Ok(())
    })
}

/// Writes `trun` (section 8.8.8) and returns the position of its data offset, which is filled in later. By
/// hand: `cmfc` requires unsigned offsets (version 0) beside an edit list, and mp4-atom prefers version one.
fn track_run(out: &mut Vec<u8>, layout: &Layout, samples: &[Sample]) -> Result<usize, Error> {
    const DATA_OFFSET: u32 = 0x1;
    const FIRST_FLAGS: u32 = 0x4;
    const DURATION: u32 = 0x100;
    const SIZE: u32 = 0x200;
    const FLAGS: u32 = 0x400;
    const OFFSET: u32 = 0x800;
    let mut present = DATA_OFFSET | SIZE;
    for (needed, flag) in [
        (layout.first_flags.is_some(), FIRST_FLAGS),
        (layout.each_duration, DURATION),
        (layout.each_flags, FLAGS),
        (layout.each_offset, OFFSET),
    ] {
        present |= if needed { flag } else { 0 };
    }
    let count = u32::try_from(samples.len())
        .map_err(|_| Error::Malformed("it has too many samples for one fragment"))?;
    // After the header, version and flags, and the count.
    let data_offset_at = out.len() + 16;
    nest(out, b"trun", |out| {
        let mut word = |value: u32| out.extend_from_slice(&value.to_be_bytes());
        word(present);
        word(count);
        word(0);
        layout.first_flags.into_iter().for_each(&mut word);
        for sample in samples {
            let size =
                u32::try_from(sample.data.len()).map_err(|_| Error::Malformed("a sample is too large"))?;
            let fields = [
                (layout.each_duration, sample.duration),
                (true, size),
                (layout.each_flags, sample.flags),
                (layout.each_offset, sample.offset),
            ];
            fields.into_iter().filter(|(needed, _)| *needed).for_each(|(_, value)| word(value));
        }
        Ok(())
    })?;
    Ok(data_offset_at)
}
