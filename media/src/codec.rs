//! Codecs of renditions, and the defaults that each gives to a rung.

use std::{fmt, ops::RangeInclusive};

/// What pictures are encoded with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoCodec {
    /// H.264 (AVC) by x264: what plays everywhere.
    #[default]
    H264,
    /// H.265 (HEVC) by x265: Apple's devices and televisions.
    Hevc,
    /// AV1 by SVT-AV1: browsers, and devices since 2020 or so.
    Av1,
    /// VP9 by libvpx: browsers and Android.
    Vp9,
}

/// What sound is encoded with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AudioCodec {
    /// AAC-LC by FFmpeg: what plays everywhere.
    #[default]
    Aac,
    /// Opus by libopus: browsers, and Apple's devices since 2023.
    Opus,
}

impl VideoCodec {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::H264, Self::Hevc, Self::Av1, Self::Vp9];

    /// Its name in a ladder.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
            Self::Vp9 => "vp9",
        }
    }

    /// Rate factors that its encoder takes. 0 is lossless, which is another profile and plays almost nowhere.
    pub fn crf_range(self) -> RangeInclusive<u8> {
        match self {
            Self::H264 | Self::Hevc => 1..=51,
            Self::Av1 | Self::Vp9 => 1..=63,
        }
    }

    /// The rate factor unless asked otherwise: x264's own, and what came within 0.001 of its SSIM on 8 s of
    /// the demo's footage at 720p.
    pub(super) fn usual_crf(self) -> u8 {
        match self {
            Self::H264 => 23,
            Self::Hevc => 26,
            Self::Av1 => 35,
            Self::Vp9 => 33,
        }
    }

    /// The peak rate unless asked otherwise, in hundredths of H.264's. That footage took 74, 69 and 118 of
    /// what x264 made of it at those rate factors; VP9 in one pass is no better than H.264.
    pub(super) fn rate_percent(self) -> u64 {
        match self {
            Self::H264 | Self::Vp9 => 100,
            Self::Hevc => 75,
            Self::Av1 => 70,
        }
    }

    /// The shortest side that its encoder takes, in pixels.
    pub(super) fn least_side(self) -> u64 {
        match self {
            Self::H264 | Self::Vp9 => 2,
            Self::Hevc => 16,
            Self::Av1 => 64,
        }
    }
}

impl AudioCodec {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Aac, Self::Opus];

    /// Its name in a ladder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aac => "aac",
            Self::Opus => "opus",
        }
    }

    /// Samples per second of a rendition: AAC keeps 44.1 kHz, which plays everywhere as 48 does; Opus has but
    /// one rate.
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
