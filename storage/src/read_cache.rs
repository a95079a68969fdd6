//! `ReadCache`: caches the reads that probed a source, since the windows of its first rows contain the same
//! bytes.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use crate::Error;
use crate::ReadAt;

/// Largest cache of one source: the start of the file, its index if that is small, and the first few
/// pictures, each of half a megabyte if all are intra-coded.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// A source whose first reads are cached. A read that starts within a cached one is fetched only from its end
/// on.
#[derive(Debug)]
pub struct ReadCache<R> {
    reader: R,
    /// Start and bytes of each read.
    kept: Mutex<Vec<(u64, Bytes)>>,
}

impl<R> ReadCache<R> {
    /// Creates an empty cache.
    pub fn new(reader: R) -> Self {
        Self { reader, kept: Mutex::default() }
    }

    /// Returns the underlying reader.
    pub fn inner(&self) -> &R {
        &self.reader
    }

    /// Returns the longest cached beginning of `range`.
    fn beginning(&self, range: &Range<u64>) -> Bytes {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let beginnings = kept.iter().filter_map(|(start, bytes)| {
            let from = usize::try_from(range.start.checked_sub(*start)?).ok()?;
            let to = usize::try_from(range.end.checked_sub(*start)?).ok()?.min(bytes.len());
            (from <= to).then(|| bytes.slice(from..to))
        });
        beginnings.max_by_key(Bytes::len).unwrap_or_default()
    }

    fn keep(&self, start: u64, bytes: &Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = kept.iter().map(|(_, bytes)| bytes.len()).sum();
        if held + bytes.len() <= KEPT_BYTES_MAX {
            kept.push((start, bytes.clone()));
        }
    }
}

impl<R: ReadAt> ReadAt for ReadCache<R> {
    fn len(&self) -> u64 {
        self.reader.len()
    }

    async fn read_at(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let mut at = range.start;
        let mut parts = Vec::new();
        while at < range.end {
            let beginning = self.beginning(&(at..range.end));
            if beginning.is_empty() {
                let rest = self.reader.read_at(at..range.end).await?;
                self.keep(at, &rest);
                parts.push(rest);
                break;
            }
            at += beginning.len() as u64;
            parts.push(beginning);
        }
        Ok(if let [only] = parts.as_slice() { only.clone() } else { parts.concat().into() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A source in memory that counts its reads.
    struct Memory {
        bytes: Bytes,
        reads: AtomicUsize,
        bytes_read: AtomicUsize,
    }

    impl Memory {
        fn new(bytes: Vec<u8>) -> Self {
            Self { bytes: bytes.into(), reads: AtomicUsize::new(0), bytes_read: AtomicUsize::new(0) }
        }
    }

    impl ReadAt for Memory {
        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }

        async fn read_at(&self, range: Range<u64>) -> Result<Bytes, Error> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.bytes_read.fetch_add((range.end - range.start) as usize, Ordering::Relaxed);
            Ok(self.bytes.slice(range.start as usize..range.end as usize))
        }
    }

    /// Reads, and returns the number of reads that reached the source.
    async fn read(source: &ReadCache<Memory>, range: Range<u64>) -> (Bytes, usize) {
        let bytes = source.read_at(range).await.unwrap();
        (bytes, source.inner().reads.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn what_was_read_is_not_read_again() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let source = ReadCache::new(Memory::new(all.clone()));
        assert_eq!(source.len(), 256);
        assert_eq!(read(&source, 100..120).await, (Bytes::copy_from_slice(&all[100..120]), 1));
        assert_eq!(read(&source, 100..120).await, (Bytes::copy_from_slice(&all[100..120]), 1));
        assert_eq!(read(&source, 118..120).await, (Bytes::copy_from_slice(&all[118..120]), 1));
        for (range, reads) in [(99..101, 2), (119..122, 3), (120..122, 3), (0..256, 4), (3..250, 4)] {
            let (from, to) = (range.start as usize, range.end as usize);
            assert_eq!(read(&source, range).await, (Bytes::copy_from_slice(&all[from..to]), reads));
        }
    }

    #[tokio::test]
    async fn of_what_begins_as_before_only_the_rest_is_read() {
        let source = ReadCache::new(Memory::new(vec![7; 100]));
        for (range, bytes_read) in [(10..20, 10), (15..30, 20), (10..40, 30), (90..100, 40)] {
            let (bytes, _) = read(&source, range.clone()).await;
            assert_eq!(
                (bytes.len() as u64, source.inner().bytes_read.load(Ordering::Relaxed)),
                (range.end - range.start, bytes_read)
            );
        }
    }

    #[tokio::test]
    async fn no_more_is_kept_than_fits() {
        let most = KEPT_BYTES_MAX as u64;
        let source = ReadCache::new(Memory::new(vec![7; 3 * KEPT_BYTES_MAX]));
        for (range, reads) in [
            (0..most - 10, 1),
            (most..most + 11, 2),
            (most..most + 11, 3),
            (most..most + 10, 4),
            (most..most + 10, 4),
        ] {
            assert_eq!(read(&source, range).await.1, reads);
        }
    }
}
