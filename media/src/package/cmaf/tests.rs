#![expect(clippy::disallowed_methods, reason = "tests make their own clips")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const FRAGMENTS: [&str; 4] = ["-f", "mp4", "-movflags", "+empty_moov+default_base_moof+frag_keyframe"];

fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(["-v", "error"]).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn text(program: &str, args: &[&str]) -> String {
    String::from_utf8(run(program, args)).unwrap()
}

fn rate(text: &str) -> Rational {
    text.parse().unwrap()
}

/// Encodes frames `first..first + frames` of the test video, as one segment's run does.
fn encode(
    dir: &Path,
    rate: &str,
    first: u64,
    frames: u64,
    media_segment_frames: u32,
    codec: &[&str],
) -> PathBuf {
    let path = dir.join(format!("{first}.mp4"));
    let trim = format!("trim=start_frame={first}:end_frame={},setpts=N", first + frames);
    let source = format!("testsrc2=s=160x90:r={rate}");
    let keys = format!("expr:eq(mod(n,{media_segment_frames}),0)");
    let mut args =
        vec!["-f", "lavfi", "-i", &source, "-vf", &trim, "-pix_fmt", "yuv420p", "-force_key_frames", &keys];
    args.extend(FRAGMENTS);
    args.extend(codec);
    args.extend(["-y", path.to_str().unwrap()]);
    run("ffmpeg", &args);
    path
}

const X264: [&str; 8] = [
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-x264-params",
    "stitchable=1:keyint=90:scenecut=40",
    "-forced-idr",
    "1",
];

fn video(path: &Path, spec: &VideoSpec) -> (Init, Vec<MediaSegment>) {
    let packager = Packager::video(std::fs::File::open(path).unwrap(), spec).unwrap();
    (packager.init().clone(), packager.map(Result::unwrap).collect())
}

fn audio(path: &Path, spec: &AudioSpec) -> (Init, Vec<MediaSegment>) {
    let packager = Packager::audio(std::fs::File::open(path).unwrap(), spec).unwrap();
    (packager.init().clone(), packager.map(Result::unwrap).collect())
}

fn join(dir: &Path, init: &Init, segments: &[MediaSegment]) -> PathBuf {
    let path = dir.join("joined.mp4");
    let bytes: Vec<u8> =
        std::iter::once(&init.bytes).chain(segments.iter().map(|s| &s.bytes)).flatten().copied().collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// `(pts, dts, size)` of every packet, in ticks.
fn packets(path: &Path) -> Vec<(i64, i64, u64)> {
    let lines =
        text("ffprobe", &["-show_entries", "packet=pts,dts,size", "-of", "csv=p=0", path.to_str().unwrap()]);
    let line = |line: &str| {
        let fields: Vec<&str> = line.trim_end_matches(',').split(',').collect();
        (fields[0].parse().unwrap(), fields[1].parse().unwrap(), fields[2].parse().unwrap())
    };
    lines.lines().filter(|line| !line.is_empty()).map(line).collect()
}

/// Returns a stream's `start_time` as ffprobe prints it.
fn start_time(path: &Path) -> String {
    text("ffprobe", &["-show_entries", "stream=start_time", "-of", "csv=p=0", path.to_str().unwrap()])
        .trim()
        .to_owned()
}

/// A checksum per decoded frame.
fn frames(path: &Path) -> Vec<String> {
    let md5 =
        text("ffmpeg", &["-i", path.to_str().unwrap(), "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    md5.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit(',').next().unwrap().trim().to_owned())
        .collect()
}

fn pcm(path: &Path) -> Vec<u8> {
    run("ffmpeg", &["-i", path.to_str().unwrap(), "-f", "s16le", "-"])
}

/// The same track as a plain MP4. FFmpeg 5.1 applies a fragmented file's edit list to times only (so that a
/// track with priming starts at -1024 ticks, in its own files as well) and cuts the priming off decoded sound
/// in plain files alone.
fn progressive(dir: &Path, fragmented: &Path) -> PathBuf {
    let path = dir.join("progressive.mp4");
    run(
        "ffmpeg",
        &["-copyts", "-i", fragmented.to_str().unwrap(), "-c", "copy", "-y", path.to_str().unwrap()],
    );
    path
}

/// Encodes a video in segments, packages each, and checks the whole as a player sees it.
fn check_title(
    rate_text: &str,
    media_segment_frames: u32,
    pieces: &[u64],
    reorder_frames: u32,
    codec: &[&str],
) -> Init {
    let dir = TempDir::new().unwrap();
    let rate = rate(rate_text);
    let clock = Clock::of(rate).unwrap();
    let (mut inits, mut segments, mut checksums, mut first_frame) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for &frames_here in pieces {
        let file = encode(dir.path(), rate_text, first_frame, frames_here, media_segment_frames, codec);
        let spec = VideoSpec { rate, first_frame, frames: frames_here, media_segment_frames, reorder_frames };
        let (init, more) = video(&file, &spec);
        inits.push(init);
        segments.extend(more);
        checksums.extend(frames(&file));
        first_frame += frames_here;
    }
    assert!(inits.iter().all(|init| *init == inits[0]), "init segments differ");
    let total = first_frame;
    assert_eq!(checksums.len() as u64, total);
    let ticks = u64::from(clock.frame_ticks);
    let mut next = 0;
    for (number, segment) in segments.iter().enumerate() {
        assert_eq!((u64::from(segment.number), segment.start_ticks), (number as u64, next));
        next += segment.duration_ticks;
        assert_eq!(segment.start_ticks, number as u64 * u64::from(media_segment_frames) * ticks);
    }
    assert_eq!(next, total * ticks);

    let joined = join(dir.path(), &inits[0], &segments);
    let packets = packets(&joined);
    assert_eq!(packets.len() as u64, total);
    assert!(packets.is_sorted_by(|a, b| a.1 < b.1), "DTS must rise strictly");
    let mut shown: Vec<i64> = packets.iter().map(|packet| packet.0).collect();
    shown.sort_unstable();
    let grid: Vec<i64> = (0..total).map(|frame| (frame * ticks) as i64).collect();
    assert_eq!(shown, grid, "frame n is shown at n frames");
    assert_eq!(start_time(&joined), "0.000000");
    assert!(frames(&joined) == checksums, "decoded frames differ from those of the pieces");
    inits.swap_remove(0)
}

#[test]
fn pieces_of_a_25_hz_title_join_exactly() {
    let init = check_title("25", 25, &[50, 25, 37], 2, &X264);
    assert_eq!((init.timescale, init.width, init.height), (10_000, 160, 90));
    assert_eq!(init.codecs, "avc1.64000b");
}

#[test]
fn pieces_of_an_ntsc_title_join_exactly() {
    let init = check_title("30000/1001", 30, &[60, 30, 61], 2, &X264);
    assert_eq!(init.timescale, 30_000);
}

#[test]
fn a_rendition_without_reordering_has_no_edit_list() {
    let mut codec = X264.to_vec();
    codec.extend(["-bf", "0"]);
    let init = check_title("24000/1001", 24, &[24, 30], 0, &codec);
    assert!(!init.bytes.windows(4).any(|name| name == b"elst"));
    let with = check_title("24000/1001", 24, &[24, 30], 2, &codec);
    assert!(with.bytes.windows(4).any(|name| name == b"elst"));
}

#[test]
fn hevc_vp9_and_av1_join_too() {
    let x265 = ["-c:v", "libx265", "-tag:v", "hvc1", "-preset", "ultrafast", "-forced-idr", "1"];
    let params = ["-x265-params", "log-level=none:open-gop=0:keyint=50:bframes=3"];
    assert_eq!(check_title("25", 25, &[25, 30], 2, &[&x265[..], &params].concat()).codecs, "hvc1.1.6.L30.90");
    let vp9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "25"];
    assert_eq!(check_title("25", 25, &[25, 30], 0, &vp9).codecs, "vp09.00.10.08");
    // FFmpeg knows av1C only once the first frame is encoded: without +delay_moov it writes an empty one.
    let delayed = ["-movflags", "+empty_moov+default_base_moof+frag_keyframe+delay_moov"];
    let av1 = ["-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime", "-g", "25"];
    assert_eq!(check_title("25", 25, &[25, 30], 0, &[&av1[..], &delayed].concat()).codecs, "av01.0.00M.08");
}

/// A clip that most tests of refusals share: 50 frames at 25 Hz, a keyframe each 25.
fn fifty_frames(dir: &Path) -> (Vec<u8>, VideoSpec) {
    let file = encode(dir, "25", 0, 50, 25, &X264);
    let spec = VideoSpec {
        rate: rate("25"),
        first_frame: 0,
        frames: 50,
        media_segment_frames: 25,
        reorder_frames: 2,
    };
    (std::fs::read(file).unwrap(), spec)
}

fn package(bytes: &[u8], spec: &VideoSpec) -> Result<Vec<MediaSegment>, Error> {
    Packager::video(bytes, spec)?.collect()
}

#[test]
fn what_is_not_the_segment_asked_for_is_refused() {
    let dir = TempDir::new().unwrap();
    let (bytes, spec) = fifty_frames(dir.path());
    assert_eq!(package(&bytes, &spec).unwrap().len(), 2);

    let error = package(&bytes, &VideoSpec { frames: 51, ..spec.clone() }).unwrap_err();
    assert!(matches!(error, Error::FrameCount { expected: 51, found: 50 }), "{error}");
    assert_eq!(error.to_string(), "the encoder wrote 50 frames where the segment has 51");
    let error = package(&bytes, &VideoSpec { frames: 40, ..spec.clone() }).unwrap_err();
    assert!(matches!(error, Error::FrameCount { expected: 40, found: 50 }), "{error}");

    let error = package(&bytes, &VideoSpec { rate: rate("30"), ..spec.clone() }).unwrap_err();
    assert!(matches!(error, Error::OffGrid { frame: 1, ticks: 512, timescale: 12_800, .. }), "{error}");

    let error = package(&bytes, &VideoSpec { media_segment_frames: 20, ..spec.clone() }).unwrap_err();
    assert!(matches!(error, Error::NotKey { number: 1 } | Error::OffGrid { .. }), "{error}");

    let error = package(&bytes, &VideoSpec { reorder_frames: 1, ..spec.clone() }).unwrap_err();
    assert!(matches!(error, Error::Reorder { late: 1, reorder_frames: 1, .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Bug);

    for wrong in [
        VideoSpec { media_segment_frames: 0, ..spec.clone() },
        VideoSpec { first_frame: 1, ..spec.clone() },
        VideoSpec { first_frame: u64::MAX - 15, media_segment_frames: 1, ..spec.clone() },
        VideoSpec { frames: 0, ..spec.clone() },
        VideoSpec { rate: rate("1/4294967295"), ..spec.clone() },
    ] {
        assert!(matches!(package(&bytes, &wrong), Err(Error::Spec(_))), "{wrong:?}");
    }
    let as_sound = AudioSpec { grid_timebase: rate("1/25"), media_segment_frames: 25, language: None };
    assert!(matches!(Packager::audio(&bytes[..], &as_sound), Err(Error::Malformed(_))));
}

#[test]
fn a_late_segment_of_a_long_title_needs_64_bits() {
    let dir = TempDir::new().unwrap();
    let (bytes, spec) = fifty_frames(dir.path());
    let first_frame = 25 * 1_000_000;
    let segments = package(&bytes, &VideoSpec { first_frame, ..spec }).unwrap();
    assert_eq!((segments[0].number, segments[0].start_ticks), (1_000_000, first_frame * 400));
    let tfdt = segments[0].bytes.windows(4).position(|name| name == b"tfdt").unwrap();
    assert_eq!(segments[0].bytes[tfdt + 8..tfdt + 16], (first_frame * 400).to_be_bytes());
}

#[test]
fn output_that_ends_early_is_never_taken_for_whole() {
    let dir = TempDir::new().unwrap();
    let (bytes, spec) = fifty_frames(dir.path());
    for end in (0..bytes.len()).step_by(97) {
        let error = package(&bytes[..end], &spec).unwrap_err();
        assert!(matches!(error, Error::Truncated(_)), "{end}: {error}");
        assert_eq!(error.kind(), ErrorKind::Transient);
    }
    let trailer = bytes.windows(4).rposition(|name| name == b"mfra").unwrap() - 4;
    assert!(matches!(package(&bytes[..trailer], &spec), Err(Error::Truncated("without its trailer"))));
}

#[test]
fn a_pipe_that_gives_single_bytes_is_read_like_a_file() {
    struct Drip<'a>(&'a [u8]);
    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }
    let dir = TempDir::new().unwrap();
    let (bytes, spec) = fifty_frames(dir.path());
    let dripped: Result<Vec<_>, _> = Packager::video(Drip(&bytes), &spec).unwrap().collect();
    assert_eq!(dripped.unwrap(), package(&bytes, &spec).unwrap());
}

/// Ten seconds of a sine, a little longer than a whole number of AAC frames.
fn sine(dir: &Path, sample_rate: u32, seconds: &str, codec: &[&str]) -> PathBuf {
    let path = dir.join("sine.mp4");
    let source = format!("sine=440:r={sample_rate}:d={seconds}");
    let mut args = vec!["-f", "lavfi", "-i", &source, "-ac", "2"];
    args.extend(codec);
    args.extend(["-frag_duration", "1000000", "-y", path.to_str().unwrap()]);
    run("ffmpeg", &args);
    path
}

#[test]
fn aac_is_cut_on_its_own_frames_and_decodes_as_before() {
    let plain = [&["-c:a", "aac", "-b:a", "96k"][..], &FRAGMENTS].concat();
    let told =
        ["-c:a", "aac", "-b:a", "96k", "-f", "mp4", "-movflags", "+empty_moov+default_base_moof+delay_moov"];
    for (sample_rate, grid_timebase) in [(48_000, "1/25"), (44_100, "1001/30000"), (48_000, "1001/30000")] {
        let dir = TempDir::new().unwrap();
        let grid_timebase = rate(grid_timebase);
        let spec = AudioSpec { grid_timebase, media_segment_frames: 50, language: Some("deu".to_owned()) };
        let file = sine(dir.path(), sample_rate, "10.01", &plain);
        let (init, segments) = audio(&file, &spec);
        assert_eq!((init.codecs.as_str(), init.timescale, init.width), ("mp4a.40.2", sample_rate, 0));

        let nominal = 50.0 * grid_timebase.to_f64();
        let frame = 1024.0 / f64::from(sample_rate);
        let mut next = 0;
        for (number, segment) in segments.iter().enumerate() {
            assert_eq!((segment.number as usize, segment.start_ticks), (number, next));
            next += segment.duration_ticks;
            let late = segment.start_ticks as f64 / f64::from(sample_rate) - number as f64 * nominal;
            assert!((-1e-9..frame).contains(&late), "segment {number} starts {late} s late");
            assert!(number == 0 || segment.start_ticks % 1024 == 0);
        }
        assert_eq!(segments.len() as f64, (10.01 / nominal).ceil());
        assert_eq!(
            next,
            u64::from(sample_rate) * 1001 / 100,
            "all that was put in is heard, no priming, no padding"
        );

        let joined = join(dir.path(), &init, &segments);
        let sizes = |path: &Path| packets(path).into_iter().map(|packet| packet.2).collect::<Vec<_>>();
        assert_eq!(sizes(&joined), sizes(&file));
        assert_eq!(packets(&joined)[1].0, 0, "the first frame is priming, the second is heard at 0");
        let heard = progressive(dir.path(), &joined);
        assert_eq!(start_time(&heard), "0.000000");
        // FFmpeg signals no priming in the plain file, so that it is decoded, too.
        assert!(pcm(&heard) == pcm(&file)[1024 * 4..], "sound differs");

        let (told_init, told_segments) = audio(&sine(dir.path(), sample_rate, "10.01", &told), &spec);
        assert_eq!(
            (&told_init, &told_segments),
            (&init, &segments),
            "an edit list says what is known without it"
        );
    }
}

#[test]
fn sound_that_ends_on_a_boundary_makes_no_empty_segment() {
    let dir = TempDir::new().unwrap();
    let plain = [&["-c:a", "aac"][..], &FRAGMENTS].concat();
    let spec = |media_segment_frames| AudioSpec {
        grid_timebase: rate("1/375"),
        media_segment_frames,
        language: None,
    };
    // 1/375 s of 48 kHz are 128 samples: eight grid frames are an AAC frame.
    let file = sine(dir.path(), 48_000, "2.048", &plain);
    let (_, segments) = audio(&file, &spec(256));
    assert_eq!(
        segments.iter().map(|s| (s.start_ticks, s.duration_ticks)).collect::<Vec<_>>(),
        [(0, 32_768), (32_768, 32_768), (65_536, 32_768)]
    );
    let error = Packager::audio(std::fs::File::open(&file).unwrap(), &spec(2))
        .unwrap()
        .find_map(Result::err)
        .unwrap();
    assert!(matches!(error, Error::Spec(_)), "{error}");
}

#[test]
fn sound_that_starts_late_or_pauses_is_refused() {
    let dir = TempDir::new().unwrap();
    let spec = AudioSpec { grid_timebase: rate("1/25"), media_segment_frames: 25, language: None };
    let first_error = |file: &Path| match Packager::audio(std::fs::File::open(file).unwrap(), &spec) {
        Ok(packager) => packager
            .map(|segment| segment.map(|segment| segment.number))
            .collect::<Result<Vec<_>, _>>()
            .unwrap_err(),
        Err(error) => error,
    };
    let delayed = ["-f", "mp4", "-movflags", "+empty_moov+default_base_moof+delay_moov"];
    // Without delay_moov FFmpeg does not record that the first frame is late: the output does not show it.
    for (filter, flags) in [("asetpts=PTS+1/TB", &delayed[..]), ("asetpts=PTS+gte(T\\,0.5)/TB", &FRAGMENTS)] {
        let file = sine(dir.path(), 48_000, "1", &[&["-c:a", "aac", "-af", filter][..], flags].concat());
        let error = first_error(&file);
        assert!(
            matches!(error, Error::AudioGap { .. } | Error::AudioStep { .. } | Error::Malformed(_)),
            "{filter}: {error}"
        );
    }
}

#[test]
fn bit_rates_do_not_reach_the_init_segment() {
    let dir = TempDir::new().unwrap();
    let spec = AudioSpec { grid_timebase: rate("1/25"), media_segment_frames: 25, language: None };
    let init = |bit_rate: &str| {
        let codec = [&["-c:a", "aac", "-b:a", bit_rate][..], &FRAGMENTS].concat();
        audio(&sine(dir.path(), 48_000, "1", &codec), &spec).0
    };
    assert_eq!(init("64k"), init("128k"));
}

#[test]
fn opus_is_packaged_by_the_same_code() {
    let dir = TempDir::new().unwrap();
    let codec = [&["-c:a", "libopus", "-b:a", "64k"][..], &FRAGMENTS].concat();
    let file = sine(dir.path(), 48_000, "5", &codec);
    let spec = AudioSpec {
        grid_timebase: rate("1/25"),
        media_segment_frames: 50,
        language: Some("no such".to_owned()),
    };
    let (init, segments) = audio(&file, &spec);
    assert_eq!((init.codecs.as_str(), segments.len()), ("opus", 3));
    assert_eq!(segments.iter().map(|s| s.duration_ticks).sum::<u64>(), 5 * 48_000);
    let joined = join(dir.path(), &init, &segments);
    assert_eq!(packets(&joined).len(), packets(&file).len());
    assert!(pcm(&joined).len().abs_diff(5 * 48_000 * 4) <= 960 * 4);
}

#[test]
fn a_title_plays_from_its_playlists() {
    let dir = TempDir::new().unwrap();
    let (bytes, spec) = fifty_frames(dir.path());
    let pictures = Packager::video(&bytes[..], &spec).unwrap();
    let pictures_init = pictures.init().clone();
    let pictures: Vec<_> = pictures.map(Result::unwrap).collect();
    let codec = [&["-c:a", "aac"][..], &FRAGMENTS].concat();
    let sound = AudioSpec { grid_timebase: rate("1/25"), media_segment_frames: 25, language: None };
    let (sound_init, sound) = audio(&sine(dir.path(), 48_000, "2", &codec), &sound);

    let mut tracks = Vec::new();
    for (name, init, segments) in [("pictures", &pictures_init, &pictures), ("sound", &sound_init, &sound)] {
        let joined = join(dir.path(), init, segments);
        assert_eq!(start_time(&progressive(dir.path(), &joined)), "0.000000");
        std::fs::write(dir.path().join(format!("{name}-init.mp4")), &init.bytes).unwrap();
        let mut entries = Vec::new();
        for segment in segments {
            let (uri, bytes) = (format!("{name}-{}.m4s", segment.number), segment.bytes.len() as u64);
            std::fs::write(dir.path().join(&uri), &segment.bytes).unwrap();
            entries.push(crate::package::playlists::MediaEntry {
                uri,
                duration_ticks: segment.duration_ticks,
                bytes,
            });
        }
        let track = crate::package::playlists::RenditionTrack {
            name: name.to_owned(),
            uri: format!("{name}.m3u8"),
            codecs: init.codecs.clone(),
            timescale: init.timescale,
            init_uri: format!("{name}-init.mp4"),
            entries,
            declared_bps: None,
        };
        std::fs::write(
            dir.path().join(&track.uri),
            crate::package::playlists::media_playlist(&track, crate::package::playlists::PlaylistKind::Vod)
                .unwrap(),
        )
        .unwrap();
        tracks.push(track);
    }
    let [pictures, sound] = tracks.try_into().unwrap();
    let video = crate::package::playlists::VideoEntry {
        track: pictures,
        width: 160,
        height: 90,
        frame_rate: rate("25"),
    };
    let (group, channels, default) = ("stereo".to_owned(), 2, true);
    let audio = crate::package::playlists::AudioEntry {
        track: sound,
        group,
        language: None,
        channels,
        role: None,
        default,
    };
    let master = dir.path().join("master.m3u8");
    std::fs::write(&master, crate::package::playlists::multivariant_playlist(&[video], &[audio]).unwrap())
        .unwrap();

    let entries = "stream=codec_type,start_time,nb_read_packets";
    let seen = text(
        "ffprobe",
        &["-count_packets", "-show_entries", entries, "-of", "csv=p=0", master.to_str().unwrap()],
    );
    // The stream lines come once per programme and once more; the sound's 95 frames begin with one of
    // priming.
    let seen: std::collections::BTreeSet<&str> = seen.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["audio,-0.021333,95", "video,0.000000,50"]);
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let spec = VideoSpec { rate: rate("25"), first_frame: 0, frames: 5, media_segment_frames: 5, reorder_frames: 2 };
        prop_assert!(package(&bytes, &spec).is_err());
    }
}

#[test]
fn damaged_output_never_panics() {
    let dir = TempDir::new().unwrap();
    let (bytes, spec) = fifty_frames(dir.path());
    let sound_path = sine(dir.path(), 48_000, "1", &[&["-c:a", "aac"][..], &FRAGMENTS].concat());
    let sound = std::fs::read(sound_path).unwrap();
    let sound_spec = AudioSpec { grid_timebase: rate("1/25"), media_segment_frames: 25, language: None };
    // Headers only: the coded pictures are copied, not parsed.
    let interesting = |bytes: &[u8]| {
        let header = (0..1_000).chain(bytes.len() - 150..bytes.len());
        let fragments: Vec<usize> =
            (0..bytes.len() - 4).filter(|at| &bytes[*at..*at + 4] == b"moof").collect();
        header.chain(fragments.into_iter().flat_map(|at| at - 4..at + 150)).collect::<Vec<_>>()
    };
    for at in interesting(&bytes) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            let _ = package(&damaged, &spec);
        }
    }
    for at in interesting(&sound) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = sound.clone();
            damaged[at] = value;
            if let Ok(packager) = Packager::audio(&damaged[..], &sound_spec) {
                let _ = packager.collect::<Result<Vec<_>, _>>();
            }
        }
    }
}
