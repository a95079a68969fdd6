//! Codecs of renditions, and the defaults that each gives to a rung.

use std::{fmt, ops::RangeInclusive};

/// Codec of a video rendition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoCodec {
    /// H.264 (AVC) by x264. Plays everywhere.
    #[default]
    H264,
    /// H.265 (HEVC) by x265. Plays on Apple's devices and televisions.
    Hevc,
    /// AV1 by SVT-AV1. Plays in browsers, and on devices since about 2020.
    Av1,
    /// VP9 by libvpx. Plays in browsers and on Android.
    Vp9,
}

/// Codec of an audio rendition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AudioCodec {
    /// AAC-LC by FFmpeg. Plays everywhere.
    #[default]
    Aac,
    /// Opus by libopus. Plays in browsers, and on Apple's devices since 2023.
    Opus,
}

impl VideoCodec {
    /// All codecs.
    pub const ALL: [Self; 4] = [Self::H264, Self::Hevc, Self::Av1, Self::Vp9];

    /// Returns the codec's name in a ladder.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
            Self::Vp9 => "vp9",
        }
    }

    /// Returns the range of rate factors that the encoder accepts. 0 is excluded: it is lossless, which is
    /// another profile and plays almost nowhere.
    pub fn crf_range(self) -> RangeInclusive<u8> {
        match self {
            Self::H264 | Self::Hevc => 1..=51,
            Self::Av1 | Self::Vp9 => 1..=63,
        }
    }

    /// Returns the default rate factor: x264's own default, and for the others the factor that came within
    /// 0.001 of its SSIM on 8 s of the demo's footage at 720p.
    pub(super) fn usual_crf(self) -> u8 {
        match self {
            Self::H264 => 23,
            Self::Hevc => 26,
            Self::Av1 => 35,
            Self::Vp9 => 33,
        }
    }

    /// Returns the default peak rate, in percent of H.264's. At the default rate factors, HEVC, AV1 and VP9
    /// needed 74, 69 and 118% of x264's bytes for that footage; VP9 in one pass is no better than H.264.
    pub(super) fn rate_percent(self) -> u64 {
        match self {
            Self::H264 | Self::Vp9 => 100,
            Self::Hevc => 75,
            Self::Av1 => 70,
        }
    }

    /// Returns the shortest side that the encoder accepts, in pixels.
    pub(super) fn least_side(self) -> u64 {
        match self {
            Self::H264 | Self::Vp9 => 2,
            Self::Hevc => 16,
            Self::Av1 => 64,
        }
    }
}

impl AudioCodec {
    /// All codecs.
    pub const ALL: [Self; 2] = [Self::Aac, Self::Opus];

    /// Returns the codec's name in a ladder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aac => "aac",
            Self::Opus => "opus",
        }
    }

    /// Returns the sample rate of a rendition in Hz. AAC keeps 44.1 kHz, which plays everywhere as 48 kHz
    /// does; Opus has one rate only.
    pub(super) fn sample_rate(self, source: u32) -> u32 {
        if self == Self::Aac && source == 44_100 { 44_100 } else { 48_000 }
    }
}

impl fmt::Display for VideoCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H264 => "H.264",
            Self::Hevc => "HEVC",
            Self::Av1 => "AV1",
            Self::Vp9 => "VP9",
        })
    }
}
