//! Accuracy of predicted processor time, for clips that the cost model was not fitted to.

use std::path::{Path, PathBuf};

use serde_json::Value;
use spool_tests::{
    footage::{clip, ffmpeg},
    run::Spool,
};

use crate::{encode::median, inputs::Source, report::Table};

/// Rows of the source that the model is fitted to: 4 s each, at two ladders.
const LADDERS: [&str; 2] = ["web", "720p,360p"];
const SEGMENT: &str = "4";

/// The ladder of the clips.
const LADDER: &str = "web";

/// Runs of each clip; the median counts.
const ROUNDS: usize = 3;

/// Footage in the Debian package forensics-samples-files.
const PHONE: &str = "/usr/share/forensics-samples/original-files/movie1";
const SCENE: &str = "/usr/share/forensics-samples/original-files/movie2";

/// Fits the cost model to one source, and predicts others.
pub fn measure(folder: &Path) -> Vec<Table> {
    std::fs::create_dir_all(folder).unwrap();
    let scratch = tempfile::tempdir_in(folder).unwrap();
    let fitted = Source::Minute.make(&folder.canonicalize().unwrap());
    let state = scratch.path().join("state");
    for (number, ladder) in LADDERS.iter().enumerate() {
        transcode(&fitted, &scratch.path().join(number.to_string()), ladder, &state);
    }
    let title = "Processor time of FFmpeg, predicted by a model fitted to the minute";
    let mut table =
        Table::new(title, &["clip", "fitted rows", "predicted s", "actual s", "predicted / actual"]);
    let bikes = looped(scratch.path(), "bikes.mp4", &clip("bikes.mp4"), "30");
    let clips = [
        ("bicycles, 640x272", bikes),
        ("a phone's, 1080p, variable rate", first_in(PHONE)),
        ("a camera's scene", first_in(SCENE)),
    ];
    for (number, (name, path)) in clips.iter().enumerate() {
        let args = ["plan", path.to_str().unwrap(), "--ladder", LADDER, "--output", "json"];
        let prediction = Spool::new(args).env("XDG_STATE_HOME", &state).ok().json()["prediction"].clone();
        let predicted = prediction["cpu_s"].as_f64().unwrap();
        // With a state folder of its own, so that each clip is predicted from the minute alone.
        let run = |round| {
            let out = scratch.path().join(format!("clip-{number}-{round}"));
            transcode(path, &out, LADDER, &scratch.path().join("other"))
        };
        let actual = median((0..ROUNDS).map(run));
        table.add(vec![
            (*name).to_owned(),
            prediction["fitted_rows"].to_string(),
            format!("{predicted:.2}"),
            format!("{actual:.2}"),
            format!("{:.3}", predicted / actual),
        ]);
    }
    vec![table]
}

/// Transcodes a source, and returns the seconds of processor time that FFmpeg took.
fn transcode(source: &Path, out: &Path, ladder: &str, state: &Path) -> f64 {
    let (source, out) = (source.to_str().unwrap(), out.to_str().unwrap());
    let args = [
        "transcode",
        source,
        "-o",
        out,
        "--ladder",
        ladder,
        "--segment",
        SEGMENT,
        "--profile",
        "--output",
        "json",
    ];
    let report: Value = Spool::new(args).env("XDG_STATE_HOME", state).ok().json();
    report["profile"]["ffmpeg_cpu_us"].as_f64().unwrap() / 1e6
}

/// Repeats a clip to a length by stream copy.
fn looped(folder: &Path, name: &str, clip: &Path, seconds: &str) -> PathBuf {
    let path = folder.join(name);
    let from = ["-stream_loop", "-1", "-i", clip.to_str().unwrap(), "-t", seconds];
    ffmpeg(from.iter().chain(&["-c", "copy", path.to_str().unwrap()]));
    path
}

/// Returns the first MP4 or MOV file in a folder.
fn first_in(folder: &str) -> PathBuf {
    let files =
        std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder}: {e}: run scripts/bench-setup first"));
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let video = |path: &PathBuf| {
        path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("mp4") || ext.eq_ignore_ascii_case("mov"))
    };
    paths.into_iter().find(video).unwrap_or_else(|| panic!("no MP4 in {folder}"))
}
