//! Arguments for an audio track: encoded once, from start to end, in exact sync with the video.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{encoders, file, input, input_options, output_options, preamble, words};
use crate::{
    limits::PIXELS_MAX,
    plan::{grid::Grid, ladder::AudioRendition},
    time::Rational,
};

/// Smallest step of the source's clock, in seconds, that is filled with silence or cut out; smaller ones are
/// jitter. Two frames at 50 Hz: a viewer notices sound that leads by 45 ms (ITU-R BT.1359).
const GAP_S: &str = "0.04";
/// Seconds by which sound may outlast the video. Otherwise a wrong timestamp would add years of silence.
const BEYOND_TITLE_S_MAX: u64 = 12 * 3600;

/// One whole audio track of a source.
#[derive(Debug, Clone, Copy)]
pub struct AudioEncode<'a> {
    /// Local file: the window, or the whole source.
    pub input: &'a Path,
    /// FFmpeg's name of its demuxer: `mov` for windows.
    pub demuxer: &'a str,
    /// FFmpeg's stream index in `input`.
    pub stream: u32,
    /// Number of channels, if their speaker positions are unknown.
    pub discrete_channels: Option<u16>,
    /// Frame clock of the video. The sound starts at its origin, and lasts at least as long.
    pub grid: &'a Grid,
    /// Renditions, each with its local MP4 file.
    pub outputs: &'a [(AudioRendition, PathBuf)],
}

impl AudioEncode<'_> {
    /// Returns the samples from the video's start to its end at this rate, rounded up: the sound has at least
    /// as many.
    pub fn title_samples(&self, sample_rate: u32) -> u64 {
        let Grid { rate, frames, .. } = *self.grid;
        let samples = u128::from(frames) * u128::from(rate.den()) * u128::from(sample_rate);
        u64::try_from(samples.div_ceil(u128::from(rate.num()))).unwrap_or(u64::MAX)
    }
}

/// Returns the arguments of the run that encodes `job`: fragmented MP4 files whose sample 0, after the
/// encoder's delay, is the sound at the video's start.
pub fn encode_audio(job: &AudioEncode<'_>) -> Vec<OsString> {
    let mut args = preamble();
    // One thread: audio decoders and encoders are single-threaded.
    args.extend(input_options(job.demuxer, 1, PIXELS_MAX));
    args.extend(input(job.input));
    args.extend(words(&["-filter_complex", &graph(job)]));
    for (number, (rendition, path)) in job.outputs.iter().enumerate() {
        args.extend(words(&["-map", &format!("[a{number}]")]));
        args.extend(encoders::audio(rendition));
        // One fragment per second: the packager reads them one by one.
        args.extend(words(&["-frag_duration", "1000000"]));
        // The header is written after the first packets, so that its edit list contains the encoder's delay.
        args.extend(output_options("+delay_moov"));
        args.push(file(path));
    }
    args
}

fn graph(job: &AudioEncode<'_>) -> String {
    let Grid { source_timebase, origin, .. } = *job.grid;
    // Subtracts the video's start, in ticks of the video track: rounded to the nearest sample, once for the
    // whole track.
    let mut graph = format!("[0:{}]asetpts=PTS-({})", job.stream, in_seconds(origin, source_timebase));
    graph.extend(job.discrete_channels.map(|channels| format!(",{}", alternating(channels))));
    graph.push_str(&format!(",asplit={}", job.outputs.len()));
    for number in 0..job.outputs.len() {
        graph.push_str(&format!("[s{number}]"));
    }
    for (number, (rendition, _)) in job.outputs.iter().enumerate() {
        graph.push_str(&format!(";[s{number}]{}[a{number}]", laid_out(job, rendition)));
    }
    graph
}

/// Returns a filter that mixes channels without positions: even ones to the left, odd ones to the right, none
/// louder than before.
fn alternating(channels: u16) -> String {
    let side = |first: u16| {
        let mixed: Vec<String> = (first..channels).step_by(2).map(|channel| format!("c{channel}")).collect();
        format!("c{first}<{}", mixed.join("+"))
    };
    format!("pan=stereo|{}|{}", side(0), side(1))
}

/// Returns the filters that align the sound from the video's start to its end, at a rendition's rate and
/// channels.
fn laid_out(job: &AudioEncode<'_>, rendition: &AudioRendition) -> String {
    let AudioRendition { sample_rate, channels, .. } = *rendition;
    let title_samples = job.title_samples(sample_rate);
    let end = title_samples.saturating_add(BEYOND_TITLE_S_MAX * u64::from(sample_rate));
    [
        // Sound before the start is cut; a late start and gaps become silence; nothing is stretched.
        format!("aresample={sample_rate}:async=1:first_pts=0:min_hard_comp={GAP_S}"),
        format!("aformat=sample_fmts=fltp:sample_rates={sample_rate}:channel_layouts={}", layout(channels)),
        // Sound that ends before the video continues as silence.
        format!("apad=whole_len={title_samples}"),
        format!("atrim=end_sample={end}"),
    ]
    .join(",")
}

/// Returns an expression for ticks in the filter's own timebase, rounded to its nearest tick.
fn in_seconds(ticks: i64, timebase: Rational) -> String {
    format!("round({ticks}*{}/{}/TB)", timebase.num(), timebase.den())
}

/// Returns FFmpeg's name of the layout with this number of channels. FFmpeg's mixer converts the source's to
/// it.
fn layout(channels: u16) -> &'static str {
    match channels {
        1 => "mono",
        6 => "5.1",
        8 => "7.1",
        _ => "stereo",
    }
}
