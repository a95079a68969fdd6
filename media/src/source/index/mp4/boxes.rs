//! Iterates over untrusted boxes: sizes are clipped to the existing bytes, unknown boxes are skipped.
//!
//! Source: ISO/IEC 14496-12 section 4.2 (boxes) and the QuickTime File Format (atoms).

/// Header of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Type: four characters.
    pub(crate) kind: [u8; 4],
    /// Bytes of the header itself: 8, or 16 with a 64-bit size.
    pub(crate) len: u64,
    /// Bytes of the box, including its header; `None`: up to the end of the enclosing box.
    pub(crate) size: Option<u64>,
}

/// Most bytes of a header.
pub(crate) const MAX_HEAD_BYTES: u64 = 16;

impl Head {
    /// Reads the header at the start of `bytes`; `None` if there is none, or if the box is smaller than its
    /// header.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let kind = *bytes.get(4..)?.first_chunk::<4>()?;
        let (len, size) = match u32_at(bytes, 0)? {
            0 => (8, None),
            1 => (16, Some(u64_at(bytes, 8)?)),
            size => (8, Some(u64::from(size))),
        };
        size.is_none_or(|size| size >= len).then_some(Self { kind, len, size })
    }
}

/// Returns the boxes in a box's body, one after the other.
pub(crate) fn children(body: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let head = Head::read(rest)?;
        let size = head
            .size
            .and_then(|size| usize::try_from(size).ok())
            .map_or(rest.len(), |size| size.min(rest.len()));
        let (this, after) = rest.split_at(size);
        rest = after;
        Some((head.kind, this.get(usize::try_from(head.len).ok()?..)?))
    })
}

/// Returns the body of the first child of this type.
pub(crate) fn child<'a>(body: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    children(body).find(|(found, _)| found == kind).map(|(_, body)| body)
}

/// Returns the big-endian number at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Returns the big-endian number at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Returns the big-endian number at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Returns the `N`-byte entries of a table whose count is at `at`; `None` if the table is truncated.
pub(crate) fn entries<const N: usize>(body: &[u8], at: usize) -> Option<&[[u8; N]]> {
    let count = usize::try_from(u32_at(body, at)?).ok()?;
    body.get(at + 4..)?.as_chunks::<N>().0.get(..count)
}

/// Returns one 32-bit word of a table's entry.
pub(crate) fn word<const N: usize>(entry: &[u8; N], index: usize) -> u32 {
    u32_at(entry, index * 4).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_odd_sizes_and_stops_at_rubbish() {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(b"\0\0\0\x0afreeab");
        bytes.extend_from_slice(b"\0\0\0\x01wide\0\0\0\0\0\0\0\x11c");
        bytes.extend_from_slice(b"\0\0\0\x00udtarest");
        let all: Vec<_> = children(&bytes).collect();
        assert_eq!(all, [(*b"free", &b"ab"[..]), (*b"wide", &b"c"[..]), (*b"udta", &b"rest"[..])]);
        assert_eq!(children(b"\0\0\0\x07free").count(), 0, "a size smaller than the head");
        assert_eq!(
            children(b"\0\0\0\xfffree1234").next(),
            Some((*b"free", &b"1234"[..])),
            "a size past the end is clipped"
        );
        assert_eq!(children(b"\0\0\0\0").count(), 0, "QuickTime ends a list with four zero bytes");
    }

    #[test]
    fn a_table_that_is_cut_off_is_none() {
        assert_eq!(entries::<4>(b"\0\0\0\0\0\0\0\x02aaaabbbb", 4), Some(&[*b"aaaa", *b"bbbb"][..]));
        assert_eq!(entries::<4>(b"\0\0\0\0\0\0\0\x03aaaabbbb", 4), None);
        assert_eq!(entries::<8>(b"\0\0\0\0\xff\xff\xff\xff", 4), None);
    }
}
