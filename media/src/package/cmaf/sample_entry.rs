//! Sample entries: the decoder configuration, and its `CODECS` string.
//!
//! A sample entry keeps its decoder configuration verbatim. Fields that differ between two runs of one
//! encoder are removed: measured bit rates (`btrt`, `esds`) and the muxer's version (the compressor name). So
//! all parts of a rendition get the same init segment.
//!
//! Source: RFC 6381 section 3.3; ISO/IEC 14496-15 section 5.3.3 and annex E; AV1 Codec ISO Media File Format
//! Binding section 5; VP Codec ISO Media File Format Binding.

use mp4_atom::{Esds, FourCC, u24};

use super::{
    Error,
    boxes::{children, decode, need, nest, put},
};

/// Bytes of a `VisualSampleEntry` before its child boxes (ISO/IEC 14496-12 section 12.1.3).
const VISUAL_FIELDS: usize = 78;
/// Range of the Pascal string among them that FFmpeg fills with its own version.
const COMPRESSOR_NAME: std::ops::Range<usize> = 42..74;
/// Bytes of an `AudioSampleEntry` (version 0) before its child boxes (section 12.2.3).
const AUDIO_FIELDS: usize = 28;
/// Samples per AAC frame. FFmpeg does not encode the rare mode with 960.
const AAC_FRAME_TICKS: u32 = 1024;
/// Samples that FFmpeg's own AAC encoder puts before the first one (`initial_padding` in libavcodec's
/// aacenc.c).
const FFMPEG_AAC_PRIMING: u64 = 1024;
/// `objectTypeIndication` of AAC (ISO/IEC 14496-1 section 7.2.6.6.2).
const MPEG4_AUDIO: u8 = 0x40;

/// A sample entry without the fields that differ between runs.
#[derive(Debug)]
pub(super) struct SampleEntry {
    /// The whole box.
    pub(super) bytes: Vec<u8>,
    /// RFC 6381's `codecs` value.
    pub(super) codecs: String,
    priming: u64,
    frame_ticks: Option<u32>,
}

impl SampleEntry {
    /// Parses and normalises a whole `stsd` entry.
    pub(super) fn parse(whole: &[u8]) -> Result<Self, Error> {
        let entry = children(whole).next().ok_or(Error::Malformed("its sample entry is too short"))??;
        match entry.kind.as_ref() {
            name @ (b"avc1" | b"hvc1" | b"hev1" | b"av01" | b"vp09") => visual(name, entry.body),
            b"mp4a" => aac(entry.body),
            b"Opus" => opus(entry.body),
            _ => Err(Error::Codec(entry.kind)),
        }
    }

    /// Returns the ticks before the first audible sample, for use without an edit list.
    pub(super) fn priming(&self) -> u64 {
        self.priming
    }

    /// Returns the ticks of every frame but the last, if the codec fixes them.
    pub(super) fn frame_ticks(&self) -> Option<u32> {
        self.frame_ticks
    }
}

fn visual(name: &[u8; 4], body: &[u8]) -> Result<SampleEntry, Error> {
    let (fields, boxes) =
        body.split_at_checked(VISUAL_FIELDS).ok_or(Error::Malformed("its sample entry is too short"))?;
    let codecs = match name {
        b"avc1" => avc(need(boxes, b"avcC", "avc1 has no avcC")?),
        b"av01" => av1(need(boxes, b"av1C", "av01 has no av1C")?),
        b"vp09" => vp9(need(boxes, b"vpcC", "vp09 has no vpcC")?),
        name => hevc(name, need(boxes, b"hvcC", "it has no hvcC")?),
    };
    let mut fields = fields.to_vec();
    fields[COMPRESSOR_NAME].fill(0);
    let mut bytes = Vec::new();
    nest(&mut bytes, name, |out| {
        out.extend_from_slice(&fields);
        for child in children(boxes) {
            let child = child?;
            // Decoder configuration, pixel aspect ratio, clean aperture and colour.
            if matches!(
                child.kind.as_ref(),
                b"avcC" | b"hvcC" | b"av1C" | b"vpcC" | b"pasp" | b"clap" | b"colr" | b"mdcv" | b"clli"
            ) {
                out.extend_from_slice(child.whole);
            }
        }
        Ok(())
    })?;
    let codecs = codecs.ok_or(Error::Malformed("its decoder configuration is too short"))?;
    Ok(SampleEntry { bytes, codecs, priming: 0, frame_ticks: None })
}

fn aac(body: &[u8]) -> Result<SampleEntry, Error> {
    let (fields, boxes) =
        body.split_at_checked(AUDIO_FIELDS).ok_or(Error::Malformed("its sample entry is too short"))?;
    let mut esds: Esds = decode(need(boxes, b"esds", "mp4a has no esds")?)?;
    let config = &mut esds.es_desc.dec_config;
    config.buffer_size_db = u24::default();
    config.max_bitrate = 0;
    config.avg_bitrate = 0;
    let specific = config.dec_specific.as_ref().map_or(&[][..], |specific| &specific.raw);
    let object_type = match *specific {
        [first, second, ..] if first >> 3 == 31 => 32 + (((first & 7) << 3) | (second >> 5)),
        [first, ..] => first >> 3,
        [] => return Err(Error::Malformed("its AudioSpecificConfig is missing")),
    };
    if config.object_type_indication != MPEG4_AUDIO {
        return Err(Error::Codec(FourCC::new(b"mp4a")));
    }
    let mut bytes = Vec::new();
    nest(&mut bytes, b"mp4a", |out| {
        out.extend_from_slice(fields);
        put(out, &esds)
    })?;
    let codecs = format!("mp4a.40.{object_type}");
    Ok(SampleEntry { bytes, codecs, priming: FFMPEG_AAC_PRIMING, frame_ticks: Some(AAC_FRAME_TICKS) })
}

fn opus(body: &[u8]) -> Result<SampleEntry, Error> {
    let (fields, boxes) =
        body.split_at_checked(AUDIO_FIELDS).ok_or(Error::Malformed("its sample entry is too short"))?;
    let config = need(boxes, b"dOps", "Opus has no dOps")?;
    let [_version, _channels, skip_high, skip_low, ..] = *config else {
        return Err(Error::Malformed("its dOps is too short"));
    };
    let mut bytes = Vec::new();
    nest(&mut bytes, b"Opus", |out| {
        out.extend_from_slice(fields);
        nest(out, b"dOps", |out| {
            out.extend_from_slice(config);
            Ok(())
        })
    })?;
    let priming = u16::from_be_bytes([skip_high, skip_low]).into();
    Ok(SampleEntry { bytes, codecs: "opus".to_owned(), priming, frame_ticks: None })
}

/// Returns `avc1.PPCCLL`: profile, constraints and level in hex.
fn avc(config: &[u8]) -> Option<String> {
    let [_version, profile, constraints, level, ..] = *config else { return None };
    Some(format!("avc1.{profile:02x}{constraints:02x}{level:02x}"))
}

/// Returns `hvc1.` or `hev1.` with profile space and number, compatibility flags (bits reversed, hex), tier
/// and level, and the constraint bytes up to the last one that is not zero.
fn hevc(name: &[u8; 4], config: &[u8]) -> Option<String> {
    let [_version, profile, rest @ ..] = config else { return None };
    let (compatibility, rest) = rest.split_first_chunk::<4>()?;
    let (constraints, rest) = rest.split_first_chunk::<6>()?;
    let level = rest.first()?;
    let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let compatibility = u32::from_be_bytes(*compatibility).reverse_bits();
    let mut codecs = format!(
        "{}.{space}{}.{compatibility:X}.{tier}{level}",
        String::from_utf8_lossy(name),
        profile & 0x1f
    );
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        codecs.push_str(&format!(".{byte:X}"));
    }
    Some(codecs)
}

/// Returns `av01.P.LLT.DD`: profile, level and tier, bit depth. The colour fields are optional, and `colr`
/// has them.
fn av1(config: &[u8]) -> Option<String> {
    let [_marker, profile_level, flags, ..] = *config else { return None };
    let (profile, level) = (profile_level >> 5, profile_level & 0x1f);
    let tier = if flags & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match (flags & 0x40 != 0, flags & 0x20 != 0) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    Some(format!("av01.{profile}.{level:02}{tier}.{depth:02}"))
}

/// Returns `vp09.PP.LL.DD`: profile, level, bit depth.
fn vp9(config: &[u8]) -> Option<String> {
    let [_version, _, _, _, profile, level, depth, ..] = *config else { return None };
    Some(format!("vp09.{profile:02}.{level:02}.{:02}", depth >> 4))
}
