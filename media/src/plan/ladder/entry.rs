//! Ladder entries: a ladder as data in SQL and JSON. Video rungs have a height, audio rungs do not.

use super::{AudioCodec, AudioRung, Error, Ladder, Rung, VideoCodec};

/// One entry of a ladder. A field that is `None` follows from the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct LadderEntry {
    /// `h264` (the default), `hevc`, `av1` or `vp9`; for sound `aac` or `opus`.
    pub codec: Option<String>,
    /// Short side in pixels; `None` for sound.
    pub height: Option<u32>,
    /// Peak video rate, or rate of a stereo track, in bits per second.
    pub max_bitrate_bps: Option<u32>,
    /// Constant rate factor of the encoder.
    pub crf: Option<u8>,
    /// Encoder preset, by x264's names.
    pub preset: Option<String>,
}

impl TryFrom<Vec<LadderEntry>> for Ladder {
    type Error = Error;

    fn try_from(lines: Vec<LadderEntry>) -> Result<Self, Error> {
        let (mut rungs, mut sound) = (Vec::new(), Vec::new());
        for line in lines {
            let codec = line.codec.as_deref().unwrap_or(VideoCodec::default().name());
            if let Some(codec) = audio_codec(codec) {
                sound.push(AudioRung { codec, bitrate_bps: line.max_bitrate_bps });
                continue;
            }
            let rung = Rung {
                codec: video_codec(codec)
                    .ok_or_else(|| Error::UnknownCodec { codec: super::quote(codec) })?,
                height: line.height.ok_or(Error::NoHeight)?,
                max_bitrate_bps: line.max_bitrate_bps,
                crf: line.crf,
                preset: line.preset.unwrap_or_else(|| super::DEFAULT_PRESET.to_owned()),
            };
            rungs.push(rung);
        }
        Self::new(rungs, sound)
    }
}

impl From<Ladder> for Vec<LadderEntry> {
    fn from(ladder: Ladder) -> Self {
        let rung = |rung: Rung| LadderEntry {
            codec: Some(rung.codec.name().to_owned()),
            height: Some(rung.height),
            max_bitrate_bps: rung.max_bitrate_bps,
            crf: rung.crf,
            preset: Some(rung.preset),
        };
        let sound = |sound: AudioRung| LadderEntry {
            codec: Some(sound.codec.name().to_owned()),
            max_bitrate_bps: sound.bitrate_bps,
            ..LadderEntry::default()
        };
        ladder.rungs.into_iter().map(rung).chain(ladder.sound.into_iter().map(sound)).collect()
    }
}

pub(super) fn video_codec(name: &str) -> Option<VideoCodec> {
    VideoCodec::ALL.into_iter().find(|codec| codec.name() == name)
}

pub(super) fn audio_codec(name: &str) -> Option<AudioCodec> {
    AudioCodec::ALL.into_iter().find(|codec| codec.name() == name)
}
