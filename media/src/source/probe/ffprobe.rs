//! Parser of ffprobe's JSON, which has many optional fields, and some numbers as strings.

use std::{collections::HashMap, ffi::OsString, path::Path};

use serde::Deserialize;

use super::Role;
use super::{AudioTrack, Color, Error, Probe, VideoTrack, sniff::DEMUXERS};
use crate::{limits::Limits, time::Rational};

/// Longest language tag that is kept, in characters (BCP 47 recommends 35).
const LANGUAGE_CHARS_MAX: usize = 35;

/// Longest title that is kept, in characters: enough for a menu.
const TITLE_CHARS_MAX: usize = 60;

/// Names that muxers write by default: FFmpeg's, Apple's, GPAC's and Google's.
const HANDLERS: [&str; 8] = [
    "SoundHandler",
    "Core Media Audio",
    "Apple Sound Media Handler",
    "GPAC ISO Audio Handler",
    "SoundHandle",
    "ISO Media file produced by Google Inc.",
    "Stereo",
    "Mono",
];

/// Largest declared duration in seconds: one of more than a hundred years is ignored.
const DECLARED_S_MAX: f64 = 3.2e9;

/// Numbers of channels with a default layout, which FFmpeg assumes without other information.
const USUAL_CHANNELS: [u16; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 16, 24];

/// Returns the arguments of ffprobe for a local file.
pub(super) fn args(path: &Path, demuxer: Option<&str>) -> Vec<OsString> {
    let mut args: Vec<OsString> =
        ["-v", "error", "-of", "json", "-show_streams", "-show_format", "-show_programs"]
            .map(OsString::from)
            .into();
    // Local files only, against playlists and references inside the file.
    args.extend(["-protocol_whitelist", "file,pipe"].map(OsString::from));
    match demuxer {
        Some(demuxer) => args.extend(["-f".into(), demuxer.into()]),
        None => args.extend(["-format_whitelist".into(), whitelist().into()]),
    }
    let mut file = OsString::from("file:");
    file.push(path);
    args.extend(["-i".into(), file]);
    args
}

/// Returns FFmpeg's list of allowed demuxers. FFmpeg matches a demuxer by its whole list of names.
fn whitelist() -> String {
    let names = DEMUXERS.map(|demuxer| match demuxer {
        "mov" => "mov,mp4,m4a,3gp,3g2,mj2",
        "matroska" => "matroska,webm",
        name => name,
    });
    names.join(",")
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    programs: Vec<Program>,
    format: Option<Format>,
}

/// A program of a transport stream: streams that are presented together.
#[derive(Deserialize)]
struct Program {
    #[serde(default)]
    streams: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    index: u32,
}

impl Program {
    fn has(&self, stream: u32) -> bool {
        self.streams.iter().any(|member| member.index == stream)
    }
}

#[derive(Deserialize)]
struct Format {
    #[serde(default)]
    format_name: String,
    duration: Option<String>,
}

#[derive(Deserialize)]
struct Stream {
    index: u32,
    #[serde(default)]
    codec_type: String,
    codec_name: Option<String>,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    sample_aspect_ratio: Option<String>,
    pix_fmt: Option<String>,
    bits_per_raw_sample: Option<String>,
    field_order: Option<String>,
    color_range: Option<String>,
    color_space: Option<String>,
    color_primaries: Option<String>,
    color_transfer: Option<String>,
    avg_frame_rate: Option<String>,
    r_frame_rate: Option<String>,
    sample_rate: Option<String>,
    #[serde(default)]
    channels: u16,
    channel_layout: Option<String>,
    #[serde(default)]
    disposition: HashMap<String, i32>,
    #[serde(default)]
    tags: HashMap<String, String>,
    #[serde(default)]
    side_data_list: Vec<SideData>,
}

#[derive(Deserialize)]
struct SideData {
    rotation: Option<f64>,
    #[serde(default)]
    displaymatrix: String,
}

impl SideData {
    /// Returns whether the matrix mirrors the picture. Its first two rows are `a b u` and `c d v`, each after
    /// its number: a mirror has a negative determinant.
    fn is_mirror(&self) -> bool {
        let mut rows = self.displaymatrix.lines().filter_map(|line| line.split_once(':')).map(|(_, row)| {
            let mut numbers = row.split_whitespace().map(|number| number.parse::<f64>().unwrap_or(0.0));
            (numbers.next().unwrap_or(0.0), numbers.next().unwrap_or(0.0))
        });
        let ((a, b), (c, d)) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
        a * d < b * c
    }
}

/// Parses ffprobe's output and checks it against the limits.
pub(super) fn parse(json: &[u8], limits: &Limits) -> Result<Probe, Error> {
    let answer: Answer = serde_json::from_slice(json)?;
    within("number of streams", answer.streams.len() as u64, limits.streams as u64, Some("--max-streams"))?;
    let format = answer.format.as_ref();
    let seconds: Option<f64> = format.and_then(|format| format.duration.as_deref()?.parse().ok());
    let mut probe = Probe {
        format: format.map(|format| format.format_name.clone()).unwrap_or_default(),
        declared_ms: seconds
            .filter(|seconds| (0.0..DECLARED_S_MAX).contains(seconds))
            .map(|seconds| (seconds * 1000.0) as i64),
        video: None,
        audio: Vec::new(),
    };
    for stream in &answer.streams {
        match stream.codec_type.as_str() {
            "video"
                if probe.video.is_none() && !stream.is("attached_pic") && !stream.is("timed_thumbnails") =>
            {
                probe.video = video(stream, limits)?;
            }
            "audio" => probe.audio.extend(audio(stream, limits)?),
            _ => {}
        }
    }
    // The sound of another program belongs to other video.
    let first =
        probe.video.as_ref().map(|video| video.stream).or(probe.audio.first().map(|audio| audio.stream));
    if let Some(program) =
        answer.programs.iter().find(|program| first.is_some_and(|first| program.has(first)))
    {
        probe.audio.retain(|audio| program.has(audio.stream));
    }
    if probe.video.is_none() && probe.audio.is_empty() {
        return Err(Error::NoTracks);
    }
    Ok(probe)
}

/// Returns a video track; `None` if FFmpeg does not know its format, and so could not decode it.
fn video(stream: &Stream, limits: &Limits) -> Result<Option<VideoTrack>, Error> {
    let (Some(codec), Some(pixel_format)) = (known(&stream.codec_name), known(&stream.pix_fmt)) else {
        return Ok(None);
    };
    // Without an aspect ratio, pixels are square.
    let Some(sample_aspect) = rational(&stream.sample_aspect_ratio).or(Rational::new(1, 1)) else {
        return Ok(None);
    };
    if stream.width == 0 || stream.height == 0 {
        return Ok(None);
    }
    within(
        "frame size in pixels",
        u64::from(stream.width) * u64::from(stream.height),
        limits.pixels,
        Some("--max-pixels"),
    )?;
    // The average is right for a variable rate; without it, the rate that all times are multiples of.
    let declared_fps = rational(&stream.avg_frame_rate).or_else(|| rational(&stream.r_frame_rate));
    if let Some(fps) = declared_fps {
        within(
            "frame rate in frames per second",
            u64::from(fps.num().div_ceil(fps.den())),
            u64::from(limits.fps),
            Some("--max-fps"),
        )?;
    }
    Ok(Some(VideoTrack {
        stream: stream.index,
        codec,
        width: stream.width,
        height: stream.height,
        sample_aspect,
        rotation: stream.rotation(),
        mirrored: stream.is_mirrored(),
        declared_fps,
        bit_depth: bit_depth(stream.bits_per_raw_sample.as_deref(), &pixel_format),
        pixel_format,
        color: Color {
            range: known(&stream.color_range),
            space: known(&stream.color_space),
            primaries: known(&stream.color_primaries),
            transfer: known(&stream.color_transfer),
        },
        interlaced: matches!(stream.field_order.as_deref(), Some("tt" | "bb" | "tb" | "bt")),
    }))
}

fn audio(stream: &Stream, limits: &Limits) -> Result<Option<AudioTrack>, Error> {
    let sample_rate = stream.sample_rate.as_deref().and_then(|rate| rate.parse().ok()).unwrap_or(0);
    let Some(codec) = known(&stream.codec_name) else { return Ok(None) };
    if sample_rate == 0 || stream.channels == 0 {
        return Ok(None);
    }
    within("number of audio channels", u64::from(stream.channels), u64::from(limits.channels), None)?;
    let tag = |name: &str| {
        stream.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    };
    // MP4 has handler names, which muxers fill with their own.
    let title = tag("title").or_else(|| tag("handler_name").filter(|name| !HANDLERS.contains(name)));
    Ok(Some(AudioTrack {
        stream: stream.index,
        codec,
        sample_rate,
        channels: stream.channels,
        discrete: match known(&stream.channel_layout) {
            // Ambisonic channels are spherical components, not speakers; FFmpeg's mixer makes silence of
            // them.
            Some(layout) => layout.starts_with("ambisonic"),
            None => !USUAL_CHANNELS.contains(&stream.channels),
        },
        language: tag("language").and_then(is_language),
        title: title.and_then(is_title),
        role: if stream.is("comment") {
            Some(Role::Commentary)
        } else if stream.is("visual_impaired") || stream.is("descriptions") {
            Some(Role::Description)
        } else {
            None
        },
        default: stream.is("default"),
    }))
}

impl Stream {
    fn is(&self, disposition: &str) -> bool {
        self.disposition.get(disposition).is_some_and(|value| *value != 0)
    }

    fn is_mirrored(&self) -> bool {
        self.side_data_list.iter().any(SideData::is_mirror)
    }

    /// Returns the rotation in clockwise degrees: from the display matrix, which ffprobe prints
    /// anticlockwise, or else from the older clockwise tag.
    fn rotation(&self) -> u16 {
        // For a mirror ffprobe computes the rotation from the left side: half a turn too much.
        let mirror = if self.is_mirrored() { 180.0 } else { 0.0 };
        let matrix =
            self.side_data_list.iter().find_map(|data| data.rotation).map(|degrees| mirror - degrees);
        let tag = || self.tags.get("rotate").and_then(|degrees| degrees.parse().ok());
        let degrees = matrix.or_else(tag).filter(|degrees: &f64| degrees.is_finite()).unwrap_or(0.0);
        match (degrees / 90.0).round().rem_euclid(4.0) {
            1.0 => 90,
            2.0 => 180,
            3.0 => 270,
            _ => 0,
        }
    }
}

pub(super) fn within(
    what: &'static str,
    value: u64,
    limit: u64,
    option: Option<&'static str>,
) -> Result<(), Error> {
    if value > limit { Err(Error::TooLarge { what, value, limit, option }) } else { Ok(()) }
}

/// Returns a value if ffprobe knows it.
fn known(value: &Option<String>) -> Option<String> {
    value
        .clone()
        .filter(|value| !matches!(value.as_str(), "" | "unknown" | "unspecified" | "none" | "reserved"))
}

/// Parses a ratio; ffprobe writes `0/0`, `0:1` and `N/A` for none.
fn rational(value: &Option<String>) -> Option<Rational> {
    value.as_deref()?.parse().ok()
}

/// Returns the bits per component: as given, or from names such as `yuv420p10le`, `p010le` and `gbrp12be`.
fn bit_depth(given: Option<&str>, pixel_format: &str) -> u8 {
    let given = given.and_then(|bits| bits.parse().ok()).filter(|bits| (1..=32).contains(bits));
    let name = pixel_format.trim_end_matches("le").trim_end_matches("be");
    let digits = &name[name.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
    // The 12 of nv12 and the 24 of rgb24 are bits per pixel.
    let is_per_component = name[..name.len() - digits.len()].ends_with(['p', 'y']);
    let by_name = || {
        Some(digits)
            .filter(|_| is_per_component)?
            .parse()
            .ok()
            .filter(|bits| matches!(bits, 9..=16))
            .or((digits == "010").then_some(10))
    };
    given.or_else(by_name).unwrap_or(8)
}

/// Returns a valid language tag; `None` for `und`.
fn is_language(tag: &str) -> Option<String> {
    let sane = !tag.is_empty()
        && tag.len() <= LANGUAGE_CHARS_MAX
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (sane && !tag.eq_ignore_ascii_case("und")).then(|| tag.to_owned())
}

/// Returns a title as one line for display.
fn is_title(title: &str) -> Option<String> {
    let title: String =
        title.trim().chars().filter(|c| !c.is_control() && *c != '"').take(TITLE_CHARS_MAX).collect();
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(streams: &str) -> Result<Probe, Error> {
        parse(
            format!(r#"{{"streams": [{streams}], "format": {{"format_name": "mov"}}}}"#).as_bytes(),
            &Limits::default(),
        )
    }

    fn picture(more: &str) -> VideoTrack {
        let stream = format!(
            r#"{{"index": 3, "codec_type": "video", "codec_name": "h264", "width": 64, "height": 36, {more}}}"#
        );
        probed(&stream).unwrap().video.unwrap()
    }

    #[test]
    fn rotation_is_clockwise_and_in_quarters() {
        let by_matrix = |degrees: &str| {
            picture(&format!(r#""pix_fmt": "yuv420p", "side_data_list": [{{}}, {{"rotation": {degrees}}}]"#))
                .rotation
        };
        assert_eq!(
            ["-90", "90", "180", "-180", "0", "-89", "270", "1e300"].map(by_matrix),
            [90, 270, 180, 180, 0, 90, 90, 0]
        );
        assert_eq!(picture(r#""pix_fmt": "yuv420p", "tags": {"rotate": "270"}"#).rotation, 270);
    }

    #[test]
    fn mirrors_differ_from_rotations() {
        let shown = |[a, b, c, d]: [i32; 4], rotation: i32| {
            let matrix =
                format!("\\n00000000: {a} {b} 0\\n00000001: {c} {d} 0\\n00000002: 0 0 1073741824\\n");
            let side = format!(
                r#""pix_fmt": "yuv420p", "side_data_list": [{{"displaymatrix": "{matrix}", "rotation": {rotation}}}]"#
            );
            let track = picture(&side);
            (track.rotation, track.mirrored)
        };
        assert_eq!(shown([1, 0, 0, 1], 0), (0, false));
        assert_eq!(shown([0, 1, -1, 0], -90), (90, false));
        assert_eq!(shown([-1, 0, 0, -1], -180), (180, false));
        assert_eq!(shown([-1, 0, 0, 1], -180), (0, true));
        assert_eq!(shown([1, 0, 0, -1], 0), (180, true));
        assert_eq!(shown([0, -1, -1, 0], 90), (90, true));
    }

    #[test]
    fn what_is_unknown_is_none() {
        let track = picture(
            r#""pix_fmt": "yuv422p10le", "sample_aspect_ratio": "0:1", "avg_frame_rate": "0/0", "r_frame_rate": "30000/1001",
            "color_space": "unknown", "color_transfer": "smpte2084", "field_order": "tb""#,
        );
        assert_eq!((track.stream, track.bit_depth, track.interlaced), (3, 10, true));
        assert_eq!(track.sample_aspect.to_string(), "1/1");
        assert_eq!(track.declared_fps.map(|fps| fps.to_string()).as_deref(), Some("30000/1001"));
        assert_eq!(
            (track.color.space.as_deref(), track.color.transfer.as_deref()),
            (None, Some("smpte2084"))
        );
        let depths = ["yuv420p", "p010le", "gbrp12be", "yuv444p16le", "rgb24", "gray", "nv12"]
            .map(|name| bit_depth(None, name));
        assert_eq!(depths, [8, 10, 12, 16, 8, 8, 8]);
        assert_eq!(bit_depth(Some("8"), "yuv420p10le"), 8);
    }

    #[test]
    fn cover_art_is_no_video_and_undecodable_streams_are_none() {
        let cover = r#"{"index": 0, "codec_type": "video", "codec_name": "mjpeg", "width": 9, "height": 9, "pix_fmt": "yuvj420p",
            "disposition": {"attached_pic": 1}}"#;
        let sound = r#"{"index": 1, "codec_type": "audio", "codec_name": "aac", "sample_rate": "44100", "channels": 2, "tags": {"LANGUAGE": "deu"}}"#;
        let probe = probed(&format!("{cover}, {sound}")).unwrap();
        assert!(probe.video.is_none());
        assert_eq!(probe.audio[0].language.as_deref(), Some("deu"));
        assert!(matches!(probed(cover), Err(Error::NoTracks)));
        assert!(matches!(
            probed(r#"{"index": 0, "codec_type": "video", "width": 64, "height": 36}"#),
            Err(Error::NoTracks)
        ));
        assert!(matches!(parse(b"{}", &Limits::default()), Err(Error::NoTracks)));
    }

    #[test]
    fn each_limit_is_named() {
        let stream = |size: u32, fps: &str, channels: u16| {
            probed(&format!(
                r#"{{"index": 0, "codec_type": "video", "codec_name": "h264", "pix_fmt": "yuv420p", "width": {size}, "height": {size},
                    "avg_frame_rate": "{fps}"}},
                {{"index": 1, "codec_type": "audio", "codec_name": "aac", "sample_rate": "48000", "channels": {channels}}}"#
            ))
        };
        assert!(stream(8192, "300/1", 24).is_ok());
        assert_eq!(
            stream(8193, "25/1", 2).unwrap_err().to_string(),
            "frame size in pixels is 67125249, the limit is 67108864 (--max-pixels)"
        );
        assert_eq!(
            stream(64, "90000/1", 2).unwrap_err().to_string(),
            "frame rate in frames per second is 90000, the limit is 300 (--max-fps)"
        );
        assert_eq!(
            stream(64, "25/1", 65).unwrap_err().to_string(),
            "number of audio channels is 65, the limit is 64"
        );
        let many = vec![r#"{"index": 0}"#; 129].join(",");
        assert_eq!(
            probed(&many).unwrap_err().to_string(),
            "number of streams is 129, the limit is 128 (--max-streams)"
        );
    }
}
