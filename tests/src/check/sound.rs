//! Checks of the sound: the source's, sample by sample, from the start to the end.

use std::f64::consts::TAU;

use super::{Check, Flaw, Ladder, Rendition, tools::samples};
use crate::clips::{AAC_FRAME, Clip, Container, Sound};

/// Samples that are compared at a time: one AAC frame, so that a broken one stands out.
const WINDOW: usize = AAC_FRAME;
/// Samples that a start or an end is smeared over by coding: two windows of the transform.
const SMEAR: usize = 2 * WINDOW;
/// Largest lag that is searched for: an AAC frame and a bit.
const LAGS: isize = 1100;
/// Samples that the search for a lag compares.
const LISTEN: usize = 8192;
/// Least correlation of decoded with expected samples.
const LIKENESS_MIN: f64 = 0.99;
/// Largest error of a window, as a fraction of the sound in it. FFmpeg's `fast` AAC coder stays below 0.002
/// at 128 kb/s; its `twoloop` coder, the default of FFmpeg 5.1, sometimes breaks such tones: 0.1 to 0.7 of a
/// frame is noise then.
const ERROR_MAX: f64 = 0.05;
/// Largest turn of the steady tone's phase between any two windows, in radians: a fifth of a sample. 0.001
/// was measured.
const TURN_MAX: f64 = 0.01;
/// Largest turn with Opus in between: 0.011 was measured.
const OPUS_TURN_MAX: f64 = 0.02;
/// Loudness that counts as silence, as a fraction of full scale.
const SILENCE: f64 = 0.001;
/// Largest distance of the gain from 1 without mixing.
const GAIN_TOLERANCE: f64 = 0.02;

/// Checks the sound of every rendition that has some.
///
/// # Errors
/// The first deviation.
pub fn sound(ladder: &Ladder, clip: &Clip) -> Result<(), Flaw> {
    let Some(sound) = &clip.sound else { return Ok(()) };
    for (number, rendition) in ladder.sounds.iter().enumerate() {
        // Stereo comes first of each codec.
        let layouts = sound.output_channels();
        let channels = layouts[number % layouts.len()];
        let rate = rendition.packets.timescale;
        let (heard, due) = (samples(rendition, channels)?, clip.expected_samples(channels, rate));
        for (channel, (heard, due)) in heard.iter().zip(&due).enumerate() {
            // Of the low-frequency effects, the fourth of six channels, AAC keeps low frequencies alone: not
            // these tones.
            if (channels, channel) == (6, 3) {
                continue;
            }
            one_channel(rendition, clip, sound, channel, heard, due)?;
        }
    }
    Ok(())
}

/// Returns the largest shift of sound against pictures by the container, in samples: its clock rounds both.
fn lag_tolerance(clip: &Clip, sound: &Sound, rate: u32) -> isize {
    let ticks_per_second = match clip.container {
        _ if !clip.coding.file.is_empty() => clip.coding.ticks,
        Container::Mkv => 1000,
        Container::Ts => 90_000,
        Container::Mp4 | Container::Mp4Fast | Container::Mp4Fragmented => sound.rate,
    };
    isize::try_from(rate.div_ceil(ticks_per_second)).unwrap()
}

fn one_channel(
    rendition: &Rendition,
    clip: &Clip,
    sound: &Sound,
    channel: usize,
    heard: &[f32],
    due: &[f32],
) -> Result<(), Flaw> {
    let check = Check::Sound;
    let name = format!("{} channel {channel}", rendition.name);
    let rate = rendition.packets.timescale;
    let most = clip.samples_with_filling(rate) + AAC_FRAME + lag_tolerance(clip, sound, rate).unsigned_abs();
    check.expect((due.len()..=most).contains(&heard.len()), || {
        format!("{name}: {} samples where {} are due, {most} at most", heard.len(), due.len())
    })?;
    let (loud, due_samples) = (loud(due), due.len());
    let tolerance = lag_tolerance(clip, sound, rate);
    let lag = lag(&name, heard, due, &loud, tolerance)?;
    check
        .expect(lag.abs() <= tolerance, || format!("{name}: {lag} samples late, {tolerance} are allowed"))?;

    // The expected sample, shifted by the container.
    let at = |index: usize| {
        index.checked_add_signed(-lag).and_then(|index| due.get(index)).copied().unwrap_or(0.0)
    };
    let due: Vec<f32> = (0..heard.len()).map(at).collect();
    let gain = dot(heard, &due) / energy(&due);
    let mixed = sound.channels > 2 && !rendition.name.ends_with("5.1");
    check.expect(mixed || (gain - 1.0).abs() < GAIN_TOLERANCE, || {
        format!("{name}: {gain} times as loud as the source")
    })?;

    let due: Vec<f32> = due.iter().map(|due| due * gain as f32).collect();
    let error: Vec<f32> = heard.iter().zip(&due).map(|(heard, due)| heard - due).collect();
    let steady = loud.start + SMEAR..loud.end.saturating_sub(SMEAR);
    let starts = (steady.start..steady.end.saturating_sub(WINDOW)).step_by(WINDOW / 2);
    let errors = starts.map(|start| {
        ((energy(&error[start..start + WINDOW]) / energy(&due[start..start + WINDOW])).sqrt(), start)
    });
    let (worst, start) = errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
    let tone_hz = Sound::tone_hz(channel);
    let turn = largest_turn(heard, steady, TAU * tone_hz / f64::from(rate), sound.delay_samples(rate));
    if std::env::var_os("SPOOL_TEST_MEASURE").is_some() {
        println!(
            "{name}: lag {lag} gain {gain:.4} error {worst:.4} at {start} turn {turn:.4} longer by {}",
            heard.len() - due_samples
        );
    }
    check.expect(worst < ERROR_MAX, || {
        format!("{name}: around sample {start} {worst} of the sound is not the source's")
    })?;
    let is_opus = rendition.is_opus || clip.coding.audio.contains("opus");
    check.expect(turn < if is_opus { OPUS_TURN_MAX } else { TURN_MAX }, || {
        format!("{name}: the phase of a steady tone turns by {turn} rad")
    })?;
    let silent = |window: &[f32]| (energy(window) / window.len() as f64).sqrt() < SILENCE;
    let before = &heard[..loud.start.saturating_sub(SMEAR)];
    let after = &heard[(loud.end + SMEAR).min(heard.len())..];
    let noisy = before.chunks(WINDOW).chain(after.chunks(WINDOW)).position(|window| !silent(window));
    check.expect(noisy.is_none(), || format!("{name}: sound where the source has none, window {noisy:?}"))
}

/// Returns the range of samples that are not silent.
fn loud(due: &[f32]) -> std::ops::Range<usize> {
    let sounds = |value: &f32| *value != 0.0;
    let end = due.iter().rposition(sounds).map_or(0, |last| last + 1);
    due.iter().position(sounds).unwrap_or(0)..end
}

/// Returns the lag of the decoded samples, which is equal at the start, in the middle and at the end.
fn lag(
    name: &str,
    heard: &[f32],
    due: &[f32],
    loud: &std::ops::Range<usize>,
    tolerance: isize,
) -> Result<isize, Flaw> {
    let listen = LISTEN.min(loud.len() / 2);
    let margin = SMEAR.min(listen / 4);
    let (first, last) = (loud.start + margin, loud.end - listen - margin);
    let found = [first, first.midpoint(last), last].map(|start| {
        let near = best_lag(heard, due, start..start + listen, tolerance + 1);
        // The sweep correlates with itself at no other lag, so the long search only improves the message.
        if near.0 >= LIKENESS_MIN { near } else { best_lag(heard, due, start..start + listen, LAGS) }
    });
    let unlike = found.iter().any(|(likeness, _)| *likeness < LIKENESS_MIN);
    Check::Sound
        .expect(!unlike, || format!("{name}: the sound is not the source's: (correlation, lag) {found:?}"))?;
    let mut lags = found.map(|(_, lag)| lag);
    lags.sort_unstable();
    // Sound that lies between two samples may be nearer to either.
    Check::Sound.expect(lags[2] - lags[0] <= 1, || {
        format!("{name}: late by differing numbers of samples: {found:?}")
    })?;
    Ok(lags[1])
}

/// Returns the lag, up to `most` in both directions, with the highest correlation of decoded with expected
/// samples, and that correlation (1 is equal).
fn best_lag(heard: &[f32], due: &[f32], window: std::ops::Range<usize>, most: isize) -> (f64, isize) {
    let due = &due[window.clone()];
    let likeness = |lag: isize| {
        let heard =
            window.start.checked_add_signed(lag).and_then(|start| heard.get(start..start + due.len()));
        let energies = heard.map_or(0.0, |heard| energy(heard) * energy(due));
        heard.map_or(0.0, |heard| dot(heard, due) / energies.sqrt().max(f64::MIN_POSITIVE))
    };
    (-most..=most).map(|lag| (likeness(lag), lag)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

/// Returns the largest difference between the phases of a tone in two windows, relative to its phase by the
/// clock.
fn largest_turn(heard: &[f32], steady: std::ops::Range<usize>, turn_per_sample: f64, origin: usize) -> f64 {
    let mut phases = Vec::new();
    for start in (steady.start..steady.end.saturating_sub(SMEAR)).step_by(WINDOW) {
        let (mut re, mut im) = (0.0, 0.0);
        for (index, value) in heard[start..start + SMEAR].iter().enumerate() {
            let fade = 1.0 - (TAU * index as f64 / SMEAR as f64).cos();
            let (sin, cos) = (turn_per_sample * (start + index - origin) as f64).sin_cos();
            re += fade * f64::from(*value) * cos;
            im += fade * f64::from(*value) * sin;
        }
        phases.push(re.atan2(im));
    }
    let turns = phases.windows(2).map(|pair| pair[1] - pair[0]);
    let against_first = phases.iter().skip(1).map(|phase| phase - phases[0]);
    turns.chain(against_first).map(|turn| (turn - TAU * (turn / TAU).round()).abs()).fold(0.0, f64::max)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn energy(values: &[f32]) -> f64 {
    dot(values, values)
}
