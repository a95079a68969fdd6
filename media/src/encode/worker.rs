//! RowEventKind does a process bring to its rows? Its stores, its FFmpeg, its scratch space, and somebody to tell of progress.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tempfile::{TempDir, TempPath};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, broadcast};
use tracing::{debug, warn};

use crate::{
    Result,
    encode::timing::{Step, Timing},
    ffmpeg::{self, Tools},
    limits::Limits,
    plan::segments::Segment,
    predict::{complexity, cost_model::Costs},
    source::source_cache::SourceCache,
};
use spool_storage::{ErrorKind, Stores};

/// Progress events that a slow listener may fall behind before it misses some.
const EVENT_QUEUE: usize = 4096;

/// Where less scratch space is left no row is begun: so many bytes, or where all of it is small a share of it.
const SCRATCH_LEAST: u64 = 256 << 20;
const SCRATCH_LEAST_SHARE: u64 = 16;

/// Scratch folders are named like this, so that those of dead processes can be told and removed.
const SCRATCH_PREFIX: &str = "spool-scratch-";

/// The file in a scratch folder that its process keeps locked while it lives.
const SCRATCH_LOCK: &str = "lock";

/// How long removing the scratch folder is tried, and the wait between two tries.
const LEAVE: Duration = Duration::from_secs(2);
const LEAVE_AGAIN: Duration = Duration::from_millis(10);

/// RowEventKind a process brings to its rows.
#[derive(Debug)]
pub struct Machine {
    /// The object stores it can reach.
    pub stores: Stores,
    /// Its FFmpeg.
    pub tools: Tools,
    /// RowEventKind it takes for a video.
    pub limits: Limits,
    /// The sources it has open.
    pub titles: SourceCache,
    /// Its name, for part records.
    pub host: String,
    /// Encodes that it runs at a time.
    slots: Semaphore,
    /// Samples that it encodes at a time.
    samples: Semaphore,
    events: broadcast::Sender<RowEvent>,
    costs: Mutex<Costs>,
    costs_file: Option<PathBuf>,
    builds: [OnceCell<String>; ffmpeg::Encoder::ALL.len()],
    scratch: Scratch,
}

/// Something that happened to a row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowEvent {
    /// The job that the row was run for, by the engine's name.
    pub job: String,
    /// The row.
    pub segment: Segment,
    /// RowEventKind happened.
    pub kind: RowEventKind,
}

/// RowEventKind happened to a row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowEventKind {
    /// It is known, and nobody has begun it.
    Planned,
    /// FFmpeg starts on it.
    Started {
        /// Rungs that are encoded; the others are there already.
        rungs: Vec<String>,
    },
    /// FFmpeg is further along.
    Progress {
        /// Milliseconds of the row that are encoded.
        done_ms: i64,
    },
    /// It is done.
    Finished {
        /// Rungs that were encoded for it.
        encoded: usize,
        /// Rungs that were there already.
        reused: usize,
        /// Where its time went.
        timing: Timing,
    },
    /// It is run again, elsewhere if there is an elsewhere.
    Retrying {
        /// Why, for people.
        reason: String,
    },
}

#[derive(Debug)]
struct Scratch {
    folder: TempDir,
    _lock: File,
}

/// Why a process cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Scratch space cannot be had.
    #[error("cannot use scratch folder {path}: {source}; name another with --scratch or SPOOL_SCRATCH")]
    Scratch {
        /// The folder.
        path: PathBuf,
        /// RowEventKind the system says.
        source: std::io::Error,
    },
    /// The process ends, or is no member of its cluster any more.
    #[error("the executor that had it in hand gave it up")]
    Stopping,
}

impl Error {
    /// RowEventKind the failure means to whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            // Another machine may have space.
            Self::Scratch { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                ErrorKind::Transient
            }
            Self::Scratch { .. } => ErrorKind::NotAllowed,
            Self::Stopping => ErrorKind::Transient,
        }
    }
}

impl Machine {
    /// A process with these stores and tools, and scratch space of its own below `scratch`.
    ///
    /// # Errors
    /// Where the scratch space cannot be made.
    pub fn new(stores: Stores, tools: Tools, scratch: &Path) -> Result<Self> {
        remove_abandoned(scratch);
        let failed = |source| Error::Scratch { path: scratch.to_owned(), source };
        fs::create_dir_all(scratch).map_err(failed)?;
        let folder = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(scratch).map_err(failed)?;
        // Locked before it has the name that others look for: else one that starts meanwhile takes the folder for abandoned.
        let unnamed = folder.path().join("lock.new");
        let lock = File::create(&unnamed).map_err(failed)?;
        lock.lock().map_err(failed)?;
        fs::rename(&unnamed, folder.path().join(SCRATCH_LOCK)).map_err(failed)?;
        Ok(Self {
            stores,
            tools,
            titles: SourceCache::default(),
            host: nix::unistd::gethostname()
                .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned()),
            events: broadcast::channel(EVENT_QUEUE).0,
            limits: Limits::default(),
            costs: Mutex::default(),
            costs_file: None,
            builds: Default::default(),
            slots: Semaphore::new(Semaphore::MAX_PERMITS),
            samples: Semaphore::new(complexity::AT_A_TIME),
            scratch: Scratch { folder, _lock: lock },
        })
    }

    /// The same process, with encodes limited to so many at a time.
    #[must_use]
    pub fn with_slots(self, slots: usize) -> Self {
        Self { slots: Semaphore::new(slots), ..self }
    }

    /// The same process, with other limits of what it takes.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same process, with what rows cost kept in a file from one process to the next.
    #[must_use]
    pub fn with_costs_in(mut self, file: PathBuf) -> Self {
        // RowEventKind is not there, or of another version, is learned anew.
        let known = fs::read(&file).ok().and_then(|json| serde_json::from_slice(&json).ok());
        self.costs = Mutex::new(known.unwrap_or_default());
        Self { costs_file: Some(file), ..self }
    }

    /// What is known of what rows cost.
    pub fn costs(&self) -> Costs {
        self.costs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Learns from what happened to a row what rows cost.
    pub fn learn(&self, event: &RowEvent) {
        if let RowEventKind::Finished { timing: Timing { encode: Some(encode), spans, host, .. }, .. } =
            &event.kind
        {
            let ran = spans
                .iter()
                .filter(|span| matches!(span.step, Step::Start | Step::Encode))
                .map(|span| span.took_us)
                .sum();
            let (wall, cpu) = (Duration::from_micros(ran), Duration::from_micros(encode.cpu_us));
            let mut costs = self.costs.lock().unwrap_or_else(PoisonError::into_inner);
            costs.learn(&encode.work, wall, cpu, encode.written_bytes, *host == self.host);
        }
    }

    /// Keeps what was learned. Whoever keeps last wins: what others learned meanwhile is lost.
    pub fn keep_costs(&self) {
        let Some(file) = &self.costs_file else { return };
        let keep = || -> io::Result<()> {
            let folder = file.parent().ok_or(io::ErrorKind::NotADirectory)?;
            fs::create_dir_all(folder)?;
            let new = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&new, &self.costs())?;
            new.persist(file)?;
            Ok(())
        };
        if let Err(error) = keep() {
            debug!(path = %file.display(), %error, "cannot keep what rows cost");
        }
    }

    /// Waits for a free slot to encode in.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.slots.acquire().await.ok()
    }

    /// Waits for its turn to encode a sample.
    pub(crate) async fn sample(&self) -> Option<SemaphorePermit<'_>> {
        self.samples.acquire().await.ok()
    }

    /// This process's scratch folder. It goes when the process does.
    pub fn scratch(&self) -> &Path {
        self.scratch.folder.path()
    }

    /// Bytes that are free where the scratch folder is.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn scratch_free_bytes(&self) -> Result<u64> {
        let failed =
            |source: nix::Error| Error::Scratch { path: self.scratch().to_owned(), source: source.into() };
        let stat = nix::sys::statvfs::statvfs(self.scratch()).map_err(failed)?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }

    /// Why no row can be worked on here now, if none can.
    pub fn trouble(&self) -> Option<String> {
        let stat = nix::sys::statvfs::statvfs(self.scratch()).ok()?;
        let (free, all) = (stat.blocks_available(), stat.blocks());
        let least = (SCRATCH_LEAST / stat.fragment_size().max(1)).min(all / SCRATCH_LEAST_SHARE);
        let mib = (free * stat.fragment_size()) >> 20;
        (free < least)
            .then(|| format!("scratch space is full: {mib} MiB left in {}", self.scratch().display()))
    }

    /// Removes the scratch folder now: for a process that ends while something may still hold this machine.
    pub fn leave(&self) {
        let deadline = Instant::now() + LEAVE;
        loop {
            match fs::remove_dir_all(self.scratch()) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                // A write that was given up in the middle may still create its file: it is the last.
                Err(_) if Instant::now() < deadline => thread::sleep(LEAVE_AGAIN),
                Err(error) => {
                    warn!(path = %self.scratch().display(), %error, "cannot remove the scratch folder");
                    return;
                }
            }
        }
    }

    /// A folder in scratch space for one row.
    pub(crate) fn scratch_folder(&self) -> Result<TempDir> {
        let failed = |source| Error::Scratch { path: self.scratch().to_owned(), source };
        Ok(tempfile::Builder::new().prefix("row-").tempdir_in(self.scratch()).map_err(failed)?)
    }

    /// An empty file in scratch space, deleted when dropped.
    pub(crate) fn scratch_file(&self, prefix: &str, suffix: &str) -> Result<TempPath> {
        let failed = |source| Error::Scratch { path: self.scratch().to_owned(), source };
        let file = tempfile::Builder::new()
            .prefix(prefix)
            .suffix(suffix)
            .tempfile_in(self.scratch())
            .map_err(failed)?;
        Ok(file.into_temp_path())
    }

    /// Names the build of FFmpeg and of the encoders that every job uses.
    ///
    /// # Errors
    /// Where FFmpeg is missing or lacks an encoder.
    pub async fn encoder(&self) -> Result<&str> {
        self.build(ffmpeg::Encoder::Default).await
    }

    /// Names the build of FFmpeg and of an encoder: part of every key. Found out once per process.
    ///
    /// # Errors
    /// Where FFmpeg is missing or lacks the encoder.
    pub async fn build(&self, encoder: ffmpeg::Encoder) -> Result<&str> {
        let build = &self.builds[encoder as usize];
        Ok(build.get_or_try_init(|| ffmpeg::build(&self.tools, encoder, self.scratch())).await?)
    }

    /// Listens to what happens to this process's rows.
    pub fn events(&self) -> broadcast::Receiver<RowEvent> {
        self.events.subscribe()
    }

    pub(crate) fn tell(&self, event: RowEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

/// Removes the scratch of processes that were killed: theirs are the folders whose lock is free.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH_PREFIX));
        let Ok(lock) = File::open(path.join(SCRATCH_LOCK)) else { continue };
        if !named {
            continue;
        }
        match lock.try_lock() {
            Ok(()) => match fs::remove_dir_all(&path) {
                Ok(()) => debug!(path = %path.display(), "removed scratch of a dead process"),
                Err(error) => {
                    warn!(path = %path.display(), %error, "cannot remove scratch of a dead process")
                }
            },
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                debug!(path = %path.display(), %error, "cannot tell whose scratch this is")
            }
        }
    }
}
