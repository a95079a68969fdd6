//! Argument lists, checked by real FFmpeg runs on small clips, frame by frame and sample by sample.

mod codecs;
mod sound;
mod words;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    ffmpeg::Tools,
    limits::PIXELS_MAX,
    plan::{
        grid::Grid,
        ladder::{AudioCodec, AudioRendition, VideoCodec, VideoRendition},
    },
    source::{
        index::scan,
        probe::{Color, VideoTrack},
    },
    time::Rational,
};

#[expect(clippy::disallowed_methods, reason = "tests make their own clips")]
fn run(program: &str, args: impl IntoIterator<Item = impl Into<OsString>>) -> Vec<u8> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let output = Command::new(program).args(&args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn words_of(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// Makes a clip by FFmpeg arguments; `OUT` is its path.
fn clip(folder: &Path, name: &str, line: &str) -> PathBuf {
    let path = folder.join(name);
    let mut args = words_of("-nostdin -v error -y");
    args.extend(words_of(line));
    args.push(path.clone().into());
    run("ffmpeg", args);
    path
}

fn lines(bytes: Vec<u8>) -> Vec<String> {
    String::from_utf8(bytes)
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// `(pts, dts, key)` of every packet of stream `stream`, in file order.
fn packets(path: &Path, stream: u32) -> Vec<(i64, i64, bool)> {
    let mut args =
        words_of("-v error -of compact=p=0:nk=1 -show_entries packet=pts,dts,flags -select_streams");
    args.extend([stream.to_string().into(), path.into()]);
    let number = |text: &str| text.parse().ok();
    lines(run("ffprobe", args))
        .iter()
        .map(|line| {
            let fields: Vec<&str> = line.split('|').collect();
            let dts = number(fields[1]);
            let pts = number(fields[0]).or(dts).unwrap();
            (pts, dts.unwrap_or(pts), fields[2].starts_with('K'))
        })
        .collect()
}

/// Checksums of the decoded frames of stream 0, without any filter.
fn decoded(path: &Path) -> Vec<String> {
    let mut args = words_of("-nostdin -v error -i");
    args.push(path.into());
    args.extend(words_of("-map 0:v:0 -fps_mode passthrough -f framemd5 -"));
    lines(run("ffmpeg", args)).iter().map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

fn rational(num: u32, den: u32) -> Rational {
    Rational::new(num, den).unwrap()
}

fn track(width: u32, height: u32) -> VideoTrack {
    VideoTrack {
        stream: 0,
        codec: "h264".to_owned(),
        width,
        height,
        sample_aspect: rational(1, 1),
        rotation: 0,
        mirrored: false,
        declared_fps: None,
        pixel_format: "yuv420p".to_owned(),
        bit_depth: 8,
        color: Color::default(),
        interlaced: false,
    }
}

fn rendition(name: &str, width: u32, height: u32) -> VideoRendition {
    VideoRendition {
        name: name.to_owned(),
        codec: VideoCodec::H264,
        width,
        height,
        crf: 23,
        max_bitrate_bps: 400_000,
        buffer_bits: 800_000,
        level: Some(30),
        preset: "veryfast".to_owned(),
    }
}

/// A source with its index and grid.
struct Source {
    path: PathBuf,
    demuxer: &'static str,
    packets: Vec<(i64, i64, bool)>,
    grid: Grid,
    track: VideoTrack,
}

impl Source {
    fn new(path: PathBuf, demuxer: &'static str, timebase: Rational, rate: Rational, frames: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (tools, cancel) = (Tools::from_env().unwrap(), CancellationToken::new());
        let index =
            runtime.block_on(scan::scan(&tools, &path, demuxer, &scan::Limits::default(), &cancel)).unwrap();
        assert_eq!(index.tracks[0].timebase, timebase);
        let packets: Vec<_> =
            index.tracks[0].samples.iter().map(|sample| (sample.pts, sample.dts, sample.key)).collect();
        let origin = packets.iter().map(|packet| packet.0).min().unwrap();
        let grid = Grid { rate, source_timebase: timebase, origin, frames };
        Self { path, demuxer, packets, grid, track: track(160, 90) }
    }

    fn grid_frame(&self, pts: i64) -> i64 {
        self.grid.source_timebase.rescale(pts - self.grid.origin, self.grid.rate.inverse())
    }

    /// Decoding time of the last keyframe that is shown at or before a grid frame.
    fn key_before(&self, frame: u64) -> i64 {
        let frame = i64::try_from(frame).unwrap();
        let before = self.packets.iter().filter(|(pts, _, key)| *key && self.grid_frame(*pts) <= frame);
        before.max_by_key(|packet| packet.0).unwrap().1
    }

    fn job<'a>(
        &'a self,
        first_frame: u64,
        frames: u64,
        outputs: &'a [(VideoRendition, PathBuf)],
    ) -> VideoEncode<'a> {
        VideoEncode {
            input: &self.path,
            demuxer: self.demuxer,
            stream: 0,
            seek: Some(self.key_before(first_frame)),
            grid: &self.grid,
            first_frame,
            frames,
            media_segment_frames: 20,
            source: &self.track,
            fields: false,
            outputs,
            max_pixels: PIXELS_MAX,
            threads: 1,
        }
    }

    /// Checksums of the encoder's input frames for one segment: the job's own input and graph, another
    /// output.
    fn fed(&self, first_frame: u64, frames: u64) -> Vec<String> {
        let outputs = [(rendition("r", self.track.width, self.track.height), PathBuf::from("unused"))];
        let mut args = encode_video(&self.job(first_frame, frames, &outputs));
        let end = args.iter().position(|arg| arg == "-map").unwrap();
        args.truncate(end);
        args.retain(|arg| arg != "-progress" && arg != "pipe:1");
        args.extend(words_of("-map [v0] -fps_mode passthrough -frames:v"));
        args.extend([frames.to_string().into(), "-f".into(), "framemd5".into(), "-".into()]);
        let rows = lines(run("ffmpeg", args));
        // Frame i of a segment is at time i.
        let times: Vec<u64> =
            rows.iter().map(|row| row.split(',').nth(2).unwrap().trim().parse().unwrap()).collect();
        assert_eq!(times, (0..u64::try_from(rows.len()).unwrap()).collect::<Vec<_>>());
        rows.iter().map(|row| row.rsplit(',').next().unwrap().trim().to_owned()).collect()
    }

    /// The source frame of each grid frame, by the rule alone: the last one whose time rounds to it or before
    /// it.
    fn expected(&self) -> Vec<String> {
        let mut shown: Vec<i64> = self.packets.iter().map(|packet| self.grid_frame(packet.0)).collect();
        shown.sort_unstable();
        let pictures = decoded(&self.path);
        assert_eq!(shown.len(), pictures.len());
        (0..i64::try_from(self.grid.frames).unwrap())
            .map(|frame| pictures[shown.iter().rposition(|first| *first <= frame).unwrap()].clone())
            .collect()
    }

    /// Cuts at multiples of 20 frames, which fall between keyframes, and compares all segments with the rule.
    fn assert_pieces_are_exact(&self, step: u64) {
        let mut pieces = Vec::new();
        let mut first = 0;
        while first < self.grid.frames {
            let frames = step.min(self.grid.frames - first);
            let piece = self.fed(first, frames);
            assert_eq!(u64::try_from(piece.len()).unwrap(), frames, "piece at {first}");
            pieces.extend(piece);
            first += frames;
        }
        let expected = self.expected();
        let wrong: Vec<usize> = (0..expected.len()).filter(|n| expected[*n] != pieces[*n]).collect();
        assert!(wrong.is_empty(), "frames {wrong:?} of {} are others", expected.len());
    }
}

/// A moving picture, open GOPs of up to 33 frames with B-frames, 25 frames a second, sound that begins
/// earlier.
const PICTURES: &str = "-f lavfi -i sine=f=440:d=9 -itsoffset 0.1 -f lavfi -i testsrc2=s=160x90:r=25:d=9 -map 1:v -map 0:a -c:a aac \
    -c:v libx264 -preset ultrafast -bf 3 -x264-params open-gop=1:keyint=33:b-pyramid=normal";

#[test]
fn pieces_of_whole_files_are_fed_the_frames_of_one_decode() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("a.ts", "mpegts", rational(1, 90_000)),
        ("a.mkv", "matroska", rational(1, 1000)),
        ("a.mp4", "mov", rational(1, 12_800)),
        ("a.flv", "flv", rational(1, 1000)),
        ("a.avi", "avi", rational(1, 25)),
        ("a.mpg", "mpeg", rational(1, 90_000)),
    ];
    for (name, demuxer, timebase) in cases {
        let pictures = if matches!(demuxer, "avi" | "mpeg") {
            PICTURES
                .replace(
                    "libx264 -preset ultrafast -bf 3 -x264-params open-gop=1:keyint=33:b-pyramid=normal",
                    "mpeg2video -bf 2 -g 33",
                )
                .replace("aac", "mp2")
        } else {
            PICTURES.to_owned()
        };
        let path = clip(folder.path(), name, &pictures);
        let mut source = Source::new(path, demuxer, timebase, rational(25, 1), 0);
        source.grid.frames = u64::try_from(source.packets.len()).unwrap();
        assert!(source.grid.frames >= 225);
        source.assert_pieces_are_exact(60);
    }
}

#[test]
fn variable_rates_fall_on_the_grid_and_held_frames_cross_cuts() {
    let folder = tempfile::tempdir().unwrap();
    // Frames at uneven times, with a hole of 1.5 s over the cuts at 60 and 80.
    let line = "-f lavfi -i testsrc2=s=160x90:r=60:d=4 -vf select='not(mod(n*n,7))*not(between(t,1.7,3.2))' -fps_mode vfr \
        -c:v libx264 -preset ultrafast -bf 2 -g 9";
    for (name, demuxer, timebase) in
        [("v.mkv", "matroska", rational(1, 1000)), ("v.mp4", "mov", rational(1, 15_360))]
    {
        let path = clip(folder.path(), name, line);
        let source = Source::new(path, demuxer, timebase, rational(30_000, 1001), 120);
        assert!(source.packets.len() < 60);
        source.assert_pieces_are_exact(20);
    }
}

#[test]
fn rungs_alone_or_together_are_the_same_bytes_and_all_pieces_have_one_decoder_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = clip(
        folder.path(),
        "a.mp4",
        "-f lavfi -i testsrc2=s=320x180:r=30000/1001:d=4 -c:v libx264 -preset ultrafast",
    );
    let mut source = Source::new(path, "mov", rational(1, 30_000), rational(30_000, 1001), 120);
    source.track = track(320, 180);
    let rungs = [rendition("180p", 320, 180), rendition("90p", 160, 90)];
    let encode = |name: &str, first: u64, rungs: &[VideoRendition], threads| {
        let outputs: Vec<_> = rungs
            .iter()
            .map(|rung| (rung.clone(), folder.path().join(format!("{name}-{}.mp4", rung.name))))
            .collect();
        run("ffmpeg", encode_video(&VideoEncode { threads, ..source.job(first, 40, &outputs) }));
        outputs.iter().map(|(_, path)| fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    let together = encode("together", 40, &rungs, 2);
    // x264's rate control gave other bytes in half of all runs before its threads were pinned to slices.
    for _ in 0..4 {
        let again = encode("again", 40, &rungs, 2);
        assert!(together == again, "the same arguments gave other bytes");
    }
    for (number, rung) in rungs.iter().enumerate() {
        let alone = encode("alone", 40, std::slice::from_ref(rung), 2);
        assert!(together[number] == alone[0], "a rung alone is another one");
    }

    let first = encode("first", 0, &rungs, 1);
    let last = encode("last", 80, &rungs, 1);
    for rung in 0..2 {
        let configurations = [&first[rung], &together[rung], &last[rung]].map(|file| avcc(file));
        assert!(configurations[0] == configurations[1] && configurations[1] == configurations[2]);
    }
    assert_ne!(avcc(&first[0]), avcc(&first[1]));
    // x264's own report: the pinned options reached it.
    let text = String::from_utf8_lossy(&together[0]).into_owned();
    for option in [
        "bframes=3",
        "b_pyramid=2",
        "open_gop=0",
        "keyint=20",
        "vbv_maxrate=400",
        "threads=2",
        "stitchable=1",
    ] {
        assert!(
            text.contains(option),
            "{option} in {:?}",
            text.split("options:").nth(1).map(|rest| &rest[..800])
        );
    }
}

fn avcc(file: &[u8]) -> Vec<u8> {
    box_body(file, b"avcC")
}

fn box_body(file: &[u8], name: &[u8; 4]) -> Vec<u8> {
    let at = file.windows(4).position(|window| window == name).unwrap();
    let size = usize::try_from(u32::from_be_bytes(file[at - 4..at].try_into().unwrap())).unwrap();
    file[at + 4..at - 4 + size].to_vec()
}

#[test]
fn every_media_segment_begins_with_a_key_frame_and_the_reordering_is_two_frames() {
    let folder = tempfile::tempdir().unwrap();
    // Two scenes: a cut at frame 30, inside the second media segment.
    let line = "-f lavfi -i testsrc2=s=160x90:r=25:d=1.2 -f lavfi -i mandelbrot=s=160x90:r=25 -filter_complex [0][1]concat -t 4 -c:v libx264 \
        -preset ultrafast -pix_fmt yuv420p";
    let path = clip(folder.path(), "a.mp4", line);
    let source = Source::new(path, "mov", rational(1, 12_800), rational(25, 1), 100);
    let outputs = [(rendition("90p", 160, 90), folder.path().join("out.mp4"))];
    run("ffmpeg", encode_video(&source.job(0, 100, &outputs)));
    let packets = packets(&outputs[0].1, 0);
    let keys: Vec<i64> =
        packets.iter().filter(|packet| packet.2).map(|packet| packet.0 - packets[0].0).collect();
    assert_eq!(keys, [0, 20, 30, 40, 60, 80]);
    // One tick per frame, displayed in every order that two frames of delay allow.
    assert!(packets.windows(2).all(|pair| pair[1].1 - pair[0].1 == 1), "{packets:?}");
    let delay = i64::from(reorder_frames(VideoCodec::H264));
    assert_eq!(packets[0].0 - packets[0].1, delay);
    assert!(packets.iter().all(|(pts, dts, _)| pts >= dts));
    let mut shown: Vec<i64> = packets.iter().map(|packet| packet.0).collect();
    shown.sort_unstable();
    assert!(shown.iter().enumerate().all(|(n, pts)| *pts == packets[0].0 + i64::try_from(n).unwrap()));
}

#[test]
fn pictures_are_turned_as_players_turn_them() {
    let folder = tempfile::tempdir().unwrap();
    let flat = clip(
        folder.path(),
        "flat.mp4",
        "-f lavfi -i testsrc2=s=160x90:r=25:d=0.4 -c:v libx264 -preset ultrafast",
    );
    for (tag, rotation, (width, height)) in
        [("90", 270, (90, 160)), ("180", 180, (160, 90)), ("270", 90, (90, 160))]
    {
        let line = format!("-i {} -c copy -metadata:s:v rotate={tag}", flat.display());
        let mut source = Source::new(
            clip(folder.path(), "turned.mp4", &line),
            "mov",
            rational(1, 12_800),
            rational(25, 1),
            10,
        );
        source.track = VideoTrack { rotation, ..track(width, height) };
        // `decoded` lets FFmpeg rotate by the file's own matrix.
        assert!(source.fed(0, 10) == decoded(&source.path), "rotate={tag}");
    }
}

/// Colours and size of an encoded file, and the mean of its luma.
fn looks(path: &Path) -> (String, f64) {
    let mut args = words_of(
        "-v error -of csv=p=0 -show_entries stream=width,height,pix_fmt,color_range,color_space,color_transfer,color_primaries",
    );
    args.push(path.into());
    let tags = lines(run("ffprobe", args)).remove(0);
    let mut args = words_of("-nostdin -v error -i");
    args.push(path.into());
    args.extend(words_of("-frames:v 1 -vf extractplanes=y -f rawvideo -"));
    let luma = run("ffmpeg", args);
    (tags, luma.iter().map(|byte| f64::from(*byte)).sum::<f64>() / luma.len() as f64)
}

#[test]
fn odd_colours_become_eight_bits_limited_and_tagged() {
    let folder = tempfile::tempdir().unwrap();
    let encode = |path: &Path, change: &dyn Fn(&mut VideoTrack)| {
        let mut source = Source::new(path.to_owned(), "matroska", rational(1, 1000), rational(25, 1), 5);
        change(&mut source.track);
        let outputs = [(rendition("90p", 160, 90), folder.path().join("out.mp4"))];
        run("ffmpeg", encode_video(&source.job(0, 5, &outputs)));
        looks(&outputs[0].1)
    };
    let gray = "-f lavfi -i color=0x808080:s=160x90:r=25:d=0.2";
    let rgb = clip(folder.path(), "rgb.mkv", &format!("{gray} -vf format=gbrp -c:v ffv1"));
    let (tags, luma) = encode(&rgb, &|track| "gbrp".clone_into(&mut track.pixel_format));
    assert_eq!(tags, "160,90,yuv420p,tv,bt709,bt709,bt709");
    assert!((luma - 126.0).abs() < 2.0, "{luma}");

    // Full range: grey 128 of 0..255 is 126 of 16..235; read as limited range it would stay 128.
    let white = "-f lavfi -i color=white:s=160x90:r=25:d=0.2";
    let full = clip(
        folder.path(),
        "full.mkv",
        &format!("{white} -vf scale=out_range=pc,format=yuv422p10le -color_range pc -c:v ffv1"),
    );
    let (tags, luma) = encode(&full, &|track| {
        "yuv422p10le".clone_into(&mut track.pixel_format);
        track.color.range = Some("pc".to_owned());
    });
    // No tag means limited range.
    assert_eq!(tags, "160,90,yuv420p,unknown,unknown,unknown,unknown");
    assert!((luma - 235.0).abs() < 1.5, "{luma}");

    // Old tags stay: nothing was converted.
    let old = clip(folder.path(), "old.mkv", &format!("{white} -pix_fmt yuv420p -c:v ffv1"));
    let (tags, luma) = encode(&old, &|track| {
        track.color = Color {
            range: None,
            space: Some("smpte170m".to_owned()),
            primaries: Some("bt470bg".to_owned()),
            transfer: Some("bt470bg".to_owned()),
        };
    });
    assert_eq!(tags, "160,90,yuv420p,tv,smpte170m,bt470bg,bt470bg");
    assert!((luma - 235.0).abs() < 1.5, "{luma}");
}

#[test]
fn high_dynamic_range_is_mapped_not_washed_out() {
    let folder = tempfile::tempdir().unwrap();
    // Reference white of 100 nits in SMPTE ST 2084 is code 0.508 of 1: 509 of ten bits, limited.
    let line = "-f lavfi -i color=black:s=160x90:r=25:d=0.2,format=yuv420p10le,geq=lum=509:cb=512:cr=512 -c:v ffv1 \
        -color_range tv -color_trc smpte2084 -color_primaries bt2020 -colorspace bt2020nc";
    let mut source =
        Source::new(clip(folder.path(), "hdr.mkv", line), "matroska", rational(1, 1000), rational(25, 1), 5);
    "yuv420p10le".clone_into(&mut source.track.pixel_format);
    source.track.color.transfer = Some("smpte2084".to_owned());
    let outputs = [(rendition("90p", 160, 90), folder.path().join("out.mp4"))];
    run("ffmpeg", encode_video(&source.job(0, 5, &outputs)));
    let (tags, luma) = looks(&outputs[0].1);
    assert_eq!(tags, "160,90,yuv420p,tv,bt709,bt709,bt709");
    // Without tone mapping it would be 127; as the peak of SDR, 235 less the curve's reserve for highlights.
    assert!((150.0..230.0).contains(&luma), "{luma}");
}

#[test]
fn a_size_that_changes_midway_loses_no_frame() {
    let folder = tempfile::tempdir().unwrap();
    let small = clip(
        folder.path(),
        "1.ts",
        "-f lavfi -i testsrc2=s=160x90:r=25:d=1 -c:v libx264 -preset ultrafast -bf 0",
    );
    let large = clip(
        folder.path(),
        "2.ts",
        "-f lavfi -i testsrc2=s=320x180:r=25:d=1 -c:v libx264 -preset ultrafast -bf 0 -output_ts_offset 1",
    );
    let both = folder.path().join("both.ts");
    fs::write(&both, [fs::read(small).unwrap(), fs::read(large).unwrap()].concat()).unwrap();
    let source = Source::new(both, "mpegts", rational(1, 90_000), rational(25, 1), 50);
    assert_eq!(source.packets.len(), 50);
    assert_eq!(source.fed(0, 50).len(), 50);
}

#[test]
fn interlaced_pictures_are_deinterlaced_at_the_same_rate() {
    let folder = tempfile::tempdir().unwrap();
    let line = "-f lavfi -i testsrc2=s=160x96:r=50:d=1 -vf format=yuv420p,interlace -c:v libx264 -flags +ildct+ilme -preset ultrafast -bf 0";
    let mut source =
        Source::new(clip(folder.path(), "i.mkv", line), "matroska", rational(1, 1000), rational(25, 1), 25);
    source.track = track(160, 96);
    let woven = source.fed(0, 25);
    source.track.interlaced = true;
    let single = source.fed(0, 25);
    assert_eq!(single.len(), 25);
    assert!(woven.iter().zip(&single).all(|(woven, single)| woven != single));
}
