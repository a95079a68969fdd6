//! Sources that are cut off, damaged, or have several tracks: the rest of them, correct, or an error with the
//! reason.
#![expect(clippy::unwrap_used, reason = "whatever goes wrong fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use spool_tests::{
    check,
    clips::{Clip, Coding, Container, Gop, Sound},
    folder,
    footage::ffmpeg,
    run::{CommandOutput, Spool},
};

const RATE: f64 = 48_000.0;
/// Time limit of an error, including a scan.
const DEADLINE: Duration = Duration::from_secs(5);

/// Transcodes in rows of four seconds.
fn transcode(source: &Path, destination: &Path, more: &[&str]) -> CommandOutput {
    let args = ["--ladder", "180p", "--segment", "4", "--media-segment", "2", "--progress", "none"];
    let paths = ["transcode".as_ref(), source.as_os_str(), "-o".as_ref(), destination.as_os_str()];
    Spool::new(paths.into_iter().chain(args.iter().chain(more).map(AsRef::as_ref))).run()
}

/// Makes a file with FFmpeg's arguments.
fn made(folder: &Path, name: &str, line: &str) -> PathBuf {
    let path = folder.join(name);
    let line = line.replace("{folder}", folder.to_str().unwrap());
    ffmpeg(line.split_whitespace().chain([path.to_str().unwrap()]));
    path
}

/// Returns the first channel of a ladder's audio rendition.
fn heard(folder: &Path, rendition: usize, channels: usize) -> Vec<f32> {
    let ladder = check::Ladder::open(folder).unwrap();
    check::samples(&ladder.sounds[rendition], channels).unwrap().swap_remove(0)
}

fn loudness(samples: &[f32]) -> f64 {
    (samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
}

/// Returns the lag of `heard` in seconds at a time, against the expected samples; at most `most`.
fn lag_at(heard: &[f32], due: &[f32], at_s: f64, most_s: f64) -> f64 {
    let (start, length) = ((at_s * RATE) as usize, 8192);
    let due = &due[start..start + length];
    let likeness = |lag: isize| {
        let heard = &heard[start.checked_add_signed(lag).unwrap()..][..length];
        let dot: f64 = heard.iter().zip(due).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        dot / (loudness(heard) * loudness(due)).max(f64::MIN_POSITIVE)
    };
    let most = (most_s * RATE) as isize;
    let best = (-most..=most).map(|lag| (likeness(lag), lag)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert!(best.0 / length as f64 > 0.9, "the sound differs at {at_s} s: {best:?}");
    best.1 as f64 / RATE
}

#[test]
fn a_truncated_file_is_transcoded_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mp4 = Clip { container: Container::Mp4Fast, frames: 500, ..Clip::default() };
    let mkv = Clip { container: Container::Mkv, ..mp4.clone() };
    for (name, clip) in [("mp4", mp4), ("mkv", mkv)] {
        let source = clip.make(folder.path(), name);
        let whole = fs::read(&source).unwrap();
        fs::write(&source, &whole[..whole.len() * 6 / 10]).unwrap();
        let destination = folder.path().join(format!("{name}-ladder"));
        let ran = transcode(&source, &destination, &[]);
        assert_eq!(ran.code, Some(0), "{name}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("was cut off") && ran.stderr.contains("--strict"),
            "{name}: {}",
            ran.stderr
        );
        let ladder = check::Ladder::open(&destination).unwrap();
        let frames = u32::try_from(ladder.videos[0].packets.list.len()).unwrap();
        assert!((240..400).contains(&frames), "{name}: {frames} of 500 frames from 60% of the file");
        // The first frames, each in its place; at the end some may need others that are lost.
        let begin = Clip { frames: frames - 5, ..clip };
        let shown = check::pictures(&ladder, &Clip { frames, ..begin.clone() });
        assert!(
            shown.as_ref().is_ok_and(|()| true)
                || shown.as_ref().is_err_and(|flaw| beyond(&flaw.what, frames - 5)),
            "{name}: {shown:?}"
        );

        let refused = transcode(&source, &folder.path().join("strict"), &["--strict"]);
        assert_eq!(refused.code, Some(1), "{name}: {}", refused.stderr);
        assert!(
            refused.stderr.contains("cut off") && refused.took < DEADLINE,
            "{name}: {} {:?}",
            refused.stderr,
            refused.took
        );
        assert!(!folder.path().join("strict/master.m3u8").exists());
    }
}

#[test]
fn sound_that_ends_before_the_pictures_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (pictures, sound) = (folder.path().join("pictures.mp4"), folder.path().join("sound.mp4"));
    let clip = Clip { frames: 250, ..Clip::default() }.make(folder.path(), "clip");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    ffmpeg(["-i", &path(&clip), "-map", "0:v", "-c", "copy", &path(&pictures)]);
    ffmpeg(["-i", &path(&clip), "-map", "0:a", "-c", "copy", &path(&sound)]);
    // All pictures lie before all sound.
    let both = folder.path().join("both.mov");
    let options =
        ["-map", "0:v", "-map", "1:a", "-c", "copy", "-max_interleave_delta", "0", "-movflags", "+faststart"];
    let inputs = ["-i", &path(&pictures), "-itsoffset", "20", "-i", &path(&sound)];
    ffmpeg(inputs.into_iter().chain(options).chain([path(&both).as_str()]));
    let whole = fs::read(&both).unwrap();
    let size = fs::metadata(&sound).unwrap().len() as usize;
    fs::write(&both, &whole[..whole.len() - size / 2]).unwrap();
    let ran = transcode(&both, &folder.path().join("ladder"), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("was cut off"), "{}", ran.stderr);
    let refused = transcode(&both, &folder.path().join("strict"), &["--strict"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
}

/// Returns whether a flaw is about a frame behind this one.
fn beyond(what: &str, frame: u32) -> bool {
    let number = what.split_once("frame ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u32>().ok());
    number.is_some_and(|number| number >= frame)
}

#[test]
fn the_threads_option_reaches_every_encode() {
    let folder = tempfile::tempdir().unwrap();
    let source = Clip { frames: 150, ..Clip::default() }.make(folder.path(), "clip");
    for threads in ["1", "2"] {
        let destination = folder.path().join(threads);
        let ran = transcode(&source, &destination, &["--threads", threads]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        // x264 writes its settings into the stream.
        let media = folder::media(&destination);
        let (_, begin) = media.iter().find(|(name, _)| name.starts_with("180p/00000-")).unwrap();
        assert!(
            String::from_utf8_lossy(begin).contains(&format!(" threads={threads} ")),
            "--threads {threads}"
        );
    }
}

#[test]
fn a_damaged_file_is_transcoded_with_a_count_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let clip = Clip { container: Container::Mp4Fast, frames: 500, ..Clip::default() };
    let source = clip.make(folder.path(), "clip");
    let mut bytes = fs::read(&source).unwrap();
    let media = bytes.windows(4).position(|window| window == b"mdat").unwrap();
    // Every hundredth part of it loses sixteen bytes.
    let step = (bytes.len() - media) / 100;
    for hit in 2..98 {
        bytes[media + hit * step..][..16].fill(0x55);
    }
    fs::write(&source, &bytes).unwrap();
    let destination = folder.path().join("ladder");
    let ran = transcode(&source, &destination, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let count = ran
        .stderr
        .split_once("is damaged: ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(count.is_some_and(|frames| (1..1000).contains(&frames)), "{}", ran.stderr);
    let ladder = check::Ladder::open(&destination).unwrap();
    check::frames(&ladder, &clip).unwrap();
    check::times(&ladder, &clip).unwrap();

    let refused = transcode(&source, &folder.path().join("strict"), &["--strict"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("is damaged, ") && refused.stderr.contains("clip.mp4"),
        "{}",
        refused.stderr
    );
    assert!(!folder.path().join("strict/master.m3u8").exists());
    // The output of a run without it does not count as complete either.
    let again = transcode(&source, &destination, &["--strict"]);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
}

#[test]
fn audio_tracks_have_languages_names_and_roles() {
    let folder = tempfile::tempdir().unwrap();
    let source = made(
        folder.path(),
        "film.mkv",
        "-f lavfi -i testsrc2=s=320x180:d=3 -f lavfi -i sine=f=300:d=3 -f lavfi -i sine=f=400:d=3 \
         -f lavfi -i sine=f=500:d=3 -f lavfi -i sine=f=600:d=3 -map 0 -map 1 -map 2 -map 3 -map 4 \
         -c:v libx264 -preset ultrafast -c:a flac -ac:a:0 2 -ac:a:1 6 -ac:a:2 2 -ac:a:3 1 \
         -metadata:s:a:0 language=eng -metadata:s:a:1 language=ger -metadata:s:a:2 language=eng \
         -metadata:s:a:3 language=eng -metadata:s:a:2 title=Director -disposition:a:0 0 \
         -disposition:a:1 default -disposition:a:2 comment -disposition:a:3 visual_impaired",
    );
    let destination = folder.path().join("ladder");
    let ran = transcode(&source, &destination, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let master = fs::read_to_string(destination.join("master.m3u8")).unwrap();
    let media: Vec<String> = master
        .lines()
        .filter_map(|line| line.strip_prefix("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="))
        .map(|line| line.rsplit_once('/').unwrap().0.to_owned())
        .collect();
    let expected = [
        r#""audio",NAME="English",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=YES,CHANNELS="2",URI="audio-0"#,
        r#""audio",NAME="Deutsch",LANGUAGE="de",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="audio-1"#,
        r#""audio",NAME="Director",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=NO,CHANNELS="2",URI="audio-2"#,
        r#""audio",NAME="English (audio description)",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=YES,CHARACTERISTICS="public.accessibility.describes-video",CHANNELS="1",URI="audio-3"#,
        r#""audio-5.1",NAME="English",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=YES,CHANNELS="2",URI="audio-0"#,
        r#""audio-5.1",NAME="Deutsch",LANGUAGE="de",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="6",URI="audio-1-5.1"#,
        r#""audio-5.1",NAME="Director",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=NO,CHANNELS="2",URI="audio-2"#,
        r#""audio-5.1",NAME="English (audio description)",LANGUAGE="en",DEFAULT=NO,AUTOSELECT=YES,CHARACTERISTICS="public.accessibility.describes-video",CHANNELS="1",URI="audio-3"#,
    ];
    assert_eq!(media, expected);
    assert_eq!(master.matches("#EXT-X-STREAM-INF").count(), 2);
}

#[test]
fn sound_alone_becomes_an_audio_ladder() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), "cover.png", "-f lavfi -i color=red:s=64x64 -frames:v 1");
    let tone = "-f lavfi -i sine=f=437:r=48000:d=9.3";
    let cases = [
        (
            "a.m4a",
            "-i {folder}/cover.png -map 0:a -map 1:v -c:v mjpeg -disposition:v attached_pic -c:a aac -b:a 192k",
        ),
        (
            "a.mp3",
            "-i {folder}/cover.png -map 0:a -map 1:v -c:v copy -id3v2_version 3 -c:a libmp3lame -b:a 192k",
        ),
        ("a.flac", "-c:a flac"),
        ("a.ogg", "-c:a libvorbis -q:a 8"),
        ("a.opus", "-c:a libopus -b:a 128k -f ogg"),
        ("a.wav", "-c:a pcm_s24le"),
        ("a.mka", "-c:a pcm_s16le -f matroska"),
    ];
    for (name, line) in cases {
        let source = made(folder.path(), name, &format!("{tone} {line}"));
        let destination = folder.path().join(format!("{name}-ladder"));
        let ran = transcode(&source, &destination, &[]);
        assert_eq!(ran.code, Some(0), "{name}: {}", ran.stderr);
        let master = fs::read_to_string(destination.join("master.m3u8")).unwrap();
        assert!(
            !master.contains("RESOLUTION") && master.contains("CODECS=\"mp4a.40.2\""),
            "{name}: {master}"
        );
        // A variant that leads to the sound itself.
        let wav = made(
            folder.path(),
            &format!("{name}.decoded.wav"),
            &format!("-i {}", destination.join("master.m3u8").display()),
        );
        let seconds = (fs::metadata(wav).unwrap().len() - 78) as f64 / 2.0 / RATE;
        assert!((9.25..9.45).contains(&seconds), "{name}: {seconds} s of 9.3");
    }
}

#[test]
fn gaps_in_the_sound_become_silence_without_a_shift() {
    let folder = tempfile::tempdir().unwrap();
    let coding = Coding {
        audio: "-af aselect='not(between(t,3,5))' -c:a pcm_s16le",
        video: "-c:v libx264 -preset ultrafast",
        file: "mkv",
        ..Coding::default()
    };
    let clip = Clip { frames: 250, coding, ..Clip::default() };
    let source = clip.make(folder.path(), "gap");
    let destination = folder.path().join("ladder");
    let ran = transcode(&source, &destination, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (heard, due) = (heard(&destination, 0, 2), clip.expected_samples(2, 48_000).swap_remove(0));
    let at = |seconds: f64| (seconds * RATE) as usize;
    assert!(loudness(&heard[at(3.1)..at(4.9)]) < 0.001, "the gap is not silent");
    assert!(loudness(&heard[at(2.0)..at(2.9)]) > 0.1 && loudness(&heard[at(5.1)..at(6.0)]) > 0.1);
    for at in [1.0, 2.5, 5.5, 9.0] {
        let lag = lag_at(&heard, &due, at, 0.1);
        assert!(lag.abs() < 0.003, "{lag} s late at {at} s");
    }
}

#[test]
fn sound_whose_clock_drifts_stays_in_sync_for_three_minutes() {
    let folder = tempfile::tempdir().unwrap();
    // By its time stamps each sample lasts a thousandth longer: after three minutes that is 0.18 s.
    let coding = Coding {
        audio: "-af asetpts=PTS*1.001 -c:a pcm_s16le",
        video: "-c:v libx264 -preset ultrafast",
        file: "mkv",
        ..Coding::default()
    };
    let clip = Clip { frames: 180 * 25, keyframe_every: 100, coding, ..Clip::default() };
    let source = clip.make(folder.path(), "drift");
    let destination = folder.path().join("ladder");
    let ran = transcode(&source, &destination, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (heard, due) = (heard(&destination, 0, 2), clip.expected_samples(2, 48_000).swap_remove(0));
    for at in [1.0, 60.0, 120.0, 170.0, 179.0] {
        // A sample that was recorded at `at` is presented later by its time stamp.
        let (lag, stamped) = (lag_at(&heard, &due, at, 0.3), at * 0.001);
        assert!((lag - stamped).abs() < 0.045, "{lag} s late at {at} s, by the time stamps {stamped}");
    }
}

#[test]
fn channels_without_positions_are_mixed_to_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("ten.raw");
    // A tone of its own in each of ten channels.
    let sample = |number: usize, channel: usize| {
        let hz = 300.0 + 100.0 * channel as f64;
        ((std::f64::consts::TAU * hz * number as f64 / RATE).sin() * 8000.0) as i16
    };
    let samples = (0..3 * 48_000).flat_map(|number| (0..10).map(move |channel| sample(number, channel)));
    fs::write(&raw, samples.flat_map(i16::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    let line = "-f s16le -ar 48000 -ac 10 -i {folder}/ten.raw -f lavfi -i testsrc2=s=320x180:d=3 -c:v libx264 -preset ultrafast -c:a pcm_s16le";
    let source = made(folder.path(), "ten.mkv", line);
    let destination = folder.path().join("ladder");
    let ran = transcode(&source, &destination, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ladder = check::Ladder::open(&destination).unwrap();
    assert_eq!(ladder.sounds.len(), 1, "surround is not synthesized");
    let both = check::samples(&ladder.sounds[0], 2).unwrap();
    let level = |side: usize, hz: f64| {
        let (mut re, mut im) = (0.0, 0.0);
        for (number, sample) in both[side][24_000..72_000].iter().enumerate() {
            let (sin, cos) = (std::f64::consts::TAU * hz * number as f64 / RATE).sin_cos();
            re += f64::from(*sample) * cos;
            im += f64::from(*sample) * sin;
        }
        (re.hypot(im)) / 24_000.0
    };
    for channel in 0..10_u32 {
        let hz = 300.0 + 100.0 * f64::from(channel);
        let (mine, other) = (channel as usize % 2, 1 - channel as usize % 2);
        assert!(
            level(mine, hz) > 0.03 && level(other, hz) < 0.003,
            "channel {channel}: {} and {}",
            level(mine, hz),
            level(other, hz)
        );
    }
}

#[test]
fn a_mirrored_picture_is_shown_as_players_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let coding = Coding {
        filter: "hflip",
        video: "-c:v libx264 -preset ultrafast -crf 14",
        file: "mp4",
        ..Coding::default()
    };
    let clip = Clip { frames: 150, sound: Some(Sound::default()), coding, ..Clip::default() };
    let source = clip.make(folder.path(), "mirror");
    let mut bytes = fs::read(&source).unwrap();
    // The matrix of the video track: left and right change places.
    let header = bytes.windows(4).position(|window| window == b"tkhd").unwrap() + 4;
    let tracks: Vec<usize> = (0..bytes.len() - 4).filter(|at| &bytes[*at..at + 4] == b"tkhd").collect();
    assert_eq!(tracks.len(), 2, "{header}");
    for track in tracks {
        let matrix: Vec<u8> = [-65_536_i32, 0, 0, 0, 65_536, 0, 320 << 16, 0, 1 << 30]
            .into_iter()
            .flat_map(i32::to_be_bytes)
            .collect();
        bytes[track + 44..track + 80].copy_from_slice(&matrix);
    }
    fs::write(&source, &bytes).unwrap();
    let destination = folder.path().join("ladder");
    let ran = transcode(&source, &destination, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    check::pictures(&check::Ladder::open(&destination).unwrap(), &clip).unwrap();
}

#[test]
fn an_edit_list_of_several_edits_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let clip = Clip { frames: 250, gop: Gop::Plain, sound: None, ..Clip::default() };
    let source = clip.make(folder.path(), "edited");
    let mut bytes = fs::read(&source).unwrap();
    // 0 to 4 s and 6 to 10 s of the media, in the movie's milliseconds and the media's 12,800 ticks a second.
    let entry = |ms: u32, start: u32| [&ms.to_be_bytes()[..], &start.to_be_bytes(), &[0, 1, 0, 0]].concat();
    let body = [&[0, 0, 0, 0, 0, 0, 0, 2][..], &entry(4000, 0), &entry(4000, 6 * 12_800)].concat();
    let boxed = |kind: &[u8], body: &[u8]| {
        [&u32::try_from(body.len() + 8).unwrap().to_be_bytes()[..], kind, body].concat()
    };
    let edits = boxed(b"edts", &boxed(b"elst", &body));
    let find = |bytes: &[u8], kind: &[u8]| bytes.windows(4).position(|window| window == kind).unwrap() - 4;
    let size = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    // The header lies behind the media, so no reference changes.
    let old = find(&bytes, b"edts");
    let old_size = size(&bytes, old);
    for kind in [b"moov", b"trak"] {
        let at = find(&bytes, kind);
        let grown = size(&bytes, at) - old_size + u32::try_from(edits.len()).unwrap();
        bytes[at..at + 4].copy_from_slice(&grown.to_be_bytes());
    }
    bytes.splice(old..old + old_size as usize, edits);
    fs::write(&source, &bytes).unwrap();
    let destination = folder.path().join("ladder");
    let ran = transcode(&source, &destination, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ladder = check::Ladder::open(&destination).unwrap();
    let numbers = check::numbers(&ladder.videos[0]).unwrap();
    assert_eq!(numbers, (0..100).chain(150..250).map(Some).collect::<Vec<_>>());
}
