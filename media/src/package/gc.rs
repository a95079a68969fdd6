//! Garbage collection of a destination: unreferenced part records become tombstones; a later run deletes
//! their objects, after a grace.

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

/// Ending of a retired record: what the objects of a part were that a sweep took out of use.
const RETIRED: &str = ".retired";

/// The lock of a destination, so that two sweeps never meet.
const LOCK: &str = "sweep.lock";

/// A sweep that is older than this is dead, and its lock is taken over.
const LOCK_EXPIRES: Duration = Duration::from_secs(3600);

/// What a sweep is to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What is younger than this stays: a job that runs has written it, and its master is not there yet.
    /// Objects stay as long again after their record was taken out of use. Longer than the longest job.
    pub grace: Duration,
    /// Only say what would be deleted.
    pub dry_run: bool,
}

/// What a sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct GcReport {
    /// Part records deleted.
    pub records: u64,
    /// Media segments, initialisation segments and playlists deleted.
    pub objects: u64,
    /// Bytes of those objects.
    pub bytes: u64,
    /// Objects whose record is retired, and which wait for the grace in case a job that read it still
    /// publishes them.
    pub waiting: u64,
    /// Objects that stay because something refers to them, or because they are young.
    pub kept: u64,
}

/// Why a destination was not swept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another sweep of this destination runs.
    #[error("{uri} is being swept by another process: wait for it, or delete {uri}/sweep.lock if it is dead")]
    Locked {
        /// The destination.
        uri: String,
    },
    /// Nothing was published here, so what is in use is unknown.
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

/// Deletes what neither the master nor a young record refers to.
///
/// # Errors
/// Where another sweep runs, nothing is published, or the store cannot be read or written.
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
        // A record that was written since the listing is in neither set: it is younger than young.
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
        // Halves of objects whose writer was killed.
        destination.remove_abandoned(options.grace).await?;
    }
    let folders: HashSet<&str> = entries
        .iter()
        .filter(|e| is_object(&e.relative))
        .filter_map(|e| Some(e.relative.split_once('/')?.0))
        .collect();
    // Playlists of clients that played the title while it was encoded.
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
    // Last: a sweep that dies before this finds them again.
    for entry in entries.iter().filter(|e| is_retired(&e.relative) && !young.contains(e.relative.as_str())) {
        if !options.dry_run {
            destination.child(&entry.relative).delete().await?;
        }
    }
    Ok(swept)
}

/// Takes a record out of use. A job that read it before may still publish its objects: they wait for the
/// grace from now on, which the retired record keeps.
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

/// Objects of records that were retired less than the grace ago.
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

/// Everything that a player of the master can reach, relative to the destination.
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

/// Takes the destination's lock, or that of a sweep that died.
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
