//! Which FFmpeg is this, and which encoders are in it? What decides bytes beyond the arguments.

use std::{ffi::OsString, path::Path, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Error, Job, Limits, Program, Tools};
use crate::limits::MEMORY_MAX;

/// Asking a program for its version, or for three tiny frames.
const LIMITS: Limits = Limits::within(Duration::from_secs(30), 1 << 20, MEMORY_MAX);

/// Three tiny frames and a moment of sound through every encoder in use; the output is a hash per packet.
///
/// `ffmpeg -version` hides which x264 it was built with, and the same FFmpeg with another x264 gives other bytes.
const FINGERPRINT: &str = "-nostdin -hide_banner -loglevel error -f lavfi -i testsrc2=size=64x64:rate=25 -f lavfi -i \
sine=sample_rate=48000 -frames:v 3 -t 0.12 -c:v libx264 -preset veryfast -x264-params threads=1:cpu-independent=1 -pix_fmt yuv420p \
-c:a aac -fflags +bitexact -flags +bitexact -f framehash pipe:1";

/// Names the FFmpeg and encoder build by a hash: equal where equal arguments give equal bytes.
///
/// # Errors
/// Where FFmpeg cannot be started, or lacks an encoder.
pub async fn build(tools: &Tools, scratch: &Path) -> Result<String, Error> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&ask(tools, Program::Ffmpeg, scratch, "-version").await?);
    hasher.update(&ask(tools, Program::Ffmpeg, scratch, FINGERPRINT).await?);
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

/// The first line of what a program says of its version.
///
/// # Errors
/// Where it cannot be started.
pub async fn version(tools: &Tools, program: Program, scratch: &Path) -> Result<String, Error> {
    let text = ask(tools, program, scratch, "-version").await?;
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

async fn ask(tools: &Tools, program: Program, scratch: &Path, arguments: &str) -> Result<Vec<u8>, Error> {
    let args: Vec<OsString> = arguments.split(' ').map(OsString::from).collect();
    let cancel = CancellationToken::new();
    Job { tools, program, args: &args, scratch, input: None, limits: LIMITS, cancel: &cancel, encoders: 0 }.capture().await
}
