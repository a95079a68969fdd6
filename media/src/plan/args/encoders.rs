//! Arguments of each encoder: pieces that join, bytes that repeat, and rates below the rung's peak.

use std::ffi::OsString;

use super::words;
use crate::plan::ladder::{AudioCodec, AudioRendition, ENCODER_PRESETS, VideoCodec, VideoRendition};

/// How many frames decoding may run ahead of showing: what x264 and x265 signal for three B-frames in a
/// pyramid. AV1 and VP9 code what they reorder as frames that are not shown.
pub fn reorder_frames(codec: VideoCodec) -> u32 {
    match codec {
        VideoCodec::H264 | VideoCodec::Hevc => 2,
        VideoCodec::Av1 | VideoCodec::Vp9 => 0,
    }
}

/// Fullness of the VBV at a segment's start, in hundredths. Where quality and not the peak decides the rate,
/// one long encode would find it nearly full. Starting lower starves the first picture: on noise at the peak
/// rate, frames beside a join came to 0.967 of SSIM with 30 and to 0.988 with 90, against 0.989 elsewhere.
/// The true peak is measured and written to the playlists.
const VBV_INIT_PERCENT: u32 = 90;

/// SVT-AV1's presets for as much effort as each of x264's.
const SVT_AV1_PRESETS: [u8; ENCODER_PRESETS.len()] = [12, 11, 10, 9, 8, 7, 6, 5, 4];

/// The equivalent for libvpx's VP9: a deadline, and what it does in it. Its `good` takes three times as long
/// as its `realtime` and came to the same size and SSIM at the faster of its settings.
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

/// Options of the encoder of one rung, with an IDR picture at least every `gop` frames.
pub(super) fn video(rendition: &VideoRendition, gop: u32, threads: u32) -> Vec<OsString> {
    let mut args = match rendition.codec {
        VideoCodec::H264 => x264(rendition, gop),
        VideoCodec::Hevc => x265(rendition, gop, threads),
        VideoCodec::Av1 => svt_av1(rendition, gop),
        VideoCodec::Vp9 => vp9(rendition, gop),
    };
    args.extend(words(&[
        // Capped quality: as many bits as the picture needs, never more than the rung's peak.
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

/// Options of the encoder of one sound rendition.
pub(super) fn audio(rendition: &AudioRendition) -> Vec<OsString> {
    let mut args = match rendition.codec {
        // FFmpeg's default coder distorts what is tonal: single windows of a steady sine at 128 kb/s were
        // half noise. This one stays below 0.3%, has 5 dB more of signal on film sound at the same size, and
        // takes less time.
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
        // The same parameter sets in every piece, so that one init segment serves all.
        "stitchable=1".to_owned(),
        // What decides the reorder depth, whatever the preset. Reference frames are the preset's: they cost
        // time.
        "bframes=3:b-pyramid=normal:open-gop=0".to_owned(),
        // Scene cuts come on top of the forced pictures; no GOP is longer than a media segment.
        format!("keyint={gop}:scenecut=40"),
        format!("vbv-init=0.{VBV_INIT_PERCENT:02}"),
        // The same bytes on every processor, and times from the frame number alone. Threads by slices: with
        // its usual frame threads x264's VBV depends on how far the other threads have come, and of 30 equal
        // runs with two threads 9 gave other bytes; by slices none did, for 0.005 of SSIM.
        "cpu-independent=1:sliced-threads=1:force-cfr=1".to_owned(),
    ];
    let mut args = words(&["-c:v", "libx264", "-preset", &rendition.preset, "-profile:v", "high"]);
    args.extend(level(rendition).into_iter().flat_map(|level| words(&["-level", &level])));
    args.extend(words(&["-forced-idr", "1", "-x264-params", &params.join(":")]));
    args
}

fn x265(rendition: &VideoRendition, gop: u32, threads: u32) -> Vec<OsString> {
    let mut params = vec![
        // Parameter sets in the sample entry alone, and no text of its own among the pictures.
        "repeat-headers=0:info=0:hrd=0:high-tier=0:log-level=error".to_owned(),
        "bframes=3:b-pyramid=1:open-gop=0".to_owned(),
        format!("keyint={gop}:scenecut=40"),
        // With its usual VBV equal runs gave other bytes.
        format!("vbv-init=0.{VBV_INIT_PERCENT:02}:const-vbv=1"),
        "frame-threads=1".to_owned(),
        // One thread and no pool of its own, or rows of blocks side by side in one of as many as were asked
        // for.
        if threads == 1 {
            "wpp=0:pools=none:lookahead-slices=0".to_owned()
        } else {
            format!("wpp=1:pools={threads}")
        },
    ];
    params.extend(level(rendition).map(|level| format!("level-idc={level}")));
    // Of the two names of this entry the one that says that parameter sets are in it: all that Apple plays.
    let mut args =
        words(&["-c:v", "libx265", "-preset", &rendition.preset, "-profile:v", "main", "-tag:v", "hvc1"]);
    args.extend(words(&["-forced-idr", "1", "-x265-params", &params.join(":")]));
    args
}

fn svt_av1(rendition: &VideoRendition, gop: u32) -> Vec<OsString> {
    let params = [
        // Keyframes that nothing before is shown after, and none at cuts in the scene, which it finds badly.
        "irefresh-type=2:scd=0",
        // One thread whatever the job's: with two and a peak rate, twelve equal runs gave twelve results. Not
        // bound to a processor, since several runs are beside each other.
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
        // With a rate beside the factor it keeps to the peak; without, it takes what it needs.
        "-b:v",
        &rendition.max_bitrate_bps.to_string(),
        // Columns that decoders take side by side. Rows side by side would give other bytes each time.
        "-tile-columns",
        "2",
        "-row-mt",
        "0",
        "-frame-parallel",
        "0",
        // Frames that are not shown, made from those to come.
        "-auto-alt-ref",
        "1",
        "-lag-in-frames",
        "25",
    ]));
    args
}

/// The level with its point.
fn level(rendition: &VideoRendition) -> Option<String> {
    rendition.level.map(|level| format!("{}.{}", level / 10, level % 10))
}

/// Which of x264's presets it is, from the fastest on.
fn effort(rendition: &VideoRendition) -> usize {
    ENCODER_PRESETS.iter().position(|preset| *preset == rendition.preset).unwrap_or(0)
}
