//! Packages FFmpeg's output of one rung into media segments, one at a time, on a thread of its own.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Wanted;
use crate::{
    ffmpeg::sandbox::open_written,
    package::cmaf::{self, AudioSpec, MediaSegment, VideoSpec},
    plan::{args, segments::Segment, timeline::Timeline},
    source::language,
};

/// The packager's parameters for a row.
pub(super) enum Spec {
    Video(VideoSpec),
    Audio(AudioSpec),
}

impl Spec {
    pub(super) fn of(timeline: &Timeline, segment: &Segment, wanted: &Wanted) -> Self {
        match wanted {
            Wanted::Video(rendition) => Self::Video(VideoSpec {
                rate: timeline.grid.rate,
                first_frame: segment.first_frame,
                frames: segment.frames,
                media_segment_frames: segment.media_segment_frames,
                reorder_frames: args::reorder_frames(rendition.codec),
            }),
            Wanted::Audio(_, label) => Self::Audio(AudioSpec {
                grid_timebase: segment.timebase,
                media_segment_frames: segment.media_segment_frames,
                language: label.language.as_deref().and_then(language::three_letters),
            }),
        }
    }
}

/// Cuts FFmpeg's output into media segments. Returns the init segment and the time that cutting took. Blocks;
/// stops once the receiver is dropped.
pub(super) fn package(
    file: &std::path::Path,
    spec: &Spec,
    sink: &mpsc::Sender<MediaSegment>,
) -> std::result::Result<(cmaf::Init, Duration), cmaf::Error> {
    let (mut begun, mut took) = (Instant::now(), Duration::ZERO);
    let input = std::io::BufReader::new(open_written(file).map_err(cmaf::Error::Read)?);
    let mut packager = match spec {
        Spec::Video(spec) => cmaf::Packager::video(input, spec)?,
        Spec::Audio(spec) => cmaf::Packager::audio(input, spec)?,
    };
    for media_segment in packager.by_ref() {
        took += begun.elapsed();
        // The receiver is gone: an upload failed, and its error is the one to report.
        if sink.blocking_send(media_segment?).is_err() {
            break;
        }
        begun = Instant::now();
    }
    Ok((packager.init().clone(), took + begun.elapsed()))
}

/// Returns a channel's receiver as a stream.
pub(super) fn tokio_stream<T>(receiver: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> {
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
}
