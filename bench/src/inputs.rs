//! Sources of the measurements: footage that `make setup` fetched, looped and scaled to the length and size
//! that a measurement needs.

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use spool_tests::footage::{clip, ffmpeg};

use crate::command::words;

/// Frames per second of the generated sources.
pub const FPS: u32 = 30;

/// Makes a source of tiny pictures with a keyframe at each possible cut, so that it can become many rows of a
/// few frames.
pub fn many_rows(folder: &Path, name: &str, frames: u32, keyframes: &str) -> PathBuf {
    let path = folder.join(name);
    let (bikes, filter, frames) = (clip("bikes.mp4"), format!("fps={FPS},scale=64:36"), frames.to_string());
    let encode = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "9999", "-sc_threshold", "0", "-bf", "0"];
    let input =
        ["-stream_loop", "-1", "-i", bikes.to_str().unwrap(), "-an", "-vf", &filter, "-frames:v", &frames];
    let forced = ["-force_key_frames", keyframes, "-movflags", "+faststart", path.to_str().unwrap()];
    ffmpeg(input.iter().chain(&encode).chain(&forced));
    path
}

/// Source of a realistic size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// 60 s of 1080p H.264.
    Minute,
    /// 10 min of 1080p H.264.
    TenMinutes,
    /// 30 s of 4K HEVC in 10 bits.
    FourK,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "60 s of 1080p H.264",
            Self::TenMinutes => "10 min of 1080p H.264",
            Self::FourK => "30 s of 4K HEVC, 10 bits",
        })
    }
}

impl Source {
    /// Returns the path of the source in `folder`, making it if missing.
    pub fn make(self, folder: &Path) -> PathBuf {
        let h264 = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18"];
        let hevc = [
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-crf",
            "20",
            "-pix_fmt",
            "yuv420p10le",
            "-tag:v",
            "hvc1",
            "-x265-params",
            "log-level=error",
        ];
        let (name, seconds, height, codec) = match self {
            Self::Minute => ("minute.mp4", "60", 1080, &h264[..]),
            Self::TenMinutes => ("ten-minutes.mp4", "600", 1080, &h264[..]),
            Self::FourK => ("four-k.mp4", "30", 2160, &hevc[..]),
        };
        let path = folder.join(name);
        if path.exists() {
            return path;
        }
        eprintln!("making {self}");
        let unfinished = folder.join(format!("unfinished-{name}"));
        let mut args = words(&["-stream_loop", "-1", "-i"]);
        args.push(clip("bigbuckbunny.mp4").into());
        args.extend(words(&["-t", seconds, "-vf", &format!("scale=-2:{height}:flags=lanczos"), "-g", "50"]));
        args.extend(codec.iter().map(OsString::from));
        args.extend(words(&["-c:a", "aac", "-ac", "2", "-b:a", "128k", "-movflags", "+faststart"]));
        args.push(unfinished.clone().into());
        ffmpeg(&args);
        fs::rename(unfinished, &path).unwrap();
        path
    }
}
