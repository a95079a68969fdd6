//! What is transcoded? Real footage that `make setup` fetched, made as long and as hard as a measurement wants it.

use std::path::{Path, PathBuf};

use spool_tests::footage::{clip, ffmpeg};

/// Frames per second of what is made here.
pub const FPS: u32 = 30;

/// Tiny pictures with a keyframe wherever a row can be cut: as many rows of a few frames as a measurement wants.
pub fn many_rows(folder: &Path, name: &str, frames: u32, keyframes: &str) -> PathBuf {
    let path = folder.join(name);
    let (bikes, filter, frames) = (clip("bikes.mp4"), format!("fps={FPS},scale=64:36"), frames.to_string());
    let encode = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "9999", "-sc_threshold", "0", "-bf", "0"];
    let input = ["-stream_loop", "-1", "-i", bikes.to_str().unwrap(), "-an", "-vf", &filter, "-frames:v", &frames];
    let forced = ["-force_key_frames", keyframes, "-movflags", "+faststart", path.to_str().unwrap()];
    ffmpeg(input.iter().chain(&encode).chain(&forced));
    path
}
