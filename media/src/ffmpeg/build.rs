//! The build of FFmpeg and of its encoders, which decides bytes beyond the arguments.

use std::{ffi::OsString, path::Path, time::Duration};

use futures::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::{Error, Invocation, Limits, Program, Tools};
use crate::{
    codec::{AudioCodec, VideoCodec},
    limits::MEMORY_MAX,
};

/// Limits for a run that prints a version, or encodes next to nothing.
const LIMITS: Limits = Limits::within(Duration::from_secs(30), 1 << 20, MEMORY_MAX);

/// Input that identifies an encoder: three tiny frames, or 0.12 s of sound. The output is a hash per packet.
///
/// `ffmpeg -version` does not show which x264 it was built with, and the same FFmpeg with another x264 writes
/// other bytes.
const FRAMES: &str = "-nostdin -hide_banner -loglevel error -f lavfi -i testsrc2=size=64x64:rate=25 -frames:v 3 -pix_fmt yuv420p -threads 1";
const SOUND: &str = "-nostdin -hide_banner -loglevel error -f lavfi -i sine=sample_rate=48000 -t 0.12";
const HASHES: &str = "-fflags +bitexact -flags +bitexact -f framehash pipe:1";

/// An encoder of FFmpeg, or the encoders that every job uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the codecs say it")]
pub enum Encoder {
    /// x264, and FFmpeg's own AAC encoder.
    Default,
    Hevc,
    Av1,
    Vp9,
    Opus,
}

impl Encoder {
    /// All encoders.
    pub const ALL: [Self; 5] = [Self::Default, Self::Hevc, Self::Av1, Self::Vp9, Self::Opus];

    /// Returns FFmpeg's names of the encoders.
    pub fn names(self) -> &'static str {
        match self {
            Self::Default => "libx264 and aac",
            Self::Hevc => "libx265",
            Self::Av1 => "libsvtav1",
            Self::Vp9 => "libvpx-vp9",
            Self::Opus => "libopus",
        }
    }

    /// Returns the argument lists of the runs that identify the encoder.
    fn trials(self) -> Vec<String> {
        match self {
            Self::Default => {
                let x264 = "-c:v libx264 -preset veryfast -x264-params threads=1:cpu-independent=1";
                vec![format!("{FRAMES} {x264} {HASHES}"), format!("{SOUND} -c:a aac {HASHES}")]
            }
            Self::Hevc => vec![format!(
                "{FRAMES} -c:v libx265 -preset veryfast -x265-params pools=none:wpp=0:frame-threads=1:lookahead-slices=0:log-level=error {HASHES}"
            )],
            Self::Av1 => {
                vec![format!("{FRAMES} -c:v libsvtav1 -preset 10 -crf 35 -svtav1-params lp=1:pin=0 {HASHES}")]
            }
            Self::Vp9 => vec![format!(
                "{FRAMES} -c:v libvpx-vp9 -deadline realtime -cpu-used 6 -crf 33 -b:v 100k {HASHES}"
            )],
            Self::Opus => vec![format!("{SOUND} -c:a libopus {HASHES}")],
        }
    }
}

impl From<VideoCodec> for Encoder {
    fn from(codec: VideoCodec) -> Self {
        match codec {
            VideoCodec::H264 => Self::Default,
            VideoCodec::Hevc => Self::Hevc,
            VideoCodec::Av1 => Self::Av1,
            VideoCodec::Vp9 => Self::Vp9,
        }
    }
}

impl From<AudioCodec> for Encoder {
    fn from(codec: AudioCodec) -> Self {
        match codec {
            AudioCodec::Aac => Self::Default,
            AudioCodec::Opus => Self::Opus,
        }
    }
}

/// Returns a hash that identifies the build of FFmpeg and of an encoder. It is equal if equal arguments give
/// equal bytes.
///
/// # Errors
/// Returns an error if FFmpeg cannot be started, or lacks an encoder.
pub async fn build(tools: &Tools, encoder: Encoder, scratch: &Path) -> Result<String, Error> {
    let questions: Vec<String> = std::iter::once("-version".to_owned()).chain(encoder.trials()).collect();
    // Concurrently: the start of a job waits for all of them.
    let answers =
        try_join_all(questions.iter().map(|question| ask(tools, Program::Ffmpeg, scratch, question))).await?;
    let mut hasher = blake3::Hasher::new();
    for answer in answers {
        hasher.update(&answer);
    }
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

/// Returns the first line of a program's version output.
///
/// # Errors
/// Returns an error if the program cannot be started.
pub async fn version(tools: &Tools, program: Program, scratch: &Path) -> Result<String, Error> {
    let text = ask(tools, program, scratch, "-version").await?;
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

async fn ask(tools: &Tools, program: Program, scratch: &Path, arguments: &str) -> Result<Vec<u8>, Error> {
    let args: Vec<OsString> = arguments.split(' ').map(OsString::from).collect();
    let cancel = CancellationToken::new();
    Invocation {
        tools,
        program,
        args: &args,
        scratch,
        input: None,
        limits: LIMITS,
        cancel: &cancel,
        report: false,
    }
    .capture()
    .await
}
