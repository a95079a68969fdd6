//! Arguments for an audio track: encoded once, from start to end, laid exactly beside the pictures.

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

/// A step of the source's clock above this is filled with silence or cut out, smaller ones are jitter. Two
/// frames at 50 Hz: a viewer sees sound that leads by 45 ms (ITU-R BT.1359).
const GAP_S: &str = "0.04";
/// How far sound may outlast the pictures. A source with a wild time stamp would else be filled with years of
/// silence.
const BEYOND_TITLE_S_MAX: u64 = 12 * 3600;

/// One whole sound track of a source.
#[derive(Debug, Clone, Copy)]
pub struct AudioEncode<'a> {
    /// The window, or the whole source: a local file.
    pub input: &'a Path,
    /// FFmpeg's name of its demuxer: `mov` for windows.
    pub demuxer: &'a str,
    /// FFmpeg's stream index in `input`.
    pub stream: u32,
    /// How many channels it has, where nothing says where their speakers stand.
    pub discrete_channels: Option<u16>,
    /// The title's clock: its origin is where the sound begins too, its length the least that the sound
    /// lasts.
    pub grid: &'a Grid,
    /// What it becomes, each with the local MP4 file it goes to.
    pub outputs: &'a [(AudioRendition, PathBuf)],
}

impl AudioEncode<'_> {
    /// Samples from the title's start to its end at this rate, rounded up: the sound lasts at least so long.
    pub fn title_samples(&self, sample_rate: u32) -> u64 {
        let Grid { rate, frames, .. } = *self.grid;
        let samples = u128::from(frames) * u128::from(rate.den()) * u128::from(sample_rate);
        u64::try_from(samples.div_ceil(u128::from(rate.num()))).unwrap_or(u64::MAX)
    }
}

/// Arguments of the run that encodes `job`: fragmented MP4 files whose sample 0, after the encoder's delay,
/// is the sound at the title's start.
pub fn encode_audio(job: &AudioEncode<'_>) -> Vec<OsString> {
    let mut args = preamble();
    // One thread: decoders and encoders of sound have no more.
    args.extend(input_options(job.demuxer, 1, PIXELS_MAX));
    args.extend(input(job.input));
    args.extend(words(&["-filter_complex", &graph(job)]));
    for (number, (rendition, path)) in job.outputs.iter().enumerate() {
        args.extend(words(&["-map", &format!("[a{number}]")]));
        args.extend(encoders::audio(rendition));
        // A fragment a second: the packager reads them one by one.
        args.extend(words(&["-frag_duration", "1000000"]));
        // The header waits for the first packets, so that its edit list can tell the encoder's delay.
        args.extend(output_options("+delay_moov"));
        args.push(file(path));
    }
    args
}

fn graph(job: &AudioEncode<'_>) -> String {
    let Grid { source_timebase, origin, .. } = *job.grid;
    // Ticks from the title's start, which the video track's clock counts: to the nearest sample, once for the
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

/// A mix of channels without places: every other one to the left, the rest to the right, none louder than it
/// was.
fn alternating(channels: u16) -> String {
    let side = |first: u16| {
        let mixed: Vec<String> = (first..channels).step_by(2).map(|channel| format!("c{channel}")).collect();
        format!("c{first}<{}", mixed.join("+"))
    };
    format!("pan=stereo|{}|{}", side(0), side(1))
}

/// Filters that lay the sound out from the title's start to its end, at one rendition's rate and in its
/// channels.
fn laid_out(job: &AudioEncode<'_>, rendition: &AudioRendition) -> String {
    let AudioRendition { sample_rate, channels, .. } = *rendition;
    let title_samples = job.title_samples(sample_rate);
    let end = title_samples.saturating_add(BEYOND_TITLE_S_MAX * u64::from(sample_rate));
    [
        // What is before the start is cut, a late start and gaps become silence; nothing is stretched.
        format!("aresample={sample_rate}:async=1:first_pts=0:min_hard_comp={GAP_S}"),
        format!("aformat=sample_fmts=fltp:sample_rates={sample_rate}:channel_layouts={}", layout(channels)),
        // Sound that ends before the pictures goes on as silence.
        format!("apad=whole_len={title_samples}"),
        format!("atrim=end_sample={end}"),
    ]
    .join(",")
}

/// Ticks as an expression in the filter's own timebase, rounded to its nearest tick.
fn in_seconds(ticks: i64, timebase: Rational) -> String {
    format!("round({ticks}*{}/{}/TB)", timebase.num(), timebase.den())
}

/// FFmpeg's name of the layout with so many channels; its mixer brings the source's to it.
fn layout(channels: u16) -> &'static str {
    match channels {
        1 => "mono",
        6 => "5.1",
        8 => "7.1",
        _ => "stereo",
    }
}
