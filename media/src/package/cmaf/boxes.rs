//! MP4 boxes: iterates over the children of a box, and writes nested boxes.
//!
//! mp4-atom decodes and encodes the leaves. Nesting is done here: mp4-atom's container types decode every
//! child recursively, so that a file of a few hundred kilobytes can exhaust the stack, and they cannot copy a
//! sample entry verbatim.

use mp4_atom::{Atom, Buf as _, Encode, FourCC};

use super::Error;

/// One box inside another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child<'a> {
    /// Name of the box.
    pub(super) kind: FourCC,
    /// Header and body.
    pub(super) whole: &'a [u8],
    /// Bytes after the header.
    pub(super) body: &'a [u8],
}

/// Returns the boxes in `body`, one after the other. A remainder too short for a header is padding.
pub(super) fn children(body: &[u8]) -> impl Iterator<Item = Result<Child<'_>, Error>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.len() < 8 {
            return None;
        }
        let Some((child, after)) = split_child(rest) else {
            rest = &[];
            return Some(Err(Error::Malformed("a box is larger than the box around it")));
        };
        rest = after;
        Some(Ok(child))
    })
}

fn split_child(bytes: &[u8]) -> Option<(Child<'_>, &[u8])> {
    let mut cursor = bytes;
    let header = <mp4_atom::Header as mp4_atom::DecodeMaybe>::decode_maybe(&mut cursor).ok()??;
    let size = header.size.unwrap_or(cursor.remaining());
    let (body, rest) = cursor.split_at_checked(size)?;
    Some((Child { kind: header.kind, whole: &bytes[..bytes.len() - rest.len()], body }, rest))
}

/// Returns the body of the first child with this name, if there is one.
pub(super) fn find<'a>(body: &'a [u8], kind: &[u8; 4]) -> Result<Option<&'a [u8]>, Error> {
    for child in children(body) {
        let child = child?;
        if child.kind == FourCC::new(kind) {
            return Ok(Some(child.body));
        }
    }
    Ok(None)
}

/// Returns the body of the child with this name, or an error with the message `missing`.
pub(super) fn need<'a>(body: &'a [u8], kind: &[u8; 4], missing: &'static str) -> Result<&'a [u8], Error> {
    find(body, kind)?.ok_or(Error::Malformed(missing))
}

/// Decodes a leaf's body.
pub(super) fn decode<T: Atom>(mut body: &[u8]) -> Result<T, Error> {
    T::decode_body(&mut body).map_err(|source| Error::Box { kind: T::KIND, source })
}

/// Appends a leaf.
pub(super) fn put(out: &mut Vec<u8>, leaf: &impl Encode) -> Result<(), Error> {
    leaf.encode(out).map_err(Error::Write)
}

/// Appends a box of this name whose body is written by `fill`.
pub(super) fn nest(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    fill(out)?;
    let bytes = out.len() - start;
    let size = u32::try_from(bytes).map_err(|_| Error::TooLarge {
        what: "a box in bytes",
        amount: bytes as u64,
        limit: u32::MAX.into(),
    })?;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
    Ok(())
}
