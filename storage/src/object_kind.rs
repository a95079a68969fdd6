//! `ObjectKind`: kinds of objects, with the media type and the caching of each.

use object_store::{Attribute, Attributes};

/// For objects that are named by their content: CDNs and browsers may keep them forever.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// For objects that are replaced: caches may keep them, but must revalidate before each use.
const REVALIDATE: &str = "no-cache";
/// For objects that only Spool reads.
const PRIVATE: &str = "private, no-cache";

/// Kind of an object. It decides `Content-Type` and `Cache-Control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind<'a> {
    /// A media segment (`.m4s`), immutable.
    MediaSegment,
    /// An initialization segment (`.mp4`), immutable.
    InitSegment,
    /// A media playlist (`.m3u8`) named by its content, immutable.
    MediaPlaylist,
    /// A playlist that grows while the video is encoded.
    MutablePlaylist,
    /// The multivariant playlist of a published video, which is replaced when it is published again.
    MultivariantPlaylist,
    /// A part record or another document that only Spool reads (`.json`).
    Record,
    /// A file as a client uploaded it, by its media type.
    Upload(&'a str),
}

impl<'a> ObjectKind<'a> {
    /// Returns the media type.
    ///
    /// Media segments are `video/mp4` and not DASH's `video/iso.segment`: CMAF (ISO/IEC 23000-19) gives its
    /// objects the MP4 media types, and web servers, CDNs and older players support no other for fragmented
    /// MP4.
    ///
    /// Source: RFC 4337 (MP4), RFC 8216 section 4 (playlists).
    pub fn media_type(self) -> &'a str {
        match self {
            Self::MediaSegment | Self::InitSegment => "video/mp4",
            Self::MediaPlaylist | Self::MutablePlaylist | Self::MultivariantPlaylist => {
                "application/vnd.apple.mpegurl"
            }
            Self::Record => "application/json",
            Self::Upload(media_type) => media_type,
        }
    }

    /// Returns the `Cache-Control` of the object (RFC 9111 section 5.2.2, RFC 8246).
    pub fn cache_control(self) -> &'static str {
        match self {
            Self::MediaSegment | Self::InitSegment | Self::MediaPlaylist => IMMUTABLE,
            Self::MutablePlaylist | Self::MultivariantPlaylist => REVALIDATE,
            Self::Record | Self::Upload(_) => PRIVATE,
        }
    }

    pub(crate) fn attributes(self) -> Attributes {
        Attributes::from_iter([
            (Attribute::ContentType, self.media_type().to_owned()),
            (Attribute::CacheControl, self.cache_control().to_owned()),
        ])
    }
}
