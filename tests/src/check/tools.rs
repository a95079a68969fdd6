//! Reads packets, frames and samples of a rendition by FFmpeg and ffprobe.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use super::{Check, Flaw, Rendition};

/// An encoded frame, as ffprobe reads it.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Presentation time, in ticks.
    pub pts: i64,
    /// Decoding time, in ticks.
    pub dts: i64,
    /// Whether decoding can start here.
    pub key: bool,
    /// Position of its bytes in the file.
    pub position: u64,
}

/// The packets of a rendition in the order of the file.
#[derive(Debug)]
pub struct Packets {
    /// Ticks per second.
    pub timescale: u32,
    /// All packets.
    pub list: Vec<Packet>,
}

impl Packets {
    /// Reads the packets of a rendition's file.
    pub(super) fn of(name: &str, file: &Path) -> Result<Self, Flaw> {
        let mut ffprobe = Command::new("ffprobe");
        ffprobe.args([
            "-v",
            "error",
            "-of",
            "json",
            "-show_entries",
            "stream=time_base:packet=pts,dts,flags,pos",
        ]);
        let output = ffprobe.arg(file).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        Check::Times.expect(complaint.is_empty(), || format!("{name}: ffprobe says {complaint}"))?;
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let broken = || Check::Times.flaw(format!("{name}: a packet without times"));
        let timescale =
            json["streams"][0]["time_base"].as_str().and_then(|base| base.strip_prefix("1/")?.parse().ok());
        let packet = |packet: &serde_json::Value| {
            Some(Packet {
                pts: packet["pts"].as_i64()?,
                dts: packet["dts"].as_i64()?,
                key: packet["flags"].as_str()?.starts_with('K'),
                position: packet["pos"].as_str()?.parse().ok()?,
            })
        };
        let list = json["packets"].as_array().ok_or_else(broken)?.iter().map(packet).collect::<Option<_>>();
        Ok(Self { timescale: timescale.ok_or_else(broken)?, list: list.ok_or_else(broken)? })
    }

    /// Returns the packets of each media segment.
    pub fn by_media_segment(&self, rendition: &Rendition) -> Vec<Vec<Packet>> {
        let starts = rendition.media_segments.iter().map(|media_segment| media_segment.position);
        let ends = starts.clone().skip(1).chain([u64::MAX]);
        let inside = |start, end| {
            self.list.iter().filter(move |packet| (start..end).contains(&packet.position)).copied()
        };
        starts.zip(ends).map(|(start, end)| inside(start, end).collect()).collect()
    }
}

/// Returns every decoded frame in grey behind a filter, in presentation order.
pub fn grey_frames(
    rendition: &Rendition,
    filter: &str,
    (width, height): (usize, usize),
) -> Result<Vec<Vec<u8>>, Flaw> {
    let args =
        ["-map", "0:v", "-vf", filter, "-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo"];
    let raw = decoded(rendition, Check::Pictures, &args)?;
    Check::Pictures.expect(raw.len().is_multiple_of(width * height), || {
        format!(
            "{}: the playlist says {width}x{height}, which {} bytes are no frames of",
            rendition.name,
            raw.len()
        )
    })?;
    Ok(raw.chunks_exact(width * height).map(<[u8]>::to_vec).collect())
}

/// Returns every decoded sample from time 0 on, per channel.
pub fn samples(rendition: &Rendition, channels: usize) -> Result<Vec<Vec<f32>>, Flaw> {
    // Samples before 0 are the encoder's delay: FFmpeg does not cut it off fragments by itself.
    let raw = decoded(rendition, Check::Sound, &["-map", "0:a", "-af", "atrim=start_pts=0", "-f", "f32le"])?;
    let values: Vec<f32> = raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok((0..channels)
        .map(|channel| values.iter().skip(channel).step_by(channels).copied().collect())
        .collect())
}

fn decoded(rendition: &Rendition, check: Check, args: &[&str]) -> Result<Vec<u8>, Flaw> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-copyts", "-i"]).arg(&rendition.whole).args(args).arg("pipe:1");
    let output = ffmpeg.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    check.expect(output.status.success() && complaint.is_empty(), || {
        format!("{}: FFmpeg says {complaint}", rendition.name)
    })?;
    Ok(output.stdout)
}

/// Returns the source's frames as its own decoder gives them, behind a filter: planar YUV 4:2:0, one after
/// the other, in presentation order.
pub fn source_frames(source: &Path, filter: &str, bytes_per_frame: usize) -> Vec<Vec<u8>> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-i"]).arg(source);
    ffmpeg.args([
        "-map",
        "0:V:0",
        "-vf",
        filter,
        "-fps_mode",
        "passthrough",
        "-pix_fmt",
        "yuv420p",
        "-f",
        "rawvideo",
        "pipe:1",
    ]);
    let output = ffmpeg.output().unwrap();
    assert!(output.status.success());
    output.stdout.chunks_exact(bytes_per_frame).map(<[u8]>::to_vec).collect()
}

/// Returns the similarity (SSIM of the luma, 1 is equal) of every frame of a rendition to the frame that it
/// should show.
pub fn similarity(
    rendition: &Rendition,
    filter: &str,
    size: (usize, usize),
    reference: &[&[u8]],
) -> Vec<f64> {
    let scratch = tempfile::tempdir().unwrap();
    let (width, height) = size;
    let mut ffmpeg = Command::new("ffmpeg");
    let source_size = format!("{}x{}", crate::clips::WIDTH, crate::clips::HEIGHT);
    ffmpeg.args(["-v", "error", "-i"]).arg(&rendition.whole);
    ffmpeg.args([
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
        "-s",
        &source_size,
        "-i",
        "pipe:0",
        "-filter_complex",
    ]);
    // Frames are paired by number: other checks compare their times.
    ffmpeg.arg(format!(
        "[0:v]{filter},settb=1/25,setpts=N[shown];[1:v]scale={width}:{height}:flags=bicubic,settb=1/25,setpts=N[due];\
         [shown][due]ssim=stats_file=ssim.log"
    ));
    ffmpeg.args(["-fps_mode", "passthrough", "-f", "null", "-"]).current_dir(scratch.path());
    let mut child = ffmpeg.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for frame in reference {
        stdin.write_all(frame).unwrap();
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
    let log = std::fs::read_to_string(scratch.path().join("ssim.log")).unwrap();
    let luma = |line: &str| line.split(' ').find_map(|field| field.strip_prefix("Y:")?.parse().ok()).unwrap();
    log.lines().map(luma).collect()
}
