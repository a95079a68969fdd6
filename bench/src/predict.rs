//! How well is processor time predicted? Of clips that the model was not fitted to, after rows of another.

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

/// How often each is encoded: what it takes is the middle of these.
const TURNS: usize = 3;

/// Footage in the Debian package forensics-samples-files.
const PHONE: &str = "/usr/share/forensics-samples/original-files/movie1";
const SCENE: &str = "/usr/share/forensics-samples/original-files/movie2";

/// Fits the model to the first source and predicts others.
pub fn measure(folder: &Path) -> Vec<Table> {
    std::fs::create_dir_all(folder).unwrap();
    let scratch = tempfile::tempdir_in(folder).unwrap();
    let learned = Source::Minute.make(&folder.canonicalize().unwrap());
    let state = scratch.path().join("state");
    for (number, ladder) in LADDERS.iter().enumerate() {
        transcode(&learned, &scratch.path().join(number.to_string()), ladder, &state);
    }
    let title = "Processor time of FFmpeg, predicted after rows of the minute";
    let mut table =
        Table::new(title, &["clip", "rows learned", "predicted s", "took s", "predicted next to taken"]);
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
        // In a state of its own: each is predicted by what was learned from the minute alone.
        let turn = |turn| {
            let out = scratch.path().join(format!("clip-{number}-{turn}"));
            transcode(path, &out, LADDER, &scratch.path().join("other"))
        };
        let took = median((0..TURNS).map(turn));
        table.add(vec![
            (*name).to_owned(),
            prediction["fitted_rows"].to_string(),
            format!("{predicted:.2}"),
            format!("{took:.2}"),
            format!("{:.3}", predicted / took),
        ]);
    }
    vec![table]
}

/// Seconds of processor time that FFmpeg took.
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
    let told: Value = Spool::new(args).env("XDG_STATE_HOME", state).ok().json();
    told["profile"]["ffmpeg_cpu_us"].as_f64().unwrap() / 1e6
}

/// A clip that is repeated to a length, as it is.
fn looped(folder: &Path, name: &str, clip: &Path, seconds: &str) -> PathBuf {
    let path = folder.join(name);
    let from = ["-stream_loop", "-1", "-i", clip.to_str().unwrap(), "-t", seconds];
    ffmpeg(from.iter().chain(&["-c", "copy", path.to_str().unwrap()]));
    path
}

/// The MP4 or MOV in a folder.
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
