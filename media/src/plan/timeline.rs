//! Timeline of a source: the frame grid of its output, and the ticks of the source that each row reads.

use std::{ops::Range, sync::Arc};

use moka::{future::Cache, policy::EvictionPolicy};

use crate::{
    Result,
    environment::Environment,
    plan::{deinterlace::Deinterlace, grid::Grid, segments::Segment},
    source::{
        self,
        index::{Index, Sample, Track, TrackKind},
        probe::{self, Probe},
        source_cache::{OpenSource, SourceCache},
    },
};

/// Most timelines that a process keeps.
const TIMELINES_MAX: u64 = 8;

/// An open source and the frame clock of its output.
#[derive(Debug)]
pub struct Timeline {
    /// The open source.
    pub source: Arc<OpenSource>,
    /// The output frame clock.
    pub grid: Grid,
    /// Whether each frame of the grid is one field of the source.
    pub fields: bool,
}

impl Timeline {
    /// Creates the timeline of an open source.
    ///
    /// # Errors
    /// Returns an error if the source has no track, no frames, or is longer than the limits allow.
    fn of(source: Arc<OpenSource>, deinterlace: Deinterlace, limits: &crate::limits::Limits) -> Result<Self> {
        let grid = grid(&source.index, &source.probe, &source.source.uri)?;
        let of_fields =
            grid.of_fields().filter(|_| is_interlaced(&source) && deinterlace == Deinterlace::Field);
        let (grid, fields) = of_fields.map_or((grid, false), |grid| (grid, true));
        probe::check_duration(grid.seconds(), limits)?;
        Ok(Self { source, grid, fields })
    }

    /// Returns how the grid treats interlaced frames.
    pub fn deinterlace(&self) -> Deinterlace {
        if self.fields { Deinterlace::Field } else { Deinterlace::Frame }
    }

    /// Returns the ticks of the source that a video row reads: from the source frame that its first frame
    /// shows.
    ///
    /// If a source frame belongs to the first grid frame, reading starts there, so that a row that starts
    /// with a keyframe decodes nothing before it. Otherwise an earlier frame is held, which `source::window`
    /// finds. Deinterlacing uses neighbouring frames, and so reads them too.
    pub(crate) fn reads(&self, segment: &Segment) -> Range<i64> {
        let all = self.grid.span_of(segment.first_frame, segment.frames);
        let slot = self.grid.span_of(segment.first_frame, 1);
        if self.source.probe.video.as_ref().is_some_and(|video| video.interlaced) {
            // One source frame on either side: without it the deinterlacer's output would differ at a join.
            let frame = if self.fields { 2 } else { 1 };
            let first = segment.first_frame.saturating_sub(frame);
            let end = segment.first_frame.saturating_add(segment.frames).saturating_add(frame);
            return self.grid.span_of(first, end - first);
        }
        let samples = self.source.video_track().map_or(&[][..], |track| &track.samples);
        let shown = samples.iter().map(|sample| sample.pts).filter(|pts| slot.contains(pts)).max();
        shown.unwrap_or(all.start)..all.end
    }
}

/// URI, ETag, and mode of deinterlacing.
type Key = (String, String, Deinterlace);

/// Timelines of the sources that a process has open.
#[derive(Debug)]
pub struct TimelineCache {
    sources: SourceCache,
    timelines: Cache<Key, Arc<Timeline>>,
}

impl TimelineCache {
    /// Creates an empty cache over open sources.
    pub fn new(sources: SourceCache) -> Self {
        let timelines =
            Cache::builder().max_capacity(TIMELINES_MAX).eviction_policy(EvictionPolicy::lru()).build();
        Self { sources, timelines }
    }

    /// Returns the environment that sources are opened in.
    pub fn environment(&self) -> &Environment {
        self.sources.environment()
    }

    /// Opens the current version of the source at a path or URI.
    ///
    /// # Errors
    /// Returns an error if the source is missing, not readable, or not a video.
    pub async fn open(&self, uri: &str, deinterlace: Deinterlace) -> Result<Arc<Timeline>> {
        let source = self.sources.open(uri).await?;
        self.timeline(source, deinterlace).await
    }

    /// Opens the source of a row in exactly the version that was planned.
    ///
    /// # Errors
    /// Returns the errors of [`TimelineCache::open`], and [`source::Error::SourceChanged`] if the source has
    /// another version now.
    pub async fn open_planned(&self, segment: &Segment) -> Result<Arc<Timeline>> {
        let source = self.sources.open_pinned(&segment.source, &segment.etag).await?;
        self.timeline(source, segment.deinterlace).await
    }

    async fn timeline(&self, source: Arc<OpenSource>, deinterlace: Deinterlace) -> Result<Arc<Timeline>> {
        // Progressive sources have one timeline, for both modes.
        let deinterlace = if is_interlaced(&source) { deinterlace } else { Deinterlace::Frame };
        let key = (source.source.uri.clone(), source.source.etag.clone(), deinterlace);
        if let Some(known) = self.timelines.get(&key).await {
            return Ok(known);
        }
        let redacted = source.source.redacted_uri();
        let limits = &self.sources.environment().limits;
        let timeline = Arc::new(Timeline::of(source, deinterlace, limits).map_err(|e| e.of(&redacted))?);
        self.timelines.insert(key, timeline.clone()).await;
        self.timelines.run_pending_tasks().await;
        Ok(timeline)
    }
}

fn is_interlaced(source: &OpenSource) -> bool {
    source.probe.video.as_ref().is_some_and(|video| video.interlaced)
}

/// Returns the grid of the video, or of the first audio track if there is no video.
fn grid(index: &Index, probe: &Probe, uri: &str) -> Result<Grid> {
    let track = |stream: u32| index.tracks.get(stream as usize);
    let none = |what| source::Error::NoSuchTrack { uri: uri.to_owned(), track: what, index: 0 };
    // Every player decodes and drops samples that are not shown: the grid counts the others.
    let shown = |stream: u32, track: &Track| -> Vec<Sample> {
        let shown = index.shown(stream as usize);
        track.samples.iter().filter(|sample| shown.contains(&sample.pts)).copied().collect()
    };
    if let Some(video) = &probe.video {
        let pictures =
            track(video.stream).filter(|t| t.kind == TrackKind::Video).ok_or_else(|| none("video track"))?;
        return Ok(Grid::of(&shown(video.stream, pictures), pictures.timebase, video.declared_fps)?);
    }
    let audio = probe.audio.first().ok_or_else(|| none("sound track"))?;
    let sound = track(audio.stream).ok_or_else(|| none("sound track"))?;
    Ok(Grid::for_audio(&shown(audio.stream, sound), sound.timebase)?)
}
