//! Footage: real clips that `make setup` fetched, and FFmpeg for other sources.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// Frames per second of the footage.
pub const FPS: u32 = 25;

/// Returns a clip that `make setup` fetched: `bigbuckbunny.mp4` (5.28 s, 1280x720, sound in 6 channels),
/// `bikes.mp4` (10 s, 640x272, silent).
///
/// # Panics
/// If the clip is missing: `make setup` comes first.
pub fn clip(name: &str) -> PathBuf {
    let path = crate::repository::root().join(".cache/footage").join(name);
    assert!(path.exists(), "{} is missing: run `make setup` first", path.display());
    path.canonicalize().unwrap()
}

/// Runs FFmpeg with these arguments after `-y -loglevel error`.
///
/// # Panics
/// If FFmpeg fails.
pub fn ffmpeg<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]).args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes real footage with stereo sound in `folder`, of this length and height: small enough to be encoded in
/// an instant.
///
/// # Panics
/// If FFmpeg fails.
pub fn bunny(folder: &Path, name: &str, seconds: u32, height: u32) -> PathBuf {
    let path = folder.join(name);
    let (length, filter) = (seconds.to_string(), format!("scale=-2:{height},fps={FPS}"));
    ffmpeg([
        "-stream_loop".as_ref(),
        "-1".as_ref(),
        "-i".as_ref(),
        clip("bigbuckbunny.mp4").as_os_str(),
        "-t".as_ref(),
        length.as_ref(),
        "-vf".as_ref(),
        filter.as_ref(),
        // A keyframe every second, for cuts.
        "-c:v".as_ref(),
        "libx264".as_ref(),
        "-preset".as_ref(),
        "ultrafast".as_ref(),
        "-g".as_ref(),
        "25".as_ref(),
        "-c:a".as_ref(),
        "aac".as_ref(),
        "-ac".as_ref(),
        "2".as_ref(),
        "-movflags".as_ref(),
        "+faststart".as_ref(),
        path.as_os_str(),
    ]);
    path
}

/// Makes real footage at about 120 Mb/s with stereo sound, so that the bytes of a source outweigh all others:
/// 5.12 s, repeated.
///
/// # Panics
/// If FFmpeg fails.
pub fn heavy(folder: &Path, name: &str, times: u32) -> PathBuf {
    let (source, path) = (clip("bigbuckbunny.mp4"), folder.join(name));
    // A whole number of frames of either kind: 128 pictures and 240 frames of AAC, so that the loop has no
    // seams.
    let (pictures, sound) = (folder.join("pictures.mp4"), folder.join("sound.wav"));
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let intra = [
        "-t",
        "5.12",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-qp",
        "2",
        "-g",
        "1",
        "-pix_fmt",
        "yuv420p",
    ];
    ffmpeg(["-i", &text(&source), "-an"].iter().chain(&intra).chain(&[text(&pictures).as_str()]));
    ffmpeg(["-i", &text(&source), "-vn", "-t", "5.12", "-ac", "2", &text(&sound)]);
    let again = (times - 1).to_string();
    let inputs =
        ["-stream_loop", &again, "-i", &text(&pictures), "-stream_loop", &again, "-i", &text(&sound)];
    let copy = [
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-c:v",
        "copy",
        "-c:a",
        "aac",
        "-movflags",
        "+faststart",
        &text(&path),
    ];
    ffmpeg(inputs.iter().chain(&copy));
    for made in [pictures, sound] {
        std::fs::remove_file(made).unwrap();
    }
    path
}
