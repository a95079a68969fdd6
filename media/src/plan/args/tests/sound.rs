//! Sound: its start, its end, and its gaps.

use super::*;

/// Decoded samples of one channel, on the video's clock: without the encoder's delay of 1,024 samples.
fn samples(path: &Path, channels: usize, channel: usize) -> Vec<f32> {
    let mut args = words_of("-nostdin -v error -flags2 +skip_manual -i");
    args.push(path.into());
    args.extend(words_of("-f f32le -c:a pcm_f32le -"));
    let bytes = run("ffmpeg", args);
    let all: Vec<f32> =
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    all.chunks_exact(channels).map(|frame| frame[channel]).skip(1024).collect()
}

pub(super) fn audio_rendition(sample_rate: u32, channels: u16) -> AudioRendition {
    AudioRendition {
        name: "audio-0".to_owned(),
        codec: AudioCodec::Aac,
        sample_rate,
        channels,
        bitrate_bps: 128_000,
    }
}

/// Encodes stream `stream` of `path` for a video that starts at `origin_ms` and has `frames` frames at 25 Hz.
fn encode_beside(
    path: &Path,
    demuxer: &str,
    stream: u32,
    origin_ms: i64,
    frames: u64,
    rendition: &AudioRendition,
) -> PathBuf {
    let grid = Grid { rate: rational(25, 1), source_timebase: rational(1, 1000), origin: origin_ms, frames };
    let output = path.with_extension(format!("{origin_ms}.out.mp4"));
    let outputs = [(rendition.clone(), output)];
    run(
        "ffmpeg",
        encode_audio(&AudioEncode {
            input: path,
            demuxer,
            stream,
            discrete_channels: None,
            grid: &grid,
            outputs: &outputs,
        }),
    );
    let [(_, output)] = outputs;
    output
}

fn rms(samples: &[f32]) -> f32 {
    (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
}

/// Deviation of the samples from a sine of 440 Hz whose phase is found at their start, relative to its
/// amplitude.
fn distance_from_sine(samples: &[f32], rate: f64) -> f64 {
    let angle = |n: usize| std::f64::consts::TAU * 440.0 * n as f64 / rate;
    let project = |part: &[f32], wave: fn(f64) -> f64| {
        2.0 / part.len() as f64
            * part.iter().enumerate().map(|(n, sample)| f64::from(*sample) * wave(angle(n))).sum::<f64>()
    };
    // A tenth of a second holds 44 whole waves at any rate used here.
    let start = &samples[..(rate / 10.0) as usize];
    let (a, b) = (project(start, f64::sin), project(start, f64::cos));
    let error: f64 = samples
        .iter()
        .enumerate()
        .map(|(n, s)| (f64::from(*s) - a * angle(n).sin() - b * angle(n).cos()).powi(2))
        .sum();
    (error / samples.len() as f64).sqrt() / ((a * a + b * b) / 2.0).sqrt()
}

#[test]
fn sound_that_begins_late_is_preceded_by_silence_and_one_that_begins_early_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = clip(folder.path(), "a.mkv", "-f lavfi -i sine=f=440:r=48000:d=3,volume=4 -c:a pcm_s16le");
    let rendition = audio_rendition(48_000, 2);
    // The video starts half a second before the sound.
    let late = samples(&encode_beside(&path, "matroska", 0, -500, 50, &rendition), 2, 0);
    // AAC spreads an onset over one frame to each side, at worst.
    assert!(rms(&late[..24_000 - 1024]) < 0.001, "{}", rms(&late[..24_000 - 1024]));
    assert!(distance_from_sine(&late[24_000 + 1024..24_000 + 140_000], 48_000.0) < 0.02);
    // The onset itself, to the sample: a sine begins at zero and rises, so its phase shows where it began.
    let phase = |samples: &[f32]| {
        let angle = |n: usize| std::f64::consts::TAU * 440.0 * n as f64 / 48_000.0;
        let part = |wave: fn(f64) -> f64| {
            samples.iter().enumerate().map(|(n, s)| f64::from(*s) * wave(angle(n))).sum::<f64>()
        };
        part(f64::cos).atan2(part(f64::sin)) / (std::f64::consts::TAU * 440.0 / 48_000.0)
    };
    // 1,200 samples are 11 whole waves.
    let begins = phase(&late[24_000 + 12_000..24_000 + 72_000]);
    assert!(begins.abs() < 0.5, "the sound is {begins} samples off");
    assert_eq!(late.len().div_ceil(1024), (24_000_usize + 144_000).div_ceil(1024));

    // The video starts 0.55 s after the sound: 242 whole waves are cut.
    let early = samples(&encode_beside(&path, "matroska", 0, 550, 50, &rendition), 2, 1);
    let begins = phase(&early[12_000..72_000]);
    assert!(begins.abs() < 0.5, "the sound is {begins} samples off");
    assert!(rms(&early[1024..2048]) > 0.1);
}

#[test]
fn short_sound_goes_on_as_silence_and_long_sound_to_its_own_end() {
    let folder = tempfile::tempdir().unwrap();
    // Not louder: FFmpeg's fast AAC coder wastes the bits of a rate that a half-scale tone does not need.
    let path = clip(
        folder.path(),
        "a.mp4",
        "-f lavfi -i sine=f=440:r=44100:d=2,volume=2 -c:a aac -aac_coder fast -b:a 128k",
    );
    let rendition = audio_rendition(44_100, 1);
    for (frames, expected) in [(101, 178_164), (25, 88_200)] {
        let output = samples(&encode_beside(&path, "mov", 0, 0, frames, &rendition), 1, 0);
        assert!(
            output.len() >= expected && output.len() < expected + 2048,
            "{} for {expected}",
            output.len()
        );
        assert!(
            distance_from_sine(&output[2048..86_000], 44_100.0) < 0.02,
            "{}",
            distance_from_sine(&output[2048..86_000], 44_100.0)
        );
        assert!(output.len() < 92_000 || rms(&output[92_000..]) < 0.0001);
    }
}

#[test]
fn gaps_are_filled_and_layouts_and_rates_are_brought_to_the_rendition() {
    let folder = tempfile::tempdir().unwrap();
    // Half a second is missing; later sound keeps its time.
    let gap = clip(
        folder.path(),
        "gap.mkv",
        "-f lavfi -i sine=f=440:r=44100:d=3,aselect=not(between(t\\,1\\,1.5)),volume=4 -c:a pcm_s16le",
    );
    let output = samples(&encode_beside(&gap, "matroska", 0, 0, 75, &audio_rendition(48_000, 2)), 2, 0);
    assert!(
        rms(&output[52_000..68_000]) < 0.001
            && rms(&output[20_000..44_000]) > 0.1
            && rms(&output[76_000..140_000]) > 0.1
    );
    assert!(output.len() >= 144_000 && output.len() < 146_048, "{}", output.len());

    // The center channel is heard on both sides, and as itself in 5.1.
    let six = clip(
        folder.path(),
        "six.mkv",
        "-f lavfi -i sine=f=440:r=48000:d=1,volume=4,pan=5.1|FC=c0 -c:a pcm_s16le",
    );
    let stereo = encode_beside(&six, "matroska", 0, 0, 25, &audio_rendition(48_000, 2));
    assert!((0..2).all(|channel| rms(&samples(&stereo, 2, channel)[4096..40_000]) > 0.05));
    let six_again = encode_beside(&six, "matroska", 0, 0, 25, &audio_rendition(48_000, 6));
    let loud: Vec<bool> =
        (0..6).map(|channel| rms(&samples(&six_again, 6, channel)[4096..40_000]) > 0.05).collect();
    assert_eq!(loud, [false, false, true, false, false, false]);
}
