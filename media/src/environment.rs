//! The environment of a process: its object stores, its FFmpeg, its limits and its scratch space.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::OFlag;
use tempfile::{TempDir, TempPath};
use tokio::sync::OnceCell;
use tracing::{debug, warn};

use spool_storage::{ErrorKind, Stores};

use crate::{
    Result,
    ffmpeg::{self, Tools},
    limits::Limits,
};

/// Scratch space below which no row starts: an absolute size, or a share of a small file system.
const SCRATCH_FREE_BYTES_MIN: u64 = 256 << 20;
const SCRATCH_FREE_SHARE_MIN: u64 = 16;

/// Prefix of scratch folders, by which those of dead processes are recognised and removed.
const SCRATCH_PREFIX: &str = "spool-scratch-";

/// File in a scratch folder that its process keeps locked while it runs.
const SCRATCH_LOCK: &str = "lock";

/// Time for which removal of the scratch folder is retried, and the delay between two attempts.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(2);
const REMOVAL_RETRY_DELAY: Duration = Duration::from_millis(10);

/// The stores, tools, limits and scratch space of one process.
#[derive(Debug)]
pub struct Environment {
    /// The object stores that the process can reach.
    pub stores: Stores,
    /// The FFmpeg and ffprobe that the process runs.
    pub tools: Tools,
    /// The limits on sources and on the cost of encoding them.
    pub limits: Limits,
    /// The host's name, for part records.
    pub host: String,
    builds: [OnceCell<String>; ffmpeg::Encoder::ALL.len()],
    scratch: Scratch,
}

#[derive(Debug)]
struct Scratch {
    folder: TempDir,
    _lock: File,
}

/// Reason why a process cannot encode rows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scratch folder cannot be used.
    #[error("failed to use scratch folder {path}: {source}; name another with --scratch or SPOOL_SCRATCH")]
    Scratch {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            // Another host may have space.
            Self::Scratch { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                ErrorKind::Transient
            }
            Self::Scratch { .. } => ErrorKind::NotAllowed,
        }
    }
}

impl Environment {
    /// Creates an environment with a scratch folder of its own below `scratch`.
    ///
    /// # Errors
    /// Returns [`Error::Scratch`] if the folder cannot be created.
    pub fn new(stores: Stores, tools: Tools, scratch: &Path) -> Result<Self> {
        remove_abandoned(scratch);
        let failed = |source| Error::Scratch { path: scratch.to_owned(), source };
        fs::create_dir_all(scratch).map_err(failed)?;
        // Sources, windows and encodes lie in it: closed to other users.
        let folder = tempfile::Builder::new()
            .prefix(SCRATCH_PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(scratch)
            .map_err(failed)?;
        // The file is locked before it gets its name: otherwise a process that starts meanwhile would take
        // the folder for abandoned.
        let unnamed = folder.path().join("lock.new");
        let lock = File::create(&unnamed).map_err(failed)?;
        lock.lock().map_err(failed)?;
        fs::rename(&unnamed, folder.path().join(SCRATCH_LOCK)).map_err(failed)?;
        Ok(Self {
            stores,
            tools,
            limits: Limits::default(),
            host: nix::unistd::gethostname()
                .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned()),
            builds: Default::default(),
            scratch: Scratch { folder, _lock: lock },
        })
    }

    /// Sets the limits, returning the updated environment.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Returns this process's scratch folder, which is removed when the process ends.
    pub fn scratch(&self) -> &Path {
        self.scratch.folder.path()
    }

    /// Returns the bytes that are free on the scratch folder's file system.
    ///
    /// # Errors
    /// Returns [`Error::Scratch`] if the system does not answer.
    pub fn scratch_free_bytes(&self) -> Result<u64> {
        let failed =
            |source: nix::Error| Error::Scratch { path: self.scratch().to_owned(), source: source.into() };
        let stat = nix::sys::statvfs::statvfs(self.scratch()).map_err(failed)?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }

    /// Returns why this process can start no row now; `None` if it can.
    pub fn unavailable_reason(&self) -> Option<String> {
        let stat = nix::sys::statvfs::statvfs(self.scratch()).ok()?;
        let (free, all) = (stat.blocks_available(), stat.blocks());
        let least = (SCRATCH_FREE_BYTES_MIN / stat.fragment_size().max(1)).min(all / SCRATCH_FREE_SHARE_MIN);
        let mib = (free * stat.fragment_size()) >> 20;
        (free < least)
            .then(|| format!("scratch space is full: {mib} MiB left in {}", self.scratch().display()))
    }

    /// Removes the scratch folder now, for a process that ends while references to this environment remain.
    pub fn remove_scratch(&self) {
        let deadline = Instant::now() + REMOVAL_TIMEOUT;
        loop {
            match fs::remove_dir_all(self.scratch()) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                // A write that was abandoned may still create its file, once.
                Err(_) if Instant::now() < deadline => thread::sleep(REMOVAL_RETRY_DELAY),
                Err(error) => {
                    warn!(path = %self.scratch().display(), %error, "failed to remove the scratch folder");
                    return;
                }
            }
        }
    }

    /// Creates a folder in scratch space for one row.
    pub(crate) fn scratch_folder(&self) -> Result<TempDir> {
        let failed = |source| Error::Scratch { path: self.scratch().to_owned(), source };
        Ok(tempfile::Builder::new().prefix("row-").tempdir_in(self.scratch()).map_err(failed)?)
    }

    /// Creates an empty file in scratch space, deleted when dropped.
    pub(crate) fn scratch_file(&self, prefix: &str, suffix: &str) -> Result<TempPath> {
        let failed = |source| Error::Scratch { path: self.scratch().to_owned(), source };
        let file = tempfile::Builder::new()
            .prefix(prefix)
            .suffix(suffix)
            .tempfile_in(self.scratch())
            .map_err(failed)?;
        Ok(file.into_temp_path())
    }

    /// Returns the build of FFmpeg and of the encoders that every job uses.
    ///
    /// # Errors
    /// Returns an error if FFmpeg is missing or lacks an encoder.
    pub async fn default_encoder_build(&self) -> Result<&str> {
        self.encoder_build(ffmpeg::Encoder::Default).await
    }

    /// Returns the build of FFmpeg and of one encoder, which is part of every part key. It is probed once per
    /// process.
    ///
    /// # Errors
    /// Returns an error if FFmpeg is missing or lacks the encoder.
    pub async fn encoder_build(&self, encoder: ffmpeg::Encoder) -> Result<&str> {
        let build = &self.builds[encoder as usize];
        Ok(build.get_or_try_init(|| ffmpeg::build(&self.tools, encoder, self.scratch())).await?)
    }
}

/// Returns whether a path is a folder of this user, and no link to one. Other users write to the system's
/// temporary folder, too.
fn is_own_folder(path: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user)
}

/// Opens a lock if it is a file. Opening a pipe would wait for a writer, and a link could lead anywhere.
fn open_lock(path: &Path) -> Option<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

/// Removes the scratch folders of killed processes, which are those whose lock is free.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH_PREFIX));
        if !named || !is_own_folder(&path) {
            continue;
        }
        let Some(lock) = open_lock(&path.join(SCRATCH_LOCK)) else { continue };
        match lock.try_lock() {
            Ok(()) => match fs::remove_dir_all(&path) {
                Ok(()) => debug!(path = %path.display(), "removed the scratch folder of a dead process"),
                Err(error) => {
                    warn!(path = %path.display(), %error, "failed to remove the scratch folder of a dead process");
                }
            },
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                debug!(path = %path.display(), %error, "failed to test the lock of a scratch folder");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn scratch_folders_are_private_and_those_of_others_are_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(format!("{SCRATCH_PREFIX}{name}"));
        for name in ["dead", "pipe"] {
            fs::create_dir(path(name)).unwrap();
        }
        File::create(path("dead").join(SCRATCH_LOCK)).unwrap();
        mkfifo(&path("pipe").join(SCRATCH_LOCK), Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(path("dead"), path("link")).unwrap();
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        mkfifo(&other.join(SCRATCH_LOCK), Mode::S_IRWXU).unwrap();
        let tools = Tools {
            ffmpeg: "ffmpeg".into(),
            ffprobe: "ffprobe".into(),
            confinement: ffmpeg::SandboxMode::None,
            libraries: Vec::new(),
        };
        let environment = Environment::new(Stores::from_env(), tools, parent.path()).unwrap();
        let mode = fs::metadata(environment.scratch()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(!path("dead").exists() && path("pipe").exists() && other.exists());
        assert!(fs::symlink_metadata(path("link")).is_ok());
    }
}
