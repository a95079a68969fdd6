//! Ladders that `spool transcode` publishes are exact, for many kinds of sources and cuts.
#![expect(clippy::unwrap_used, reason = "whatever goes wrong fails the test")]

use std::path::Path;

use spool_tests::{
    check,
    clips::{Clip, Container, Gop, Sound},
    folder,
    run::Spool,
};

/// Rungs of every ladder: the clip's own size at the default rate, and half of it at more than the default of
/// 64 kb/s: a clip that moves everywhere starves at that, and the comparison would measure the rate.
const LADDER: &str = "180p,90p:300k";
/// Lengths of a segment in seconds.
const SEGMENTS: [u32; 2] = [8, 30];

/// Transcodes a source, which must succeed.
fn transcode(source: &Path, destination: &Path, segment_s: u32, slots: u32) {
    let [segment, slots] = [segment_s, slots].map(|number| number.to_string());
    let args = ["--ladder", LADDER, "--segment", &segment, "--media-segment", "4", "--slots", &slots];
    let paths = [source.as_os_str(), "-o".as_ref(), destination.as_os_str()];
    let all = std::iter::once("transcode".as_ref()).chain(paths).chain(args.map(AsRef::as_ref));
    let report = ["--output", "json", "--progress", "none"].map(AsRef::as_ref);
    Spool::new(all.chain(report)).ok();
}

/// Makes a clip, transcodes it with short and with long segments, and expects no flaw in either ladder.
fn exact(clip: &Clip) {
    let folder = tempfile::tempdir().unwrap();
    let source = clip.make(folder.path(), "clip");
    let mut flaws = Vec::new();
    for segment_s in SEGMENTS {
        let destination = folder.path().join(format!("ladder-{segment_s}"));
        transcode(&source, &destination, segment_s, 2);
        flaws.extend(
            check::all(&destination, clip, &source)
                .into_iter()
                .map(|flaw| format!("segments of {segment_s} s: {flaw}")),
        );
        let ladder = check::Ladder::open(&destination).unwrap();
        let parts = ladder.parts_of(&ladder.videos[0]).count();
        let least = (clip.seconds() / (1.5 * f64::from(segment_s))).ceil() as usize;
        assert!(parts >= least, "{parts} parts of about {segment_s} s: nothing was joined");
    }
    assert!(flaws.is_empty(), "{clip:?}\n{}", flaws.join("\n"));
}

/// Returns a clip of this rate that lasts a bit longer than three segments of 8 s, by no whole number of
/// anything.
fn of_rate(num: u32, den: u32) -> Clip {
    let frames = num * 26 / den + 7;
    Clip { rate: (num, den), frames, keyframe_every: num * 2 / den + 1, ..Clip::default() }
}

fn sounding(sound: Sound) -> Clip {
    Clip { sound: Some(sound), ..Clip::default() }
}

#[test]
fn at_25_frames_per_second() {
    exact(&Clip::default());
}

#[test]
fn at_29_97_frames_per_second() {
    exact(&of_rate(30_000, 1001));
}

#[test]
fn at_23_976_frames_per_second() {
    exact(&of_rate(24_000, 1001));
}

#[test]
fn at_59_94_frames_per_second() {
    exact(&Clip { frames: 1100, ..of_rate(60_000, 1001) });
}

#[test]
fn at_30_frames_per_second_with_joins_of_long_segments() {
    exact(&Clip { frames: 67 * 30 + 1, ..of_rate(30, 1) });
}

#[test]
fn without_b_frames() {
    exact(&Clip { gop: Gop::Plain, ..Clip::default() });
}

#[test]
fn with_open_gops() {
    exact(&Clip { gop: Gop::Open, ..Clip::default() });
}

#[test]
fn with_open_gops_at_29_97_frames_per_second() {
    exact(&Clip { gop: Gop::Open, ..of_rate(30_000, 1001) });
}

#[test]
fn with_the_index_before_the_media() {
    exact(&Clip { container: Container::Mp4Fast, ..Clip::default() });
}

#[test]
fn with_a_keyframe_every_ten_seconds() {
    exact(&Clip { keyframe_every: 250, gop: Gop::Open, frames: 901, ..Clip::default() });
}

#[test]
fn with_sound_at_44100_hz() {
    exact(&sounding(Sound { rate: 44_100, ..Sound::default() }));
}

#[test]
fn with_sound_at_44100_hz_at_29_97_frames_per_second() {
    exact(&Clip { sound: Some(Sound { rate: 44_100, ..Sound::default() }), ..of_rate(30_000, 1001) });
}

#[test]
fn with_mono() {
    exact(&sounding(Sound { channels: 1, ..Sound::default() }));
}

#[test]
fn with_surround() {
    exact(&sounding(Sound { channels: 6, ..Sound::default() }));
}

#[test]
fn without_sound() {
    exact(&Clip { sound: None, ..Clip::default() });
}

#[test]
fn with_sound_that_starts_late() {
    exact(&sounding(Sound { delay_ms: 500, ..Sound::default() }));
}

#[test]
fn with_sound_that_ends_early() {
    exact(&sounding(Sound { seconds: Some(17.3), ..Sound::default() }));
}

#[test]
fn with_sound_that_outlasts_the_pictures() {
    exact(&sounding(Sound { seconds: Some(27.1), ..Sound::default() }));
}

#[test]
fn of_0_4_seconds() {
    exact(&Clip { frames: 10, ..Clip::default() });
}

#[test]
fn of_one_frame() {
    exact(&Clip { frames: 1, sound: None, ..Clip::default() });
}

#[test]
fn of_a_length_that_is_no_multiple_of_anything() {
    let sound = Sound { rate: 44_100, seconds: Some(24.173), ..Sound::default() };
    exact(&Clip { frames: 601, keyframe_every: 37, gop: Gop::Open, sound: Some(sound), ..Clip::default() });
}

#[test]
fn with_frames_that_are_held() {
    // Over a cut, twice near another, and up to the last frame but one.
    exact(&Clip { dropped: vec![190..215, 397..399, 401..404, 640..649], ..Clip::default() });
}

#[test]
fn with_frames_that_are_held_and_few_keyframes() {
    exact(&Clip {
        dropped: vec![150..290, 300..301, 500..510],
        keyframe_every: 250,
        gop: Gop::Open,
        ..of_rate(30_000, 1001)
    });
}

#[test]
fn from_an_mpeg_transport_stream() {
    exact(&Clip { container: Container::Ts, ..Clip::default() });
}

#[test]
fn from_an_mpeg_transport_stream_with_open_gops() {
    exact(&Clip { container: Container::Ts, gop: Gop::Open, ..of_rate(30_000, 1001) });
}

#[test]
fn from_matroska() {
    exact(&Clip { container: Container::Mkv, ..Clip::default() });
}

#[test]
fn from_matroska_at_29_97_frames_per_second_with_open_gops() {
    exact(&Clip { container: Container::Mkv, gop: Gop::Open, ..of_rate(30_000, 1001) });
}

#[test]
fn from_fragmented_mp4() {
    exact(&Clip { container: Container::Mp4Fragmented, ..Clip::default() });
}

#[test]
fn slots_change_no_byte() {
    let scratch = tempfile::tempdir().unwrap();
    let source = Clip { frames: 450, ..Clip::default() }.make(scratch.path(), "clip");
    let [one, four] = [1, 4].map(|slots| {
        let destination = scratch.path().join(format!("slots-{slots}"));
        transcode(&source, &destination, 4, slots);
        folder::media(&destination)
    });
    // Two rungs and the sound, five media segments each, with an initialization segment and a playlist; the
    // multivariant playlist.
    assert_eq!(one.len(), 3 * (5 + 2) + 1);
    let differing: Vec<_> =
        one.keys().chain(four.keys()).filter(|name| one.get(*name) != four.get(*name)).collect();
    assert!(differing.is_empty(), "{differing:?}");
}
