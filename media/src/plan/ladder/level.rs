//! Codec levels: the smallest that holds a size, frame rate, bit rate and buffer.

mod avc;
mod hevc;

use super::VideoCodec;
use crate::time::Rational;

/// What a level has to hold.
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
    /// The encoder finds it out and there is none to tell.
    OwnChoice,
}

/// `None` where the codec's highest level does not hold it.
pub(super) fn level(codec: VideoCodec, needs: Needs) -> Option<Level> {
    match codec {
        VideoCodec::H264 => avc::level(needs).map(Level::Explicit),
        VideoCodec::Hevc => hevc::level(needs).map(Level::Explicit),
        // Both name their sides in 16 bits; a picture larger than about 8K plays nowhere, and its rungs are
        // not asked for.
        VideoCodec::Av1 | VideoCodec::Vp9 => {
            (needs.width <= LONGEST_SIDE && needs.height <= LONGEST_SIDE).then_some(Level::OwnChoice)
        }
    }
}

/// The longest side that SVT-AV1 takes in pixels, and the longest of VP9's levels.
const LONGEST_SIDE: u64 = 16_384;
