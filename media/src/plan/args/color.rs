//! Filters and tags for colour: 8 bits, 4:2:0, limited range.

use crate::source::probe::{Color, VideoTrack};

/// Luminance of reference white in nits for the tone map (ITU-R BT.2408 has 203 for graphics; 100 keeps faces
/// as bright as in SDR).
const NOMINAL_PEAK_NITS: u32 = 100;
/// Peak of the tone map in multiples of reference white: 1,000 nits, to which most films are graded. Fixed,
/// because FFmpeg would read it from metadata that not every part of a source has, and segments would differ.
const TONE_MAP_PEAK: u32 = 10;

/// Height in pixels from which untagged video counts as BT.709.
const HD_HEIGHT: u32 = 720;

/// Returns whether the video has high dynamic range (SMPTE ST 2084 or ARIB STD-B67).
pub(super) fn is_hdr(source: &VideoTrack) -> bool {
    matches!(source.color.transfer.as_deref(), Some("smpte2084" | "arib-std-b67"))
}

/// Returns whether frames are RGB, coded so or after [`flatten`].
fn is_rgb(source: &VideoTrack) -> bool {
    if has_alpha(source) {
        return true;
    }
    let name = source.pixel_format.as_str();
    ["rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8", "x2rgb"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Returns whether the video has an alpha channel.
///
/// False for HDR: no camera records alpha in HDR, and the tone map needs the coded values.
fn has_alpha(source: &VideoTrack) -> bool {
    if is_hdr(source) {
        return false;
    }
    let name = source.pixel_format.as_str();
    ["yuva", "gbrap", "rgba", "bgra", "argb", "abgr", "ya8", "ya16", "pal8"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Returns the filters that blend a video with alpha onto black, with RGB output; empty without alpha.
pub(super) fn flatten(source: &VideoTrack) -> Vec<String> {
    if !has_alpha(source) {
        return Vec::new();
    }
    // Untagged video is interpreted by its size, as players do.
    let matrix = match (&source.color.space, source.height) {
        (Some(_), _) => "auto",
        (None, HD_HEIGHT..) => "bt709",
        (None, _) => "smpte170m",
    };
    let to_rgb =
        format!("scale=in_color_matrix={matrix}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact");
    [&to_rgb, "format=gbrap", "premultiply=inplace=1", "format=gbrp"].map(str::to_owned).into()
}

/// Returns the filters from high to standard dynamic range, before any scaling; empty for SDR.
///
/// Works in linear light. The input's tags are given explicitly, since not every frame carries them. Hable's
/// curve keeps highlights without clipping.
pub(super) fn tone_map(source: &VideoTrack) -> Vec<String> {
    let Some(transfer) = source.color.transfer.as_deref().filter(|_| is_hdr(source)) else {
        return Vec::new();
    };
    let range = if is_full_range(source) { "pc" } else { "tv" };
    vec![
        format!("zscale=tin={transfer}:min=bt2020nc:pin=bt2020:rin={range}:t=linear:npl={NOMINAL_PEAK_NITS}"),
        "format=gbrpf32le".to_owned(),
        "zscale=p=bt709".to_owned(),
        format!("tonemap=tonemap=hable:desat=0:peak={TONE_MAP_PEAK}"),
        "zscale=t=bt709:m=bt709:r=tv".to_owned(),
        "format=yuv420p".to_owned(),
    ]
}

/// Returns whether the video has full range, by its tag or by FFmpeg's old `yuvj` formats.
fn is_full_range(source: &VideoTrack) -> bool {
    source.color.range.as_deref() == Some("pc") || source.pixel_format.starts_with("yuvj")
}

/// Returns the scale filter's options for the range and matrix of its input and output.
pub(super) fn scale_options(source: &VideoTrack) -> &'static str {
    if is_hdr(source) {
        // The tone map's output is BT.709 in limited range already.
        ""
    } else if is_rgb(source) {
        // FFmpeg's default is BT.601 for every size.
        ":out_color_matrix=bt709:out_range=tv"
    } else if is_full_range(source) {
        ":in_range=pc:out_range=tv"
    } else {
        ""
    }
}

/// Returns the encoder options for the colour tags: those of the source if it has any, and BT.709 if the
/// video was converted.
pub(super) fn tags(source: &VideoTrack) -> Vec<(&'static str, &'static str)> {
    let converted = Color {
        range: None,
        space: Some("bt709".to_owned()),
        primaries: Some("bt709".to_owned()),
        transfer: Some("bt709".to_owned()),
    };
    let color = if is_hdr(source) || is_rgb(source) { &converted } else { &source.color };
    // Always limited: by the source, or by conversion.
    let mut tags = vec![("-color_range", "tv")];
    tags.extend(color.space.as_deref().and_then(space).map(|name| ("-colorspace", name)));
    tags.extend(color.primaries.as_deref().and_then(primaries).map(|name| ("-color_primaries", name)));
    tags.extend(color.transfer.as_deref().and_then(transfer).map(|name| ("-color_trc", name)));
    tags
}

/// Returns the name of an ITU-T H.273 matrix that both ffprobe prints and `-colorspace` accepts; others stay
/// untagged.
fn space(name: &str) -> Option<&'static str> {
    ["bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc", "bt2020c"]
        .into_iter()
        .find(|known| *known == name)
}

fn primaries(name: &str) -> Option<&'static str> {
    let known =
        ["bt709", "bt470m", "bt470bg", "smpte170m", "smpte240m", "film", "bt2020", "smpte431", "smpte432"];
    known.into_iter().find(|known| *known == name)
}

fn transfer(name: &str) -> Option<&'static str> {
    match name {
        // ffprobe's name differs from the encoder option's.
        "bt470m" => Some("gamma22"),
        "bt470bg" => Some("gamma28"),
        _ => [
            "bt709",
            "smpte170m",
            "smpte240m",
            "linear",
            "iec61966-2-4",
            "iec61966-2-1",
            "bt1361e",
            "bt2020-10",
            "bt2020-12",
        ]
        .into_iter()
        .find(|known| *known == name),
    }
}
