//! Bytes per frame of uncompressed audio, which the sample tables of old QuickTime audio leave out.
//!
//! Source: QuickTime File Format, sound sample descriptions version 0 to 2.

use super::boxes::{u16_at, u32_at};
use crate::source::index::TrackKind;

/// Returns the bytes of one frame (all channels) of a PCM track whose `stsz` gives every sample the size
/// `uniform`; `None` if this is not plain PCM, or if description and table disagree.
pub(super) fn pcm_frame_bytes(stsd: &[u8], uniform: Option<u32>) -> Option<u32> {
    let bytes = described(stsd)?;
    // QuickTime itself wrote 1 for "one frame".
    (uniform == Some(bytes) || uniform == Some(1)).then_some(bytes)
}

/// Returns whether FFmpeg uses the sample size of the sample description and not that of `stsz`.
pub(super) fn table_size_is_overridden(kind: TrackKind, stsd: &[u8], uniform: Option<u32>) -> bool {
    kind == TrackKind::Audio
        && uniform.is_some()
        && described(stsd).is_some_and(|bytes| Some(bytes) != uniform)
}

/// Returns channels times bytes per channel, if the only sample description is PCM.
fn described(stsd: &[u8]) -> Option<u32> {
    if u32_at(stsd, 4)? != 1 {
        return None;
    }
    let entry = stsd.get(8..)?;
    let version = u16_at(entry, 16)?;
    if version == 1 && u32_at(entry, 36)? > 1 {
        return None; // several PCM frames to a packet: not plain
    }
    let (channels, bits) = match version {
        0 | 1 => (u32::from(u16_at(entry, 24)?), u32::from(u16_at(entry, 26)?)),
        2 => (u32_at(entry, 48)?, u32_at(entry, 56)?),
        _ => return None,
    };
    let channel_bytes = match entry.get(4..8)? {
        b"raw " | b"NONE" | b"twos" | b"sowt" | b"lpcm" if bits.is_multiple_of(8) => bits / 8,
        b"ulaw" | b"alaw" => 1,
        b"in24" => 3,
        b"in32" | b"fl32" => 4,
        b"fl64" => 8,
        b"ipcm" | b"fpcm" if bits.is_multiple_of(8) => bits / 8,
        _ => return None,
    };
    channels.checked_mul(channel_bytes).filter(|bytes| *bytes > 0)
}
