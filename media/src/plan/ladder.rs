//! Ladders: presets, the short form, and the renditions that fit a source.

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

/// Most rungs of a ladder: their encoders run in one process.
pub const MAX_RUNGS: usize = 12;
/// Smallest height of a rung in pixels: one macroblock.
pub const MIN_HEIGHT: u32 = 16;
/// Largest height of a rung in pixels: 8K, the largest that a level of H.264 or HEVC allows.
pub const MAX_HEIGHT: u32 = 4320;
/// Lowest peak rate of a rung, in bits per second.
pub const MIN_BITRATE_BPS: u32 = 10_000;
/// Highest peak rate of a rung, in bits per second: with a buffer of twice as many bits, level 6.2 of H.264
/// just allows it.
pub const MAX_BITRATE_BPS: u32 = 500_000_000;
/// Range of the rate of a stereo track, in bits per second: AAC-LC sounds broken below it and gains nothing
/// above.
pub const AUDIO_BITRATE_BPS: std::ops::RangeInclusive<u32> = 32_000..=320_000;
/// x264's presets, which set the effort of the other encoders too. `placebo` is excluded: it costs twice as
/// much as `veryslow` without visible gain.
pub const ENCODER_PRESETS: [&str; 9] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];

/// Default encoder preset.
const DEFAULT_PRESET: &str = "veryfast";
/// Default rate of a stereo track, in bits per second.
const DEFAULT_AUDIO_BITRATE_BPS: u32 = 128_000;
/// Channels of the surround rendition beside stereo: 5.1.
const SURROUND_CHANNELS: u16 = 6;
/// Name suffix of a surround rendition.
pub(crate) const SURROUND: &str = "-5.1";
/// Characters of a text that an error quotes.
const QUOTE_CHARS_MAX: usize = 40;

/// One video rung as requested. A field that is `None` follows from the size, the frame rate and the codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// The codec.
    pub codec: VideoCodec,
    /// Short side in pixels: `1080` is 1920x1080 for a landscape source, 1080x1920 for a portrait one.
    pub height: u32,
    /// Peak video rate in bits per second.
    pub max_bitrate_bps: Option<u32>,
    /// Constant rate factor of the encoder.
    pub crf: Option<u8>,
    /// Encoder preset: one of [`ENCODER_PRESETS`].
    pub preset: String,
}

impl Rung {
    /// Returns a rung of this height in H.264; all else follows from the source.
    pub fn of(height: u32) -> Self {
        Self {
            codec: VideoCodec::H264,
            height,
            max_bitrate_bps: None,
            crf: None,
            preset: DEFAULT_PRESET.to_owned(),
        }
    }

    /// Returns the name of its rendition: `720p`, or with another codec than H.264, `720p-av1`.
    pub fn name(&self) -> String {
        rung_name(self.codec, self.height)
    }
}

/// An audio rung. Every audio track of a source is encoded at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioRung {
    /// The codec.
    pub codec: AudioCodec,
    /// Bits per second of a stereo track; `None` is 128 kb/s.
    pub bitrate_bps: Option<u32>,
}

/// Video rungs, best first, and audio rungs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<LadderEntry>", into = "Vec<LadderEntry>")]
pub struct Ladder {
    /// Video rungs, the highest first.
    pub rungs: Vec<Rung>,
    /// Audio rungs, at least one.
    pub sound: Vec<AudioRung>,
}

/// One video rendition: a rung fitted to a source. It contains every setting that decides its bytes, and is
/// the same in every part.
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
    /// Level of H.264 and HEVC times ten: 40 is level 4.0. `None` if the encoder chooses it.
    pub level: Option<u8>,
    /// Encoder preset: one of [`ENCODER_PRESETS`].
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
    /// Creates a ladder of these rungs, sorted, the highest first. Without `sound` it has one rung of AAC.
    ///
    /// # Errors
    /// Returns [`Error::Empty`], [`Error::TooManyRungs`], [`Error::Twice`], [`Error::UnknownEncoderPreset`],
    /// or [`Error::OutOfRange`] for a number that no encoder accepts.
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

    /// Parses a preset's name ([`presets()`]), or the short form:
    /// `1080p-av1,720p:2800k,480p:1.4M@crf25,aac,opus:96k`.
    ///
    /// An item of the short form is a height with `p`, optionally followed by `-` and a codec, `:` and the
    /// peak rate with `k` or `M`, and `@crf` and the rate factor. Or it is an audio codec, optionally
    /// followed by `:` and the rate of a stereo track.
    ///
    /// # Errors
    /// Returns [`Error::UnknownPreset`], [`Error::Item`], and the errors of [`Ladder::new`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        text::parse(text)
    }

    /// Returns the video renditions of a source, best first.
    ///
    /// Sizes are in square pixels, after rotation, even, and keep the source's aspect ratio. Rungs above the
    /// source are dropped; one up to 5% above it is encoded at the source's own size (1920x1040 is a
    /// `1080p`). A source below every rung of a codec gets one rendition of its own size in it, named by its
    /// short side. A rendition that is too small for its encoder is dropped.
    ///
    /// # Errors
    /// Returns [`Error::NoSize`] if the source has no size, [`Error::TooLarge`] or [`Error::TooFast`] if no
    /// level allows a rendition, and [`Error::TooSmall`] if no rendition is left.
    pub fn fit(&self, video: &VideoTrack, grid: &Grid) -> Result<Vec<VideoRendition>, Error> {
        fit::fit(self, video, grid)
    }

    /// Returns the renditions of the source's audio track number `index`, for each codec. Mono stays mono at
    /// half the rate; all else becomes stereo. A track with six or more channels in known positions also gets
    /// 5.1 at three times the rate. 44.1 kHz is kept if the codec supports it; all other rates become 48 kHz.
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

    /// Returns the total rate of all renditions of a stereo track, in bits per second.
    pub fn stereo_bps(&self) -> u32 {
        self.sound.iter().map(|sound| sound.bitrate_bps.unwrap_or(DEFAULT_AUDIO_BITRATE_BPS)).sum()
    }
}

/// Returns the prefix of the names of all renditions of an audio track.
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

/// Failure to parse or fit a ladder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The ladder has no video rung.
    #[error("a ladder has at least one rung, such as '720p'")]
    Empty,
    /// The ladder has more rungs than one run can encode.
    #[error("a ladder of {rungs} rungs: {MAX_RUNGS} are the most")]
    TooManyRungs {
        /// Number of rungs.
        rungs: usize,
    },
    /// Two rungs have the same name.
    #[error("the ladder has {name} twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// An entry without a height has no audio codec.
    #[error("a rung has no height: give one, such as 720, or a codec of sound, aac or opus")]
    NoHeight,
    /// There is no such codec.
    #[error("no codec {codec:?}: there are h264, hevc, av1 and vp9 for pictures, aac and opus for sound")]
    UnknownCodec {
        /// The requested codec.
        codec: String,
    },
    /// A number is outside the range that an encoder accepts.
    #[error("{what} is {value}: it must be from {least} to {most}")]
    OutOfRange {
        /// Name of the number.
        what: &'static str,
        /// Its value.
        value: u32,
        /// Smallest value that is allowed.
        least: u32,
        /// Largest value that is allowed.
        most: u32,
    },
    /// There is no such preset of an encoder.
    #[error("no encoder preset {preset:?}: there are {}", ENCODER_PRESETS.join(", "))]
    UnknownEncoderPreset {
        /// The requested preset.
        preset: String,
    },
    /// There is no such preset.
    #[error(
        "no ladder {name:?}, did you mean {nearest:?}? There are {}, and the short form such as '1080p,720p:2800k'",
        presets::names()
    )]
    UnknownPreset {
        /// The requested name.
        name: String,
        /// The preset with the most similar name.
        nearest: &'static str,
    },
    /// An item of the short form is invalid.
    #[error("{item:?} in the ladder: {problem}")]
    Item {
        /// The item as it was written.
        item: String,
        /// Description of the problem and of the right form.
        problem: &'static str,
    },
    /// The source has no frame size.
    #[error("the video is {width}x{height}: it has no picture")]
    NoSize {
        /// Coded width.
        width: u32,
        /// Coded height.
        height: u32,
    },
    /// No level of the codec allows the size and frame rate.
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
    /// No level of the codec allows the rate.
    #[error(
        "a peak rate of {max_bitrate_bps} bits per second is more than {codec} can hold: ask for less, such as 720p:2800k"
    )]
    TooFast {
        /// The codec.
        codec: VideoCodec,
        /// Peak rate in bits per second.
        max_bitrate_bps: u32,
    },
    /// The encoder does not accept frames this small.
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
        /// Shortest side that the encoder accepts, in pixels.
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
