//! How much happens in a title's pictures? A few seconds of them, a dozen frames or more at a time, encoded at every rung, tells.
//!
//! Why: of equally many pixels those of a camera on a table took half the time of an animation's, and neither length nor rate of the source
//! shows which it is. What x264 skips does, and is the same on every machine. At every rung, because noise that is coded at 1080p is gone at
//! 480p: of a phone's pictures half was coded there, and a third here. What skipping does not show, such as how fast x264 finds out that it
//! can skip, the samples' own processor time does.

use std::{path::PathBuf, time::Duration};

use futures::StreamExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    Result,
    encode::{encode_segment, worker::Machine},
    ffmpeg::{Encoded, Finished, Invocation, Limits, OutputVerdict, Program, Report},
    plan::{
        args::{self, VideoEncode},
        deinterlace::Deinterlace,
        ladder::{Ladder, VideoRendition},
        segments::{Segment, SegmentTrack},
    },
    predict::cost_model::{self, Costs, EncodeFeatures},
    source::{probe::VideoTrack, source_cache::OpenSource},
};

/// Places that are looked at.
const PLACES: u64 = 5;

/// Pixels of the source that are looked at, all in all: as many as a dozen frames of 1080p have at each. Where there are fewer places, more
/// at each.
const PIXELS: u64 = PLACES * FRAMES * 1920 * 1080;

/// Frames that are looked at at each place: at least, of larger pictures too, at most, and the fewest that tell something.
const FRAMES: u64 = 12;
const FRAMES_MOST: u64 = 150;
const FRAMES_LEAST: u64 = 3;

/// What may be read for all places, where only a part of the source is: of a source with more there are fewer frames.
const BYTES: u64 = PLACES << 20;

/// Places that are looked at side by side, by all who ask a machine.
pub(crate) const AT_A_TIME: usize = 2;

/// What looking may take, all in all: it is a courtesy, and no reason to wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// What samples of a title's pictures showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Complexity {
    /// How much changes between keyframes: by pixels of a picture, the share that is coded and not skipped, from 0 to 1.
    changes: Vec<(u64, f64)>,
    /// What was encoded for each, and the processor time that it took.
    took: Vec<(EncodeFeatures, Duration)>,
    /// How many times what the model said when they were asked for.
    times: Option<f64>,
}

impl Complexity {
    /// The share that changes at a size that was looked at, or at the one nearest to it.
    pub(crate) fn changes(&self, rendition: &VideoRendition) -> Option<f64> {
        let pixels = pixels(rendition);
        self.changes.iter().min_by_key(|(size, _)| size.abs_diff(pixels)).map(|(_, share)| *share)
    }

    /// How many times what the model says they took.
    pub(crate) fn times(&self) -> Option<f64> {
        self.times
    }

    fn beside(&self, costs: &Costs) -> Self {
        Self { times: costs.beside(&self.took), ..self.clone() }
    }

    /// What is in the middle of several titles, at the sizes of the first. `None` without any.
    #[must_use]
    pub fn mean(of: &[Self]) -> Option<Self> {
        let first = of.first()?;
        let share = |pixels: u64| {
            let near = of
                .iter()
                .filter_map(|samples| samples.changes.iter().min_by_key(|(size, _)| size.abs_diff(pixels)));
            mean(&near.map(|(_, share)| *share).collect::<Vec<_>>()).unwrap_or_default()
        };
        let changes = first.changes.iter().map(|(pixels, _)| (*pixels, share(*pixels))).collect();
        let times = mean(&of.iter().filter_map(|samples| samples.times).collect::<Vec<_>>());
        Some(Self { changes, took: Vec::new(), times })
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn pixels(rendition: &VideoRendition) -> u64 {
    u64::from(rendition.width) * u64::from(rendition.height)
}

/// What samples of a title's pictures show. `None` where there are none, or where they do not tell: a prediction without them is rougher, and
/// whoever transcodes a damaged source hears of it then. The first ladder that is asked for decides the sizes.
pub async fn of(machine: &Machine, title: &OpenSource, ladder: &Ladder) -> Option<Complexity> {
    let looked = title.samples.get_or_try_init(|| async {
        let found = timeout(PATIENCE, look(machine, title, ladder)).await.ok().flatten();
        // What did not tell may tell the next time.
        found.ok_or(())
    });
    looked.await.ok().map(|samples| samples.beside(&machine.costs()))
}

async fn look(machine: &Machine, title: &OpenSource, ladder: &Ladder) -> Option<Complexity> {
    let video = title.probe.video.as_ref()?;
    let renditions = ladder.fit(video, &title.grid).ok()?;
    let grid = &title.grid;
    let samples = title.video_track().map_or(&[][..], |track| &track.samples);
    let keys = samples
        .iter()
        .filter(|sample| sample.key)
        .map(|sample| u64::try_from(grid.frame_at(sample.pts)).unwrap_or(0));
    let places = places(keys.collect(), grid.frames);
    let part = 1.0 / places.len() as f64;
    let looks: Vec<_> =
        places.into_iter().map(|first| sample(machine, title, video, &renditions, first, part)).collect();
    let looks: Vec<Result<Option<Sample>>> = futures::stream::iter(looks).buffered(AT_A_TIME).collect().await;
    let (mut reports, mut took) = (Vec::new(), Vec::new());
    for looked in looks {
        match looked {
            Ok(sample) => {
                let Some(Sample { report, work, cpu }) = sample else { continue };
                reports.push(report);
                took.extend(cpu.map(|cpu| (work, cpu)));
            }
            Err(error) => debug!(source = title.source.redacted_uri(), %error, "a sample tells nothing"),
        }
    }
    let size = |(number, rendition): (usize, &VideoRendition)| {
        let told = |report: &Report| report.of(&renditions)[number].and_then(Encoded::coded_changes);
        let shares: Vec<f64> = reports.iter().filter_map(told).collect();
        Some((pixels(rendition), mean(&shares)?))
    };
    let changes: Vec<_> = renditions.iter().enumerate().filter_map(size).collect();
    (!changes.is_empty() || !took.is_empty()).then_some(Complexity { changes, took, times: None })
}

/// Some frames that were encoded.
struct Sample {
    /// What was told of the renditions.
    report: Report,
    work: EncodeFeatures,
    cpu: Option<Duration>,
}

/// Where to look in a title of so many frames: at keyframes before the middle of each fifth, so that nothing is decoded in vain, and at its
/// begin where there is none. Sorted, each once.
fn places(mut keys: Vec<u64>, frames: u64) -> Vec<u64> {
    keys.retain(|frame| frame.saturating_add(FRAMES) <= frames);
    keys.sort_unstable();
    let place = |number: u64| {
        let middle = frames / (2 * PLACES) * (2 * number + 1);
        keys.partition_point(|frame| *frame <= middle).checked_sub(1).map_or(0, |at| keys[at])
    };
    let mut places: Vec<u64> = (0..PLACES).map(place).collect();
    places.dedup();
    places
}

/// Encodes some frames from here at these renditions: this part of all that are looked at. `None` where they are too few to tell anything.
async fn sample(
    machine: &Machine,
    title: &OpenSource,
    source: &VideoTrack,
    renditions: &[VideoRendition],
    first_frame: u64,
    part: f64,
) -> Result<Option<Sample>> {
    let _turn = machine.sample().await;
    let grid = &title.grid;
    let of = |frames: u64| Segment {
        source: title.source.uri.clone(),
        etag: title.source.etag.clone(),
        track: SegmentTrack::Video,
        index: 0,
        first_frame,
        frames,
        timebase: grid.rate.inverse(),
        start_ms: 0,
        duration_ms: 0,
        media_segment_frames: u32::try_from(frames).unwrap_or(u32::MAX),
        title_frames: grid.frames,
        lost_ms: 0,
        deinterlace: if title.fields { Deinterlace::Field } else { Deinterlace::Frame },
    };
    let size = u64::from(source.width) * u64::from(source.height);
    let frames = (PIXELS as f64 * part / size.max(1) as f64) as u64;
    let mut frames = frames.clamp(FRAMES, FRAMES_MOST).min(grid.frames.saturating_sub(first_frame));
    let (bytes, most) = (cost_model::read_bytes(title, &of(frames))?, (BYTES as f64 * part) as u64);
    if bytes > most {
        frames = frames * most / bytes;
    }
    if frames < FRAMES_LEAST {
        return Ok(None);
    }
    let segment = of(frames);
    let scratch = machine.scratch_folder()?;
    let input = encode_segment::input(title, &segment, &scratch.path().join("window.mp4")).await?;
    let output = |rendition: &VideoRendition| {
        (rendition.clone(), scratch.path().join(format!("{}.mp4", rendition.name)))
    };
    let outputs: Vec<(VideoRendition, PathBuf)> = renditions.iter().map(output).collect();
    let args = args::encode_video(&VideoEncode {
        input: &input.path,
        demuxer: input.demuxer,
        stream: input.stream,
        seek: input.seek,
        grid,
        first_frame,
        frames,
        media_segment_frames: segment.media_segment_frames,
        source,
        fields: title.fields,
        outputs: &outputs,
        max_pixels: machine.limits.pixels,
        threads: 1,
    });
    let cancel = CancellationToken::new();
    let (tools, scratch, limits) =
        (&machine.tools, scratch.path(), Limits::within(PATIENCE, 1 << 20, machine.limits.memory_bytes));
    let job = Invocation {
        tools,
        program: Program::Ffmpeg,
        args: &args,
        scratch,
        input: Some(&input.path),
        limits,
        cancel: &cancel,
        report: true,
    };
    let Finished { report, cpu, .. } = job.run(|_| OutputVerdict::Nothing).await?;
    let coded = report.of(renditions).into_iter().map(|encoded| encoded.and_then(Encoded::coded));
    let coded: Vec<_> = std::iter::zip(renditions.iter().cloned(), coded).collect();
    Ok(Some(Sample { work: EncodeFeatures::at(title, &segment, &coded, 0)?, report, cpu }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ladder::VideoCodec;

    fn rendition(width: u32, height: u32) -> VideoRendition {
        let (name, codec, preset) = (format!("{height}p"), VideoCodec::H264, "veryfast".to_owned());
        VideoRendition {
            name,
            codec,
            width,
            height,
            crf: 23,
            max_bitrate_bps: 1,
            buffer_bits: 1,
            level: Some(40),
            preset,
        }
    }

    fn samples(changes: Vec<(u64, f64)>, times: Option<f64>) -> Complexity {
        Complexity { changes, took: Vec::new(), times }
    }

    #[test]
    fn a_size_that_was_not_looked_at_is_like_the_nearest() {
        let samples = samples(vec![(1920 * 1080, 0.5), (854 * 480, 0.3)], None);
        assert_eq!(
            [(1920, 1080), (3840, 2160), (640, 360)].map(|(w, h)| samples.changes(&rendition(w, h)).unwrap()),
            [0.5, 0.5, 0.3]
        );
    }

    #[test]
    fn it_looks_at_keyframes_all_over_the_title() {
        let every = |frames: u64| (0..1500).step_by(usize::try_from(frames).unwrap()).collect::<Vec<u64>>();
        assert_eq!(places(every(50), 1500), [150, 450, 750, 1050, 1350]);
        assert_eq!(places(every(400), 1500), [0, 400, 800, 1200]);
        assert_eq!(places(vec![0], 1500), [0]);
        assert_eq!(places(Vec::new(), 1500), [0]);
        assert_eq!(places(vec![0], 1), [0]);
        assert_eq!(places(vec![0, 5], 12), [0], "the rest is too short");
        assert_eq!(places(vec![30, 0, u64::MAX], 60), [0, 30]);
    }

    #[test]
    fn titles_have_a_mean() {
        let of = [
            samples(vec![(100, 0.5), (50, 0.3)], Some(1.5)),
            samples(vec![(90, 0.1)], Some(0.5)),
            samples(vec![(90, 0.3)], None),
        ];
        let mean = Complexity::mean(&of).unwrap();
        assert_eq!(mean.times, Some(1.0));
        assert_eq!(
            mean.changes.iter().map(|(size, share)| (*size, (share * 1e6).round())).collect::<Vec<_>>(),
            [(100, 3e5), (50, 233_333.0)]
        );
        assert_eq!(Complexity::mean(&[]), None);
    }
}
