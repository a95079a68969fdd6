//! Finds `moov`, at either end of the file, by skipping top-level boxes.

use std::ops::Range;

use bytes::Bytes;

use super::{
    WholeFile,
    boxes::{Head, MAX_HEAD_BYTES},
};
use crate::source::index::Error;
use spool_storage::ReadAt;

/// Largest `moov` that is read into memory. That of a 3-hour film has about 5 MB, and of a day at 60 fps
/// about 100 MB.
pub const MAX_HEADER_BYTES: u64 = 256 << 20;

/// Largest `ftyp` that is kept: brands have four bytes each, and no file lists a thousand.
const MAX_BRAND_BYTES: u64 = 4096;

/// Bytes of a read at a top-level box: the whole `moov` of a short clip, and one small request to any store.
const LOOK_BYTES: u64 = 64 << 10;

/// Most reads at top-level boxes: writers put a handful there, and each read may be a request.
const MAX_LOOKS: usize = 256;

/// Types of the first box of an MP4 or MOV.
const FIRST_BOXES: [&[u8; 4]; 11] =
    [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"styp", b"moof", b"sidx"];

/// Returns whether a file that starts with these bytes (at least 8) can be an MP4 or MOV.
pub fn sniff(start: &[u8]) -> bool {
    Head::read(start).is_some_and(|head| FIRST_BOXES.contains(&&head.kind))
}

/// The bodies of the boxes that describe a movie.
pub(super) struct Found {
    pub(super) ftyp: Option<Bytes>,
    pub(super) moov: Bytes,
}

/// Finds and reads `ftyp` and `moov`.
pub(super) async fn moov(reader: &impl ReadAt) -> Result<Found, Error> {
    let len = reader.len();
    let mut looks = 0;
    let mut look = (0, Bytes::new());
    let mut ftyp = None;
    let mut at = 0;
    while len.saturating_sub(at) >= 8 {
        if !covers(&look, at..(at + MAX_HEAD_BYTES).min(len)) {
            looks += 1;
            if looks > MAX_LOOKS {
                return Err(Error::Damaged { what: "too many top-level boxes before moov" });
            }
            look = (at, read(reader, at..(at + LOOK_BYTES).min(len)).await?);
        }
        let bytes = usize::try_from(at - look.0).ok().and_then(|skip| look.1.get(skip..)).unwrap_or_default();
        let head = Head::read(bytes);
        if at == 0 && !sniff(bytes) {
            return Err(Error::NotMp4);
        }
        let Some(head) = head else {
            return Err(Error::Damaged { what: "a top-level box is smaller than its head" });
        };
        let end = head.size.map_or(len, |size| at.saturating_add(size));
        let body = at + head.len..end;
        match &head.kind {
            b"moov" => {
                if body.end - body.start > MAX_HEADER_BYTES {
                    return Err(Error::HeaderTooLarge {
                        bytes: body.end - body.start,
                        limit: MAX_HEADER_BYTES,
                    });
                }
                if end > len {
                    return Err(truncated(head, end, len));
                }
                return Ok(Found { ftyp, moov: body_of(reader, &look, body).await? });
            }
            b"moof" | b"sidx" => return Err(Error::NeedsWholeFile { why: WholeFile::Fragmented }),
            b"ftyp" if ftyp.is_none() && end <= len && body.end - body.start <= MAX_BRAND_BYTES => {
                ftyp = Some(body_of(reader, &look, body).await?);
            }
            _ => {}
        }
        if end > len {
            return Err(truncated(head, end, len));
        }
        at = end;
    }
    Err(if at == 0 { Error::NotMp4 } else { Error::NoHeader { bytes: len } })
}

fn truncated(head: Head, end: u64, bytes: u64) -> Error {
    Error::TruncatedBox { kind: String::from_utf8_lossy(&head.kind).into_owned(), end, bytes }
}

fn covers(look: &(u64, Bytes), range: Range<u64>) -> bool {
    look.0 <= range.start && range.end <= look.0 + look.1.len() as u64
}

/// Returns a body, from the last read if that contains it, or by a read of its own.
async fn body_of(reader: &impl ReadAt, look: &(u64, Bytes), body: Range<u64>) -> Result<Bytes, Error> {
    let within = |at: u64| usize::try_from(at.saturating_sub(look.0)).unwrap_or(usize::MAX);
    if covers(look, body.clone()) {
        return Ok(look.1.slice(within(body.start)..within(body.end)));
    }
    read(reader, body).await
}

async fn read(reader: &impl ReadAt, range: Range<u64>) -> Result<Bytes, Error> {
    let bytes = reader.read_at(range.clone()).await?;
    if bytes.len() as u64 != range.end - range.start {
        return Err(Error::ShortRead { start: range.start, end: range.end, got: bytes.len() });
    }
    Ok(bytes)
}
