//! Sampling: encodes a few seconds of a source at every rung, a dozen frames or more at each of a few
//! positions, to measure its complexity.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::StreamExt;
use moka::{future::Cache, policy::EvictionPolicy};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    Result,
    codec::VideoCodec,
    environment::Environment,
    ffmpeg::{Encoded, Finished, Invocation, Limits, OutputVerdict, Program, Report},
    plan::{
        args::{self, VideoEncode},
        input,
        ladder::{Ladder, VideoRendition},
        segments::{Segment, SegmentTrack},
        timeline::Timeline,
    },
    predict::{
        complexity::{Complexity, mean, pixels},
        cost_model::CostModel,
        features::{self, EncodeFeatures},
    },
    source::probe::VideoTrack,
};

/// Most sources whose samples a process keeps.
const TITLES_MAX: u64 = 8;

/// Positions that are sampled.
const POSITIONS: u64 = 5;

/// Total pixels of the source that are sampled: a dozen frames of 1080p at each position. With fewer
/// positions, more at each.
const PIXELS: u64 = POSITIONS * FRAMES * 1920 * 1080;

/// Frames that are sampled at each position: the least (of larger pictures too), the most, and the fewest
/// with a meaningful result.
const FRAMES: u64 = 12;
const FRAMES_MOST: u64 = 150;
const FRAMES_LEAST: u64 = 3;

/// Most bytes that are read for all positions, of a source that is read in windows. With a higher rate, fewer
/// frames are sampled.
const BYTES: u64 = POSITIONS << 20;

/// Samples that a process encodes at a time.
const SAMPLES_AT_A_TIME: usize = 2;

/// Time limit of sampling as a whole: a prediction is optional.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Results of a source's samples.
#[derive(Debug)]
struct Samples {
    coded_shares: Vec<(u64, f64)>,
    /// Features of each sample, and its processor time.
    took: Vec<(EncodeFeatures, Duration)>,
}

/// Cache of the samples of recently predicted sources.
#[derive(Debug)]
pub(crate) struct ComplexityCache {
    /// Samples by URI, ETag and whether frames are fields.
    titles: Cache<(String, String, bool), Arc<OnceCell<Samples>>>,
    permits: Semaphore,
}

impl Default for ComplexityCache {
    fn default() -> Self {
        let titles = Cache::builder().max_capacity(TITLES_MAX).eviction_policy(EvictionPolicy::lru()).build();
        Self { titles, permits: Semaphore::new(SAMPLES_AT_A_TIME) }
    }
}

impl ComplexityCache {
    /// Returns the complexity of a source's pictures; `None` without video, or if sampling failed. The
    /// prediction is less precise then, and the transcode itself reports a damaged source. The first ladder
    /// for a source decides the sizes.
    pub(crate) async fn of(
        &self,
        environment: &Environment,
        cost_model: &CostModel,
        timeline: &Timeline,
        ladder: &Ladder,
    ) -> Option<Complexity> {
        let source = &timeline.source.source;
        let key = (source.uri.clone(), source.etag.clone(), timeline.fields);
        let cell = self.titles.get_with(key, async { Arc::default() }).await;
        let samples = cell.get_or_try_init(|| async {
            let found =
                timeout(TIMEOUT, look(environment, &self.permits, timeline, ladder)).await.ok().flatten();
            // A source whose sampling failed is sampled again the next time.
            found.ok_or(())
        });
        let samples = samples.await.ok()?;
        let sampled_ratio = cost_model.sampled_ratio(&samples.took);
        Some(Complexity { coded_shares: samples.coded_shares.clone(), sampled_ratio })
    }
}

async fn look(
    environment: &Environment,
    permits: &Semaphore,
    timeline: &Timeline,
    ladder: &Ladder,
) -> Option<Samples> {
    let video = timeline.source.probe.video.as_ref()?;
    let renditions = &ladder.fit(video, &timeline.grid).ok()?;
    let grid = &timeline.grid;
    let samples = timeline.source.video_track().map_or(&[][..], |track| &track.samples);
    let keys = samples
        .iter()
        .filter(|sample| sample.key)
        .map(|sample| u64::try_from(grid.frame_at(sample.pts)).unwrap_or(0));
    let places = places(keys.collect(), grid.frames);
    let part = 1.0 / places.len() as f64;
    let looks: Vec<_> = places
        .into_iter()
        .map(|first| async move {
            let _permit = permits.acquire().await;
            sample(environment, timeline, video, renditions, first, part).await
        })
        .collect();
    let looks: Vec<Result<Option<Sample>>> =
        futures::stream::iter(looks).buffered(SAMPLES_AT_A_TIME).collect().await;
    let (mut reports, mut took) = (Vec::new(), Vec::new());
    for looked in looks {
        match looked {
            Ok(sample) => {
                let Some(Sample { report, features, cpu }) = sample else { continue };
                reports.push(report);
                took.extend(cpu.map(|cpu| (features, cpu)));
            }
            Err(error) => {
                debug!(source = timeline.source.source.redacted_uri(), %error, "a sample failed")
            }
        }
    }
    let size = |(number, rendition): (usize, &VideoRendition)| {
        let share = |report: &Report| report.of(&codecs(renditions))[number].and_then(Encoded::coded_changes);
        let shares: Vec<f64> = reports.iter().filter_map(share).collect();
        Some((pixels(rendition), mean(&shares)?))
    };
    let changes: Vec<_> = renditions.iter().enumerate().filter_map(size).collect();
    (!changes.is_empty() || !took.is_empty()).then_some(Samples { coded_shares: changes, took })
}

fn codecs(renditions: &[VideoRendition]) -> Vec<VideoCodec> {
    renditions.iter().map(|rendition| rendition.codec).collect()
}

/// Result of one sample.
struct Sample {
    /// FFmpeg's report.
    report: Report,
    features: EncodeFeatures,
    cpu: Option<Duration>,
}

/// Returns the positions to sample: the last keyframe before the middle of each fifth, so that there is no
/// preroll, and the start if there is none. Sorted, each once.
fn places(mut keys: Vec<u64>, frames: u64) -> Vec<u64> {
    keys.retain(|frame| frame.saturating_add(FRAMES) <= frames);
    keys.sort_unstable();
    let place = |number: u64| {
        let middle = frames / (2 * POSITIONS) * (2 * number + 1);
        keys.partition_point(|frame| *frame <= middle).checked_sub(1).map_or(0, |at| keys[at])
    };
    let mut places: Vec<u64> = (0..POSITIONS).map(place).collect();
    places.dedup();
    places
}

/// Encodes frames from `first_frame` on at these renditions. `part` is this sample's share of the total.
/// `None` if the frames are too few for a meaningful result.
async fn sample(
    environment: &Environment,
    timeline: &Timeline,
    source: &VideoTrack,
    renditions: &[VideoRendition],
    first_frame: u64,
    part: f64,
) -> Result<Option<Sample>> {
    let grid = &timeline.grid;
    let of = |frames: u64| Segment {
        source: timeline.source.source.uri.clone(),
        etag: timeline.source.source.etag.clone(),
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
        deinterlace: timeline.deinterlace(),
    };
    let size = u64::from(source.width) * u64::from(source.height);
    let frames = (PIXELS as f64 * part / size.max(1) as f64) as u64;
    let mut frames = frames.clamp(FRAMES, FRAMES_MOST).min(grid.frames.saturating_sub(first_frame));
    let (bytes, most) = (features::read_bytes(timeline, &of(frames))?, (BYTES as f64 * part) as u64);
    if bytes > most {
        frames = frames * most / bytes;
    }
    if frames < FRAMES_LEAST {
        return Ok(None);
    }
    let segment = of(frames);
    let scratch = environment.scratch_folder()?;
    let input = input::fetch(timeline, &segment, &scratch.path().join("window.mp4")).await?;
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
        fields: timeline.fields,
        outputs: &outputs,
        max_pixels: environment.limits.pixels,
        threads: 1,
    });
    let cancel = CancellationToken::new();
    let (tools, scratch, limits) = (
        &environment.tools,
        scratch.path(),
        Limits::within(TIMEOUT, 1 << 20, environment.limits.memory_bytes),
    );
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
    let coded = report.of(&codecs(renditions)).into_iter().map(|encoded| encoded.and_then(Encoded::coded));
    let coded: Vec<_> = std::iter::zip(renditions.iter().cloned(), coded).collect();
    Ok(Some(Sample { features: EncodeFeatures::at(timeline, &segment, &coded, 0)?, report, cpu }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_begin_at_keyframes_all_over_the_title() {
        let every = |frames: u64| (0..1500).step_by(usize::try_from(frames).unwrap()).collect::<Vec<u64>>();
        assert_eq!(places(every(50), 1500), [150, 450, 750, 1050, 1350]);
        assert_eq!(places(every(400), 1500), [0, 400, 800, 1200]);
        assert_eq!(places(vec![0], 1500), [0]);
        assert_eq!(places(Vec::new(), 1500), [0]);
        assert_eq!(places(vec![0], 1), [0]);
        assert_eq!(places(vec![0, 5], 12), [0], "the rest is too short");
        assert_eq!(places(vec![30, 0, u64::MAX], 60), [0, 30]);
    }
}
