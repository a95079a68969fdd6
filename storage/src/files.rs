//! Objects in a local directory, atomic and durable: an object appears as a whole, and an acknowledged write
//! survives a power cut.
//!
//! `object_store`'s own local store is not used: it never syncs, has no compare-and-swap, and refuses names
//! such as `take#1`. Everything here blocks; callers run it on the blocking pool.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// Prefix of files that are no objects: temporary files and locks. Listings omit them.
pub(crate) const HIDDEN_PREFIX: &str = ".spool-";

/// Suffix of temporary files.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Name of the lock file of compare-and-swap, one per directory. It is never removed: removing a lock file
/// races with its next holder.
const LOCK_NAME: &str = ".spool-lock";

/// Time for which a compare-and-swap waits for others in its directory: each holds the lock for two small
/// file operations.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Interval between two attempts to get the lock.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// Attributes that identify a pinned version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub bytes: u64,
    modified_ns: i128,
}

impl Stat {
    /// Returns size and modification time as a tag. Without the inode: the same file may be read through
    /// another mount.
    pub(crate) fn tag(&self) -> String {
        format!("{:x}-{:x}", self.bytes, self.modified_ns)
    }

    fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from_metadata(&file.metadata()?))
    }

    fn from_metadata(meta: &fs::Metadata) -> Self {
        Self {
            bytes: meta.len(),
            modified_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        }
    }
}

/// Reads the attributes of a regular file; for anything else returns [`io::ErrorKind::IsADirectory`], in the
/// sense of "not a file".
pub(crate) fn stat(path: &Path) -> io::Result<Stat> {
    // Checked by path first: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Stat::of(&File::open(path)?)
}

/// Returns the length of the file; `None` if it does not exist.
pub(crate) fn size(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
        Ok(_) => Err(io::ErrorKind::IsADirectory.into()),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads a range of a pinned file; `None` if the file has changed.
pub(crate) fn read_range(path: &Path, pinned: &str, range: Range<u64>) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    if Stat::of(&file)?.tag() != pinned {
        return Ok(None);
    }
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    let read = file.read_exact_at(&mut bytes, range.start);
    // Checked again, before the error: a file that was truncated meanwhile counts as changed.
    if Stat::of(&file)?.tag() != pinned {
        return Ok(None);
    }
    read.map(|()| Some(bytes))
}

/// Copies a pinned file to `to`. Returns false if the file has changed, before or during the copy.
pub(crate) fn copy_pinned(from: &Path, pinned: &str, to: &mut File) -> io::Result<bool> {
    let mut file = File::open(from)?;
    if Stat::of(&file)?.tag() != pinned {
        return Ok(false);
    }
    io::copy(&mut file, to)?;
    Ok(Stat::of(&file)?.tag() == pinned)
}

/// Reads a whole small file: its bytes, or its length if that exceeds `limit`. `None` if it does not exist.
pub(crate) fn read_small(path: &Path, limit: u64) -> io::Result<Option<Result<Vec<u8>, u64>>> {
    let Some(bytes) = size(path)? else { return Ok(None) };
    if bytes > limit {
        return Ok(Some(Err(bytes)));
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if is_absent(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut buffer = Vec::new();
    // One byte more than the limit detects a file that grew meanwhile.
    file.take(limit + 1).read_to_end(&mut buffer)?;
    let read = buffer.len() as u64;
    Ok(Some(if read > limit { Err(read) } else { Ok(buffer) }))
}

/// The bytes to write.
pub(crate) enum From<'a> {
    Bytes(&'a [u8]),
    File(File),
}

/// Writes a file, replacing any other.
pub(crate) fn put(path: &Path, from: From<'_>) -> io::Result<()> {
    let staged = stage(path, from)?;
    staged.persist(path).map_err(|e| e.error)?;
    sync_directory(parent(path))
}

/// Creates a file. If it exists, returns false and changes nothing.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    // Most conflicts are found here, without writing anything.
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    match stage(path, From::Bytes(bytes))?.persist_noclobber(path) {
        Ok(_) => sync_directory(parent(path)).map(|()| true),
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e.error),
    }
}

/// Returns the version of a small file: a hash of its bytes. Times are too coarse (two writes within one tick
/// of the kernel's clock look alike), and inodes are reused.
pub(crate) fn version(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Replaces a file if it is still the expected version (`None`: if it does not exist). Otherwise returns
/// false and changes nothing.
pub(crate) fn replace(path: &Path, bytes: &[u8], expected: Option<&str>, limit: u64) -> io::Result<bool> {
    make_directory(parent(path))?;
    let _lock = lock(parent(path))?;
    let present = match read_small(path, limit)? {
        Some(Ok(bytes)) => Some(version(&bytes)),
        // Too large to have a version.
        Some(Err(_)) => return Ok(false),
        None => None,
    };
    if present.as_deref() != expected {
        return Ok(false);
    }
    put(path, From::Bytes(bytes)).map(|()| true)
}

/// Deletes a file; a missing one is fine.
pub(crate) fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if is_absent(&e) => Ok(()),
        Err(e) => Err(e),
        Ok(()) => sync_directory(parent(path)),
    }
}

/// A file that a walk found.
pub(crate) struct Found {
    pub path: PathBuf,
    pub bytes: u64,
    pub modified: SystemTime,
    /// Tag as of [`Stat::tag`].
    pub tag: String,
}

/// Kind of files that a walk finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Objects.
    Object,
    /// Temporary files.
    Temporary,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name.strip_prefix(HIDDEN_PREFIX) {
            None => Some(Self::Object),
            Some(rest) => rest.ends_with(TEMPORARY_SUFFIX).then_some(Self::Temporary),
        }
    }
}

/// Removes temporary files of killed writers: those unmodified for `age`. Returns their number.
pub(crate) fn remove_abandoned(root: &Path, age: Duration) -> io::Result<u64> {
    let mut removed = 0;
    walk(root, Kind::Temporary, &mut |found| {
        let is_old = SystemTime::now().duration_since(found.modified).is_ok_and(|since| since >= age);
        removed += u64::from(is_old && fs::remove_file(found.path).is_ok());
        true
    })?;
    Ok(removed)
}

/// Calls `each` for every file of a kind under `root`, in no particular order, until it returns false. A
/// missing directory counts as empty.
pub(crate) fn walk(root: &Path, kind: Kind, each: &mut dyn FnMut(Found) -> bool) -> io::Result<()> {
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if is_absent(&e) => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            // Symbolic links to directories are not followed: they may form cycles.
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
                continue;
            }
            if Kind::of(&entry.file_name().to_string_lossy()) != Some(kind) {
                continue;
            }
            // Deleted since the directory was read, or a dangling link.
            let Ok(meta) = fs::metadata(entry.path()) else { continue };
            let tag = Stat::from_metadata(&meta).tag();
            if meta.is_file()
                && !each(Found { path: entry.path(), bytes: meta.len(), modified: meta.modified()?, tag })
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Writes and syncs a temporary file next to `path`. It is removed if it is dropped without being persisted.
fn stage(path: &Path, from: From<'_>) -> io::Result<tempfile::NamedTempFile> {
    let mut staged = empty(path)?;
    match from {
        From::Bytes(bytes) => staged.write_all(bytes)?,
        From::File(mut file) => {
            file.rewind()?;
            io::copy(&mut file, staged.as_file_mut()).map(|_| ())?;
        }
    }
    staged.as_file().sync_all()?;
    Ok(staged)
}

/// Creates a temporary file next to `path`.
fn empty(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let directory = parent(path);
    make_directory(directory)?;
    tempfile::Builder::new()
        .prefix(HIDDEN_PREFIX)
        .suffix(TEMPORARY_SUFFIX)
        // As for any new file (the process's umask applies): web servers read these. The crate's default
        // permits the owner alone.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
}

/// Creates the temporary file of a multipart upload, beside its destination. Returns its name.
pub(crate) fn create_multipart(path: &Path) -> io::Result<String> {
    let staged = empty(path)?;
    sync_directory(parent(path))?;
    let (_, kept) = staged.keep().map_err(|e| e.error)?;
    Ok(kept.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Writes a part of a multipart upload.
pub(crate) fn put_part(path: &Path, upload: &str, start: u64, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(begun(path, upload)?)?;
    file.write_all_at(bytes, start)?;
    file.sync_data()
}

/// Moves a multipart upload to its destination.
pub(crate) fn complete_multipart(path: &Path, upload: &str) -> io::Result<()> {
    fs::rename(begun(path, upload)?, path)?;
    sync_directory(parent(path))
}

/// Removes a multipart upload; a missing one is fine.
pub(crate) fn abort_multipart(path: &Path, upload: &str) -> io::Result<()> {
    delete(&begun(path, upload)?)
}

/// Returns the path of a multipart upload's temporary file, after a check of its name.
fn begun(path: &Path, upload: &str) -> io::Result<PathBuf> {
    let ours =
        upload.starts_with(HIDDEN_PREFIX) && upload.ends_with(TEMPORARY_SUFFIX) && !upload.contains('/');
    if ours { Ok(parent(path).join(upload)) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Creates a directory and its parents, each of them durably.
fn make_directory(directory: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|d| !d.exists()).count();
    if missing == 0 {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    directory.ancestors().skip(1).take(missing).try_for_each(sync_directory)
}

/// Syncs a directory, so that the names in it are durable.
fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some network and FUSE file systems cannot sync a directory, and have nothing to sync.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

/// Takes the directory's lock. It is released when the file is closed, or when the process dies.
fn lock(directory: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(directory.join(LOCK_NAME))?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(e),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Returns whether the file, or its directory, does not exist.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_ours_stays_behind_but_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/master.m3u8");
        assert!(replace(&path, b"one", None, 100).unwrap());
        assert!(!replace(&path, b"two", None, 100).unwrap());
        assert!(replace(&path, b"two", Some(&version(b"one")), 100).unwrap());
        assert!(!create(&path, b"three").unwrap());
        put(&path, From::Bytes(b"four")).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(parent(&path)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [LOCK_NAME, "master.m3u8"]);
        let mut found = Vec::new();
        walk(directory.path(), Kind::Object, &mut |f| {
            found.push(f.path);
            true
        })
        .unwrap();
        assert_eq!(found, [path]);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        // A directory has the name, so that the last step, the rename, fails.
        fs::create_dir(directory.path().join("taken")).unwrap();
        put(&directory.path().join("taken"), From::Bytes(b"x")).unwrap_err();
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["taken"]);
    }

    #[test]
    fn published_files_can_be_read_by_others() {
        let directory = tempfile::tempdir().unwrap();
        let (plain, ours) = (directory.path().join("plain"), directory.path().join("ours"));
        fs::write(&plain, "x").unwrap();
        put(&ours, From::Bytes(b"x")).unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn a_file_cut_short_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "0123456789").unwrap();
        let pinned = stat(&path).unwrap().tag();
        assert_eq!(read_range(&path, &pinned, 2..5).unwrap().unwrap(), b"234");
        fs::write(&path, "01234").unwrap();
        assert_eq!(read_range(&path, &pinned, 2..5).unwrap(), None);
        assert_eq!(read_range(&path, &pinned, 2..9).unwrap(), None);
    }
}
