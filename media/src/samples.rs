//! How much happens in a title's pictures? A few seconds of them, a dozen frames at a time, encoded at every rung, tells.
//!
//! Why: of equally many pixels those of a camera on a table took half the time of an animation's, and neither length nor rate of the source
//! shows which it is. What x264 skips does, and is the same on every machine. At every rung, because noise that is coded at 1080p is gone at
//! 480p: of a phone's pictures half was coded there, and a third here.

use std::{path::PathBuf, time::Duration};

use futures::StreamExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    Result, cost,
    ffmpeg::{
        Heard, Job, Limits, Program, Report,
        args::{self, VideoEncode},
    },
    ladder::{Ladder, VideoRendition},
    machine::Machine,
    probe::VideoTrack,
    segments::{Segment, SegmentTrack},
    titles::Title,
    transcode,
};

/// Places that are looked at.
const PLACES: u64 = 5;

/// Frames that are looked at at each, and the fewest that tell something.
const FRAMES: u64 = 12;
const FRAMES_LEAST: u64 = 3;

/// What may be read for a place, where only a part of the source is: of a source with more there are fewer frames.
const PLACE_BYTES: u64 = 1 << 20;

/// Places that are looked at side by side, by all who ask a machine.
pub(crate) const AT_A_TIME: usize = 2;

/// What looking may take, all in all: it is a courtesy, and no reason to wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much of the pictures between keyframes changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// By pixels of a picture, the share that is coded and not skipped, from 0 to 1.
    sizes: Vec<(u64, f64)>,
}

impl Changes {
    /// The share at a size that was looked at, or at the one nearest to it.
    pub(crate) fn at(&self, rendition: &VideoRendition) -> Option<f64> {
        let pixels = pixels(rendition);
        self.sizes.iter().min_by_key(|(size, _)| size.abs_diff(pixels)).map(|(_, share)| *share)
    }

    /// What is in the middle of several titles, at the sizes of the first. `None` without any.
    #[must_use]
    pub fn mean(of: &[Self]) -> Option<Self> {
        let first = of.first()?;
        let mean = |pixels: u64| {
            let near = of.iter().filter_map(|changes| changes.sizes.iter().min_by_key(|(size, _)| size.abs_diff(pixels)));
            near.map(|(_, share)| share).sum::<f64>() / of.len() as f64
        };
        Some(Self { sizes: first.sizes.iter().map(|(pixels, _)| (*pixels, mean(*pixels))).collect() })
    }
}

fn pixels(rendition: &VideoRendition) -> u64 {
    u64::from(rendition.width) * u64::from(rendition.height)
}

/// How much of a title's pictures changes. `None` where there are none, or where they do not tell: a prediction without it is rougher, and
/// whoever transcodes a damaged source hears of it then. The first ladder that is asked for decides the sizes.
pub async fn changes(machine: &Machine, title: &Title, ladder: &Ladder) -> Option<Changes> {
    let looked = title.changes.get_or_try_init(|| async {
        let found = timeout(PATIENCE, look(machine, title, ladder)).await.ok().flatten();
        // What did not tell may tell the next time.
        found.ok_or(())
    });
    looked.await.ok().cloned()
}

async fn look(machine: &Machine, title: &Title, ladder: &Ladder) -> Option<Changes> {
    let video = title.probe.video.as_ref()?;
    let renditions = ladder.fit(video, &title.grid).ok()?;
    let grid = &title.grid;
    let samples = title.video_track().map_or(&[][..], |track| &track.samples);
    let keys = samples.iter().filter(|sample| sample.key).map(|sample| u64::try_from(grid.frame_at(sample.pts)).unwrap_or(0));
    let looks: Vec<_> =
        places(keys.collect(), grid.frames).into_iter().map(|first| sample(machine, title, video, &renditions, first)).collect();
    let looks: Vec<Result<Vec<Report>>> = futures::stream::iter(looks).buffered(AT_A_TIME).collect().await;
    let mut reports = Vec::new();
    for looked in looks {
        match looked {
            Ok(told) => reports.push(told),
            Err(error) => debug!(source = title.source.shown(), %error, "a sample tells nothing"),
        }
    }
    let size = |(number, rendition): (usize, &VideoRendition)| {
        let shares: Vec<f64> = reports.iter().filter_map(|told: &Vec<Report>| told.get(number)?.coded_changes()).collect();
        (!shares.is_empty()).then(|| (pixels(rendition), shares.iter().sum::<f64>() / shares.len() as f64))
    };
    let sizes: Vec<_> = renditions.iter().enumerate().filter_map(size).collect();
    (!sizes.is_empty()).then_some(Changes { sizes })
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

/// Encodes some frames from here at these renditions; gives what was told of each.
async fn sample(
    machine: &Machine,
    title: &Title,
    source: &VideoTrack,
    renditions: &[VideoRendition],
    first_frame: u64,
) -> Result<Vec<Report>> {
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
    };
    let mut frames = FRAMES.min(grid.frames.saturating_sub(first_frame));
    let bytes = cost::read_bytes(title, &of(frames))?;
    if bytes > PLACE_BYTES {
        frames = frames * PLACE_BYTES / bytes;
    }
    if frames < FRAMES_LEAST {
        return Ok(Vec::new());
    }
    let segment = of(frames);
    let scratch = machine.scratch_folder()?;
    let input = transcode::input(title, &segment, &scratch.path().join("window.mp4")).await?;
    let output = |rendition: &VideoRendition| (rendition.clone(), scratch.path().join(format!("{}.mp4", rendition.name)));
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
        outputs: &outputs,
        max_pixels: machine.limits.pixels,
        threads: 1,
    });
    let cancel = CancellationToken::new();
    let (tools, scratch, limits) =
        (&machine.tools, scratch.path(), Limits::within(PATIENCE, 1 << 20, machine.limits.memory_bytes));
    let encoders = outputs.len();
    let job = Job { tools, program: Program::Ffmpeg, args: &args, scratch, input: Some(&input.path), limits, cancel: &cancel, encoders };
    Ok(job.run(|_| Heard::Nothing).await?.reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendition(width: u32, height: u32) -> VideoRendition {
        let (name, preset) = (format!("{height}p"), "veryfast".to_owned());
        VideoRendition { name, width, height, crf: 23, max_bitrate_bps: 1, buffer_bits: 1, level: 40, preset }
    }

    #[test]
    fn a_size_that_was_not_looked_at_is_like_the_nearest() {
        let changes = Changes { sizes: vec![(1920 * 1080, 0.5), (854 * 480, 0.3)] };
        assert_eq!([(1920, 1080), (3840, 2160), (640, 360)].map(|(w, h)| changes.at(&rendition(w, h)).unwrap()), [0.5, 0.5, 0.3]);
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
        let of = [vec![(100, 0.5), (50, 0.3)], vec![(90, 0.1)]].map(|sizes| Changes { sizes });
        assert_eq!(Changes::mean(&of), Some(Changes { sizes: vec![(100, 0.3), (50, 0.2)] }));
        assert_eq!(Changes::mean(&[]), None);
    }
}
