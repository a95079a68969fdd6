//! Garbage collection of a destination: unreferenced part records become tombstones; a later run deletes
//! their objects, after the grace period.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::TryStreamExt;
use tracing::info;

use crate::{
    Result,
    package::{
        early_playback::EARLY_MASTER,
        part_store,
        parts::{self, PartRecord, RECORDS, is_object, record_path},
        playlists::{self, References},
        publish::MASTER,
    },
};
use spool_storage::{Entry, ErrorKind, Location, ObjectKind, PutOutcome, Stores};

/// Name ending of a tombstone: the record of a part that garbage collection took out of use.
const RETIRED: &str = ".retired";

/// Name of a destination's lock, so that two runs never overlap.
const LOCK: &str = "sweep.lock";

/// Age at which a lock counts as abandoned and is taken over.
const LOCK_EXPIRES: Duration = Duration::from_secs(3600);

/// Options of a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Grace period. Younger objects and records stay: a running job may have written them, and not published
    /// them yet. Objects stay as long again after their record became a tombstone. Must be longer than the
    /// longest job.
    pub grace: Duration,
    /// Whether to report only, without deleting.
    pub dry_run: bool,
}

/// Result of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct GcReport {
    /// Part records deleted.
    pub records: u64,
    /// Media segments, initialization segments and playlists deleted.
    pub objects: u64,
    /// Bytes of those objects.
    pub bytes: u64,
    /// Objects whose record is a tombstone within its grace period: a job that read the record may still
    /// publish them.
    pub waiting: u64,
    /// Objects that stay because they are referred to, or because they are young.
    pub kept: u64,
}

/// Failure of a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another run on this destination is in progress.
    #[error("{uri} is being swept by another process: wait for it, or delete {uri}/sweep.lock if it is dead")]
    Locked {
        /// The destination.
        uri: String,
    },
    /// Nothing was published here, so the objects in use are unknown.
    #[error(
        "{uri} has no master.m3u8, so what is in use is unknown: publish first, or delete the folder as a whole"
    )]
    NoMaster {
        /// The destination.
        uri: String,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked { .. } => ErrorKind::Transient,
            Self::NoMaster { .. } => ErrorKind::NotFound,
        }
    }
}

/// Deletes the objects that neither the multivariant playlist nor a young record refers to.
///
/// # Errors
/// Returns an error if another run is in progress, nothing is published, or the store cannot be read or
/// written.
pub async fn run(stores: &Stores, destination: &str, options: Options) -> Result<GcReport> {
    let destination = stores.locate(destination)?;
    if destination.child(MASTER).read().await?.is_none() {
        return Err(Error::NoMaster { uri: destination.to_string() }.into());
    }
    lock(&destination).await?;
    let swept = collect(&destination, options).await;
    destination.child(LOCK).delete().await?;
    let swept = swept?;
    info!(%destination, ?swept, dry_run = options.dry_run, "destination swept");
    Ok(swept)
}

async fn collect(destination: &Location, options: Options) -> Result<GcReport> {
    // Listed before anything is read: objects written from now on are not in the list, so they are kept.
    let entries: Vec<Entry> = destination.list().try_collect().await?;
    let oldest = SystemTime::now().checked_sub(options.grace).unwrap_or(UNIX_EPOCH);
    let young: HashSet<&str> =
        entries.iter().filter(|e| e.modified > oldest).map(|e| e.relative.as_str()).collect();
    let old: HashSet<&str> =
        entries.iter().filter(|e| e.modified <= oldest).map(|e| e.relative.as_str()).collect();
    let mut used = reachable(destination).await?;
    let mut dead = Vec::new();
    for record in part_store::list(destination).await? {
        let objects = objects(&record);
        // A record that was written since the listing is in neither set, and is kept.
        if old.contains(record_path(&record.rendition.key).as_str())
            && !objects.iter().all(|object| used.contains(object))
        {
            dead.push(record);
        } else {
            used.extend(objects);
        }
    }
    let mut swept = GcReport { records: dead.len() as u64, ..GcReport::default() };
    let mut waiting = waiting(destination, &entries, &young).await?;
    for record in dead {
        if !options.grace.is_zero() {
            waiting.extend(objects(&record));
        }
        if !options.dry_run {
            tombstone(destination, &record, options.grace).await?;
        }
    }
    if !options.dry_run {
        // Unfinished writes of killed processes.
        destination.remove_abandoned(options.grace).await?;
    }
    let folders: HashSet<&str> = entries
        .iter()
        .filter(|e| is_object(&e.relative))
        .filter_map(|e| Some(e.relative.split_once('/')?.0))
        .collect();
    // Playlists of early playback.
    let is_live = |path: &str| match path.rsplit_once('/') {
        Some((folder, name)) => name == EARLY_MASTER && folders.contains(folder),
        None => path == EARLY_MASTER,
    };
    for entry in entries.iter().filter(|entry| is_object(&entry.relative) || is_live(&entry.relative)) {
        let path = entry.relative.as_str();
        if used.contains(path) || young.contains(path) {
            swept.kept += 1;
        } else if waiting.contains(path) {
            swept.waiting += 1;
        } else {
            swept.objects += 1;
            swept.bytes += entry.bytes;
            if !options.dry_run {
                destination.child(path).delete().await?;
            }
        }
    }
    // Last: after a crash before this, the next run finds the tombstones again.
    for entry in entries.iter().filter(|e| is_retired(&e.relative) && !young.contains(e.relative.as_str())) {
        if !options.dry_run {
            destination.child(&entry.relative).delete().await?;
        }
    }
    Ok(swept)
}

/// Replaces a record by a tombstone. A job that read the record before may still publish its objects, so they
/// are kept for the grace period from now on.
async fn tombstone(destination: &Location, record: &PartRecord, grace: Duration) -> Result<()> {
    let path = record_path(&record.rendition.key);
    if !grace.is_zero() {
        let retired = destination.child(&format!("{RECORDS}/{}{RETIRED}", record.rendition.key));
        let json = serde_json::to_vec(record)
            .map_err(|source| parts::Error::Record { uri: retired.to_string(), source })?;
        retired.put(json.into(), ObjectKind::Record).await?;
    }
    Ok(destination.child(&path).delete().await?)
}

fn is_retired(path: &str) -> bool {
    path.starts_with(RECORDS) && path.ends_with(RETIRED)
}

/// Returns the objects of tombstones that are within the grace period.
async fn waiting(
    destination: &Location,
    entries: &[Entry],
    young: &HashSet<&str>,
) -> Result<HashSet<String>> {
    let mut waiting = HashSet::new();
    for entry in entries.iter().filter(|e| is_retired(&e.relative) && young.contains(e.relative.as_str())) {
        let location = destination.child(&entry.relative);
        let Some((bytes, _)) = location.read().await? else { continue };
        let record = serde_json::from_slice(&bytes)
            .map_err(|source| parts::Error::Record { uri: location.to_string(), source })?;
        waiting.extend(objects(&record));
    }
    Ok(waiting)
}

fn objects(record: &PartRecord) -> Vec<String> {
    record
        .rendition
        .media_segments
        .iter()
        .map(|s| s.path.clone())
        .chain([record.rendition.init.clone()])
        .collect()
}

/// Returns the paths that a player of the multivariant playlist can reach, relative to the destination.
async fn reachable(destination: &Location) -> Result<HashSet<String>> {
    let mut used = HashSet::new();
    for playlist in references(destination, MASTER).await? {
        let folder = playlist.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        for uri in references(destination, &playlist).await? {
            used.insert(format!("{folder}/{uri}"));
        }
        used.insert(playlist);
    }
    Ok(used)
}

async fn references(destination: &Location, playlist: &str) -> Result<Vec<String>> {
    match destination.child(playlist).read().await? {
        Some((bytes, _)) => match playlists::references(&String::from_utf8_lossy(&bytes))? {
            References::Multivariant(uris) | References::Media(uris) => Ok(uris),
        },
        None => Ok(Vec::new()),
    }
}

/// Takes the destination's lock, or takes over an expired one.
async fn lock(destination: &Location) -> Result<()> {
    let location = destination.child(LOCK);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let before = location.read().await?;
    if let Some((bytes, _)) = &before {
        let since: u64 =
            std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if now.saturating_sub(since) < LOCK_EXPIRES.as_secs() {
            return Err(Error::Locked { uri: destination.to_string() }.into());
        }
    }
    let version = before.as_ref().map(|(_, version)| version);
    match location.replace(now.to_string().into(), ObjectKind::Record, version).await? {
        PutOutcome::Written => Ok(()),
        PutOutcome::AlreadyExists | PutOutcome::PreconditionFailed => {
            Err(Error::Locked { uri: destination.to_string() }.into())
        }
    }
}
