//! Which renditions does a source get? Presets, the short form, and what fits the source.

mod fit;
mod level;
mod presets;
mod text;

use crate::{
    ErrorKind,
    grid::Grid,
    probe::{AudioTrack, VideoTrack},
    time::Rational,
};

pub use presets::{Preset, presets};

/// The most rungs of a ladder: each is an encoder beside the others in one process.
pub const MAX_RUNGS: usize = 12;
/// The least height of a rung: one macroblock.
pub const MIN_HEIGHT: u32 = 16;
/// The greatest height of a rung: 8K, the most that an H.264 level allows.
pub const MAX_HEIGHT: u32 = 4320;
/// The least peak rate of a rung, in bits per second.
pub const MIN_BITRATE_BPS: u32 = 10_000;
/// The greatest peak rate of a rung, in bits per second: with a buffer of twice as many bits, level 6.2 just holds it.
pub const MAX_BITRATE_BPS: u32 = 500_000_000;
/// The least and the greatest constant rate factor: 0 is lossless, which is another profile and plays almost nowhere.
pub const CRF: std::ops::RangeInclusive<u8> = 1..=51;
/// The least and the greatest rate of a stereo track, in bits per second: AAC-LC sounds broken below and gains nothing above.
pub const AUDIO_BITRATE_BPS: std::ops::RangeInclusive<u32> = 32_000..=320_000;
/// x264's presets. `placebo` is none of them: it costs twice as much as `veryslow` and shows nothing for it.
pub const X264_PRESETS: [&str; 9] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];

/// x264's preset unless asked otherwise.
const DEFAULT_PRESET: &str = "veryfast";
/// AAC bits per second of a stereo track unless asked otherwise.
const DEFAULT_AUDIO_BITRATE_BPS: u32 = 128_000;

/// One line of a ladder as asked for; what is `None` follows from the size and the frame rate.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rung {
    /// The short side in pixels: `1080` is 1920x1080 of a landscape source, 1080x1920 of a portrait one.
    pub height: u32,
    /// Peak video rate in bits per second.
    #[serde(default)]
    pub max_bitrate_bps: Option<u32>,
    /// Constant rate factor of the encoder.
    #[serde(default)]
    pub crf: Option<u8>,
}

impl Rung {
    /// A rung of this height; all else follows from the source.
    pub fn of(height: u32) -> Self {
        Self { height, max_bitrate_bps: None, crf: None }
    }
}

/// Lines of a ladder, best first, and how the encoder is to work.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Ladder {
    /// Rungs, best first.
    pub rungs: Vec<Rung>,
    /// x264's preset name.
    pub preset: String,
    /// AAC bits per second of a stereo track.
    pub audio_bitrate_bps: u32,
}

/// One video rendition: a rung fitted to a source. All that decides its bytes, and the same in every part.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VideoRendition {
    /// Folder name, such as `1080p`.
    pub name: String,
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even.
    pub height: u32,
    /// Constant rate factor.
    pub crf: u8,
    /// VBV peak rate in bits per second.
    pub max_bitrate_bps: u32,
    /// VBV size in bits.
    pub buffer_bits: u32,
    /// H.264 level times ten: 40 is level 4.0.
    pub level: u8,
    /// x264's preset name.
    pub preset: String,
}

/// One audio rendition: a track of a source, encoded.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AudioRendition {
    /// Folder name, such as `audio-0`.
    pub name: String,
    /// Samples per second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u16,
    /// Bits per second.
    pub bitrate_bps: u32,
}

/// A ladder as somebody wrote it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    rungs: Vec<Rung>,
    preset: Option<String>,
    audio_bitrate_bps: Option<u32>,
}

impl TryFrom<Unchecked> for Ladder {
    type Error = Error;

    fn try_from(unchecked: Unchecked) -> Result<Self, Error> {
        Self::new(
            unchecked.rungs,
            unchecked.preset.as_deref().unwrap_or(DEFAULT_PRESET),
            unchecked.audio_bitrate_bps.unwrap_or(DEFAULT_AUDIO_BITRATE_BPS),
        )
    }
}

impl Ladder {
    /// A ladder of these rungs, put in order, best first.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::TooManyRungs`], [`Error::Twice`]; [`Error::OutOfRange`] for a number that no encoder takes, and
    /// [`Error::UnknownX264Preset`].
    pub fn new(mut rungs: Vec<Rung>, preset: &str, audio_bitrate_bps: u32) -> Result<Self, Error> {
        if rungs.is_empty() {
            return Err(Error::Empty);
        }
        if rungs.len() > MAX_RUNGS {
            return Err(Error::TooManyRungs { rungs: rungs.len() });
        }
        for rung in &rungs {
            in_range("height", rung.height, MIN_HEIGHT, MAX_HEIGHT)?;
            if let Some(rate) = rung.max_bitrate_bps {
                in_range("peak rate in bits per second", rate, MIN_BITRATE_BPS, MAX_BITRATE_BPS)?;
            }
            if let Some(crf) = rung.crf {
                in_range("rate factor (crf)", crf.into(), (*CRF.start()).into(), (*CRF.end()).into())?;
            }
        }
        in_range("audio rate in bits per second", audio_bitrate_bps, *AUDIO_BITRATE_BPS.start(), *AUDIO_BITRATE_BPS.end())?;
        if !X264_PRESETS.contains(&preset) {
            return Err(Error::UnknownX264Preset { preset: preset.to_owned() });
        }
        rungs.sort_by_key(|rung| std::cmp::Reverse(rung.height));
        if let Some(pair) = rungs.windows(2).find(|pair| pair[0].height == pair[1].height) {
            return Err(Error::Twice { height: pair[0].height });
        }
        Ok(Self { rungs, preset: preset.to_owned(), audio_bitrate_bps })
    }

    /// A ladder of these rungs with the usual encoder preset and sound: `veryfast`, 128 kb/s.
    ///
    /// # Errors
    /// Those of [`Ladder::new`].
    pub fn of(rungs: Vec<Rung>) -> Result<Self, Error> {
        Self::new(rungs, DEFAULT_PRESET, DEFAULT_AUDIO_BITRATE_BPS)
    }

    /// A preset by its name ([`presets()`]), or the short form: `1080p,720p:2800k,480p:1.4M@crf25`.
    ///
    /// An item of the short form is a height with `p`, then maybe `:` and the peak rate with `k` or `M`, then maybe `@crf` and the rate
    /// factor.
    ///
    /// # Errors
    /// [`Error::UnknownPreset`], [`Error::Item`], and those of [`Ladder::new`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        text::parse(text)
    }

    /// The video renditions of a source, best first.
    ///
    /// Sizes are of square pixels, upright and even, and keep the source's aspect. Rungs above the source drop out; one up to 5% above it
    /// is given at the source's own size (1920x1040 is a `1080p`); a source below every rung gets one rendition of its own size,
    /// named by its short side.
    ///
    /// # Errors
    /// [`Error::NoSize`] where the source has none, [`Error::TooLarge`] where no H.264 level holds a rendition.
    pub fn fit(&self, video: &VideoTrack, grid: &Grid) -> Result<Vec<VideoRendition>, Error> {
        fit::fit(self, video, grid)
    }

    /// The rendition of the source's audio track number `index`: mono stays mono at half the rate, all else becomes stereo; 44.1 and
    /// 48 kHz stay, all else becomes 48 kHz.
    pub fn audio(&self, track: &AudioTrack, index: u32) -> AudioRendition {
        let channels = if track.channels == 1 { 1 } else { 2 };
        AudioRendition {
            name: format!("audio-{index}"),
            sample_rate: if track.sample_rate == 44_100 { 44_100 } else { 48_000 },
            channels,
            bitrate_bps: if channels == 1 { self.audio_bitrate_bps / 2 } else { self.audio_bitrate_bps },
        }
    }
}

fn in_range(what: &'static str, value: u32, least: u32, most: u32) -> Result<(), Error> {
    if !(least..=most).contains(&value) {
        return Err(Error::OutOfRange { what, value, least, most });
    }
    Ok(())
}

/// Why a ladder could not be understood or fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was asked for.
    #[error("a ladder has at least one rung, such as '720p'")]
    Empty,
    /// More rungs than one run encodes.
    #[error("a ladder of {rungs} rungs: {MAX_RUNGS} are the most")]
    TooManyRungs {
        /// How many there are.
        rungs: usize,
    },
    /// Two rungs would have one name.
    #[error("the ladder has the rung {height}p twice")]
    Twice {
        /// Its height.
        height: u32,
    },
    /// A number outside of what an encoder takes.
    #[error("a rung's {what} is {value}: it must be from {least} to {most}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: u32,
        /// The least that is allowed.
        least: u32,
        /// The most that is allowed.
        most: u32,
    },
    /// x264 has no such preset.
    #[error("no encoder preset {preset:?}: there are {}", X264_PRESETS.join(", "))]
    UnknownX264Preset {
        /// What was asked for.
        preset: String,
    },
    /// There is no such preset.
    #[error(
        "no ladder {name:?}, did you mean {nearest:?}? There are {}, and the short form such as '1080p,720p:2800k'",
        presets::names()
    )]
    UnknownPreset {
        /// What was asked for.
        name: String,
        /// The preset spelled most like it.
        nearest: &'static str,
    },
    /// An item of the short form is none.
    #[error("{item:?} in the ladder: {problem}")]
    Item {
        /// The item as it was written.
        item: String,
        /// What is wrong, and how it is written.
        problem: &'static str,
    },
    /// The source has no picture size.
    #[error("the video is {width}x{height}: it has no picture")]
    NoSize {
        /// Coded width.
        width: u32,
        /// Coded height.
        height: u32,
    },
    /// No H.264 level holds it.
    #[error("{width}x{height} at {fps} frames per second is more than H.264 can hold: ask for a rung of 2160p or less")]
    TooLarge {
        /// Width of the rendition.
        width: u64,
        /// Height of the rendition.
        height: u64,
        /// Frames per second.
        fps: Rational,
    },
}

impl Error {
    /// What the failure means to whoever asked.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadInput
    }
}

#[cfg(test)]
mod tests;
