//! Tests of the checks: they pass a ladder by one run of FFmpeg, and fail one that is off by one frame.

use std::{fs, path::PathBuf, process::Command};

use super::*;
use crate::clips::Clip;

/// Frames of a media segment.
const MEDIA_SEGMENT: u64 = 100;
/// Frames of a part.
const PART: u64 = 200;

/// A rendition in media segments, as FFmpeg wrote it in one run, to be published whole or tampered with.
#[derive(Clone)]
struct Segments {
    init: Vec<u8>,
    /// Media segments, each with its duration in seconds.
    media_segments: Vec<(Vec<u8>, f64)>,
}

/// A clip, and its renditions by one run of FFmpeg each.
struct Bench {
    folder: tempfile::TempDir,
    clip: Clip,
    source: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clip = Clip { frames: 330, ..Clip::default() };
        let source = clip.make(folder.path(), "clip");
        Self { folder, clip, source }
    }

    /// Encodes the pictures behind a filter; each media segment is a fragment.
    fn video(&self, filter: &str) -> Segments {
        let x264 =
            format!("keyint={MEDIA_SEGMENT}:min-keyint={MEDIA_SEGMENT}:scenecut=0:bframes=3:open-gop=0");
        let args = [
            "-map",
            "0:v",
            "-vf",
            filter,
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-crf",
            "20",
            "-x264-params",
            &x264,
        ];
        let (init, fragments) = self.fragments(&args, "+frag_keyframe");
        let frames =
            (0..fragments.len() as u64).map(|number| MEDIA_SEGMENT.min(330 - number * MEDIA_SEGMENT));
        let media_segments = fragments.into_iter().zip(frames.map(|frames| frames as f64 / 25.0)).collect();
        Segments { init, media_segments }
    }

    /// Encodes the sound behind a filter; fragments of one frame each are joined to media segments.
    fn sound(&self, filter: &str) -> Segments {
        let args = ["-map", "0:a", "-af", filter, "-c:a", "aac", "-aac_coder", "fast", "-b:a", "128k"];
        let (init, fragments) = self.fragments(&args, "+frag_every_frame");
        let mut media_segments: Vec<(Vec<u8>, f64)> = Vec::new();
        for (number, fragment) in (0_u64..).zip(fragments) {
            // The first frame is the encoder's delay; a media segment starts with the first frame that is
            // presented at its time or later.
            let heard = number.saturating_sub(1) * 1024;
            if number == 0 || heard >= media_segments.len() as u64 * 192_000 {
                media_segments.push((Vec::new(), 0.0));
            }
            let (bytes, seconds) = media_segments.last_mut().unwrap();
            bytes.extend(fragment);
            *seconds += if number == 0 { 0.0 } else { 1024.0 / 48_000.0 };
        }
        Segments { init, media_segments }
    }

    fn fragments(&self, args: &[&str], movflags: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
        let file = self.folder.path().join("segments.mp4");
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-nostdin", "-v", "error", "-y", "-i"]).arg(&self.source).args(args);
        ffmpeg.args(["-movflags", &format!("{movflags}+empty_moov+default_base_moof+delay_moov")]).arg(&file);
        assert!(ffmpeg.status().unwrap().success());
        let bytes = fs::read(&file).unwrap();
        let (mut init, mut fragments) = (Vec::new(), Vec::new());
        let mut rest = bytes.as_slice();
        while let Some(size) = rest.first_chunk::<4>() {
            let (head, tail) = rest.split_at(u32::from_be_bytes(*size) as usize);
            match &head[4..8] {
                b"ftyp" | b"moov" => init.extend(head),
                b"moof" => fragments.push(head.to_vec()),
                b"mdat" => fragments.last_mut().unwrap().extend(head),
                _ => {}
            }
            rest = tail;
        }
        (init, fragments)
    }

    fn ladder(&self) -> Published {
        let renditions = [
            ("180p", self.video("null")),
            ("90p", self.video("scale=160:90:flags=bicubic")),
            ("audio-0", self.sound("anull")),
        ];
        Published { renditions: renditions.to_vec() }
    }

    /// Returns the checks that fail on a ladder.
    fn failing(&self, ladder: &Published) -> Vec<Check> {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        ladder.write(folder.path());
        let flaws = all(folder.path(), &self.clip, &self.source);
        for flaw in &flaws {
            println!("{flaw}");
        }
        flaws.iter().map(|flaw| flaw.check).collect()
    }
}

/// A ladder to write.
#[derive(Clone)]
struct Published {
    renditions: Vec<(&'static str, Segments)>,
}

impl Published {
    fn segments(&mut self, name: &str) -> &mut Segments {
        &mut self.renditions.iter_mut().find(|(found, _)| *found == name).unwrap().1
    }

    fn write(&self, folder: &Path) {
        fs::create_dir(folder.join("parts")).unwrap();
        let mut master = String::from(
            "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"Sound\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",URI=\"audio-0/x.m3u8\"\n",
        );
        for (name, segments) in &self.renditions {
            fs::create_dir(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("init.mp4"), &segments.init).unwrap();
            let longest =
                segments.media_segments.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max).round();
            let mut text = format!(
                "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{longest}\n#EXT-X-MAP:URI=\"init.mp4\"\n"
            );
            for (number, (bytes, seconds)) in segments.media_segments.iter().enumerate() {
                fs::write(folder.join(name).join(format!("{number}.m4s")), bytes).unwrap();
                text.push_str(&format!("#EXTINF:{seconds:.6},\n{number}.m4s\n"));
            }
            text.push_str("#EXT-X-ENDLIST\n");
            fs::write(folder.join(name).join("x.m3u8"), text).unwrap();
            let (width, height) = match *name {
                "180p" => (320, 180),
                "90p" => (160, 90),
                _ => continue,
            };
            master.push_str(&format!(
                "#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION={width}x{height},FRAME-RATE=25.000,AUDIO=\"a\"\n{name}/x.m3u8\n"
            ));
            for first in [0, PART] {
                let frames = PART.min(330 - first);
                let record = serde_json::json!({"segment": {"first_frame": first, "frames": frames}, "rendition": {"name": name}});
                fs::write(folder.join(format!("parts/{name}-{first}.json")), record.to_string()).unwrap();
            }
        }
        fs::write(folder.join("master.m3u8"), master).unwrap();
    }
}

#[test]
fn one_run_of_ffmpeg_is_exact_and_a_shift_by_one_frame_is_not() {
    let bench = Bench::new();
    let exact = bench.ladder();
    assert_eq!(bench.failing(&exact), []);

    // The second part of the lower rung begins one frame late: as many frames, at the same times.
    let late = bench.video(
        "scale=160:90:flags=bicubic,trim=start_frame=1,setpts=PTS-STARTPTS,tpad=stop=1:stop_mode=clone",
    );
    let mut ladder = exact.clone();
    ladder.segments("90p").media_segments.splice(2.., late.media_segments[2..].iter().cloned());
    assert_eq!(bench.failing(&ladder), [Check::Pictures, Check::Joins]);

    // Two frames beside the join are a little soft: the right ones, but a seam.
    let soft = bench.video("gblur=sigma=1.2:enable='between(n,200,201)'");
    let mut ladder = exact.clone();
    ladder.segments("180p").media_segments[2] = soft.media_segments[2].clone();
    assert_eq!(bench.failing(&ladder), [Check::Joins]);

    // A frame is held, and the one after it lost.
    let held = bench.video("select='not(eq(n,250))',tpad=stop=1:stop_mode=clone,setpts=N/25/TB");
    let mut ladder = exact.clone();
    ladder.segments("180p").media_segments[2] = held.media_segments[2].clone();
    assert_eq!(bench.failing(&ladder), [Check::Pictures, Check::Joins]);
}

#[test]
fn frames_that_are_missing_twice_or_out_of_order_are_found() {
    let bench = Bench::new();
    let exact = bench.ladder();

    let mut ladder = exact.clone();
    ladder.segments("90p").media_segments.pop();
    let failing = bench.failing(&ladder);
    assert!(
        [Check::Frames, Check::Pictures, Check::Joins, Check::Playlists]
            .iter()
            .all(|check| failing.contains(check)),
        "{failing:?}"
    );

    let mut ladder = exact.clone();
    ladder.segments("180p").media_segments.swap(1, 2);
    let failing = bench.failing(&ladder);
    assert!([Check::Times, Check::Playlists].iter().all(|check| failing.contains(check)), "{failing:?}");

    let mut ladder = exact;
    ladder.segments("180p").media_segments[0].1 += 0.001;
    assert_eq!(bench.failing(&ladder), [Check::Playlists]);
}

#[test]
fn sound_that_is_late_or_torn_is_found() {
    let bench = Bench::new();
    let exact = bench.ladder();
    // By a frame, by three samples; all of it, or from one media segment on.
    for shift in [1024, 3] {
        let late = bench.sound(&format!("adelay={shift}S:all=1,atrim=end_sample=633600"));
        let mut ladder = exact.clone();
        *ladder.segments("audio-0") = late.clone();
        assert_eq!(bench.failing(&ladder), [Check::Sound]);

        let mut ladder = exact.clone();
        ladder.segments("audio-0").media_segments[2] = late.media_segments[2].clone();
        assert_eq!(bench.failing(&ladder), [Check::Sound]);
    }
    // Two milliseconds of silence at a boundary.
    let torn = bench.sound("asetnsamples=96,volume=0:enable='between(t,8.000,8.002)'");
    let mut ladder = exact.clone();
    *ladder.segments("audio-0") = torn;
    assert_eq!(bench.failing(&ladder), [Check::Sound]);
    // Left and right are swapped.
    let mut ladder = exact;
    *ladder.segments("audio-0") = bench.sound("pan=stereo|c0=c1|c1=c0");
    assert_eq!(bench.failing(&ladder), [Check::Sound]);
}
