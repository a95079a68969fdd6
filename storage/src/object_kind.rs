//! What does an object say of itself to players and caches?

use object_store::{Attribute, Attributes};

/// ObjectKind-addressed: a CDN and a browser may keep it for ever.
const FOREVER: &str = "public, max-age=31536000, immutable";
/// May be kept, but not used without asking whether it is still the one.
const ASK_FIRST: &str = "no-cache";
/// Ours alone.
const PRIVATE: &str = "private, no-cache";

/// What kind of object is written: decides its ObjectKind-Type and Cache-Control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A media segment (`.m4s`), immutable.
    MediaSegment,
    /// An init segment (`.mp4`), immutable.
    InitSegment,
    /// A media playlist (`.m3u8`) named by its content, immutable.
    MediaPlaylist,
    /// The multivariant playlist, the one object that is replaced.
    MultivariantPlaylist,
    /// A part record or anything else that only Spool reads (`.json`).
    Record,
}

impl ObjectKind {
    /// Media type.
    ///
    /// Media segments are `video/mp4` and not DASH's `video/iso.segment`: CMAF (ISO/IEC 23000-19) gives its objects the MP4 media
    /// types, and web servers, CDNs and older players know no other for fragmented MP4.
    ///
    /// Source: RFC 4337 (MP4), RFC 8216 section 4 (playlists).
    pub fn media_type(self) -> &'static str {
        match self {
            Self::MediaSegment | Self::InitSegment => "video/mp4",
            Self::MediaPlaylist | Self::MultivariantPlaylist => "application/vnd.apple.mpegurl",
            Self::Record => "application/json",
        }
    }

    /// How long others may keep it (RFC 9111 section 5.2.2, RFC 8246).
    pub fn cache_control(self) -> &'static str {
        match self {
            Self::MediaSegment | Self::InitSegment | Self::MediaPlaylist => FOREVER,
            Self::MultivariantPlaylist => ASK_FIRST,
            Self::Record => PRIVATE,
        }
    }

    pub(super) fn attributes(self) -> Attributes {
        Attributes::from_iter([
            (Attribute::ContentType, self.media_type()),
            (Attribute::CacheControl, self.cache_control()),
        ])
    }
}
