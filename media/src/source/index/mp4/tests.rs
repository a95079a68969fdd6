use std::{sync::atomic::Ordering, time::Instant};

use proptest::prelude::*;

use super::{
    clips::{self, Memory, run},
    *,
};
use crate::source::index::Sample;
use spool_storage::ErrorKind;

/// ffprobe's fields of a packet: times, size, position, key, discarded.
type Packet = (i64, i64, u32, u64, bool, bool);

fn ffprobe_packets(path: &std::path::Path, stream: usize) -> Vec<Packet> {
    let select = stream.to_string();
    let arguments = [
        "-v",
        "error",
        "-select_streams",
        &select,
        "-show_entries",
        "packet=pts,dts,size,pos,flags",
        "-of",
        "csv=p=0",
    ];
    let text = run("ffprobe", &[&arguments[..], &[path.to_str().unwrap()]].concat());
    let parse = |line: &str| {
        let fields: Vec<_> = line.split(',').collect();
        (
            fields[0].parse().unwrap(),
            fields[1].parse().unwrap(),
            fields[2].parse().unwrap(),
            fields[3].parse().unwrap(),
            fields[4].contains('K'),
            fields[4].contains('D'),
        )
    };
    text.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

fn packet(sample: &Sample, shown: &std::ops::Range<i64>, kind: TrackKind) -> Packet {
    let discarded = match kind {
        TrackKind::Audio => i64::from(sample.duration) + sample.pts <= shown.start || sample.pts >= shown.end,
        _ => !shown.contains(&sample.pts),
    };
    (sample.pts, sample.dts, sample.size, sample.offset, sample.key, discarded)
}

#[tokio::test]
async fn samples_are_ffprobes_packets() {
    let dir = tempfile::tempdir().unwrap();
    for path in clips::all(dir.path()) {
        let index = read(&Memory::open(&path)).await.unwrap_or_else(|error| panic!("{path:?}: {error}"));
        for (stream, track) in index.tracks.iter().enumerate() {
            let ours: Vec<_> =
                track.samples.iter().map(|sample| packet(sample, &index.shown(stream), track.kind)).collect();
            let theirs = ffprobe_packets(&path, stream);
            let differ = ours.iter().zip(&theirs).position(|(a, b)| a != b);
            assert_eq!(
                (ours.len(), differ.map(|at| (at, ours[at], theirs[at]))),
                (theirs.len(), None),
                "{path:?} stream {stream} {:?}; ffprobe starts with {:?}",
                track.kind,
                &theirs[..theirs.len().min(3)]
            );
        }
    }
}

/// A movie of one video track, written box by box so that each can be wrong.
#[derive(Clone)]
struct Synthetic {
    samples: u32,
    stts: Vec<(u32, u32)>,
    ctts: Vec<(u32, u32)>,
    stsc: Vec<[u32; 3]>,
    chunks: Vec<u64>,
    elst: Vec<(u32, u32, u32)>,
    format: &'static [u8; 4],
    extra: &'static [u8],
    data_flags: u32,
}

impl Synthetic {
    fn new(samples: u32) -> Self {
        let chunks = u64::from(samples.div_ceil(10));
        Self {
            samples,
            stts: vec![(samples, 512)],
            ctts: (0..samples).map(|sample| (1, [1024, 2560, 1024, 0, 512][sample as usize % 5])).collect(),
            stsc: if samples.is_multiple_of(10) {
                vec![[1, 10, 1]]
            } else {
                vec![[1, 10, 1], [chunks as u32, samples % 10, 1]]
            },
            chunks: (0..chunks).map(|chunk| chunk * 1200).collect(),
            elst: vec![(1000, 1024, 0x10000)],
            format: b"avc1",
            extra: b"",
            data_flags: 1,
        }
    }

    /// The body of `moov`; samples have 100 bytes each.
    fn moov(&self) -> Vec<u8> {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
        let list = |count: usize, entries: Vec<u32>| [words(&[0, count as u32]), words(&entries)].concat();
        let pairs = |pairs: &[(u32, u32)]| {
            list(pairs.len(), pairs.iter().flat_map(|pair| [pair.0, pair.1]).collect())
        };
        let sizes = [words(&[0, 0, self.samples]), words(&vec![100; self.samples as usize])].concat();
        let chunks = self.chunks.iter().flat_map(|chunk| [(chunk >> 32) as u32, *chunk as u32]).collect();
        let stbl = [
            atom(b"stsd", &[words(&[0, 1]), atom(self.format, &[0; 78])].concat()),
            atom(b"stts", &pairs(&self.stts)),
            atom(b"ctts", &pairs(&self.ctts)),
            atom(
                b"stss",
                &list(
                    self.samples.div_ceil(50) as usize,
                    (0..self.samples).step_by(50).map(|key| key + 1).collect(),
                ),
            ),
            atom(b"stsc", &list(self.stsc.len(), self.stsc.concat())),
            atom(b"stsz", &sizes),
            atom(b"co64", &list(self.chunks.len(), chunks)),
        ]
        .concat();
        let dinf = atom(
            b"dinf",
            &atom(b"dref", &[words(&[0, 1]), atom(b"url ", &words(&[self.data_flags]))].concat()),
        );
        let minf = atom(b"minf", &[atom(b"vmhd", &[0; 12]), dinf, atom(b"stbl", &stbl)].concat());
        let mdhd = atom(b"mdhd", &words(&[0, 0, 0, 12800, self.samples * 512, 0]));
        let hdlr = atom(b"hdlr", &[&words(&[0, 0])[..], b"vide", &[0; 13]].concat());
        let mdia = atom(b"mdia", &[mdhd, hdlr, minf].concat());
        let edits =
            list(self.elst.len(), self.elst.iter().flat_map(|edit| [edit.0, edit.1, edit.2]).collect());
        let trak =
            atom(b"trak", &[atom(b"tkhd", &[0; 84]), atom(b"edts", &atom(b"elst", &edits)), mdia].concat());
        let mvhd = atom(b"mvhd", &[words(&[0, 0, 0, 1000, 1000]), vec![0; 80]].concat());
        [mvhd, trak, self.extra.to_vec()].concat()
    }

    fn index(&self) -> Result<Index, Error> {
        parse(None, &self.moov(), u64::from(self.samples) * 120)
    }
}

fn atom(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
}

fn whole_file(index: Result<Index, Error>) -> Option<WholeFile> {
    if let Err(Error::NeedsWholeFile { why }) = index { Some(why) } else { None }
}

#[test]
fn what_windows_cannot_say_needs_the_whole_file() {
    let movie = Synthetic::new(100);
    let kept = Synthetic::new(200).index().unwrap().tracks[0].samples.len();
    assert_eq!(kept, 101, "an edit of one second ends with the second key after it");
    let edits =
        |elst: &[(u32, u32, u32)]| whole_file(Synthetic { elst: elst.to_vec(), ..movie.clone() }.index());
    let never = u32::MAX;
    assert_eq!(edits(&[(500, never, 0), (700, never, 0), (9000, 1024, 0x10000)]), None, "empty edits add up");
    assert_eq!(
        edits(&[(500, 1024, 0x10000), (500, 9024, 0x10000)]),
        Some(WholeFile::EditList(0)),
        "two edits"
    );
    assert_eq!(edits(&[(500, 1024, 0x8000)]), Some(WholeFile::EditList(0)), "half speed");
    assert_eq!(
        edits(&[(500, 1024, 0x10000), (500, never, 0x10000)]),
        Some(WholeFile::EditList(0)),
        "a pause at the end"
    );
    assert_eq!(edits(&[(0, 1024, 0x10000)]), Some(WholeFile::EditList(0)), "an edit of nothing");
    assert_eq!(edits(&[(500, never, 0x10000)]), Some(WholeFile::EditList(0)), "nothing but a pause");
    let extra = |extra| whole_file(Synthetic { extra, ..movie.clone() }.index());
    assert_eq!(extra(b"\0\0\0\x08mvex"), Some(WholeFile::Fragmented));
    assert_eq!(extra(b"\0\0\0\x08cmov"), Some(WholeFile::CompressedHeader));
    assert_eq!(extra(b"\0\0\0\x0cudtacovr\0\0\0\x08trak"), Some(WholeFile::CoverArtFirst));
    let durations = vec![(99, 512), (1, u32::MAX)];
    assert_eq!(whole_file(Synthetic { stts: durations, ..movie }.index()), Some(WholeFile::Times(0)));
}

#[test]
fn damage_is_named() {
    let movie = Synthetic::new(100);
    let said = |movie: Synthetic| {
        let error = movie.index().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput);
        error.to_string()
    };
    let unedited = Synthetic { elst: Vec::new(), ..movie.clone() };
    let far = Synthetic { chunks: [vec![11_990], vec![0; 9]].concat(), ..unedited.clone() };
    assert!(said(far).starts_with("truncated: sample 0 of track 0 ends at byte"));
    let last = Synthetic { chunks: [vec![0; 9], vec![u64::MAX - 500]].concat(), ..unedited };
    assert_eq!(said(last), "damaged header of track 0: a sample ends past the end of all files");
    let stts = Synthetic { stts: vec![(99, 512)], ..movie.clone() };
    assert!(said(stts).ends_with("stts and stsz disagree on the number of samples"));
    let ctts = Synthetic { ctts: vec![(101, 512)], ..movie.clone() };
    assert!(said(ctts).ends_with("ctts and stsz disagree on the number of samples"));
    let stsc = Synthetic { stsc: vec![[1, 9, 1]], ..movie.clone() };
    assert!(said(stsc).ends_with("stsc and stco place another number of samples than stsz has"));
    let endless = Synthetic { stsc: vec![[1, u32::MAX, 1]], ..movie.clone() };
    assert!(said(endless).ends_with("stsc and stco place another number of samples than stsz has"));
    let backwards = Synthetic { stsc: vec![[1, 10, 1], [1, 10, 1]], ..movie.clone() };
    assert!(said(backwards).ends_with("stsc is not in order"));
    let missing = Synthetic { stsc: vec![[1, 10, 2]], ..movie.clone() };
    assert!(said(missing).ends_with("a sample description is missing"));
    assert_eq!(
        said(Synthetic { format: b"encv", ..movie.clone() }),
        "track 0 is encrypted; decrypt it first"
    );
    assert!(said(Synthetic { data_flags: 0, ..movie }).contains("lie in another file"));
}

#[tokio::test]
async fn of_a_cut_file_what_is_there_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let last = std::fs::read(clips::make(
        dir.path(),
        "last.mp4",
        "-f lavfi -i testsrc2=s=160x90:d=1:r=25 -c:v mjpeg",
    ))
    .unwrap();
    let first = clips::make(dir.path(), "first.mp4", "-i {dir}/last.mp4 -c copy -movflags +faststart");
    let first = std::fs::read(first).unwrap();
    let said = async |bytes: &[u8]| read(&Memory::new(bytes.to_vec())).await.unwrap_err().to_string();
    let index = read(&Memory::new(first[..first.len() - 1].to_vec())).await.unwrap();
    assert_eq!((index.tracks[0].samples.len(), index.tracks[0].lost_ticks), (24, 512));
    let whole = read(&Memory::new(first.clone())).await.unwrap();
    assert_eq!((whole.tracks[0].samples.len(), whole.tracks[0].lost_ticks), (25, 0));
    let mdat = first.windows(4).position(|bytes| bytes == b"mdat").unwrap();
    let message = said(&first[..mdat + 10]).await;
    assert!(message.starts_with("truncated: sample 0 of track 0 ends at byte"), "{message}");
    let message = said(&last[..last.len() / 2]).await;
    assert!(message.starts_with("truncated: box \"mdat\" ends at byte"), "{message}");
    let message = said(&last[..last.len() - 3]).await;
    assert!(message.starts_with("truncated: box \"moov\" ends at byte"), "{message}");
    assert_eq!(said(b"").await, "not an MP4 or MOV file");
    assert_eq!(said(b"#EXTM3U\nhttp://example.org/secret").await, "not an MP4 or MOV file");
    assert!(said(&first[..32]).await.starts_with("no moov box in 32 bytes"));
}

#[tokio::test]
async fn fragments_are_recognised_and_headers_take_few_reads() {
    let dir = tempfile::tempdir().unwrap();
    let source = "-f lavfi -i testsrc2=s=160x90:d=4:r=25 -c:v mjpeg -q:v 1";
    let last = Memory::open(&clips::make(dir.path(), "last.mp4", source));
    assert!(last.len() > 200_000, "the file is longer than one look");
    read(&last).await.unwrap();
    assert_eq!(last.reads.load(Ordering::Relaxed), 2);
    let first =
        Memory::open(&clips::make(dir.path(), "first.mp4", "-i {dir}/last.mp4 -c copy -movflags +faststart"));
    read(&first).await.unwrap();
    assert_eq!(first.reads.load(Ordering::Relaxed), 1);
    for flags in ["frag_keyframe", "frag_keyframe+empty_moov", "dash+frag_keyframe"] {
        let path = clips::make(
            dir.path(),
            "fragments.mp4",
            &format!("-i {{dir}}/last.mp4 -c copy -movflags {flags}"),
        );
        assert_eq!(whole_file(read(&Memory::open(&path)).await), Some(WholeFile::Fragmented), "{flags}");
    }
}

/// Uses an index that may be invalid in every way that a caller does.
fn exercise(ftyp: Option<&[u8]>, moov: &[u8], len: u64) {
    use crate::source::window::{Span, plan, plan_probe};
    let Ok(index) = parse(ftyp, moov, len) else { return };
    for (stream, track) in index.tracks.iter().enumerate() {
        let middle = track.samples.get(track.samples.len() / 2).map_or(0, |sample| sample.pts);
        let (_, _) = (track.first_pts(), track.end_pts());
        for span in [
            Span::All,
            Span::Pts { first: middle, end: middle + 1000 },
            Span::Pts { first: i64::MIN, end: i64::MAX },
        ] {
            if let Ok(plan) = plan(&index, stream, span) {
                assert!(plan.bytes_read() <= len);
            }
        }
    }
    let _ = plan_probe(&index);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn flipped_bytes_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![0_u8, 1, 0x7f, 0x80, 0xfe, 0xff])), 1..12),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        zeros in prop::option::weighted(0.3, (any::<prop::sample::Index>(), 1..400_usize)),
    ) {
        for moov in [Synthetic::new(60).moov(), SOUND_AND_PICTURE.with(|moov| moov.clone())] {
            let mut moov = moov;
            let len = moov.len();
            if let Some((at, count)) = &zeros {
                let at = at.index(len);
                moov[at..(at + count).min(len)].fill(0);
            }
            for (at, value) in &flips {
                moov[at.index(len)] = *value;
            }
            if let Some(cut) = &cut {
                moov.truncate(cut.index(len));
            }
            exercise(Some(b"isom"), &moov, 100_000);
        }
    }
}

thread_local! {
    /// The `moov` of a clip with everything in it, made once.
    static SOUND_AND_PICTURE: Vec<u8> = {
        let dir = tempfile::tempdir().unwrap();
        let inputs = "-f lavfi -i testsrc2=s=64x64:d=0.5:r=25 -itsoffset 0.2 -f lavfi -i sine=d=0.5 -map 0 -map 1 -map 1";
        let path = clips::make(dir.path(), "all.mov", &format!("{inputs} -c:v libx264 -preset ultrafast -bf 2 -c:a:0 aac -c:a:1 pcm_s16le"));
        let bytes = std::fs::read(path).unwrap();
        boxes::child(&bytes, b"moov").unwrap().to_vec()
    };
}

#[test]
fn half_a_million_samples_take_no_time() {
    let moov = Synthetic { elst: Vec::new(), ..Synthetic::new(500_000) }.moov();
    let start = Instant::now();
    let index = parse(None, &moov, 60_000_000).unwrap();
    let parsed = start.elapsed();
    assert_eq!(index.tracks[0].samples.len(), 500_000);
    assert_eq!(std::mem::size_of::<Sample>(), 40);
    let span = crate::source::window::Span::Pts { first: 100_000_000, end: 100_384_000 };
    let start = Instant::now();
    let plan = crate::source::window::plan(&index, 0, span).unwrap();
    println!(
        "{} bytes of moov in {parsed:?}; a window of {} bytes in {:?}",
        moov.len(),
        plan.window_bytes(),
        start.elapsed()
    );
}
