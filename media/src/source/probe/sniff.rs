//! Sniffing: finds the demuxer by magic numbers, and refuses playlists and texts.
//!
//! FFmpeg's own detection uses content and name, and can be led to read a playlist and fetch the URIs in it.
//! So the demuxer is forced, and only self-contained formats are supported.

use super::Error;

/// Bytes of a file's head that [`sniff`] needs: five packets of the longest kind of transport stream, and
/// some text.
pub const SNIFF_BYTES: usize = 2048;

/// Packets of a transport stream that must start with the sync byte, if the head is long enough.
const TS_PACKETS: usize = 5;

/// Result of sniffing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sniffed {
    /// FFmpeg's demuxer name, to be forced with `-f`.
    pub demuxer: &'static str,
}

/// Demuxers by the bytes at an offset.
const MAGIC: [(usize, &[u8], &str); 24] = [
    (0, &[0x1a, 0x45, 0xdf, 0xa3], "matroska"),
    (0, b"FLV\x01", "flv"),
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"ID3", "mp3"),
    (0, &[0x00, 0x00, 0x01, 0xba], "mpeg"),
    // SMPTE ST 377-1: the key of a header partition pack.
    (0, &[0x06, 0x0e, 0x2b, 0x34, 0x02, 0x05, 0x01, 0x01, 0x0d, 0x01, 0x02, 0x01, 0x01, 0x02], "mxf"),
    (0, &[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11], "asf"),
    (0, b"YUV4MPEG2 ", "yuv4mpegpipe"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"DKIF", "ivf"),
    (0, b"caff", "caf"),
    (0, b"nut/multimedia container\0", "nut"),
    // ISO 14496-12 and QuickTime: the type of the first box.
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (4, b"skip", "mov"),
    (4, b"pnot", "mov"),
    (4, b"styp", "mov"),
    (4, b"moof", "mov"),
    (4, b"sidx", "mov"),
];

/// Demuxers that [`sniff`] can return. No others are used.
pub(super) const DEMUXERS: [&str; 20] = [
    "mov",
    "matroska",
    "mpegts",
    "avi",
    "mpeg",
    "flv",
    "ogg",
    "wav",
    "aiff",
    "mp3",
    "aac",
    "flac",
    "mxf",
    "asf",
    "yuv4mpegpipe",
    "gif",
    "ivf",
    "caf",
    "nut",
    "webm",
];

/// Texts by their start, after white space and a byte order mark.
const TEXTS: [(&[u8], &str); 12] = [
    (b"#EXTM3U", "an HLS playlist; name the media file itself"),
    (b"ffconcat", "a list of files; name the media file itself"),
    (b"<MPD", "a DASH manifest; name the media file itself"),
    (b"<SmoothStreamingMedia", "a streaming manifest; name the media file itself"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML text"),
    (b"WEBVTT", "subtitles"),
    (b"[Script Info]", "subtitles"),
    (b"v=0\r\n", "a session description"),
    (b"v=0\n", "a session description"),
    (b"{", "a JSON text"),
];

/// Pictures and archives that people upload by mistake.
const OTHERS: [(usize, &[u8], &str); 6] = [
    (0, &[0xff, 0xd8, 0xff], "a JPEG picture"),
    (0, b"\x89PNG\r\n", "a PNG picture"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, &[0x1f, 0x8b], "a gzip archive"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x7fELF", "a program"),
];

/// Returns the demuxer of a file from its first [`SNIFF_BYTES`] bytes, or all if it has fewer.
///
/// # Errors
/// Returns [`Error::Empty`] for an empty file, and [`Error::NotMedia`] for texts, playlists, pictures and
/// unknown formats.
pub fn sniff(head: &[u8]) -> Result<Sniffed, Error> {
    if head.is_empty() {
        return Err(Error::Empty);
    }
    if let Some(what) = still_picture(head) {
        return Err(Error::NotMedia { what });
    }
    let known = MAGIC.iter().find(|(at, magic, _)| has(head, *at, magic)).map(|(_, _, demuxer)| *demuxer);
    let demuxer =
        known.or_else(|| riff(head)).or_else(|| transport_stream(head)).or_else(|| bare_audio(head));
    demuxer.map(|demuxer| Sniffed { demuxer }).ok_or_else(|| Error::NotMedia { what: something_else(head) })
}

fn has(head: &[u8], at: usize, magic: &[u8]) -> bool {
    head.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

/// Recognizes HEIF and AVIF, which share MP4's boxes, by the brand after `ftyp`.
fn still_picture(head: &[u8]) -> Option<&'static str> {
    let brands: [&[u8]; 6] = [b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"];
    (has(head, 4, b"ftyp") && brands.iter().any(|brand| has(head, 8, brand)))
        .then_some("a HEIF or AVIF picture")
}

fn riff(head: &[u8]) -> Option<&'static str> {
    let riff = has(head, 0, b"RIFF") || has(head, 0, b"RF64");
    match head.get(8..12)? {
        b"AVI " if riff => Some("avi"),
        b"WAVE" if riff => Some("wav"),
        b"AIFF" | b"AIFC" if has(head, 0, b"FORM") => Some("aiff"),
        _ => None,
    }
}

/// Recognizes a transport stream (ISO 13818-1): packets of 188 bytes that start with 0x47; 192 with four
/// bytes of time before each (Blu-ray, AVCHD), 204 with a checksum.
fn transport_stream(head: &[u8]) -> Option<&'static str> {
    let in_step = |first: usize, step: usize| {
        let starts: Vec<&u8> = head.iter().skip(first).step_by(step).take(TS_PACKETS).collect();
        starts.len() > 1 && starts.iter().all(|byte| **byte == 0x47)
    };
    [(0, 188), (4, 192), (0, 192), (0, 204)]
        .into_iter()
        .any(|(first, step)| in_step(first, step))
        .then_some("mpegts")
}

/// Recognizes frames without a container: ADTS (ISO 13818-7) has layer 0, MPEG audio (ISO 11172-3) does not.
fn bare_audio(head: &[u8]) -> Option<&'static str> {
    let &[first, second, third, ..] = head else { return None };
    if first != 0xff || second & 0xe0 != 0xe0 {
        return None;
    }
    let (version, layer) = ((second >> 3) & 3, (second >> 1) & 3);
    if second & 0xf6 == 0xf0 {
        return Some("aac");
    }
    // A reserved version, layer, rate or frequency is no frame. Layer I, which is not in use, is excluded:
    // 0xFF 0xFE is a byte order mark.
    (version != 1 && matches!(layer, 1 | 2) && third >> 4 != 15 && (third >> 2) & 3 != 3).then_some("mp3")
}

fn something_else(head: &[u8]) -> &'static str {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    if let Some((_, what)) = TEXTS
        .iter()
        .find(|(start, _)| text.len() >= start.len() && text[..start.len()].eq_ignore_ascii_case(start))
    {
        return what;
    }
    if let Some((_, _, what)) = OTHERS.iter().find(|(at, magic, _)| has(head, *at, magic)) {
        return what;
    }
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    if head.iter().all(is_text) { "a text" } else { "the first bytes are of no known container" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(head: &[u8]) -> String {
        match sniff(head) {
            Ok(sniffed) => sniffed.demuxer.to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn containers_by_their_first_bytes() {
        let mut ts = vec![0_u8; 188 * 5];
        ts.iter_mut().step_by(188).for_each(|byte| *byte = 0x47);
        let mut m2ts = vec![0_u8; 192 * 5];
        m2ts.iter_mut().skip(4).step_by(192).for_each(|byte| *byte = 0x47);
        let cases: [(&[u8], &str); 10] = [
            (b"\0\0\0\x20ftypisom", "mov"),
            (b"\0\0\0\x08wide\0\0", "mov"),
            (&[0x1a, 0x45, 0xdf, 0xa3, 0x93], "matroska"),
            (&ts, "mpegts"),
            (&m2ts, "mpegts"),
            (b"RIFF\0\0\0\0AVI LIST", "avi"),
            (b"RIFF\0\0\0\0WAVEfmt ", "wav"),
            (&[0xff, 0xf1, 0x50, 0x80], "aac"),
            (&[0xff, 0xfb, 0x90, 0x64], "mp3"),
            (&[0, 0, 1, 0xba, 0x44], "mpeg"),
        ];
        for (head, demuxer) in cases {
            assert_eq!(what(head), demuxer);
        }
    }

    #[test]
    fn what_is_no_media_is_refused_by_name() {
        assert_eq!(what(b""), "not a video: the file is empty");
        assert_eq!(
            what(b"\xef\xbb\xbf\n#EXTM3U\n#EXT-X-VERSION:3"),
            "not a video: an HLS playlist; name the media file itself"
        );
        assert_eq!(
            what(b"ffconcat version 1.0\nfile 'http://x/'"),
            "not a video: a list of files; name the media file itself"
        );
        assert_eq!(what(b"<?xml version='1.0'?><MPD>"), "not a video: an XML text");
        assert_eq!(what(b"1\n00:00:00,000 --> 00:00:01,000\nHello"), "not a video: a text");
        assert_eq!(what("GIFT und Grüße".as_bytes()), "not a video: a text");
        assert_eq!(what(b"\xff\xfeh\0i\0"), "not a video: the first bytes are of no known container");
        assert_eq!(what(b"\0\0\0\x1cftypheic"), "not a video: a HEIF or AVIF picture");
        assert_eq!(what(&[0; 64]), "not a video: the first bytes are of no known container");
        // One letter G is no transport stream, nor is a text that has it at the packet distance once.
        assert_eq!(what(b"G"), "not a video: a text");
    }

    #[test]
    fn all_that_is_sniffed_may_be_demuxed() {
        assert!(MAGIC.iter().all(|(_, _, demuxer)| DEMUXERS.contains(demuxer)));
    }
}
