//! The part store: part records are created once, after their objects, and never changed.

use futures::{StreamExt, TryStreamExt};
use tracing::debug;

use crate::{
    Result,
    package::parts::{Error, PartRecord, RECORDS, record_path},
};
use spool_storage::{Location, ObjectKind, PutOutcome};

/// Records read at a time.
const READS: usize = 16;

/// Reads the record of a key; `None` if it does not exist.
///
/// # Errors
/// Returns an error if the store cannot be read, or the record is damaged.
pub async fn read(destination: &Location, key: &str) -> Result<Option<PartRecord>> {
    parse(&destination.child(&record_path(key))).await
}

async fn parse(location: &Location) -> Result<Option<PartRecord>> {
    match location.read().await? {
        None => Ok(None),
        Some((bytes, _)) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Record { uri: location.to_string(), source }.into()),
    }
}

/// Commits a record, and returns the record that is stored: this one, or the one that another run committed
/// first.
///
/// # Errors
/// Returns an error if the store cannot be written.
pub async fn commit(destination: &Location, record: PartRecord) -> Result<PartRecord> {
    let location = destination.child(&record_path(&record.rendition.key));
    let json = serde_json::to_vec_pretty(&record)
        .map_err(|source| Error::Record { uri: location.to_string(), source })?;
    match location.create(json.into(), ObjectKind::Record).await? {
        PutOutcome::Written => Ok(record),
        PutOutcome::AlreadyExists | PutOutcome::PreconditionFailed => {
            debug!(key = record.rendition.key, "part was committed by another run");
            // Garbage collection may have removed it in between: then this record is returned.
            Ok(parse(&location).await?.unwrap_or(record))
        }
    }
}

/// Deletes the records of a rendition that name a missing object, so that their segments are encoded again.
///
/// # Errors
/// Returns an error if the store cannot be read or written.
pub async fn invalidate(
    destination: &Location,
    is_gone: impl Fn(&str) -> bool,
    rendition: &str,
) -> Result<()> {
    for record in
        list(destination).await?.into_iter().map(|record| record.rendition).filter(|r| r.name == rendition)
    {
        let mut objects = record.media_segments.iter().map(|s| s.path.as_str()).chain([record.init.as_str()]);
        if objects.any(&is_gone) {
            destination.child(&record_path(&record.key)).delete().await?;
        }
    }
    Ok(())
}

/// Returns all records of a destination, in the order of segments and rungs.
///
/// # Errors
/// Returns an error if the store cannot be read, or a record is damaged.
pub async fn list(destination: &Location) -> Result<Vec<PartRecord>> {
    let entries: Vec<_> = destination.child(RECORDS).list().try_collect().await?;
    let folder = destination.child(RECORDS);
    let mut records: Vec<PartRecord> = futures::stream::iter(entries)
        .filter(|entry| std::future::ready(entry.relative.ends_with(".json")))
        .map(|entry| {
            let location = folder.child(&entry.relative);
            async move { parse(&location).await }
        })
        .buffer_unordered(READS)
        .try_filter_map(|record| std::future::ready(Ok(record)))
        .try_collect()
        .await?;
    records.sort_by(|a, b| {
        let order = |r: &PartRecord| {
            (r.segment.source.clone(), r.segment.first_frame, r.segment.index, r.rendition.name.clone())
        };
        order(a).cmp(&order(b))
    });
    Ok(records)
}
