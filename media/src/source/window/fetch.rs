//! Fetches a window's samples in few ranged reads, with a bounded number of bytes in flight.

use std::{fs::File, ops::Range, os::unix::fs::FileExt, path::Path, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::Error;
use crate::source::index::Sample;
use spool_storage::ReadAt;

/// Largest single read: large enough that a request's latency hardly counts.
const MAX_READ_BYTES: u64 = 8 << 20;

/// Most bytes in flight, over all reads.
const MAX_BYTES_IN_FLIGHT: u64 = 32 << 20;

/// Most reads at a time, if they are small: stores answer as many without throttling one client.
const MAX_READS_IN_FLIGHT: u64 = 32;

/// Largest gap that is read through: a larger one costs more than the request that it saves (about 10 ms at
/// 100 Mbit/s).
const MAX_GAP_BYTES: u64 = 128 << 10;

/// Wanted bytes per byte of gap that may be read, so that a whole job reads less than 1.05 times the source.
/// For a minute of video at 6 Mbit/s it saves nine requests of ten. Sound lies between video: the same share
/// would save a fifth of its requests.
const GAP_SHARE: u64 = 50;

/// Bytes of gaps that may be read for any window: one request is better than three for a few kilobytes.
const MIN_GAP_BUDGET_BYTES: u64 = 64 << 10;

/// One ranged read, and the pieces of it that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetch {
    range: Range<u64>,
    pieces: Vec<Piece>,
}

impl Fetch {
    pub(super) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Bytes that are contiguous in the source and in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    from: u64,
    to: u64,
    len: u64,
}

impl Piece {
    fn end(&self) -> u64 {
        self.from + self.len
    }
}

/// Plans the reads of samples that lie one after the other in the window from byte `to` on.
pub(super) fn plan<'a>(samples: impl Iterator<Item = &'a Sample>, to: u64) -> Vec<Fetch> {
    let mut pieces = pieces(samples, to);
    pieces.sort_unstable_by_key(|piece| (piece.from, piece.to));
    let wanted: u64 = pieces.iter().map(|piece| piece.len).sum();
    let largest_gap = largest_gap(&pieces, (wanted / GAP_SHARE).max(MIN_GAP_BUDGET_BYTES));
    let mut fetches: Vec<Fetch> = Vec::new();
    for piece in pieces.into_iter().flat_map(split) {
        match fetches.last_mut() {
            Some(last)
                if piece.from <= last.range.end.saturating_add(largest_gap)
                    && piece.end().max(last.range.end) - last.range.start <= MAX_READ_BYTES =>
            {
                last.range.end = last.range.end.max(piece.end());
                last.pieces.push(piece);
            }
            _ => fetches.push(Fetch { range: piece.from..piece.end(), pieces: vec![piece] }),
        }
    }
    fetches
}

/// Returns the pieces: samples that are also contiguous in the source are one piece.
fn pieces<'a>(samples: impl Iterator<Item = &'a Sample>, mut to: u64) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for sample in samples.filter(|sample| sample.size > 0) {
        let len = u64::from(sample.size);
        match pieces.last_mut() {
            Some(last) if last.end() == sample.offset => last.len += len,
            _ => pieces.push(Piece { from: sample.offset, to, len }),
        }
        to += len;
    }
    pieces
}

/// Returns the largest gap up to which all gaps together stay within `budget`. Of several gaps of the same
/// size, all or none are read through.
fn largest_gap(pieces: &[Piece], budget: u64) -> u64 {
    let mut gaps: Vec<u64> = pieces.array_windows().map(|[a, b]| b.from.saturating_sub(a.end())).collect();
    gaps.sort_unstable();
    let mut largest = 0;
    let mut spent = 0_u64;
    for same in gaps.chunk_by(|a, b| a == b) {
        spent = spent.saturating_add(same.iter().sum());
        match same.first() {
            Some(gap) if spent <= budget && *gap <= MAX_GAP_BYTES => largest = *gap,
            _ => break,
        }
    }
    largest
}

/// Splits a piece into reads of bounded size.
fn split(piece: Piece) -> impl Iterator<Item = Piece> {
    (0..piece.len).step_by(MAX_READ_BYTES as usize).map(move |skip| Piece {
        from: piece.from + skip,
        to: piece.to + skip,
        len: (piece.len - skip).min(MAX_READ_BYTES),
    })
}

/// Writes the header, and then the samples as they arrive.
pub(super) async fn write(
    header: &[u8],
    fetches: &[Fetch],
    reader: &impl ReadAt,
    path: &Path,
) -> Result<(), Error> {
    let failed = |source| Error::write(path, source);
    let file = Arc::new(tokio::fs::File::create(path).await.map_err(failed)?.into_std().await);
    let header = Bytes::copy_from_slice(header);
    let whole = Piece { from: 0, to: 0, len: header.len() as u64 };
    put(&file, header, 0, vec![whole]).await.map_err(failed)?;
    let largest = fetches.iter().map(Fetch::bytes).max().unwrap_or(1);
    let at_a_time = (MAX_BYTES_IN_FLIGHT / largest.max(1)).clamp(1, MAX_READS_IN_FLIGHT);
    stream::iter(fetches.iter().cloned().map(|fetch| get_and_put(reader, fetch, Arc::clone(&file), path)))
        .buffer_unordered(at_a_time as usize)
        .try_collect::<()>()
        .await
}

async fn get_and_put(reader: &impl ReadAt, fetch: Fetch, file: Arc<File>, path: &Path) -> Result<(), Error> {
    let Fetch { range, pieces } = fetch;
    let bytes = reader.read_at(range.clone()).await?;
    if bytes.len() as u64 != range.end - range.start {
        return Err(Error::ShortRead { start: range.start, end: range.end, got: bytes.len() });
    }
    put(&file, bytes, range.start, pieces).await.map_err(|source| Error::write(path, source))
}

/// Writes pieces of `bytes`, which start at `start` in the source, to their positions in the window.
async fn put(file: &Arc<File>, bytes: Bytes, start: u64, pieces: Vec<Piece>) -> std::io::Result<()> {
    let file = Arc::clone(file);
    let write = move || {
        for piece in pieces {
            let from = usize::try_from(piece.from - start).unwrap_or(usize::MAX);
            let to = from.saturating_add(usize::try_from(piece.len).unwrap_or(usize::MAX));
            let part_bytes = bytes.get(from..to).ok_or(std::io::ErrorKind::UnexpectedEof)?;
            file.write_all_at(part_bytes, piece.to)?;
        }
        Ok(())
    };
    tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::index::mp4::clips::Memory;

    fn sample(offset: u64, size: u32) -> Sample {
        Sample { pts: 0, dts: 0, duration: 1, offset, size, key: true }
    }

    /// Seconds of an interleaved file: alternating half a second of video and half a second of sound.
    fn interleaved(seconds: u64, video_bytes: u64, audio_bytes: u64) -> (Vec<Sample>, Vec<Sample>) {
        let half = (video_bytes + audio_bytes) / 2;
        let video = (0..seconds * 2).map(|chunk| sample(chunk * half, (video_bytes / 2) as u32));
        let audio =
            (0..seconds * 2).map(|chunk| sample(chunk * half + video_bytes / 2, (audio_bytes / 2) as u32));
        (video.collect(), audio.collect())
    }

    fn cost(fetches: &[Fetch]) -> (usize, u64) {
        (fetches.len(), fetches.iter().map(Fetch::bytes).sum())
    }

    #[test]
    fn gaps_are_read_through_while_they_are_cheap() {
        // 8 Mbit/s with 128 kbit/s of sound: the sound is 1.6% of a row, so one row is four reads of at most
        // 8 MiB.
        let (video, audio) = interleaved(30, 1_000_000, 16_000);
        assert_eq!(cost(&plan(video.iter(), 0)), (4, 30_000_000 + 56 * 8_000));
        // The sound alone: reading half a megabyte of video to save a request is not worth it.
        assert_eq!(cost(&plan(audio.iter(), 0)), (60, 480_000));
        // 1 Mbit/s: sound would be 13% of a row.
        let (video, _) = interleaved(30, 125_000, 16_000);
        assert_eq!(cost(&plan(video.iter(), 0)), (60, 3_750_000));
        // One second of it: less than is worth a request.
        let (video, _) = interleaved(2, 125_000, 16_000);
        assert_eq!(cost(&plan(video.iter(), 0)), (1, 250_000 + 3 * 8_000));
    }

    #[test]
    fn a_large_sample_is_read_in_parts() {
        let fetches = plan([sample(5, 20 << 20)].iter(), 100);
        let ranges: Vec<_> = fetches.iter().map(|fetch| fetch.range.clone()).collect();
        let part = 8_u64 << 20;
        assert_eq!(ranges, [5..5 + part, 5 + part..5 + 2 * part, 5 + 2 * part..5 + (20 << 20)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// For any order and overlap of samples, the window holds each one's bytes in turn.
        #[test]
        fn every_byte_gets_where_it_belongs(places in prop::collection::vec((0..60_000_u64, 0..5_000_u32), 0..40)) {
            let source: Vec<u8> = (0..70_000_u32).map(|at| (at % 251) as u8).collect();
            let samples: Vec<_> = places.into_iter().map(|(offset, size)| sample(offset, size)).collect();
            let mut expected = b"head".to_vec();
            for sample in &samples {
                expected.extend_from_slice(&source[sample.offset as usize..][..sample.size as usize]);
            }
            let fetches = plan(samples.iter(), 4);
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("window");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(write(b"head", &fetches, &Memory::new(source), &path)).unwrap();
            prop_assert_eq!(std::fs::read(&path).unwrap(), expected);
        }
    }

    /// Returns one byte too few.
    struct Short;

    impl ReadAt for Short {
        fn len(&self) -> u64 {
            100
        }

        async fn read_at(&self, range: Range<u64>) -> Result<Bytes, spool_storage::Error> {
            Ok(Bytes::from(vec![0; (range.end - range.start - 1) as usize]))
        }
    }

    #[tokio::test]
    async fn a_short_answer_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(b"", &plan([sample(10, 20)].iter(), 0), &Short, &dir.path().join("window"))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "asked for bytes 10..30 of the source and got 19 bytes");
    }
}
