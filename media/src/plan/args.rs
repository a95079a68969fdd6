//! FFmpeg's argument lists as pure functions: each flag with its reason, no user text in any filter.

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

/// How any run begins: quiet, deaf, and reporting.
fn preamble() -> Vec<OsString> {
    words(&[
        // Nothing is asked and nothing read from stdin; the banner would fill the stderr tail.
        "-nostdin",
        "-hide_banner",
        // What goes wrong and nothing else; the status line is for terminals.
        "-loglevel",
        "error",
        "-nostats",
        // Machine-readable progress on stdout, twice a second.
        "-progress",
        "pipe:1",
        "-stats_period",
        "0.5",
        // The scratch folder is ours: a file from an interrupted run is written over.
        "-y",
    ])
}

/// Options of the one input, before its `-i`.
fn input_options(demuxer: &str, threads: u32, max_pixels: u64) -> Vec<OsString> {
    let (threads, max_pixels) = (threads.to_string(), max_pixels.to_string());
    words(&[
        // Local files only, whatever a playlist or a reference inside the file says.
        "-protocol_whitelist",
        "file,pipe",
        // The demuxer that the magic bytes name; no guessing by content or extension.
        "-f",
        demuxer,
        "-threads",
        &threads,
        // A decompression bomb that changes its size mid-way fails here.
        "-max_pixels",
        &max_pixels,
        // The source's own times: the grid counts in them.
        "-copyts",
    ])
}

/// The input itself. `file:` keeps a name with a colon or a leading dash a name.
fn input(path: &Path) -> Vec<OsString> {
    vec!["-i".into(), file(path)]
}

/// What keeps an output free of dates, versions and the source's own texts, and what makes its MP4 a stream
/// of fragments.
fn output_options(extra_movflags: &str) -> Vec<OsString> {
    let movflags = format!("+empty_moov+default_base_moof{extra_movflags}");
    words(&[
        // SourceCache, GPS positions and chapters of the source are not the renditions' business.
        "-map_metadata",
        "-1",
        "-map_chapters",
        "-1",
        // No encoder version and no random ids: equal work gives equal bytes.
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
