//! Presets: named ladders.

use super::{AudioCodec, AudioRung, DEFAULT_AUDIO_BITRATE_BPS, DEFAULT_PRESET, Ladder, Rung};

/// A named ladder.
///
/// | name | rungs | encoder | for |
/// | --- | --- | --- | --- |
/// | `web` | 1080p, 720p, 480p | veryfast | pages and apps |
/// | `mobile` | 720p, 480p, 360p | veryfast | small screens and slow networks |
/// | `uhd` | 2160p, 1440p, 1080p, 720p, 480p, 360p | veryfast | televisions, down to telephones |
/// | `preview` | 360p | ultrafast | a look at it, soon; sound at 96 kb/s |
///
/// All have stereo AAC, at 128 kb/s unless the table says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Name.
    pub name: &'static str,
    /// Purpose, in a few words.
    pub purpose: &'static str,
    heights: &'static [u32],
    encoder_preset: &'static str,
    audio_bitrate_bps: u32,
}

const PRESETS: [Preset; 4] = [
    Preset {
        name: "web",
        purpose: "pages and apps",
        heights: &[1080, 720, 480],
        encoder_preset: DEFAULT_PRESET,
        audio_bitrate_bps: DEFAULT_AUDIO_BITRATE_BPS,
    },
    Preset {
        name: "mobile",
        purpose: "small screens and slow networks",
        heights: &[720, 480, 360],
        encoder_preset: DEFAULT_PRESET,
        audio_bitrate_bps: DEFAULT_AUDIO_BITRATE_BPS,
    },
    Preset {
        name: "uhd",
        purpose: "televisions, down to telephones",
        heights: &[2160, 1440, 1080, 720, 480, 360],
        encoder_preset: DEFAULT_PRESET,
        audio_bitrate_bps: DEFAULT_AUDIO_BITRATE_BPS,
    },
    Preset {
        name: "preview",
        purpose: "a look at it, soon",
        heights: &[360],
        encoder_preset: "ultrafast",
        audio_bitrate_bps: 96_000,
    },
];

impl Preset {
    /// Returns the ladder of this preset.
    pub fn ladder(&self) -> Ladder {
        let rung = |&height: &u32| Rung { preset: self.encoder_preset.to_owned(), ..Rung::of(height) };
        Ladder {
            rungs: self.heights.iter().map(rung).collect(),
            sound: vec![AudioRung { codec: AudioCodec::Aac, bitrate_bps: Some(self.audio_bitrate_bps) }],
        }
    }
}

/// Returns all presets.
pub fn presets() -> &'static [Preset] {
    &PRESETS
}

/// Returns the preset of this name, ignoring case.
pub(super) fn named(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name.eq_ignore_ascii_case(name))
}

/// Returns the preset name most similar to this one.
pub(super) fn nearest(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    let nearest = PRESETS.iter().min_by_key(|preset| strsim::levenshtein(&name, preset.name));
    nearest.map_or("web", |preset| preset.name)
}

/// Returns the names as a list for messages.
pub(super) fn names() -> String {
    PRESETS.map(|preset| preset.name).join(", ")
}
