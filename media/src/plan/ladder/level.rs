//! Codec levels: the smallest one that allows a size, frame rate, bit rate and buffer.

mod avc;
mod hevc;

use super::VideoCodec;
use crate::time::Rational;

/// Requirements on a level.
#[derive(Clone, Copy)]
pub(super) struct Needs {
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) fps: Rational,
    pub(super) max_bitrate_bps: u32,
    pub(super) buffer_bits: u32,
}

/// The level that is passed to the encoder, times ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Explicit(u8),
    /// The encoder chooses the level.
    OwnChoice,
}

/// Returns the level to request; `None` if the codec's highest level does not allow it.
pub(super) fn level(codec: VideoCodec, needs: Needs) -> Option<Level> {
    match codec {
        VideoCodec::H264 => avc::level(needs).map(Level::Explicit),
        VideoCodec::Hevc => hevc::level(needs).map(Level::Explicit),
        // Both code their sides in 16 bits. Frames larger than about 8K play nowhere, and no rung has them.
        VideoCodec::Av1 | VideoCodec::Vp9 => {
            (needs.width <= LONGEST_SIDE && needs.height <= LONGEST_SIDE).then_some(Level::OwnChoice)
        }
    }
}

/// Longest side in pixels that SVT-AV1 accepts, and that VP9's levels allow.
const LONGEST_SIDE: u64 = 16_384;
