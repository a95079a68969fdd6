//! Sources for tests, made by FFmpeg: small, each with one peculiarity.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

use spool_storage::ReadAt;

/// A source in memory that counts its reads.
pub(crate) struct Memory {
    bytes: Bytes,
    pub(crate) reads: AtomicUsize,
    pub(crate) bytes_read: AtomicUsize,
}

impl Memory {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), reads: AtomicUsize::new(0), bytes_read: AtomicUsize::new(0) }
    }

    pub(crate) fn open(path: &Path) -> Self {
        Self::new(std::fs::read(path).unwrap())
    }
}

impl ReadAt for Memory {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read_at(&self, range: Range<u64>) -> Result<Bytes, spool_storage::Error> {
        assert!(
            range.start < range.end && range.end <= self.len(),
            "read of {range:?} from {} bytes",
            self.len()
        );
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add((range.end - range.start) as usize, Ordering::Relaxed);
        Ok(self.bytes.slice(range.start as usize..range.end as usize))
    }
}

/// Runs a tool, and returns its standard output.
#[expect(clippy::disallowed_methods, reason = "tests make their own clips")]
pub(crate) fn run(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?} said {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a clip: FFmpeg arguments in one text, spaces between them, `{dir}` for the folder.
pub(crate) fn make(dir: &Path, name: &str, arguments: &str) -> PathBuf {
    let path = dir.join(name);
    let arguments = arguments.replace("{dir}", dir.to_str().unwrap());
    let mut all = vec!["-v", "error", "-nostdin", "-y"];
    all.extend(arguments.split_whitespace());
    all.push(path.to_str().unwrap());
    run("ffmpeg", &all);
    path
}

const PICTURE: &str = "-f lavfi -i testsrc2=s=160x90:d=4:r=25";
const NTSC: &str = "-f lavfi -i testsrc2=s=160x90:d=4:r=30000/1001";
const SOUND: &str = "-f lavfi -i sine=f=440:d=4:r=44100";
const X264: &str = "-c:v libx264 -preset ultrafast -threads 1 -bf 3 -g 25 -b_strategy 0";
const OPEN_GOP: &str = "-c:v libx264 -preset ultrafast -threads 1 -x264-params open-gop=1:keyint=25:min-keyint=25:bframes=3:b-adapt=0:scenecut=0";

/// Makes one source of each kind that windows must handle.
pub(crate) fn all(dir: &Path) -> Vec<PathBuf> {
    let mut clips = vec![
        make(dir, "faststart.mp4", &format!("{PICTURE} {SOUND} {X264} -c:a aac -movflags +faststart")),
        make(dir, "open.mp4", &format!("{PICTURE} {SOUND} {OPEN_GOP} -c:a aac -shortest")),
        make(dir, "late-sound.mp4", &format!("{PICTURE} -itsoffset 0.7 {SOUND} {X264} -c:a aac")),
        make(
            dir,
            "late-picture.mp4",
            &format!("-itsoffset 0.52 {PICTURE} {SOUND} {OPEN_GOP} -c:a aac -vsync vfr"),
        ),
        make(dir, "ntsc30000.mp4", &format!("{NTSC} {X264} -video_track_timescale 30000")),
        make(dir, "ntsc90000.mov", &format!("{NTSC} {OPEN_GOP} -video_track_timescale 90000")),
        make(
            dir,
            "vfr.mp4",
            &format!("{PICTURE} {X264} -vf select=not(mod(n\\,7))+gt(mod(n\\,11)\\,4) -vsync vfr"),
        ),
        make(dir, "no-edits.mp4", &format!("{PICTURE} {SOUND} {OPEN_GOP} -c:a aac -use_editlist 0")),
        make(
            dir,
            "negative.mp4",
            &format!("{PICTURE} {SOUND} {OPEN_GOP} -c:a aac -movflags +negative_cts_offsets"),
        ),
        make(dir, "pcm.mov", &format!("{PICTURE} {SOUND} {X264} -c:a pcm_s16le")),
        make(dir, "pcm24.mov", &format!("{PICTURE} -itsoffset 0.3 {SOUND} -c:v mjpeg -c:a pcm_s24be -ac 2")),
        make(
            dir,
            "hevc.mp4",
            "-f lavfi -i testsrc2=s=160x90:d=2:r=25 -c:v libx265 -preset ultrafast -x265-params log-level=none:pools=1:open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0 -tag:v hvc1",
        ),
        make(
            dir,
            "long-gop.mp4",
            "-f lavfi -i testsrc2=s=160x90:d=21:r=10 -c:v libx264 -preset ultrafast -threads 1 -g 100 -keyint_min 100 -sc_threshold 0",
        ),
        make(
            dir,
            "tracks.mp4",
            &format!("{PICTURE} {SOUND} {SOUND} -map 1:a -map 0:v -map 2:a {X264} -c:a:0 aac -c:a:1 mp3"),
        ),
        make(dir, "opus.mp4", &format!("{SOUND} -c:a libopus -strict -2")),
        make(
            dir,
            "interlaced.mov",
            &format!("{PICTURE} {X264} -s 160x96 -flags +ilme+ildct -x264-params tff=1"),
        ),
        make(
            dir,
            "empty-sound.mp4",
            &format!("{PICTURE} {SOUND} {X264} -c:a aac -af atrim=start=1.5,asetpts=PTS"),
        ),
    ];
    clips.push(before_zero(dir));
    clips.push(two_descriptions(dir));
    clips.push(make(dir, "rotated.mp4", "-i {dir}/open.mp4 -c copy -metadata:s:v:0 rotate=90"));
    clips.push(make(dir, "trimmed.mp4", "-ss 1.31 -i {dir}/open.mp4 -c copy"));
    clips.push(make(dir, "trimmed-closed.mov", "-ss 1.31 -i {dir}/faststart.mp4 -t 1.7 -c copy"));
    clips.push(make(dir, "trimmed-pcm.mov", "-ss 1.317 -i {dir}/pcm.mov -c copy"));
    clips.push(make(dir, "trimmed-twice.mp4", "-ss 0.5 -i {dir}/trimmed.mp4 -c copy"));
    clips
}

/// Makes a clip whose composition offsets show the first pictures before time zero, as no edit list can.
fn before_zero(dir: &Path) -> PathBuf {
    let mut bytes = std::fs::read(dir.join("no-edits.mp4")).unwrap();
    let at = bytes.windows(4).position(|kind| kind == b"ctts").unwrap() + 4;
    let count = u32::from_be_bytes(*bytes[at + 4..].first_chunk().unwrap()) as usize;
    bytes[at] = 1;
    for entry in bytes[at + 8..].chunks_exact_mut(8).take(count) {
        let offset = i32::from_be_bytes(*entry[4..].first_chunk().unwrap());
        entry[4..].copy_from_slice(&(offset - 10_000).to_be_bytes());
    }
    let path = dir.join("before-zero.mp4");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Makes a video track with two (equal) sample descriptions, as editors write them when they join takes.
fn two_descriptions(dir: &Path) -> PathBuf {
    let bytes = std::fs::read(dir.join("open.mp4")).unwrap();
    let at = bytes.windows(4).position(|kind| kind == b"moov").unwrap() - 4;
    let path = dir.join("two-descriptions.mp4");
    let mut first_track = true;
    std::fs::write(&path, [&bytes[..at], &doubled(&bytes[at..], &mut first_track)].concat()).unwrap();
    path
}

fn doubled(boxes: &[u8], first_track: &mut bool) -> Vec<u8> {
    let rewrite = |(kind, body): ([u8; 4], &[u8])| {
        let body = match &kind {
            b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" => doubled(body, first_track),
            b"stsd" if *first_track => [&body[..4], &[0, 0, 0, 2], &body[8..], &body[8..]].concat(),
            b"stsc" if *first_track => described_in_turn(body),
            _ => body.to_vec(),
        };
        *first_track &= &kind != b"trak";
        [&(body.len() as u32 + 8).to_be_bytes()[..], &kind, &body].concat()
    };
    super::boxes::children(boxes).map(rewrite).collect::<Vec<_>>().concat()
}

/// Returns an `stsc` with a run for at least every ten chunks, with alternating descriptions. (The clip has
/// about 90 chunks.)
fn described_in_turn(stsc: &[u8]) -> Vec<u8> {
    let words: Vec<u32> = stsc[8..].as_chunks().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
    let samples = |chunk: u32| words.chunks(3).rfind(|run| run[0] <= chunk).unwrap()[1];
    let starts = (1..60).filter(|chunk| chunk % 10 == 1 || words.chunks(3).any(|run| run[0] == *chunk));
    let runs: Vec<_> = starts.flat_map(|chunk| [chunk, samples(chunk), 1 + chunk / 10 % 2]).collect();
    let last = (runs.len() / 3) as u32;
    [&[0; 4][..], &last.to_be_bytes(), &runs.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>()]
        .concat()
}
