//! The ladder: presets, the short form, and the renditions that fit a source.

mod entry;
mod fit;
mod level;
mod presets;
mod text;

use crate::{
    plan::grid::Grid,
    source::probe::{AudioTrack, VideoTrack},
    time::Rational,
};
use spool_storage::ErrorKind;

pub use crate::codec::{AudioCodec, VideoCodec};
pub use entry::LadderEntry;
pub use presets::{Preset, presets};

/// The most rungs of a ladder: each is an encoder beside the others in one process.
pub const MAX_RUNGS: usize = 12;
/// The least height of a rung: one macroblock.
pub const MIN_HEIGHT: u32 = 16;
/// The greatest height of a rung: 8K, the most that a level of H.264 or HEVC allows.
pub const MAX_HEIGHT: u32 = 4320;
/// The least peak rate of a rung, in bits per second.
pub const MIN_BITRATE_BPS: u32 = 10_000;
/// The greatest peak rate of a rung, in bits per second: with a buffer of twice as many bits, level 6.2 of
/// H.264 just holds it.
pub const MAX_BITRATE_BPS: u32 = 500_000_000;
/// The least and the greatest rate of a stereo track, in bits per second: AAC-LC sounds broken below and
/// gains nothing above.
pub const AUDIO_BITRATE_BPS: std::ops::RangeInclusive<u32> = 32_000..=320_000;
/// x264's presets, which stand for as much effort of the other encoders. `placebo` is none of them: it costs
/// twice as much as `veryslow` and shows nothing for it.
pub const ENCODER_PRESETS: [&str; 9] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];

/// The encoder's preset unless asked otherwise.
const DEFAULT_PRESET: &str = "veryfast";
/// Bits per second of a stereo track unless asked otherwise.
const DEFAULT_AUDIO_BITRATE_BPS: u32 = 128_000;
/// Channels of what is kept beside stereo: 5.1.
const SURROUND_CHANNELS: u16 = 6;
/// How the name of such a rendition ends.
pub(crate) const SURROUND: &str = "-5.1";
/// How much of a text an error repeats, in characters.
const QUOTE_CHARS_MAX: usize = 40;

/// One rung of pictures as requested; a field that is `None` follows from the size, the frame rate and the
/// codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// The codec.
    pub codec: VideoCodec,
    /// The short side in pixels: `1080` is 1920x1080 of a landscape source, 1080x1920 of a portrait one.
    pub height: u32,
    /// Peak video rate in bits per second.
    pub max_bitrate_bps: Option<u32>,
    /// Constant rate factor of the encoder.
    pub crf: Option<u8>,
    /// How long the encoder may take: one of [`ENCODER_PRESETS`].
    pub preset: String,
}

impl Rung {
    /// A rung of this height in H.264; all else follows from the source.
    pub fn of(height: u32) -> Self {
        Self {
            codec: VideoCodec::H264,
            height,
            max_bitrate_bps: None,
            crf: None,
            preset: DEFAULT_PRESET.to_owned(),
        }
    }

    /// The name of its rendition: `720p`, and of another codec than H.264 `720p-av1`.
    pub fn name(&self) -> String {
        rung_name(self.codec, self.height)
    }
}

/// Every sound track of a source is encoded so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioRung {
    /// The codec.
    pub codec: AudioCodec,
    /// Bits per second of a stereo track; `None` is 128 kb/s.
    pub bitrate_bps: Option<u32>,
}

/// Rungs of pictures, best first, and what becomes of sound.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<LadderEntry>", into = "Vec<LadderEntry>")]
pub struct Ladder {
    /// Rungs, the highest first.
    pub rungs: Vec<Rung>,
    /// What every sound track is encoded with: at least one.
    pub sound: Vec<AudioRung>,
}

/// One video rendition: a rung fitted to a source. All that decides its bytes, and the same in every part.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VideoRendition {
    /// Folder name, such as `1080p` or `1080p-av1`.
    pub name: String,
    /// The codec.
    pub codec: VideoCodec,
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
    /// Level of H.264 and HEVC times ten: 40 is level 4.0. `None` where the encoder chooses.
    pub level: Option<u8>,
    /// How long the encoder may take: one of [`ENCODER_PRESETS`].
    pub preset: String,
}

/// One audio rendition: a track of a source, encoded.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AudioRendition {
    /// Folder name, such as `audio-0` or `audio-0-opus-5.1`.
    pub name: String,
    /// The codec.
    pub codec: AudioCodec,
    /// Samples per second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u16,
    /// Bits per second.
    pub bitrate_bps: u32,
}

impl Ladder {
    /// A ladder of these rungs, put in order, the highest first, and this sound: AAC where there is none.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::TooManyRungs`], [`Error::Twice`]; [`Error::OutOfRange`] for a number that
    /// no encoder takes, and [`Error::UnknownEncoderPreset`].
    pub fn new(mut rungs: Vec<Rung>, mut sound: Vec<AudioRung>) -> Result<Self, Error> {
        if rungs.is_empty() {
            return Err(Error::Empty);
        }
        if rungs.len() > MAX_RUNGS {
            return Err(Error::TooManyRungs { rungs: rungs.len() });
        }
        for rung in &rungs {
            in_range("a rung's height", rung.height, MIN_HEIGHT, MAX_HEIGHT)?;
            if let Some(rate) = rung.max_bitrate_bps {
                in_range("a rung's peak rate in bits per second", rate, MIN_BITRATE_BPS, MAX_BITRATE_BPS)?;
            }
            if let Some(crf) = rung.crf {
                let (least, most) = rung.codec.crf_range().into_inner();
                in_range("a rung's rate factor (crf)", crf.into(), least.into(), most.into())?;
            }
            if !ENCODER_PRESETS.contains(&rung.preset.as_str()) {
                return Err(Error::UnknownEncoderPreset { preset: quote(&rung.preset) });
            }
        }
        if sound.is_empty() {
            sound.push(AudioRung { codec: AudioCodec::Aac, bitrate_bps: None });
        }
        for rate in sound.iter().filter_map(|sound| sound.bitrate_bps) {
            in_range(
                "the audio rate in bits per second",
                rate,
                *AUDIO_BITRATE_BPS.start(),
                *AUDIO_BITRATE_BPS.end(),
            )?;
        }
        rungs.sort_by_key(|rung| std::cmp::Reverse(rung.height));
        let mut names: Vec<String> = rungs.iter().map(Rung::name).collect();
        names.extend(sound.iter().map(|sound| sound.codec.name().to_owned()));
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Twice { name: pair[0].clone() });
        }
        Ok(Self { rungs, sound })
    }

    /// A preset by its name ([`presets()`]), or the short form:
    /// `1080p-av1,720p:2800k,480p:1.4M@crf25,aac,opus:96k`.
    ///
    /// An item of the short form is a height with `p`, then maybe `-` and a codec, then maybe `:` and the
    /// peak rate with `k` or `M`, then maybe `@crf` and the rate factor. Or it is a codec of sound, then
    /// maybe `:` and the rate of a stereo track.
    ///
    /// # Errors
    /// [`Error::UnknownPreset`], [`Error::Item`], and those of [`Ladder::new`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        text::parse(text)
    }

    /// The video renditions of a source, best first.
    ///
    /// Sizes are of square pixels, upright and even, and keep the source's aspect. Rungs above the source
    /// drop out; one up to 5% above it is given at the source's own size (1920x1040 is a `1080p`); a source
    /// below every rung of a codec gets one rendition of its own size in it, named by its short side. A field
    /// that is too small for its encoder drops out.
    ///
    /// # Errors
    /// [`Error::NoSize`] where the source has none, [`Error::TooLarge`] where no level holds a rendition,
    /// [`Error::TooSmall`] where nothing is left.
    pub fn fit(&self, video: &VideoTrack, grid: &Grid) -> Result<Vec<VideoRendition>, Error> {
        fit::fit(self, video, grid)
    }

    /// The renditions of the source's audio track number `index`, of each codec: mono stays mono at half the
    /// rate, all else becomes stereo; and beside it, of what has six channels or more with known places, 5.1
    /// at three times the rate. 44.1 kHz stays where the codec has it, all else becomes 48.
    pub fn audio(&self, track: &AudioTrack, index: u32) -> Vec<AudioRendition> {
        let layouts = match track.channels {
            1 => &[1][..],
            channels if channels >= SURROUND_CHANNELS && !track.discrete => &[2, SURROUND_CHANNELS],
            _ => &[2],
        };
        let rendition = |sound: &AudioRung, channels: u16| {
            let stereo_bps = sound.bitrate_bps.unwrap_or(DEFAULT_AUDIO_BITRATE_BPS);
            let codec = if sound.codec == AudioCodec::Aac {
                String::new()
            } else {
                format!("-{}", sound.codec.name())
            };
            let layout = if channels == SURROUND_CHANNELS { SURROUND } else { "" };
            AudioRendition {
                name: format!("{}{codec}{layout}", audio_name(index)),
                codec: sound.codec,
                sample_rate: sound.codec.sample_rate(track.sample_rate),
                channels,
                bitrate_bps: match channels {
                    1 => stereo_bps / 2,
                    SURROUND_CHANNELS => stereo_bps * 3,
                    _ => stereo_bps,
                },
            }
        };
        self.sound
            .iter()
            .flat_map(|sound| layouts.iter().map(move |channels| rendition(sound, *channels)))
            .collect()
    }

    /// Bits per second of all renditions of a stereo track.
    pub fn stereo_bps(&self) -> u32 {
        self.sound.iter().map(|sound| sound.bitrate_bps.unwrap_or(DEFAULT_AUDIO_BITRATE_BPS)).sum()
    }
}

/// How the names of all renditions of a sound track begin.
pub(crate) fn audio_name(track: u32) -> String {
    format!("audio-{track}")
}

fn rung_name(codec: VideoCodec, height: impl std::fmt::Display) -> String {
    if codec == VideoCodec::H264 { format!("{height}p") } else { format!("{height}p-{}", codec.name()) }
}

fn quote(text: &str) -> String {
    text.chars().take(QUOTE_CHARS_MAX).collect()
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
    #[error("the ladder has {name} twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// A line without a height is none of sound.
    #[error("a rung has no height: give one, such as 720, or a codec of sound, aac or opus")]
    NoHeight,
    /// There is no such codec.
    #[error("no codec {codec:?}: there are h264, hevc, av1 and vp9 for pictures, aac and opus for sound")]
    UnknownCodec {
        /// What was asked for.
        codec: String,
    },
    /// A number outside of what an encoder takes.
    #[error("{what} is {value}: it must be from {least} to {most}")]
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
    /// There is no such preset of an encoder.
    #[error("no encoder preset {preset:?}: there are {}", ENCODER_PRESETS.join(", "))]
    UnknownEncoderPreset {
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
    /// No level holds it.
    #[error(
        "{width}x{height} at {fps} frames per second is more than {codec} can hold: ask for a rung of 2160p or less"
    )]
    TooLarge {
        /// The codec.
        codec: VideoCodec,
        /// Width of the rendition.
        width: u64,
        /// Height of the rendition.
        height: u64,
        /// Frames per second.
        fps: Rational,
    },
    /// No level holds its rate.
    #[error(
        "a peak rate of {max_bitrate_bps} bits per second is more than {codec} can hold: ask for less, such as 720p:2800k"
    )]
    TooFast {
        /// The codec.
        codec: VideoCodec,
        /// The rate.
        max_bitrate_bps: u32,
    },
    /// Its encoder does not take it.
    #[error(
        "{width}x{height} is too small for {codec}, which takes {least}x{least} and more: ask for h264 or vp9 beside it"
    )]
    TooSmall {
        /// The codec.
        codec: VideoCodec,
        /// Width of the rendition.
        width: u64,
        /// Height of the rendition.
        height: u64,
        /// The shortest side that its encoder takes.
        least: u64,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadInput
    }
}

#[cfg(test)]
mod tests;
