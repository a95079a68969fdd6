//! Input of a row: a local file with the samples that FFmpeg reads, a window of the source or the whole.

use std::path::{Path, PathBuf};

use crate::{
    Result,
    plan::{
        segments::{Segment, SegmentTrack},
        timeline::Timeline,
    },
    source::{self, index::Container, source_cache::WholeFile, window},
};

/// FFmpeg's input for a row.
pub(crate) struct Input<'a> {
    pub(crate) path: PathBuf,
    pub(crate) demuxer: &'a str,
    pub(crate) stream: u32,
    /// Decoding time of the keyframe to start at, if the file holds more than the row needs.
    pub(crate) seek: Option<i64>,
}

/// Fetches the row's samples into a local file: a window of the source, or the whole source.
pub(crate) async fn fetch<'a>(timeline: &'a Timeline, segment: &Segment, window: &Path) -> Result<Input<'a>> {
    let stream = match segment.track {
        SegmentTrack::Video => timeline.source.probe.video.as_ref().map(|video| video.stream),
        SegmentTrack::Audio => {
            timeline.source.probe.audio.get(segment.index as usize).map(|audio| audio.stream)
        }
    };
    let none =
        || source::Error::NoSuchTrack { uri: segment.source.clone(), track: "track", index: segment.index };
    let stream = stream.ok_or_else(none)?;
    match (&timeline.source.index.container, &timeline.source.whole) {
        (Container::Whole { demuxer }, Some(whole)) => {
            if matches!(whole, WholeFile::Source(_)) {
                timeline.source.reader.inner().location().open_pinned(&timeline.source.source).await?;
            }
            let seek = match segment.track {
                SegmentTrack::Video => key_before(timeline, timeline.reads(segment).start),
                SegmentTrack::Audio => None,
            };
            Ok(Input { path: whole.as_ref().to_owned(), demuxer, stream, seek })
        }
        _ => {
            let span = match segment.track {
                SegmentTrack::Video => {
                    let reads = timeline.reads(segment);
                    window::Span::Pts { first: reads.start, end: reads.end }
                }
                SegmentTrack::Audio => window::Span::All,
            };
            let plan = window::plan(&timeline.source.index, stream as usize, span)?;
            window::write(&plan, &timeline.source.reader, window).await?;
            Ok(Input { path: window.to_owned(), demuxer: "mov", stream: 0, seek: None })
        }
    }
}

/// Returns the decoding time of the last keyframe that is shown at or before `pts`. FFmpeg searches MPEG-TS
/// by decoding times.
fn key_before(timeline: &Timeline, pts: i64) -> Option<i64> {
    let samples = &timeline.source.video_track()?.samples;
    samples
        .iter()
        .filter(|sample| sample.key && sample.pts <= pts)
        .max_by_key(|sample| sample.pts)
        .map(|sample| sample.dts)
}
