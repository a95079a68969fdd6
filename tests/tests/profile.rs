//! Profiles and predictions: where the time went, and how much more is to come.
#![expect(clippy::unwrap_used, reason = "a test that cannot read what it measured has failed")]

use std::path::Path;

use serde_json::Value;
use spool_tests::{footage, run::Spool};

/// Length of the clips, cut into rows of 2 s.
const SECONDS: u32 = 8;

fn transcode(source: &Path, out: &Path, state: &Path, more: &[&str]) -> Value {
    let (source, out) = (source.to_str().unwrap(), out.to_str().unwrap());
    let args = [
        "transcode",
        source,
        "-o",
        out,
        "--ladder",
        "180p,90p",
        "--segment",
        "2",
        "--media-segment",
        "2",
        "--output",
        "json",
    ];
    Spool::new(args.iter().chain(more)).env("XDG_STATE_HOME", state).ok().json()
}

fn plan(source: &Path, state: &Path) -> Value {
    let args = ["plan", source.to_str().unwrap(), "--ladder", "180p,90p", "--slots", "2", "--output", "json"];
    Spool::new(args).env("XDG_STATE_HOME", state).ok().json()["prediction"].clone()
}

#[test]
fn a_profile_accounts_for_the_time_of_all_slots() {
    let folder = tempfile::tempdir().unwrap();
    let source = footage::bunny(folder.path(), "bunny.mp4", SECONDS, 360);
    let trace = folder.path().join("trace.json");
    let more = ["--slots", "2", "--profile", "--trace", trace.to_str().unwrap()];
    let profile = transcode(&source, &folder.path().join("out"), folder.path(), &more)["profile"].clone();
    assert_eq!((&profile["rows"], &profile["slots"]), (&Value::from(5), &Value::from(2)), "{profile}");
    let micros = |list: &str, name: &str| -> u64 {
        let sum = profile[list].as_array().unwrap().iter().find(|sum| sum["name"] == name);
        sum.unwrap_or_else(|| panic!("no {name} in {profile}"))["took_us"].as_u64().unwrap()
    };
    // Its stages add up to the command's time but for the gaps between them; the steps add up to the time of
    // all slots.
    let stages: u64 =
        ["starting the engine", "planning", "checking", "rows", "merging and publishing", "stopping"]
            .iter()
            .map(|name| micros("stages", name))
            .sum();
    let wall = profile["wall_us"].as_u64().unwrap();
    assert!(stages <= wall && stages * 10 > wall * 9, "{profile}");
    let share: f64 =
        profile["steps"].as_array().unwrap().iter().map(|step| step["share"].as_f64().unwrap()).sum();
    assert!((share - 1.0).abs() < 1e-6, "{profile}");
    assert!(micros("steps", "encoding") > 0 && micros("steps", "starting FFmpeg") > 0, "{profile}");
    assert!(profile["ffmpeg_cpu_us"].as_u64().unwrap() > 0, "{profile}");
    // Its rows begin at keyframes of the source.
    assert_eq!(profile["preroll_frames"], 0, "{profile}");

    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let count = |name: &str| {
        trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["name"] == name).count()
    };
    assert_eq!(["segment 0", "segment 3", "audio 0", "encoding", "planning"].map(count), [1, 1, 1, 5, 1]);
}

#[test]
fn a_trace_that_cannot_be_written_is_reported_before_any_encode() {
    let folder = tempfile::tempdir().unwrap();
    let source = footage::bunny(folder.path(), "bunny.mp4", 1, 90);
    let out = folder.path().join("out");
    let trace = folder.path().join("missing/trace.json");
    let args = [
        "transcode",
        source.to_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
        "--trace",
        trace.to_str().unwrap(),
    ];
    let ran = Spool::new(args).run();
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("failed to write {}", trace.display())), "{}", ran.stderr);
    assert!(!out.exists());
}

#[test]
fn encoded_rows_improve_the_prediction() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let source = footage::bunny(folder.path(), "bunny.mp4", SECONDS, 360);
    assert_eq!(plan(&source, &state)["fitted_rows"], 0);
    transcode(&source, &folder.path().join("out"), &state, &[]);
    let prediction = plan(&source, &state);
    assert_eq!(prediction["fitted_rows"], 5, "{prediction}");
    let number = |name: &str| prediction[name].as_f64().unwrap();
    // The time that rows take beside other work is learned too, so that no more is certain.
    assert!(number("cpu_s") > 0.0 && number("wall_s") > 0.0, "{prediction}");
    assert!(number("read_bytes") > 0.0 && number("written_bytes") > 0.0, "{prediction}");
    // Rows that are done already teach nothing.
    transcode(&source, &folder.path().join("out"), &state, &[]);
    assert_eq!(plan(&source, &state)["fitted_rows"], 5);

    let (nowhere, source) = (folder.path().join("nowhere"), source.display());
    let explain = |sql: String| {
        let args = ["sql", "-c", &sql, "--slots", "2", "--output", "json"];
        let explained = Spool::new(args).env("XDG_STATE_HOME", &state).ok().json();
        let prediction =
            explained.as_array().unwrap().iter().find(|row| row["plan_type"] == "prediction").unwrap();
        prediction["plan"].as_str().unwrap().to_owned()
    };
    let rows = format!(
        "SELECT transcode(segment, '180p,90p', '{}') AS part FROM segments('{source}', 2, 2)",
        nowhere.display()
    );
    let prediction = explain(format!("EXPLAIN SELECT publish(hls_ladder(part)) FROM ({rows})"));
    assert!(
        prediction.starts_with("5 rows: ")
            && prediction.contains(" s on 2 slots; ")
            && prediction.ends_with("by 5 rows that were measured here)"),
        "{prediction}"
    );
    // The rows of an encode's output can only be known then.
    let prediction = explain(format!(
        "EXPLAIN SELECT transcode(part['segment'], '60p', '{}') FROM ({rows})",
        nowhere.display()
    ));
    assert!(
        prediction.starts_with("5 rows: ")
            && prediction.ends_with("; rows that depend on encoded rows are not known"),
        "{prediction}"
    );
    assert!(!nowhere.exists(), "nothing is encoded");
}
