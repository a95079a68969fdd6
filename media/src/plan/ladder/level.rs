//! Which level does a rendition need? The smallest that holds its size, frame rate, rate and buffer.

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

/// The level that the encoder is told, times ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Told(u8),
    /// The encoder finds it out and there is none to tell.
    OwnChoice,
}

/// `None` where the codec's highest level does not hold it.
pub(super) fn level(codec: VideoCodec, needs: Needs) -> Option<Level> {
    match codec {
        VideoCodec::H264 => avc::level(needs).map(Level::Told),
        VideoCodec::Hevc => hevc::level(needs).map(Level::Told),
        // Both name their sides in 16 bits; what is larger than 8K or so plays nowhere, and its rungs are not asked for.
        VideoCodec::Av1 | VideoCodec::Vp9 => {
            (needs.width <= LONGEST_SIDE && needs.height <= LONGEST_SIDE).then_some(Level::OwnChoice)
        }
    }
}

/// The longest side that SVT-AV1 takes in pixels, and the longest of VP9's levels.
const LONGEST_SIDE: u64 = 16_384;
