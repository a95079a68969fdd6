//! Parts: the results of encoding segments, and the keys of their records.

use crate::{
    plan::{
        audio_label::AudioTrackLabel,
        ladder::{AudioRendition, VideoRendition},
        segments::{Segment, SegmentTrack},
    },
    time::Rational,
};
use spool_storage::{ErrorKind, redact};

/// Version of the packager: part of every key, raised when its output bytes change.
const PACKAGER_VERSION: u32 = 1;

/// Result of encoding one segment: one value per row, with a rendition for every rung.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Part {
    /// Absolute URI of the folder that the objects are in.
    pub destination: String,
    /// The row that was encoded.
    pub segment: Segment,
    /// One per rung, in the ladder's order.
    pub renditions: Vec<PartRendition>,
}

/// One segment at one rung.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PartRendition {
    /// Key of the part record.
    pub key: String,
    /// Folder name of the rendition, such as `1080p` or `audio-0`.
    pub name: String,
    /// RFC 6381 codec string of the decoder configuration.
    pub codecs: String,
    /// Ticks per second of every time below.
    pub timescale: u32,
    /// Width in pixels; 0 for sound.
    pub width: u32,
    /// Height in pixels; 0 for sound.
    pub height: u32,
    /// Peak rate of the rung in bits per second.
    #[serde(default)]
    pub max_bitrate_bps: u64,
    /// Number of channels; 0 for pictures.
    pub channels: u16,
    /// The audio track's label; `None` for pictures.
    #[serde(default)]
    pub label: Option<AudioTrackLabel>,
    /// Initialization segment, relative to the destination.
    pub init: String,
    /// Bytes of the initialization segment.
    pub init_bytes: u64,
    /// Media segments in order.
    pub media_segments: Vec<MediaSegmentRef>,
    /// Wall-clock milliseconds that encoding the row took.
    pub encode_ms: u64,
    /// Host that encoded the row.
    pub host: String,
    /// Frames of the source that were decoded with errors, or not at all.
    #[serde(default)]
    pub damaged_frames: u64,
    /// Whether this statement encoded it; false if the part existed already.
    #[serde(default)]
    pub encoded: bool,
}

/// A media segment that is stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MediaSegmentRef {
    /// Number within the rendition, from 0.
    pub number: u32,
    /// Path relative to the destination.
    pub path: String,
    /// Start in ticks of the rendition's timescale.
    pub start_ticks: u64,
    /// Length in ticks.
    pub duration_ticks: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// The record of one (segment, rung): `{destination}/parts/{key}.json`, written once, after its objects.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PartRecord {
    /// The row that was encoded.
    pub segment: Segment,
    /// The encoded rendition.
    pub rendition: PartRendition,
}

/// The settings that decide a rendition's bytes, besides the segment.
#[derive(Debug, Clone, Copy, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Output<'a> {
    /// Pictures.
    Video(&'a VideoRendition),
    /// Sound.
    Audio(&'a AudioRendition),
}

/// Returns the key of one (segment, rung): a hash of everything that decides its bytes, and of nothing else.
///
/// `encoder` names the FFmpeg and encoder build; `threads` is the job's encoder thread count, never an
/// executor's.
pub fn key(segment: &Segment, output: Output<'_>, threads: u32, encoder: &str) -> String {
    #[derive(serde::Serialize)]
    struct Key<'a> {
        packager: u32,
        source: &'a str,
        etag: &'a str,
        track: SegmentTrack,
        /// Number of the audio track; a video row is identified by its frames.
        audio_track: Option<u32>,
        first_frame: u64,
        frames: u64,
        timebase: Rational,
        media_segment_frames: u32,
        output: Output<'a>,
        threads: u32,
        encoder: &'a str,
    }
    // Presigned links change over time, for the same bytes.
    let source = redact(&segment.source);
    let key = Key {
        packager: PACKAGER_VERSION,
        source: &source,
        etag: &segment.etag,
        track: segment.track,
        audio_track: (segment.track == SegmentTrack::Audio).then_some(segment.index),
        first_frame: segment.first_frame,
        frames: segment.frames,
        timebase: segment.timebase,
        media_segment_frames: segment.media_segment_frames,
        output,
        threads,
        encoder,
    };
    // A struct of numbers and strings always serialises.
    let json = serde_json::to_vec(&key).unwrap_or_default();
    blake3::hash(&json).to_hex()[..KEY_DIGITS].to_owned()
}

/// Hex digits of a key: 128 bits, so that keys of different rows do not collide.
const KEY_DIGITS: usize = 32;

/// Returns the path of a part record, relative to the destination.
pub fn record_path(key: &str) -> String {
    format!("{RECORDS}/{key}.json")
}

/// Folder of the part records, relative to the destination.
pub const RECORDS: &str = "parts";

/// Returns the path of a media segment, relative to the destination. It is named by its content, so it never
/// changes.
pub fn media_segment_path(rendition: &str, number: u32, content: &[u8]) -> String {
    format!("{rendition}/{number:05}-{}.m4s", content_hash(content))
}

/// Returns the path of an initialization segment, relative to the destination.
pub fn init_path(rendition: &str, content: &[u8]) -> String {
    format!("{rendition}/init-{}.mp4", content_hash(content))
}

/// Returns the path of a media playlist, relative to the destination.
pub fn playlist_path(rendition: &str, content: &[u8]) -> String {
    format!("{rendition}/{}.m3u8", content_hash(content))
}

/// Returns whether a path, relative to a destination, is one that the functions above return. A destination
/// may hold other files, even other videos.
pub fn is_object(path: &str) -> bool {
    let Some((rendition, name)) = path.split_once('/') else { return false };
    let is_hash =
        |text: &str| text.len() == CONTENT_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_media_segment = |name: &str| {
        let numbered = name.split_once('-');
        numbered
            .is_some_and(|(number, hash)| number.bytes().all(|byte| byte.is_ascii_digit()) && is_hash(hash))
    };
    let is_init = |name: &str| name.strip_prefix("init-").is_some_and(is_hash);
    !rendition.is_empty()
        && (name.strip_suffix(".m4s").is_some_and(is_media_segment)
            || name.strip_suffix(".mp4").is_some_and(is_init)
            || name.strip_suffix(".m3u8").is_some_and(is_hash))
}

fn content_hash(content: &[u8]) -> String {
    blake3::hash(content).to_hex()[..CONTENT_DIGITS].to_owned()
}

/// Hex digits of a content hash in a name: 64 bits, within one rendition of one destination.
const CONTENT_DIGITS: usize = 16;

/// Failure to read a part record.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part record is there but cannot be read: written by another version, or damaged.
    #[error("part record {uri} cannot be read ({source}): delete it to have the segment encoded again")]
    Record {
        /// URI of the record.
        uri: String,
        /// The parser's error.
        source: serde_json::Error,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadInput
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ladder::VideoCodec;

    fn segment() -> Segment {
        Segment {
            source: "s3://uploads/talk.mp4".to_owned(),
            etag: "\"1\"".to_owned(),
            track: SegmentTrack::Video,
            index: 3,
            first_frame: 2250,
            frames: 750,
            timebase: Rational::new(1, 25).unwrap(),
            start_ms: 90_000,
            duration_ms: 30_000,
            media_segment_frames: 100,
            title_frames: 100_000,
            lost_ms: 0,
            deinterlace: Default::default(),
        }
    }

    fn rendition() -> VideoRendition {
        VideoRendition {
            name: "720p".to_owned(),
            codec: VideoCodec::H264,
            width: 1280,
            height: 720,
            crf: 23,
            max_bitrate_bps: 2_800_000,
            buffer_bits: 5_600_000,
            level: Some(31),
            preset: "veryfast".to_owned(),
        }
    }

    #[test]
    fn a_key_changes_with_whatever_decides_bytes_and_with_nothing_else() {
        let (segment, rendition) = (segment(), rendition());
        let base = key(&segment, Output::Video(&rendition), 1, "x264 164");
        let of = |segment: &Segment| key(segment, Output::Video(&rendition), 1, "x264 164");
        // The row's number and its times in milliseconds follow from its frames; the video's length does not
        // change the bytes.
        assert_eq!(of(&Segment { index: 9, start_ms: 1, title_frames: 7, ..segment.clone() }), base);
        assert_ne!(of(&Segment { etag: "\"2\"".to_owned(), ..segment.clone() }), base);
        assert_ne!(of(&Segment { first_frame: 2251, ..segment.clone() }), base);
        assert_ne!(of(&Segment { frames: 749, ..segment.clone() }), base);
        assert_ne!(of(&Segment { media_segment_frames: 50, ..segment.clone() }), base);
        assert_ne!(key(&segment, Output::Video(&rendition), 2, "x264 164"), base);
        assert_ne!(key(&segment, Output::Video(&rendition), 1, "x264 165"), base);
        let finer = VideoRendition { crf: 20, ..rendition.clone() };
        assert_ne!(key(&segment, Output::Video(&finer), 1, "x264 164"), base);
        assert_eq!(base.len(), KEY_DIGITS);
    }

    #[test]
    fn objects_are_named_by_their_content() {
        let path = media_segment_path("720p", 7, b"one");
        assert!(path.starts_with("720p/00007-") && path.ends_with(".m4s"), "{path}");
        assert_ne!(media_segment_path("720p", 7, b"two"), path);
        assert_eq!(media_segment_path("720p", 7, b"one"), path);
        for ours in [path, init_path("720p", b"one"), playlist_path("720p", b"one")] {
            assert!(is_object(&ours), "{ours}");
        }
        for other in [
            "master.m3u8",
            "talk/master.m3u8",
            "originals/talk.mp4",
            "parts/0.json",
            "a/b/00007-0123456789abcdef.m4s",
        ] {
            assert!(!is_object(other), "{other}");
        }
    }
}
