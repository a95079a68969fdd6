//! Filters for colour: eight bits, 4:2:0, limited range, and the tags that say so.

use crate::source::probe::{Color, VideoTrack};

/// Light of reference white in nits that the tone map works from (ITU-R BT.2408 has 203 for graphics; 100
/// keeps faces as bright as in SDR).
const NOMINAL_PEAK_NITS: u32 = 100;
/// Peak of the tone map in multiples of that white: 1,000 nits, what most films are graded to. Fixed, because
/// FFmpeg would take it from metadata that not every piece of a source carries, and pieces would differ.
const TONE_MAP_PEAK: u32 = 10;

/// From this height on, pictures without a tag are taken for BT.709.
const HD_HEIGHT: u32 = 720;

/// Is the picture coded for high dynamic range (SMPTE ST 2084 or ARIB STD-B67)?
pub(super) fn is_hdr(source: &VideoTrack) -> bool {
    matches!(source.color.transfer.as_deref(), Some("smpte2084" | "arib-std-b67"))
}

/// Does the picture come as red, green and blue, coded so or flattened?
fn is_rgb(source: &VideoTrack) -> bool {
    if has_alpha(source) {
        return true;
    }
    let name = source.pixel_format.as_str();
    ["rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8", "x2rgb"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Does the picture say how far it can be seen through?
///
/// Of HDR it does not matter: no camera records it so, and its tone map needs the coded values.
fn has_alpha(source: &VideoTrack) -> bool {
    if is_hdr(source) {
        return false;
    }
    let name = source.pixel_format.as_str();
    ["yuva", "gbrap", "rgba", "bgra", "argb", "abgr", "ya8", "ya16", "pal8"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Filters that lay a picture that can be seen through on black; empty where it can't. What stays of it is
/// red, green and blue.
pub(super) fn flatten(source: &VideoTrack) -> Vec<String> {
    if !has_alpha(source) {
        return Vec::new();
    }
    // What is not tagged is what players take it for: by its size.
    let matrix = match (&source.color.space, source.height) {
        (Some(_), _) => "auto",
        (None, HD_HEIGHT..) => "bt709",
        (None, _) => "smpte170m",
    };
    let to_rgb =
        format!("scale=in_color_matrix={matrix}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact");
    [&to_rgb, "format=gbrap", "premultiply=inplace=1", "format=gbrp"].map(str::to_owned).into()
}

/// Filters from high to standard dynamic range, before any scaling; empty for SDR.
///
/// In linear light with the input's tags given, since not every frame carries them; Hable's curve keeps
/// highlights without clipping.
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

/// Does the picture use all code values? By its tag, or by FFmpeg's old `yuvj` formats.
fn is_full_range(source: &VideoTrack) -> bool {
    source.color.range.as_deref() == Some("pc") || source.pixel_format.starts_with("yuvj")
}

/// Options of the scale filter that say which code values go in and out.
pub(super) fn scale_options(source: &VideoTrack) -> &'static str {
    if is_hdr(source) {
        // The tone map already left BT.709 in limited range.
        ""
    } else if is_rgb(source) {
        // FFmpeg's default would be BT.601 whatever the size.
        ":out_color_matrix=bt709:out_range=tv"
    } else if is_full_range(source) {
        ":in_range=pc:out_range=tv"
    } else {
        ""
    }
}

/// Encoder options for the colour tags: those of the source where it has any, BT.709 where the picture was
/// converted.
pub(super) fn tags(source: &VideoTrack) -> Vec<(&'static str, &'static str)> {
    let converted = Color {
        range: None,
        space: Some("bt709".to_owned()),
        primaries: Some("bt709".to_owned()),
        transfer: Some("bt709".to_owned()),
    };
    let color = if is_hdr(source) || is_rgb(source) { &converted } else { &source.color };
    // Always limited: either it was, or it has been converted.
    let mut tags = vec![("-color_range", "tv")];
    tags.extend(color.space.as_deref().and_then(space).map(|name| ("-colorspace", name)));
    tags.extend(color.primaries.as_deref().and_then(primaries).map(|name| ("-color_primaries", name)));
    tags.extend(color.transfer.as_deref().and_then(transfer).map(|name| ("-color_trc", name)));
    tags
}

/// Names of ITU-T H.273 matrices that ffprobe prints and `-colorspace` takes; others stay untagged.
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
        // Printed by one name, taken by another.
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
