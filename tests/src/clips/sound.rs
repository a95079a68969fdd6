//! Sound of clips: a steady tone, which reveals a jump, and a swept one, which gives the position in time.

use std::{f64::consts::TAU, io::Write as _, path::Path};

/// Tone of the first channel; each further channel has its own, so that none can stand in for another.
pub const TONE_HZ: f64 = 437.0;
/// From the tone of one channel to the next.
const TONE_STEP_HZ: f64 = 111.0;
/// Centre of the swept tone.
const SWEEP_HZ: f64 = 3000.0;
/// Swing of the swept tone to either side.
const SWING_HZ: f64 = 1500.0;
/// Swings per second: media segments of 4 s are no whole number of swings, so that no two are alike.
const SWINGS_HZ: f64 = 0.37;
/// Fraction of full scale, for each of both tones: six channels mixed into two stay below it.
const LOUDNESS: f64 = 0.15;

/// Sound of a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Samples per second.
    pub rate: u32,
    /// 1, 2 or 6.
    pub channels: u16,
    /// Delay after the start of the pictures.
    pub delay_ms: u32,
    /// Length; to the end of the pictures if `None`.
    pub seconds: Option<f64>,
}

impl Default for Sound {
    fn default() -> Self {
        Self { rate: 48_000, channels: 2, delay_ms: 0, seconds: None }
    }
}

impl Sound {
    /// Returns the frequency of a channel's steady tone.
    pub fn tone_hz(channel: usize) -> f64 {
        TONE_HZ + TONE_STEP_HZ * channel as f64
    }

    /// Returns the channels of a ladder's renditions: all but mono becomes stereo, and 5.1 stays beside it.
    pub fn output_channels(&self) -> &'static [usize] {
        match self.channels {
            1 => &[1],
            6 => &[2, 6],
            _ => &[2],
        }
    }

    /// Returns the samples per second of a ladder's AAC.
    pub fn output_rate(&self) -> u32 {
        if self.rate == 44_100 { 44_100 } else { 48_000 }
    }

    /// Returns the samples of silence before the start, at this rate.
    pub fn delay_samples(&self, rate: u32) -> usize {
        (u64::from(self.delay_ms) * u64::from(rate) / 1000) as usize
    }

    /// High enough that the loss by the source's coding is small beside that of the ladder's.
    pub(super) fn bitrate_bps(&self) -> u32 {
        u32::from(self.channels) * 160_000
    }

    pub(super) fn layout(&self) -> &'static str {
        match self.channels {
            1 => "mono",
            6 => "5.1",
            _ => "stereo",
        }
    }

    /// Returns sample `number` of every channel at this rate.
    fn samples(&self, number: usize, rate: u32) -> impl Iterator<Item = f64> {
        let time = number as f64 / f64::from(rate);
        let sweep = (TAU * SWEEP_HZ * time - SWING_HZ / SWINGS_HZ * (TAU * SWINGS_HZ * time).cos()).sin();
        (0..usize::from(self.channels))
            .map(move |channel| LOUDNESS * ((TAU * Self::tone_hz(channel) * time).sin() + sweep))
    }

    /// Writes `count` samples as interleaved 32-bit floats.
    pub(super) fn write(&self, path: &Path, count: usize) {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
        for number in 0..count {
            for sample in self.samples(number, self.rate) {
                file.write_all(&(sample as f32).to_le_bytes()).unwrap();
            }
        }
        file.flush().unwrap();
    }
}

/// Returns the expected samples of `sounding` samples at this rate: `total` samples per channel, silence
/// where there is no sound.
///
/// 5.1 is mixed down to two channels by ITU-R BS.775: the centre and each surround at -3 dB, without the
/// low-frequency effects.
pub fn heard(sound: &Sound, count: usize, rate: u32, sounding: usize, total: usize) -> Vec<Vec<f32>> {
    let mut channels = vec![vec![0.0; total]; count];
    for number in 0..sounding {
        let source: Vec<f64> = sound.samples(number, rate).collect();
        let mixed = match source[..] {
            [left, right, centre, _, surround_left, surround_right] if count == 2 => {
                let half = std::f64::consts::FRAC_1_SQRT_2;
                vec![left + half * (centre + surround_left), right + half * (centre + surround_right)]
            }
            _ => source,
        };
        for (channel, value) in channels.iter_mut().zip(mixed) {
            channel[sound.delay_samples(rate) + number] = value as f32;
        }
    }
    channels
}
