//! What is known of a source that a process works on? Opened once per source and version, and shared by its rows.

use std::{
    collections::VecDeque,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{io::AsyncReadExt, sync::OnceCell};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::plan::deinterlace::Deinterlace;
use crate::{
    Result,
    encode::worker::{self, Machine},
    package::parts,
    plan::{grid::Grid, segments::Segment},
    predict::complexity::Complexity,
    source::{
        index::{self, Container, Index, Sample, Track, TrackKind},
        probe::{self, Probe},
        window,
    },
};
use spool_storage::{ReadAt, Source, SourceReader, read_cache::ReadCache};

/// SourceCache that a process keeps open: an index of a long film is some 20 MB, and a whole-file copy takes scratch space.
const OPEN_TITLES: usize = 8;

/// Bytes from the front of a source that tell its container.
const HEAD_BYTES: u64 = 64 << 10;

/// What is shorter than declared by less than a second, or by less than a hundredth, was not cut off: muxers round, and count by their own rules.
const LOST_MS_LEAST: i64 = 1000;
const LOST_SHARE_LEAST: i64 = 100;

/// A source that is opened: what is in it, where its frames are, and the clock of its output.
#[derive(Debug)]
pub struct OpenSource {
    /// What pins its bytes.
    pub source: Source,
    /// What is in it.
    pub probe: Probe,
    /// Where its frames are.
    pub index: Index,
    /// The output frame clock.
    pub grid: Grid,
    /// Is each frame of that clock a field of the source?
    pub fields: bool,
    /// Reads its bytes; those that told what it is are kept.
    pub reader: ReadCache<SourceReader>,
    /// The whole file, where rows cannot read windows of it.
    pub whole: Option<WholeFile>,
    /// How much longer a container that is scanned says that it is, in milliseconds.
    cut_off_ms: i64,
    /// What [`samples`](crate::predict::complexity) found out, once somebody asked.
    pub(crate) samples: OnceCell<Complexity>,
}

/// A local file that holds all of a source.
#[derive(Debug)]
pub enum WholeFile {
    /// The source itself: it was local already.
    Source(PathBuf),
    /// A copy in scratch space, deleted with the title.
    Copy(tempfile::TempPath),
}

impl AsRef<Path> for WholeFile {
    fn as_ref(&self) -> &Path {
        match self {
            Self::Source(path) => path,
            Self::Copy(path) => path,
        }
    }
}

impl OpenSource {
    /// The track that the pictures come from.
    pub fn video_track(&self) -> Option<&Track> {
        let video = self.probe.video.as_ref()?;
        self.index.tracks.get(video.stream as usize)
    }

    /// How much longer its file says that the title is, in milliseconds.
    pub fn lost_ms(&self) -> i64 {
        let streams = self
            .probe
            .video
            .iter()
            .map(|video| video.stream)
            .chain(self.probe.audio.iter().map(|audio| audio.stream));
        let tracks = streams.filter_map(|stream| self.index.tracks.get(stream as usize));
        let announced = tracks.map(|track| track.timebase.to_ms(track.lost_ticks)).max().unwrap_or(0);
        announced.max(self.cut_off_ms)
    }

    /// The ticks of the source that a row of pictures reads: from the source's frame that its first frame shows.
    ///
    /// A frame of the source in the first frame's own slot is that frame, so that a row that begins with a keyframe decodes nothing before
    /// it. Without one, what came before is held: [`window::plan`] finds it. Deinterlacing looks at the frames beside it, and so reads them.
    pub(crate) fn reads(&self, segment: &Segment) -> Range<i64> {
        let all = self.grid.span_of(segment.first_frame, segment.frames);
        let slot = self.grid.span_of(segment.first_frame, 1);
        if self.probe.video.as_ref().is_some_and(|video| video.interlaced) {
            // A frame of the source to either side: a join must not show what the deinterlacer could not see.
            let frame = if self.fields { 2 } else { 1 };
            let first = segment.first_frame.saturating_sub(frame);
            let end = segment.first_frame.saturating_add(segment.frames).saturating_add(frame);
            return self.grid.span_of(first, end - first);
        }
        let samples = self.video_track().map_or(&[][..], |track| &track.samples);
        let shown = samples.iter().map(|sample| sample.pts).filter(|pts| slot.contains(pts)).max();
        shown.unwrap_or(all.start)..all.end
    }
}

type Slot = Arc<OnceCell<Arc<OpenSource>>>;

/// The titles that a process has open.
#[derive(Debug, Default)]
pub struct SourceCache {
    /// Most recently used last.
    slots: Mutex<VecDeque<(Source, Deinterlace, Slot)>>,
}

impl SourceCache {
    fn slot(&self, source: &Source, deinterlace: Deinterlace) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let found = slots
            .iter()
            .position(|(known, how, _)| known == source && *how == deinterlace)
            .and_then(|at| slots.remove(at));
        let (source, deinterlace, slot) =
            found.unwrap_or_else(|| (source.clone(), deinterlace, Slot::default()));
        if slots.len() >= OPEN_TITLES {
            slots.pop_front();
        }
        slots.push_back((source, deinterlace, slot.clone()));
        slot
    }

    fn find(&self, uri: &str, etag: &str, deinterlace: Deinterlace) -> Option<Arc<OpenSource>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |source: &Source, how: Deinterlace| {
            source.uri == uri && source.etag == etag && how == deinterlace
        };
        slots.iter().find(|(source, how, _)| is_it(source, *how)).and_then(|(_, _, slot)| slot.get().cloned())
    }
}

/// Opens the source at a path or URI as it is now.
///
/// # Errors
/// Where it is missing, not readable, or not a video.
pub async fn open(machine: &Machine, uri: &str, deinterlace: Deinterlace) -> Result<Arc<OpenSource>> {
    let location = machine.stores.locate(uri)?;
    let title = open_reader(machine, location.open().await?, Deinterlace::Frame).await?;
    // What is not interlaced is the same in both ways, and opened once.
    let interlaced = title.probe.video.as_ref().is_some_and(|video| video.interlaced);
    if deinterlace == Deinterlace::Frame || !interlaced {
        return Ok(title);
    }
    open_reader(machine, location.open().await?, deinterlace).await
}

/// Opens the source of a row: exactly the version that was planned.
///
/// # Errors
/// As [`open`], and where the source is another by now.
pub async fn open_planned(machine: &Machine, segment: &Segment) -> Result<Arc<OpenSource>> {
    if let Some(title) = machine.titles.find(&segment.source, &segment.etag, segment.deinterlace) {
        return Ok(title);
    }
    let reader = machine.stores.locate(&segment.source)?.open().await?;
    let found = &reader.source().etag;
    if *found != segment.etag {
        let (uri, planned, found) = (segment.source.clone(), segment.etag.clone(), found.clone());
        return Err(parts::Error::SourceChanged { uri, planned, found }.into());
    }
    open_reader(machine, reader, segment.deinterlace).await
}

async fn open_reader(
    machine: &Machine,
    reader: SourceReader,
    deinterlace: Deinterlace,
) -> Result<Arc<OpenSource>> {
    let slot = machine.titles.slot(reader.source(), deinterlace);
    slot.get_or_try_init(|| async { read(machine, reader, deinterlace).await.map(Arc::new) }).await.cloned()
}

async fn read(machine: &Machine, reader: SourceReader, deinterlace: Deinterlace) -> Result<OpenSource> {
    let shown = reader.location().to_string();
    look(machine, reader, deinterlace).await.map_err(|e| e.of(&shown))
}

/// Finds out all there is to know: from the index and a few samples where the container has an index, from the whole file elsewhere.
async fn look(machine: &Machine, reader: SourceReader, deinterlace: Deinterlace) -> Result<OpenSource> {
    let source = reader.source().clone();
    let reader = ReadCache::new(reader);
    // A server without ranges gives all or nothing.
    let mut whole =
        if reader.inner().must_download() { Some(download(machine, reader.inner()).await?) } else { None };
    let head = match &whole {
        Some(file) => head_of(file.as_ref()).await?,
        None => reader.read_at(0..source.bytes.min(HEAD_BYTES)).await?.to_vec(),
    };
    let demuxer = probe::sniff(&head)?.demuxer;
    let cancel = CancellationToken::new();
    let limits = machine.limits;
    let (index, probe, whole) = match windows(&reader, demuxer).await? {
        Some(index) => {
            let sample = machine.scratch_file("probe", ".mp4")?;
            window::write(&window::plan_probe(&index)?, &reader, &sample).await?;
            let probe = probe::file(&machine.tools, &sample, Some(demuxer), &limits, &cancel).await?;
            (index, probe, None)
        }
        None => {
            let whole = match (whole.take(), reader.inner().local_path()) {
                (Some(copy), _) => copy,
                (None, Some(path)) => WholeFile::Source(path.to_owned()),
                (None, None) => download(machine, reader.inner()).await?,
            };
            let probe = probe::file(&machine.tools, whole.as_ref(), Some(demuxer), &limits, &cancel).await?;
            let scan =
                index::scan::Limits { memory_bytes: limits.memory_bytes, ..index::scan::Limits::default() };
            let index = index::scan::scan(&machine.tools, whole.as_ref(), demuxer, &scan, &cancel)
                .await
                .map_err(index::Error::from)?;
            (index, probe, Some(whole))
        }
    };
    let grid = grid(&index, &probe, &source.uri)?;
    let interlaced = probe.video.as_ref().is_some_and(|video| video.interlaced);
    let of_fields = grid.of_fields().filter(|_| interlaced && deinterlace == Deinterlace::Field);
    let (grid, fields) = of_fields.map_or((grid, false), |grid| (grid, true));
    probe::check_duration(grid.seconds(), &limits)?;
    let cut_off_ms = cut_off_ms(&index, &probe);
    Ok(OpenSource { source, probe, index, grid, fields, reader, whole, cut_off_ms, samples: OnceCell::new() })
}

/// How much longer a container that is scanned says that it is, beyond what its packets show. Only of those whose header has the length of
/// what was recorded: of others FFmpeg guesses it.
fn cut_off_ms(index: &Index, probe: &Probe) -> i64 {
    let Container::Whole { demuxer } = &index.container else { return 0 };
    let Some(declared) = probe.declared_ms.filter(|_| ["matroska", "flv", "avi"].contains(&demuxer.as_str()))
    else {
        return 0;
    };
    let media = index.tracks.iter().filter(|track| track.kind != TrackKind::Other);
    let starts =
        media.clone().filter_map(|track| Some(track.timebase.to_ms(track.first_pts()?))).min().unwrap_or(0);
    let ends = media.filter_map(|track| Some(track.timebase.to_ms(track.end_pts()?))).max().unwrap_or(0);
    // Some count from 0, some from the first packet.
    let lost = declared.saturating_sub(ends.max(ends.saturating_sub(starts)));
    if lost > LOST_MS_LEAST && lost > declared / LOST_SHARE_LEAST { lost } else { 0 }
}

/// Fetches all of a source, once per process.
async fn download(machine: &Machine, reader: &SourceReader) -> Result<WholeFile> {
    let copy = machine.scratch_file("source", ".bin")?;
    reader.save(&copy).await?;
    Ok(WholeFile::Copy(copy))
}

/// The first bytes of a local file.
async fn head_of(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| worker::Error::Scratch { path: path.to_owned(), source };
    let mut head = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(HEAD_BYTES).read_to_end(&mut head).await.map_err(failed)?;
    Ok(head)
}

/// The index of a source that rows can read in windows; `None` where they need all of it.
async fn windows(reader: &ReadCache<SourceReader>, demuxer: &str) -> Result<Option<Index>> {
    if demuxer != "mov" || reader.inner().must_download() {
        return Ok(None);
    }
    match index::mp4::read(reader).await {
        Ok(index) => Ok(Some(index)),
        Err(index::Error::NeedsWholeFile { why }) => {
            info!(source = %reader.inner().location(), %why, "source is read whole");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The clock of the pictures, or, where there are none, one that counts the first sound track.
fn grid(index: &Index, probe: &Probe, uri: &str) -> Result<Grid> {
    let track = |stream: u32| index.tracks.get(stream as usize);
    let none = |what| parts::Error::NoSuchTrack { uri: uri.to_owned(), track: what, index: 0 };
    // What is not shown is decoded and dropped by every player: the grid counts what is.
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

/// Whether rows of a title read windows of it or all of it, for people.
pub fn reading(title: &OpenSource) -> &'static str {
    match title.index.container {
        Container::Mp4(_) => "windows",
        Container::Whole { .. } => "whole file",
    }
}
