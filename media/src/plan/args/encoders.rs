//! Arguments of each encoder: segments that join, reproducible bytes, and rates below the rung's peak.

use std::ffi::OsString;

use super::words;
use crate::plan::ladder::{AudioCodec, AudioRendition, ENCODER_PRESETS, VideoCodec, VideoRendition};

/// Returns the number of frames by which decoding may run ahead of display: as x264 and x265 signal it for
/// three B-frames in a pyramid. AV1 and VP9 code reordered frames as frames that are not shown.
pub fn reorder_frames(codec: VideoCodec) -> u32 {
    match codec {
        VideoCodec::H264 | VideoCodec::Hevc => 2,
        VideoCodec::Av1 | VideoCodec::Vp9 => 0,
    }
}

/// Fullness of the VBV at a segment's start, in percent. If quality and not the peak limits the rate, it
/// would be nearly full there in one long encode. A lower value starves the first picture: on noise at the
/// peak rate, frames beside a join had an SSIM of 0.967 with 30 and of 0.988 with 90, against 0.989
/// elsewhere. The actual peak is measured and written to the playlists.
const VBV_INIT_PERCENT: u32 = 90;

/// SVT-AV1's presets, one for each of x264's presets.
const SVT_AV1_PRESETS: [u8; ENCODER_PRESETS.len()] = [12, 11, 10, 9, 8, 7, 6, 5, 4];

/// libvpx's deadline and `cpu-used` for VP9, one pair for each of x264's presets. `good` takes three times as
/// long as `realtime`, with the same size and SSIM at its faster settings.
const VP9_SPEEDS: [(&str, u8); ENCODER_PRESETS.len()] = [
    ("realtime", 8),
    ("realtime", 7),
    ("realtime", 6),
    ("realtime", 5),
    ("good", 4),
    ("good", 3),
    ("good", 2),
    ("good", 1),
    ("good", 0),
];

/// Returns the options of the encoder of one rung, with an IDR picture at least every `gop` frames.
pub(super) fn video(rendition: &VideoRendition, gop: u32, threads: u32) -> Vec<OsString> {
    let mut args = match rendition.codec {
        VideoCodec::H264 => x264(rendition, gop),
        VideoCodec::Hevc => x265(rendition, gop, threads),
        VideoCodec::Av1 => svt_av1(rendition, gop),
        VideoCodec::Vp9 => vp9(rendition, gop),
    };
    args.extend(words(&[
        // Capped quality: as many bits as the pictures need, never more than the rung's peak.
        "-crf",
        &rendition.crf.to_string(),
        "-maxrate",
        &rendition.max_bitrate_bps.to_string(),
        "-bufsize",
        &rendition.buffer_bits.to_string(),
        "-threads",
        &threads.to_string(),
        // A keyframe at each media segment, counted from the segment's start.
        "-force_key_frames",
        &format!("expr:not(mod(n,{gop}))"),
    ]));
    args
}

/// Returns the options of the encoder of one audio rendition.
pub(super) fn audio(rendition: &AudioRendition) -> Vec<OsString> {
    let mut args = match rendition.codec {
        // FFmpeg's default coder distorts tonal sound: single windows of a steady sine at 128 kb/s were half
        // noise. This one stays below 0.3%, has a 5 dB higher signal-to-noise ratio on film sound at the same
        // size, and takes less time.
        AudioCodec::Aac => words(&["-c:a", "aac", "-aac_coder", "fast"]),
        AudioCodec::Opus => {
            words(&["-c:a", "libopus", "-vbr", "on", "-application", "audio", "-frame_duration", "20"])
        }
    };
    args.extend(words(&[
        "-b:a",
        &rendition.bitrate_bps.to_string(),
        "-ar",
        &rendition.sample_rate.to_string(),
    ]));
    args
}

fn x264(rendition: &VideoRendition, gop: u32) -> Vec<OsString> {
    let params = [
        // The same parameter sets in every segment, so that one init segment serves all.
        "stitchable=1".to_owned(),
        // These fix the reorder depth for every preset. The number of reference frames is the preset's: they
        // cost time.
        "bframes=3:b-pyramid=normal:open-gop=0".to_owned(),
        // Keyframes at scene cuts are added to the forced ones; no GOP is longer than a media segment.
        format!("keyint={gop}:scenecut=40"),
        format!("vbv-init=0.{VBV_INIT_PERCENT:02}"),
        // The same bytes on every processor, and times from the frame number alone. Slice threads: with frame
        // threads, the default, x264's VBV depends on the progress of the other threads, and of 30 equal runs
        // with two threads 9 gave other bytes. With slice threads none did, at a cost of 0.005 in SSIM.
        "cpu-independent=1:sliced-threads=1:force-cfr=1".to_owned(),
    ];
    let mut args = words(&["-c:v", "libx264", "-preset", &rendition.preset, "-profile:v", "high"]);
    args.extend(level(rendition).into_iter().flat_map(|level| words(&["-level", &level])));
    args.extend(words(&["-forced-idr", "1", "-x264-params", &params.join(":")]));
    args
}

fn x265(rendition: &VideoRendition, gop: u32, threads: u32) -> Vec<OsString> {
    let mut params = vec![
        // Parameter sets in the sample entry alone, and no x265 banner in the stream.
        "repeat-headers=0:info=0:hrd=0:high-tier=0:log-level=error".to_owned(),
        "bframes=3:b-pyramid=1:open-gop=0".to_owned(),
        format!("keyint={gop}:scenecut=40"),
        // With the default VBV, equal runs gave different bytes.
        format!("vbv-init=0.{VBV_INIT_PERCENT:02}:const-vbv=1"),
        "frame-threads=1".to_owned(),
        // One thread without a pool, or wavefront parallelism in a pool of `threads`.
        if threads == 1 {
            "wpp=0:pools=none:lookahead-slices=0".to_owned()
        } else {
            format!("wpp=1:pools={threads}")
        },
    ];
    params.extend(level(rendition).map(|level| format!("level-idc={level}")));
    // `hvc1`, not `hev1`: parameter sets are in the sample entry only, which Apple's players require.
    let mut args =
        words(&["-c:v", "libx265", "-preset", &rendition.preset, "-profile:v", "main", "-tag:v", "hvc1"]);
    args.extend(words(&["-forced-idr", "1", "-x265-params", &params.join(":")]));
    args
}

fn svt_av1(rendition: &VideoRendition, gop: u32) -> Vec<OsString> {
    let params = [
        // Closed GOPs, and no keyframes at scene cuts, which SVT-AV1 detects poorly.
        "irefresh-type=2:scd=0",
        // One thread, whatever the job's setting: with two threads and a peak rate, twelve equal runs gave
        // twelve results. Not pinned to a processor, since several runs share the host.
        "lp=1:pin=0",
    ];
    let preset = SVT_AV1_PRESETS[effort(rendition)].to_string();
    words(&[
        "-c:v",
        "libsvtav1",
        "-preset",
        &preset,
        "-g",
        &gop.to_string(),
        "-svtav1-params",
        &params.join(":"),
    ])
}

fn vp9(rendition: &VideoRendition, gop: u32) -> Vec<OsString> {
    let (deadline, speed) = VP9_SPEEDS[effort(rendition)];
    let mut args = words(&[
        "-c:v",
        "libvpx-vp9",
        "-deadline",
        deadline,
        "-cpu-used",
        &speed.to_string(),
        "-g",
        &gop.to_string(),
    ]);
    args.extend(words(&[
        // With `-b:v` beside the rate factor, libvpx respects the peak; without it the rate is unlimited.
        "-b:v",
        &rendition.max_bitrate_bps.to_string(),
        // Tile columns, which decoders process in parallel. Row multithreading would give other bytes each
        // time.
        "-tile-columns",
        "2",
        "-row-mt",
        "0",
        "-frame-parallel",
        "0",
        // Alternate reference frames, which are not shown, made from later frames.
        "-auto-alt-ref",
        "1",
        "-lag-in-frames",
        "25",
    ]));
    args
}

/// Returns the level in decimal notation, such as 4.1.
fn level(rendition: &VideoRendition) -> Option<String> {
    rendition.level.map(|level| format!("{}.{}", level / 10, level % 10))
}

/// Returns the position of the preset among x264's, from the fastest on.
fn effort(rendition: &VideoRendition) -> usize {
    ENCODER_PRESETS.iter().position(|preset| *preset == rendition.preset).unwrap_or(0)
}
