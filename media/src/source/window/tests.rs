use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::source::index::{
    TrackKind,
    mp4::{
        clips::{self, Memory, run},
        read,
    },
};

/// Decoded pictures by their PTS, in the stream's ticks. Two with the same PTS are a failure.
fn pictures(path: &Path, stream: usize) -> BTreeMap<i64, String> {
    let map = format!("0:{stream}");
    let arguments = ["-v", "error", "-nostdin", "-copyts", "-i", path.to_str().unwrap(), "-map", &map];
    let output = ["-vsync", "passthrough", "-enc_time_base", "-1", "-f", "framemd5", "-"];
    let text = run("ffmpeg", &[&arguments[..], &output[..]].concat());
    let mut pictures = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        let before = pictures.insert(fields[2].parse().unwrap(), fields[5].to_owned());
        assert_eq!(before, None, "{path:?} shows two pictures at {}", fields[2]);
    }
    pictures
}

/// Decoded sound, with the time of its first sample.
fn sound(path: &Path, stream: usize) -> String {
    let map = format!("0:{stream}");
    let arguments = ["-v", "error", "-nostdin", "-copyts", "-i", path.to_str().unwrap(), "-map", &map];
    run("ffmpeg", &[&arguments[..], &["-c:a", "pcm_s16le", "-f", "framemd5", "-"]].concat())
}

/// Spans to test: the whole, from a key and from the frames before it, from between two frames, past the end.
fn spans(track: &Track) -> Vec<(i64, i64)> {
    let mut shown: Vec<_> = track.samples.iter().map(|sample| sample.pts).collect();
    shown.sort_unstable();
    let around = |pts: i64| {
        let at = shown.binary_search(&pts).unwrap();
        [at.saturating_sub(3), at.saturating_sub(1), at].map(|at| shown[at])
    };
    let keys = track.samples.iter().filter(|sample| sample.key).map(|sample| sample.pts);
    let mut starts: Vec<_> = keys.skip(1).take(1).flat_map(around).collect();
    starts.extend([shown[shown.len() / 2] + 1, shown[shown.len() - 1] + 100_000]);
    starts.sort_unstable();
    starts.dedup();
    starts
        .into_iter()
        .map(|first| (first, first + (shown[shown.len() - 1] - shown[0]) / 5))
        .chain([(i64::MIN, i64::MAX)])
        .collect()
}

#[tokio::test]
async fn pictures_of_a_window_are_the_sources() {
    let dir = tempfile::tempdir().unwrap();
    let window = dir.path().join("window.mp4");
    let mut checked = 0;
    for path in clips::all(dir.path()) {
        let reader = Memory::open(&path);
        let index = read(&reader).await.unwrap();
        let Some(stream) = index.tracks.iter().position(|track| track.kind == TrackKind::Video) else {
            continue;
        };
        let source = pictures(&path, stream);
        for (first, end) in spans(&index.tracks[stream]) {
            let held = source.range(..=first).next_back().map_or(first, |(pts, _)| *pts);
            let expected: BTreeMap<_, _> = source.range(held..end.max(held + 1)).collect();
            let what = format!("{path:?} {first}..{end}");
            let plan = match plan(&index, stream, Span::Pts { first, end }) {
                Err(Error::NothingShown { .. }) if expected.is_empty() => continue,
                plan => plan.unwrap_or_else(|error| panic!("{what}: {error}")),
            };
            write(&plan, &reader, &window).await.unwrap();
            assert_eq!(std::fs::metadata(&window).unwrap().len(), plan.window_bytes());
            let ours = pictures(&window, 0);
            let in_span: BTreeMap<_, _> = ours.range(held..end.max(held + 1)).collect();
            assert_eq!(in_span, expected, "{what}");
            if held >= 0 {
                assert_eq!(
                    ours.first_key_value(),
                    source.range(held..).next(),
                    "{what}: preroll is not shown"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 80, "{checked} spans");
}

#[tokio::test]
async fn sound_of_a_window_is_the_sources() {
    let dir = tempfile::tempdir().unwrap();
    let window = dir.path().join("window.mp4");
    let mut checked = 0;
    for path in clips::all(dir.path()) {
        let reader = Memory::open(&path);
        let index = read(&reader).await.unwrap();
        for (stream, _) in index.tracks.iter().enumerate().filter(|(_, track)| track.kind == TrackKind::Audio)
        {
            let plan = plan(&index, stream, Span::All).unwrap();
            write(&plan, &reader, &window).await.unwrap();
            assert_eq!(sound(&window, 0), sound(&path, stream), "{path:?} stream {stream}");
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked} tracks");
}

#[tokio::test]
async fn ffprobe_says_the_same_of_the_probe_file() {
    let dir = tempfile::tempdir().unwrap();
    let window = dir.path().join("probe.mp4");
    for path in clips::all(dir.path()) {
        let reader = Memory::open(&path);
        let index = read(&reader).await.unwrap();
        let plan = plan_probe(&index).unwrap();
        write(&plan, &reader, &window).await.unwrap();
        let tell = |path: &Path| {
            let entries = "stream=index,codec_type,codec_name,codec_tag_string,profile,width,height,pix_fmt,field_order,sample_aspect_ratio,\
                           color_range,color_space,r_frame_rate,avg_frame_rate,sample_rate,channels,channel_layout,duration_ts,time_base,\
                           nb_frames:stream_side_data=rotation:stream_tags=language:stream_disposition=default,attached_pic";
            run(
                "ffprobe",
                &["-v", "error", "-show_entries", entries, "-of", "compact", path.to_str().unwrap()],
            )
        };
        assert_eq!(tell(&window), tell(&path), "{path:?}");
        assert!(plan.bytes_read() < reader.len() / 2);
    }
}

#[tokio::test]
async fn two_descriptions_stay_with_their_samples() {
    let dir = tempfile::tempdir().unwrap();
    let path =
        clips::all(dir.path()).into_iter().find(|path| path.ends_with("two-descriptions.mp4")).unwrap();
    let reader = Memory::open(&path);
    let index = read(&reader).await.unwrap();
    let Container::Mp4(movie) = &index.container else { panic!("not by windows") };
    let runs = &movie.tracks[0].descriptions;
    assert!(runs.len() > 2, "{runs:?}");
    // A window that starts in the middle of a run starts with that run's description.
    let all = &index.tracks[0].samples;
    let key = all.iter().rposition(|sample| sample.key).unwrap();
    let window = dir.path().join("window.mp4");
    let plan = plan(&index, 0, Span::Pts { first: all[key].pts, end: i64::MAX }).unwrap();
    write(&plan, &reader, &window).await.unwrap();
    let again = read(&Memory::open(&window)).await.unwrap();
    let Container::Mp4(movie) = &again.container else { panic!("not by windows") };
    let at_key = runs.iter().rposition(|run| run.0 <= key).unwrap();
    let expected: Vec<_> = runs[at_key..].iter().map(|run| (run.0.saturating_sub(key), run.1)).collect();
    assert_eq!(movie.tracks[0].descriptions, expected);
}

#[tokio::test]
async fn windows_of_windows_are_the_same() {
    // The index of a window agrees with the source's: times, sizes and flags of the same samples.
    let dir = tempfile::tempdir().unwrap();
    let window = dir.path().join("window.mp4");
    for path in clips::all(dir.path()) {
        let reader = Memory::open(&path);
        let index = read(&reader).await.unwrap();
        for (stream, track) in index.tracks.iter().enumerate() {
            let plan = plan(&index, stream, Span::All).unwrap();
            write(&plan, &reader, &window).await.unwrap();
            let again = read(&Memory::open(&window)).await.unwrap();
            let bare = |track: &Track| {
                track.samples.iter().map(|sample| (sample.pts, sample.size, sample.key)).collect::<Vec<_>>()
            };
            assert_eq!(bare(&again.tracks[0]), bare(track), "{path:?} stream {stream}");
        }
    }
}

#[tokio::test]
async fn failures_say_what_failed() {
    let dir = tempfile::tempdir().unwrap();
    let path = clips::make(
        dir.path(),
        "clip.mp4",
        "-f lavfi -i testsrc2=s=64x64:d=1:r=5 -f lavfi -i sine=d=1 -c:v mjpeg -c:a aac",
    );
    let reader = Memory::open(&path);
    let index = read(&reader).await.unwrap();
    let said = |result: Result<Plan, Error>| result.unwrap_err().to_string();
    assert_eq!(said(plan(&index, 2, Span::All)), "the source has no stream 2");
    assert_eq!(
        said(plan(&index, 1, Span::Pts { first: 0, end: 1 })),
        "stream 1 is not video and can't be cut by time"
    );
    assert_eq!(
        said(plan(&index, 0, Span::Pts { first: -9, end: 0 })),
        "stream 0 shows no frame before tick 0"
    );
    let whole = Index { container: Container::Whole { demuxer: "mpegts".to_owned() }, tracks: Vec::new() };
    assert_eq!(said(plan_probe(&whole)), "a mpegts source has no windows; use the whole file");

    let plan = plan(&index, 0, Span::All).unwrap();
    let error = write(&plan, &reader, dir.path()).await.unwrap_err();
    assert!(matches!(error, Error::Write { .. }) && error.kind() == ErrorKind::Transient, "{error}");

    // As in a server's task, which moves between threads.
    assert_eq!(plan.requests(), 1);
    let reader = Arc::new(reader);
    let target = dir.path().join("window.mp4");
    let task = async move { write(&plan, &*reader, &target).await };
    tokio::spawn(task).await.unwrap().unwrap();
}
