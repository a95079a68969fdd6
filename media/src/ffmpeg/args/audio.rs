//! How is a sound track encoded? Once, from its start to its end, laid exactly beside the pictures.

use std::{ffi::OsString, path::Path};

use super::{file, input, input_options, output_options, preamble, words};
use crate::{grid::Grid, ladder::AudioRendition, limits::PIXELS_MAX, time::Rational};

/// A step of the source's clock above this is filled with silence or cut out, smaller ones are jitter. Two frames at 50 Hz: a viewer
/// sees sound that leads by 45 ms (ITU-R BT.1359).
const GAP_S: &str = "0.04";
/// How far sound may outlast the pictures. A source with a wild time stamp would else be filled with years of silence.
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
    /// The title's clock: its origin is where the sound begins too, its length the least that the sound lasts.
    pub grid: &'a Grid,
    /// What it becomes.
    pub rendition: &'a AudioRendition,
    /// The local MP4 file it goes to.
    pub output: &'a Path,
}

impl AudioEncode<'_> {
    /// Samples from the title's start to its end, rounded up: the sound lasts at least so long.
    pub fn title_samples(&self) -> u64 {
        let Grid { rate, frames, .. } = *self.grid;
        let samples = u128::from(frames) * u128::from(rate.den()) * u128::from(self.rendition.sample_rate);
        u64::try_from(samples.div_ceil(u128::from(rate.num()))).unwrap_or(u64::MAX)
    }
}

/// Arguments of the run that encodes `job`: one fragmented MP4 file of AAC-LC whose sample 0, after the encoder's delay of 1,024 samples,
/// is the sound at the title's start.
pub fn encode_audio(job: &AudioEncode<'_>) -> Vec<OsString> {
    let rate = job.rendition.sample_rate.to_string();
    let mut args = preamble();
    // One thread: the AAC decoder and encoder have no more.
    args.extend(input_options(job.demuxer, 1, PIXELS_MAX));
    args.extend(input(job.input));
    args.extend(words(&["-filter_complex", &graph(job)]));
    args.extend(words(&[
        "-map",
        "[a]",
        "-c:a",
        "aac",
        // FFmpeg's default coder distorts what is tonal: single windows of a steady sine at 128 kb/s were half noise. This one stays below
        // 0.3%, has 5 dB more of signal on film sound at the same size, and takes less time.
        "-aac_coder",
        "fast",
        "-b:a",
        &job.rendition.bitrate_bps.to_string(),
        "-ar",
        &rate,
        // A fragment a second: the packager reads them one by one.
        "-frag_duration",
        "1000000",
    ]));
    // The header waits for the first packets, so that its edit list can tell the encoder's delay.
    args.extend(output_options("+delay_moov"));
    args.push(file(job.output));
    args
}

fn graph(job: &AudioEncode<'_>) -> String {
    let Grid { source_timebase, origin, .. } = *job.grid;
    let AudioRendition { sample_rate, channels, .. } = *job.rendition;
    let title_samples = job.title_samples();
    let end = title_samples.saturating_add(BEYOND_TITLE_S_MAX * u64::from(sample_rate));
    [
        // Ticks from the title's start, which the video track's clock counts: to the nearest sample, once for the whole track.
        format!("[0:{}]asetpts=PTS-({})", job.stream, in_seconds(origin, source_timebase)),
        // What is before the start is cut, a late start and gaps become silence; nothing is stretched.
        format!("aresample={sample_rate}:async=1:first_pts=0:min_hard_comp={GAP_S}"),
        format!("aformat=sample_fmts=fltp:sample_rates={sample_rate}:channel_layouts={}", layout(channels)),
        // Sound that ends before the pictures goes on as silence.
        format!("apad=whole_len={title_samples}"),
        format!("atrim=end_sample={end}[a]"),
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
