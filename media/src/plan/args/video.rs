//! Arguments for one segment at every rung: one decode, frames placed on the grid, then a branch per rung.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{color, encoders, file, input, input_options, output_options, preamble, words};
use crate::{
    plan::{grid::Grid, ladder::VideoRendition},
    source::probe::VideoTrack,
    time::Rational,
};

/// Microseconds after the video's start below which FFmpeg does not seek: decoding two seconds costs less
/// than a wrong start.
const SEEK_AFTER_US: i128 = 2_000_000;

/// One video segment of a source, at one or more rungs.
#[derive(Debug, Clone, Copy)]
pub struct VideoEncode<'a> {
    /// Local file: the window, or the whole source.
    pub input: &'a Path,
    /// FFmpeg's name of its demuxer: `mov` for windows.
    pub demuxer: &'a str,
    /// FFmpeg's stream index in `input`.
    pub stream: u32,
    /// Start of reading, in ticks of the grid's source timebase: the *decoding* time of a keyframe that is
    /// shown at or before the first frame. `None` reads from the start, as for windows.
    ///
    /// Not the presentation time: FFmpeg searches MPEG-TS by decoding times, so that a seek to a keyframe's
    /// `pts` ends behind it. For a keyframe near the video's start FFmpeg does not seek.
    pub seek: Option<i64>,
    /// Output frame clock.
    pub grid: &'a Grid,
    /// First grid frame.
    pub first_frame: u64,
    /// Number of grid frames.
    pub frames: u64,
    /// Grid frames per media segment; `first_frame` is a multiple of it.
    pub media_segment_frames: u32,
    /// Properties of the source's video track.
    pub source: &'a VideoTrack,
    /// Whether each field becomes a frame of the grid.
    pub fields: bool,
    /// Renditions, each with its local MP4 file.
    pub outputs: &'a [(VideoRendition, PathBuf)],
    /// Most pixels of a decoded frame: the frame size may change midway.
    pub max_pixels: u64,
    /// Threads of the decoder, of the filters and of each encoder: a setting of the job, never of the host,
    /// since the bytes depend on it.
    pub threads: u32,
}

/// Returns the arguments of the run that encodes `job`: fragmented MP4 files of `job.frames` frames each,
/// with the grid rate's numerator as timescale, and an IDR picture at the start of every media segment.
pub fn encode_video(job: &VideoEncode<'_>) -> Vec<OsString> {
    let threads = job.threads.to_string();
    let mut args = preamble();
    args.extend(words(&["-filter_threads", &threads, "-filter_complex_threads", &threads]));
    args.extend(input_options(job.demuxer, job.threads, job.max_pixels));
    args.extend(words(&[
        // A filter below rotates, by the probe's result.
        "-noautorotate",
        // The scaler handles a frame size that changes midway; rebuilding the graph would lose the frames
        // inside it.
        "-reinit_filter",
        "0",
    ]));
    if let Some(ticks) = job.seek.filter(|ticks| is_worth_seeking(*ticks, job.grid)) {
        let time = format!("{}us", floor_us(ticks, job.grid.source_timebase));
        // `-ss` is in the source's own times, and frames before the first one are trimmed by the graph,
        // exactly.
        args.extend(words(&["-seek_timestamp", "1", "-noaccurate_seek", "-ss", &time]));
    }
    args.extend(input(job.input));
    args.extend(words(&["-filter_complex", &graph(job)]));
    for (number, (rendition, path)) in job.outputs.iter().enumerate() {
        args.extend(output(job, rendition, number));
        args.push(file(path));
    }
    args
}

/// Returns the filter graph from the source's frames to those of each rung.
fn graph(job: &VideoEncode<'_>) -> String {
    let Grid { rate, source_timebase, origin, .. } = *job.grid;
    let (first, end) = (job.first_frame, job.first_frame.saturating_add(job.frames));
    let mut filters = vec![
        // Ticks as in the index, from the video's start.
        format!("settb={source_timebase}"),
        format!("setpts=PTS-({origin})"),
    ];
    if job.source.interlaced {
        // In frame mode only frames that are flagged as interlaced; in field mode all frames.
        let (mode, which) = if job.fields { ("send_field", "all") } else { ("send_frame", "interlaced") };
        filters.push(format!("bwdif=mode={mode}:parity=auto:deint={which}"));
    }
    filters.extend([
        // Grid frame n is the last source frame with round(pts * rate) <= n, in absolute time. The video's
        // first frame is shown from its start even if it cannot be decoded at once; in other segments a
        // missing start must fail.
        format!("fps={rate}:round=near:eof_action=pass{}", if first == 0 { ":start_time=0" } else { "" }),
        // The last picture is held until the segment is full.
        "tpad=stop_mode=clone:stop=-1".to_owned(),
        format!("trim=start_pts={first}:end_pts={end}"),
        format!("setpts=PTS-{first}"),
    ]);
    if job.source.mirrored {
        filters.push("hflip".to_owned());
    }
    filters.extend(match job.source.rotation {
        90 => vec!["transpose=clock".to_owned()],
        180 => vec!["hflip".to_owned(), "vflip".to_owned()],
        270 => vec!["transpose=cclock".to_owned()],
        _ => Vec::new(),
    });
    filters.extend(color::flatten(job.source));
    filters.extend(color::tone_map(job.source));
    filters.push(format!("split={}", job.outputs.len()));
    let mut graph = format!("[0:{}]{}", job.stream, filters.join(","));
    for number in 0..job.outputs.len() {
        graph.push_str(&format!("[s{number}]"));
    }
    for (number, (rendition, _)) in job.outputs.iter().enumerate() {
        let VideoRendition { width, height, .. } = rendition;
        let range = color::scale_options(job.source);
        // Every rung is scaled from the source's frames, never from another rung, so that its bytes do not
        // depend on which rungs run together. accurate_rnd and bitexact give the same pixels on every
        // processor. If nothing changes, the filter passes frames through.
        graph.push_str(&format!(
            ";[s{number}]scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact{range},setsar=1,format=yuv420p[v{number}]"
        ));
    }
    graph
}

/// Returns the options of one rung's encoder and file.
fn output(job: &VideoEncode<'_>, rendition: &VideoRendition, number: usize) -> Vec<OsString> {
    let rate = job.grid.rate;
    let mut args = words(&["-map", &format!("[v{number}]")]);
    args.extend(encoders::video(rendition, job.media_segment_frames, job.threads));
    for (option, value) in color::tags(job.source) {
        args.extend(words(&[option, value]));
    }
    args.extend(words(&[
        // The graph's output is final: no frame is doubled or dropped after it, and a tick is a frame.
        "-fps_mode",
        "passthrough",
        "-enc_time_base",
        &format!("{}:{}", rate.den(), rate.num()),
        "-video_track_timescale",
        &rate.num().to_string(),
        // Ends the run as soon as the segment is full.
        "-frames:v",
        &job.frames.to_string(),
    ]));
    // One fragment per IDR picture: a media segment is a whole number of fragments.
    args.extend(output_options("+frag_keyframe"));
    args
}

/// Returns whether the time is far enough after the video's start. FFmpeg seeks to 0.13 s before the target,
/// and if there is no packet it seeks *forward*: for the first keyframe of an FLV it started 2.6 s late.
fn is_worth_seeking(ticks: i64, grid: &Grid) -> bool {
    let later_us =
        floor_us(ticks, grid.source_timebase).saturating_sub(floor_us(grid.origin, grid.source_timebase));
    later_us > SEEK_AFTER_US
}

/// Returns `ticks` in microseconds, rounded down: an earlier start costs a little decoding, a later one the
/// first frames.
fn floor_us(ticks: i64, timebase: Rational) -> i128 {
    (i128::from(ticks) * i128::from(timebase.num()) * 1_000_000).div_euclid(i128::from(timebase.den()))
}
