//! Cache of open sources: each is probed and indexed once per process and version, and shared by its rows.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use moka::{future::Cache, policy::EvictionPolicy};
use tokio::{io::AsyncReadExt, sync::OnceCell};
use tokio_util::sync::CancellationToken;
use tracing::info;

use spool_storage::{ReadAt, Source, SourceReader, read_cache::ReadCache};

use crate::{
    Result,
    environment::{self, Environment},
    source::{
        self,
        index::{self, Container, Index, Track, TrackKind},
        probe::{self, Probe},
        window,
    },
};

/// Most sources that a process keeps open: the index of a long film takes about 20 MB, and a whole-file copy
/// takes scratch space.
const OPEN_SOURCES_MAX: u64 = 8;

/// Bytes at the start of a source that identify its container.
const HEAD_BYTES: u64 = 64 << 10;

/// A source that is shorter than declared by at most a second, or by at most a hundredth, is not truncated:
/// muxers round, and count differently.
const LOST_MS_LEAST: i64 = 1000;
const LOST_SHARE_LEAST: i64 = 100;

/// An open source: its tracks, the index of their samples, and a reader of its bytes.
#[derive(Debug)]
pub struct OpenSource {
    /// The pinned version.
    pub source: Source,
    /// Tracks.
    pub probe: Probe,
    /// Index of the samples.
    pub index: Index,
    /// Reader of its bytes; the reads for the probe are cached.
    pub reader: ReadCache<SourceReader>,
    /// The whole file, if rows cannot read windows of it.
    pub whole: Option<WholeFile>,
    /// Milliseconds that are missing from a scanned container, according to its declared duration.
    cut_off_ms: i64,
}

/// A local file that holds all of a source.
#[derive(Debug)]
pub enum WholeFile {
    /// The source itself, which is local.
    Source(PathBuf),
    /// A copy in scratch space, deleted with the open source.
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
    /// Returns the video track.
    pub fn video_track(&self) -> Option<&Track> {
        let video = self.probe.video.as_ref()?;
        self.index.tracks.get(video.stream as usize)
    }

    /// Returns the milliseconds that are missing from the file, according to its declared duration.
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

    /// Returns how rows read the source, for display: "windows" or "whole file".
    pub fn reading(&self) -> &'static str {
        match self.index.container {
            Container::Mp4(_) => "windows",
            Container::Whole { .. } => "whole file",
        }
    }
}

/// URI and ETag of a source.
type Key = (String, String);

/// Open sources of a process.
#[derive(Debug)]
pub struct SourceCache {
    environment: Arc<Environment>,
    /// The cell of a source is filled once: concurrent rows of one source wait for the first.
    sources: Cache<Key, Arc<OnceCell<Arc<OpenSource>>>>,
}

impl SourceCache {
    /// Creates an empty cache.
    pub fn new(environment: Arc<Environment>) -> Self {
        let sources =
            Cache::builder().max_capacity(OPEN_SOURCES_MAX).eviction_policy(EvictionPolicy::lru()).build();
        Self { environment, sources }
    }

    /// Returns the environment that sources are opened in.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Opens the current version of the source at a path or URI.
    ///
    /// # Errors
    /// Returns an error if the source is missing, not readable, or not a video.
    pub async fn open(&self, uri: &str) -> Result<Arc<OpenSource>> {
        let location = self.environment.stores.locate(uri)?;
        self.open_reader(location.open().await?).await
    }

    /// Opens a source in exactly the version that was planned.
    ///
    /// # Errors
    /// Returns the errors of [`SourceCache::open`], and [`source::Error::SourceChanged`] if the source has
    /// another version now.
    pub async fn open_pinned(&self, uri: &str, etag: &str) -> Result<Arc<OpenSource>> {
        let cell = self.sources.get(&(uri.to_owned(), etag.to_owned())).await;
        if let Some(open) = cell.as_ref().and_then(|cell| cell.get()) {
            return Ok(open.clone());
        }
        let reader = self.environment.stores.locate(uri)?.open().await?;
        let found = &reader.source().etag;
        if found != etag {
            let (uri, planned, found) = (uri.to_owned(), etag.to_owned(), found.clone());
            return Err(source::Error::SourceChanged { uri, planned, found }.into());
        }
        self.open_reader(reader).await
    }

    async fn open_reader(&self, reader: SourceReader) -> Result<Arc<OpenSource>> {
        let key = (reader.source().uri.clone(), reader.source().etag.clone());
        let cell = self.sources.get_with(key, async { Arc::default() }).await;
        // Evicted sources hold scratch space until the cache's maintenance runs.
        self.sources.run_pending_tasks().await;
        let redacted = reader.location().to_string();
        let environment = &self.environment;
        let opened =
            cell.get_or_try_init(|| async { inspect(environment, reader).await.map(Arc::new) }).await;
        opened.cloned().map_err(|e| e.of(&redacted))
    }
}

/// Probes and indexes a source: from its index and a few samples if the container has an index, and from the
/// whole file otherwise.
async fn inspect(environment: &Environment, reader: SourceReader) -> Result<OpenSource> {
    let source = reader.source().clone();
    let reader = ReadCache::new(reader);
    // A server without range requests can only send the whole file.
    let mut whole = if reader.inner().must_download() {
        Some(download(environment, reader.inner()).await?)
    } else {
        None
    };
    let head = match &whole {
        Some(file) => head_of(file.as_ref()).await?,
        None => reader.read_at(0..source.bytes.min(HEAD_BYTES)).await?.to_vec(),
    };
    let demuxer = probe::sniff(&head)?.demuxer;
    let cancel = CancellationToken::new();
    let limits = environment.limits;
    let tools = &environment.tools;
    let (index, probe, whole) = match windows(&reader, demuxer).await? {
        Some(index) => {
            let sample = environment.scratch_file("probe", ".mp4")?;
            window::write(&window::plan_probe(&index)?, &reader, &sample).await?;
            let probe = probe::file(tools, &sample, Some(demuxer), &limits, &cancel).await?;
            (index, probe, None)
        }
        None => {
            let whole = match (whole.take(), reader.inner().local_path()) {
                (Some(copy), _) => copy,
                (None, Some(path)) => WholeFile::Source(path.to_owned()),
                (None, None) => download(environment, reader.inner()).await?,
            };
            let probe = probe::file(tools, whole.as_ref(), Some(demuxer), &limits, &cancel).await?;
            let scan =
                index::scan::Limits { memory_bytes: limits.memory_bytes, ..index::scan::Limits::default() };
            let index = index::scan::scan(tools, whole.as_ref(), demuxer, &scan, &cancel)
                .await
                .map_err(index::Error::from)?;
            (index, probe, Some(whole))
        }
    };
    let cut_off_ms = cut_off_ms(&index, &probe);
    Ok(OpenSource { source, probe, index, reader, whole, cut_off_ms })
}

/// Returns the milliseconds by which the declared duration of a scanned container exceeds its packets. Only
/// for containers whose header has the recorded length: for others FFmpeg estimates it.
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
    // Some muxers count from 0, some from the first packet.
    let lost = declared.saturating_sub(ends.max(ends.saturating_sub(starts)));
    if lost > LOST_MS_LEAST && lost > declared / LOST_SHARE_LEAST { lost } else { 0 }
}

/// Downloads a whole source into scratch space, once per process.
async fn download(environment: &Environment, reader: &SourceReader) -> Result<WholeFile> {
    let copy = environment.scratch_file("source", ".bin")?;
    reader.save(&copy).await?;
    Ok(WholeFile::Copy(copy))
}

/// Reads the first bytes of a local file.
async fn head_of(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| environment::Error::Scratch { path: path.to_owned(), source };
    let mut head = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(HEAD_BYTES).read_to_end(&mut head).await.map_err(failed)?;
    Ok(head)
}

/// Returns the index of a source that rows can read in windows; `None` if they need the whole file.
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
