//! FFmpeg's argument lists as pure functions. Each flag has its reason, and no filter contains user text.

mod audio;
mod color;
mod encoders;
mod video;

use std::{ffi::OsString, path::Path};

pub use self::{
    audio::{AudioEncode, encode_audio},
    encoders::reorder_frames,
    video::{VideoEncode, encode_video},
};

/// Returns the arguments that every run starts with: quiet, without stdin, and with progress reports.
fn preamble() -> Vec<OsString> {
    words(&[
        // No interaction and no input from stdin. The banner would fill the stderr tail.
        "-nostdin",
        "-hide_banner",
        // Errors only; the status line is for terminals.
        "-loglevel",
        "error",
        "-nostats",
        // Machine-readable progress on stdout, twice a second.
        "-progress",
        "pipe:1",
        "-stats_period",
        "0.5",
        // Overwrites a file of an interrupted run in the scratch folder.
        "-y",
    ])
}

/// Returns the options of the only input, before its `-i`.
fn input_options(demuxer: &str, threads: u32, max_pixels: u64) -> Vec<OsString> {
    let (threads, max_pixels) = (threads.to_string(), max_pixels.to_string());
    words(&[
        // Local files only, against playlists and references inside the file.
        "-protocol_whitelist",
        "file,pipe",
        // The demuxer by the magic bytes: FFmpeg does not guess it by content or extension.
        "-f",
        demuxer,
        "-threads",
        &threads,
        // Stops a decompression bomb that changes its frame size midway.
        "-max_pixels",
        &max_pixels,
        // Keeps the source's own times, in which the grid counts.
        "-copyts",
    ])
}

/// Returns the input. With `file:`, a name with a colon or a leading dash is read as a file name.
fn input(path: &Path) -> Vec<OsString> {
    vec!["-i".into(), file(path)]
}

/// Returns the options that keep an output free of dates, versions and the source's own texts, and that make
/// its MP4 fragmented.
fn output_options(extra_movflags: &str) -> Vec<OsString> {
    let movflags = format!("+empty_moov+default_base_moof{extra_movflags}");
    words(&[
        // Titles, GPS positions and chapters of the source do not belong in renditions.
        "-map_metadata",
        "-1",
        "-map_chapters",
        "-1",
        // No encoder version and no random ids, so that equal work gives equal bytes.
        "-fflags",
        "+bitexact",
        "-flags",
        "+bitexact",
        // Fragments with offsets of their own: the packager reads them one by one, in bounded memory.
        "-movflags",
        &movflags,
        "-f",
        "mp4",
    ])
}

fn file(path: &Path) -> OsString {
    let mut name = OsString::from("file:");
    name.push(path);
    name
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests;
