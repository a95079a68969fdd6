//! Real players in a real browser play ladders to the end, without a gap, a stall or an error.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests start what they test"
)]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use spool_tests::{
    check,
    ffmpeg_wrapper::FfmpegWrapper,
    folder, footage,
    run::{Spool, wait_until},
    sources,
};

/// Length of the clip, and its frames at 25 per second.
const SECONDS: u32 = 16;
const FRAMES: u64 = (SECONDS * footage::FPS) as u64;

/// Buffered ranges whose ends are a frame apart leave no gap that a player sees.
const FRAME: f64 = 1.0 / footage::FPS as f64;

/// Makes a ladder of real footage with short segments, so that many joins are played: rows of about 4 s,
/// media segments of 2 s.
fn ladder(source: &Path, destination: &Path, rungs: &str) {
    let (source, destination) = (source.to_str().unwrap(), destination.to_str().unwrap());
    Spool::new([
        "transcode",
        source,
        "-o",
        destination,
        "--ladder",
        rungs,
        "--segment",
        "4",
        "--media-segment",
        "2",
    ])
    .ok();
}

/// Tries of a playback that stalls with media in the buffer: then the machine was too busy to decode. A
/// ladder that stops a decoder stops it every time.
const TRIES: usize = 3;

/// Seconds in the buffer with which a player can go on.
const ENOUGH: f64 = 0.5;

/// Takes a lock for one browser at a time, also when all tests share a process (`cargo test`): each needs all
/// processors.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the player's report, by `tests/browser/play.mjs`, of a try in which it could decode in time.
fn play(folder: &Path, scenario: &str) -> Value {
    let _alone = alone();
    let mut report = Value::Null;
    for _ in 0..TRIES {
        report = play_once(folder, scenario);
        let stalls: Vec<&Value> = report["steps"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|step| step["waits"].as_array().unwrap())
            .collect();
        if stalls.is_empty() {
            return report;
        }
        assert!(
            stalls.iter().all(|stall| stall["ahead"].as_f64().unwrap() > ENOUGH),
            "it stalled without media in the buffer: {report}"
        );
        eprintln!("retried: it stalled with media in the buffer: {stalls:?}");
    }
    panic!("it stalled {TRIES} times: {report}");
}

fn player(folder: &Path, scenario: &str) -> Command {
    let browser = spool_tests::repository::root().join("tests/browser");
    assert!(browser.join("node_modules").exists(), "run scripts/browser-setup first");
    let mut command = Command::new("node");
    command
        .arg(browser.join("play.mjs"))
        .arg(folder)
        .arg(scenario)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn play_once(folder: &Path, scenario: &str) -> Value {
    report(&player(folder, scenario).output().unwrap(), "")
}

/// Returns the player's last report, after it printed `before` on stderr.
fn report(output: &Output, before: &str) -> Value {
    let stderr = format!("{before}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    assert_eq!(report["missing"], Value::Array(vec![]), "requests that could not be answered");
    assert_eq!(report["console_errors"], Value::Array(vec![]));
    for step in report["steps"].as_array().unwrap() {
        whole(step);
    }
    report
}

/// Expects the properties of every moment: no error, no broken frame, and one buffered range.
fn whole(step: &Value) {
    assert_eq!(step["errors"], Value::Array(vec![]), "{step}");
    assert_eq!(step["corrupted"], 0, "{step}");
    assert_eq!(ranges(&step["buffered"]).len(), 1, "{step}");
    for (track, buffered) in step["tracks"].as_object().unwrap() {
        assert_eq!(ranges(buffered).len(), 1, "a gap in {track}: {step}");
    }
}

fn ranges(value: &Value) -> Vec<(f64, f64)> {
    let range = |range: &Value| (range[0].as_f64().unwrap(), range[1].as_f64().unwrap());
    value.as_array().unwrap().iter().map(range).collect()
}

fn step<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap()
}

/// Expects that playback came to the end, and that the end is where it should be.
fn ended(step: &Value) {
    assert_eq!(step["ended"], true, "{step}");
    let duration = step["duration"].as_f64().unwrap();
    assert!((duration - f64::from(SECONDS)).abs() < 2.0 * FRAME, "{duration}");
    assert!(step["audio_bytes"].as_u64().unwrap() > 0, "no sound was decoded: {step}");
}

#[test]
fn a_ladder_plays_from_start_to_end_with_every_frame() {
    let folder = tempfile::tempdir().unwrap();
    let source = footage::bunny(folder.path(), "bunny.mp4", SECONDS, 360);
    let out = folder.path().join("out");
    ladder(&source, &out, "360p,180p");
    let report = play(&out, "through");
    let end = step(&report, "end");
    ended(end);
    assert_eq!(end["frames"], FRAMES, "frames that were decoded: {end}");
    for (track, buffered) in end["tracks"].as_object().unwrap() {
        let (start, end) = ranges(buffered)[0];
        assert!(start < FRAME, "{track} starts at {start}");
        assert!((end - f64::from(SECONDS)).abs() < 2.0 * FRAME, "{track} ends at {end}");
    }
}

#[test]
fn a_ladder_plays_through_a_change_of_rung_and_a_seek() {
    let folder = tempfile::tempdir().unwrap();
    let source = footage::bunny(folder.path(), "bunny.mp4", SECONDS, 360);
    let out = folder.path().join("out");
    ladder(&source, &out, "360p,240p,180p");
    let report = play(&out, "switch");
    assert_eq!(report["heights"], serde_json::json!([180, 240, 360]));
    assert_eq!(step(&report, "start")["height"], 180);
    assert_eq!(step(&report, "up")["height"], 360);
    assert_eq!(step(&report, "seek")["height"], 360);
    assert!(step(&report, "seek")["time"].as_f64().unwrap() > f64::from(SECONDS) * 0.6);
    assert_eq!(step(&report, "down")["height"], 180);
    let end = step(&report, "end");
    ended(end);
    assert_eq!(end["levels"], serde_json::json!([180, 360, 180]));
}

#[test]
fn an_audio_ladder_plays() {
    let folder = tempfile::tempdir().unwrap();
    let video = footage::bunny(folder.path(), "bunny.mp4", SECONDS, 90);
    let sound = folder.path().join("sound.m4a");
    footage::ffmpeg(["-i", video.to_str().unwrap(), "-vn", "-c", "copy", sound.to_str().unwrap()]);
    let out = folder.path().join("out");
    ladder(&sound, &out, "web");
    let report = play(&out, "sound");
    ended(step(&report, "end"));
    assert_eq!(report["steps"][0]["height"], 0);
}

/// Codecs that Debian's Chromium decodes, by two players each; it has no HEVC.
#[test]
fn ladders_of_newer_codecs_play_in_two_players() {
    let folder = tempfile::tempdir().unwrap();
    let source = footage::bunny(folder.path(), "bunny.mp4", SECONDS, 360);
    for rungs in ["240p-vp9,opus", "240p-av1,aac", "240p,opus"] {
        let out = folder.path().join(rungs);
        ladder(&source, &out, rungs);
        for scenario in ["through", "shaka"] {
            let report = play(&out, scenario);
            let end = step(&report, "end");
            ended(end);
            assert_eq!(
                (&end["frames"], &end["height"]),
                (&Value::from(FRAMES), &Value::from(240)),
                "{rungs} {scenario}: {end}"
            );
            for (track, buffered) in end["tracks"].as_object().unwrap() {
                let (start, end) = ranges(buffered)[0];
                assert!(
                    start < FRAME && (end - f64::from(SECONDS)).abs() < 2.0 * FRAME,
                    "{rungs} {scenario}: {track} {start} to {end}"
                );
            }
        }
    }
}

/// Of the table of sources, six with SPOOL_TEST_FULL=1, one otherwise; each through a change of rung and a
/// seek.
#[test]
fn ladders_of_uncommon_sources_play() {
    let full = std::env::var_os("SPOOL_TEST_FULL").is_some();
    let names = ["phone", "screen", "ts-wrap", "anamorphic", "interlaced", "hdr10"];
    for source in sources::all().into_iter().filter(|source| names.contains(&source.name)).take(if full {
        names.len()
    } else {
        1
    }) {
        let folder = tempfile::tempdir().unwrap();
        let path = source.clip.make(folder.path(), source.name);
        let out = folder.path().join("out");
        ladder(&path, &out, source.ladder);
        let report = play(&out, "through");
        let end = step(&report, "end");
        assert_eq!(
            (&end["ended"], &end["frames"]),
            (&Value::from(true), &Value::from(source.clip.frames)),
            "{}: {end}",
            source.name
        );
    }
}

#[test]
fn an_independent_parser_reads_a_ladder_of_hevc() {
    let folder = tempfile::tempdir().unwrap();
    let source = footage::bunny(folder.path(), "bunny.mp4", SECONDS, 360);
    let out = folder.path().join("out");
    ladder(&source, &out, "360p-hevc");
    let ladder = check::Ladder::open(&out).unwrap();
    let browser = spool_tests::repository::root().join("tests/browser");
    let output =
        Command::new("node").arg(browser.join("parse.mjs")).arg(&ladder.videos[0].whole).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let master = std::fs::read_to_string(out.join("master.m3u8")).unwrap();
    let codec = report["codec"].as_str().unwrap();
    assert!(codec.starts_with("hvc1.1.6.L") && master.contains(codec), "{codec} in {master}");
    assert_eq!((&report["width"], &report["height"]), (&Value::from(640), &Value::from(360)));
    let numbers = |name: &str| {
        report[name].as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect::<Vec<_>>()
    };
    let (dts, mut cts) = (numbers("dts"), numbers("cts"));
    let step = report["timescale"].as_i64().unwrap() / i64::from(footage::FPS);
    assert_eq!(dts, (0..FRAMES as i64).map(|frame| frame * step).collect::<Vec<_>>());
    // Two frames of reordering, which the edit list takes off.
    cts.sort_unstable();
    assert_eq!(cts, (2..FRAMES as i64 + 2).map(|frame| frame * step).collect::<Vec<_>>());
    let keys =
        report["sync"].as_array().unwrap().iter().step_by(2 * footage::FPS as usize).all(|sync| sync == true);
    assert!(keys, "media segments begin with keyframes");
}

/// Returns the media segments that a media playlist names.
fn named(playlist: &str) -> Vec<&str> {
    playlist.lines().filter(|line| line.ends_with(".m4s")).collect()
}

#[test]
fn a_ladder_plays_early_while_its_end_is_encoded() {
    let _alone = alone();
    let work = tempfile::tempdir().unwrap();
    let source = footage::bunny(work.path(), "bunny.mp4", SECONDS, 360);
    let out = work.path().join("out");
    let wrapper = FfmpegWrapper::new();
    // Two rows of pictures and the sound are done; the third row of pictures waits.
    wrapper.block_encode(4);
    let (from, to) = (source.to_str().unwrap(), out.to_str().unwrap());
    let args = [
        "transcode",
        from,
        "-o",
        to,
        "--ladder",
        "240p,180p",
        "--media-segment",
        "2",
        "--segment",
        "4",
        "--slots",
        "1",
    ];
    let running =
        Spool::new(args.iter().chain(&["--early-playback"])).env("SPOOL_FFMPEG", wrapper.path()).start();
    let read = |path: &str| std::fs::read_to_string(out.join(path)).ok();
    let playlists = wait_until("two rows that can be played", Duration::from_secs(60), || {
        read("early.m3u8")?;
        let texts = ["240p", "180p", "audio-0"]
            .map(|rendition| Some((rendition, read(&format!("{rendition}/early.m3u8"))?)));
        let texts: Vec<(&str, String)> = texts.into_iter().collect::<Option<_>>()?;
        // Every file that a playlist names can be read.
        for (rendition, text) in &texts {
            assert!(
                named(text).iter().all(|name| out.join(rendition).join(name).exists()),
                "{rendition}: {text}"
            );
        }
        texts.iter().all(|(_, text)| named(text).len() == 4).then_some(texts)
    });
    let before = &playlists[1].1;
    assert!(!out.join("master.m3u8").exists() && !before.contains("ENDLIST"), "{before}");

    let mut browser = player(&out, "early").spawn().unwrap();
    let mut stderr = BufReader::new(browser.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(
        line,
        "playing\n",
        "{line}{}",
        stderr.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
    );
    wrapper.unblock();
    running.wait().expect_no_leftovers();
    let report = report(&browser.wait_with_output().unwrap(), &line);
    let end = step(&report, "end");
    ended(end);
    assert_eq!(end["frames"], FRAMES, "frames that were decoded: {end}");

    // It grew by its end alone, and names the files that the published ladder names.
    let after = read("180p/early.m3u8").unwrap();
    assert!(after.starts_with(before) && after.ends_with("#EXT-X-ENDLIST\n"), "{after}");
    let again = work.path().join("again");
    Spool::new(args.iter().map(|arg| if *arg == to { again.to_str().unwrap() } else { arg })).ok();
    let names = |folder: &Path| {
        folder::media(folder)
            .into_keys()
            .filter(|name| !name.ends_with("early.m3u8"))
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&out), names(&again));
}
