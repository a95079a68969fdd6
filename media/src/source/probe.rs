//! Probe: ffprobe's output about a source, typed and checked against limits.

mod ffprobe;
mod sniff;

use std::{path::Path, time::Duration};

use tokio_util::sync::CancellationToken;

pub use self::sniff::{SNIFF_BYTES, Sniffed, sniff};
use crate::{
    ffmpeg::{self, Invocation, Program, Tools},
    limits::Limits,
    time::Rational,
};
use spool_storage::ErrorKind;

/// Time limit of ffprobe. It opens a valid file in well under a second; a hostile one must not block a slot.
const DEADLINE: Duration = Duration::from_secs(20);
/// Most bytes of JSON that are read: [`STREAMS_MAX`](crate::limits::STREAMS_MAX) streams at 4 KiB each, with
/// a large margin.
const JSON_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Contents of a source.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Probe {
    /// FFmpeg's name of the container, such as `mov,mp4,m4a,3gp,3g2,mj2`.
    pub format: String,
    /// Duration that the container declares, in milliseconds.
    #[serde(default)]
    pub declared_ms: Option<i64>,
    /// First video track that is not cover art.
    pub video: Option<VideoTrack>,
    /// Audio tracks, in order.
    pub audio: Vec<AudioTrack>,
}

/// The video track of a source.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct VideoTrack {
    /// FFmpeg's stream index.
    pub stream: u32,
    /// FFmpeg's codec name.
    pub codec: String,
    /// Coded width in pixels.
    pub width: u32,
    /// Coded height in pixels.
    pub height: u32,
    /// Sample (pixel) aspect ratio; 1/1 if unknown.
    pub sample_aspect: Rational,
    /// Clockwise rotation for display in degrees: 0, 90, 180 or 270.
    pub rotation: u16,
    /// Whether players mirror it: left and right are exchanged before rotation.
    #[serde(default)]
    pub mirrored: bool,
    /// Frames per second as the container declares it.
    pub declared_fps: Option<Rational>,
    /// FFmpeg's pixel format name.
    pub pixel_format: String,
    /// Bits per component.
    pub bit_depth: u8,
    /// FFmpeg's names: range, space (matrix), primaries, transfer. `None` if not tagged.
    pub color: Color,
    /// Whether it is coded as fields.
    pub interlaced: bool,
}

/// Colour tags by FFmpeg's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "FFmpeg's own option names")]
pub struct Color {
    pub range: Option<String>,
    pub space: Option<String>,
    pub primaries: Option<String>,
    pub transfer: Option<String>,
}

/// The role of an audio track beside the main sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A commentary on the film.
    Commentary,
    /// An audio description for people who cannot see the pictures.
    Description,
}

/// One audio track of a source.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AudioTrack {
    /// FFmpeg's stream index.
    pub stream: u32,
    /// FFmpeg's codec name.
    pub codec: String,
    /// Samples per second.
    pub sample_rate: u32,
    /// Number of channels.
    pub channels: u16,
    /// Whether its channels are just numbered, without speaker positions.
    #[serde(default)]
    pub discrete: bool,
    /// ISO 639 language, if tagged.
    pub language: Option<String>,
    /// Title that the source gives it.
    #[serde(default)]
    pub title: Option<String>,
    /// Role, if it is not the main sound.
    #[serde(default)]
    pub role: Option<Role>,
    /// Whether the source marks it as the default.
    #[serde(default)]
    pub default: bool,
}

/// Probes a local file, or the head of one, with ffprobe.
///
/// `demuxer` is the result of [`sniff()`]; `None` allows any demuxer that it knows, and no playlist.
///
/// # Errors
/// Returns [`Error::Ffprobe`] if ffprobe cannot read the file, [`Error::NoTracks`] if it has neither video
/// nor sound, and [`Error::TooLarge`] beyond a limit.
pub async fn file(
    tools: &Tools,
    path: &Path,
    demuxer: Option<&str>,
    limits: &Limits,
    cancel: &CancellationToken,
) -> Result<Probe, Error> {
    let args = ffprobe::args(path, demuxer);
    // ffprobe writes nothing but stdout; its working folder is that of the file.
    let scratch = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let limits_of_run = ffmpeg::Limits::within(DEADLINE, JSON_BYTES_MAX, limits.memory_bytes);
    let job = Invocation {
        tools,
        program: Program::Ffprobe,
        args: &args,
        scratch,
        input: Some(path),
        limits: limits_of_run,
        cancel,
        report: false,
    };
    let json = job.capture().await?;
    ffprobe::parse(&json, limits)
}

/// Checks the duration of a source against the limit.
///
/// # Errors
/// Returns [`Error::TooLarge`] if it is longer.
pub fn check_duration(seconds: u64, limits: &Limits) -> Result<(), Error> {
    ffprobe::within("duration in seconds", seconds, limits.duration_s, Some("--max-duration"))
}

/// Failure to probe a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file has no bytes.
    #[error("not a video: the file is empty")]
    Empty,
    /// The first bytes are not those of a known container.
    #[error("not a video: {what}")]
    NotMedia {
        /// Kind of file, as far as it is known.
        what: &'static str,
    },
    /// ffprobe failed or was stopped.
    #[error(transparent)]
    Ffprobe(#[from] ffmpeg::Error),
    /// ffprobe's output is not the expected JSON.
    #[error("cannot read ffprobe's answer")]
    Answer(#[from] serde_json::Error),
    /// There is neither video nor sound that FFmpeg can decode.
    #[error("not a video: no video and no audio stream that ffmpeg can decode")]
    NoTracks,
    /// The source exceeds a limit.
    #[error("{what} is {value}, the limit is {limit}{}", option.map(|option| format!(" ({option})")).unwrap_or_default())]
    TooLarge {
        /// The quantity, with its unit.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The limit.
        limit: u64,
        /// The option that sets the limit.
        option: Option<&'static str>,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ffprobe(error) => error.kind(),
            Self::Answer(_) => ErrorKind::Bug,
            Self::Empty | Self::NotMedia { .. } | Self::NoTracks | Self::TooLarge { .. } => {
                ErrorKind::BadInput
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "tests make their own clips")]
    fn clip(path: &Path, line: &str) {
        let line = format!("-nostdin -v error -y {line}");
        let status = Command::new("ffmpeg").args(line.split_whitespace()).arg(path).status().unwrap();
        assert!(status.success());
    }

    async fn probed(path: &Path, demuxer: Option<&str>) -> Result<Probe, Error> {
        file(&Tools::from_env().unwrap(), path, demuxer, &Limits::default(), &CancellationToken::new()).await
    }

    const CLIP: &str = "-f lavfi -i testsrc2=s=160x90:r=30000/1001:d=1 -f lavfi -i sine=r=44100:d=1 -f lavfi -i sine=r=48000:d=1 -map 0 -map 1 \
        -map 2 -ac 2 -metadata:s:a:1 language=fra -color_primaries bt709 -colorspace bt709 -color_trc bt709 -c:v libx264 -preset ultrafast";

    #[tokio::test]
    async fn a_file_is_probed_by_its_demuxer_or_by_the_allowed_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        clip(&path, CLIP);
        let sniffed = sniff(&fs::read(&path).unwrap()[..SNIFF_BYTES]).unwrap();
        assert_eq!(sniffed.demuxer, "mov");
        let probe = probed(&path, Some(sniffed.demuxer)).await.unwrap();
        assert_eq!(probe, probed(&path, None).await.unwrap());
        let video = probe.video.unwrap();
        assert_eq!((video.codec.as_str(), video.width, video.height, video.rotation), ("h264", 160, 90, 0));
        assert_eq!(video.declared_fps.map(|fps| fps.to_string()).as_deref(), Some("30000/1001"));
        assert_eq!(video.color.primaries.as_deref(), Some("bt709"));
        let audio: Vec<_> = probe
            .audio
            .iter()
            .map(|track| (track.stream, track.sample_rate, track.channels, track.language.as_deref()))
            .collect();
        assert_eq!(audio, [(1, 44_100, 2, None), (2, 48_000, 2, Some("fra"))]);
    }

    #[tokio::test]
    async fn every_container_that_is_sniffed_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let video = "-f lavfi -i testsrc2=s=160x90:r=25:d=0.4 -f lavfi -i sine=d=0.4";
        let cases = [
            ("a.mov", "mov", ""),
            ("a.mkv", "matroska", ""),
            ("a.webm", "matroska", "-c:v libvpx -c:a libopus"),
            ("a.ts", "mpegts", ""),
            ("a.m2ts", "mpegts", "-mpegts_m2ts_mode 1"),
            ("a.avi", "avi", ""),
            ("a.mpg", "mpeg", ""),
            ("a.flv", "flv", "-ar 44100"),
            ("a.ogg", "ogg", "-c:v libtheora -c:a libvorbis"),
            ("a.mxf", "mxf", "-ar 48000"),
            ("a.wmv", "asf", ""),
            ("a.nut", "nut", ""),
            ("a.y4m", "yuv4mpegpipe", "-map 0"),
            ("a.gif", "gif", "-map 0"),
            ("a.ivf", "ivf", "-map 0 -c:v libvpx"),
            ("a.wav", "wav", "-map 1"),
            ("a.mp3", "mp3", "-map 1"),
            ("a.aac", "aac", "-map 1"),
            ("a.flac", "flac", "-map 1"),
            ("a.aiff", "aiff", "-map 1"),
            ("a.caf", "caf", "-map 1 -c:a pcm_s16le"),
        ];
        for (name, demuxer, line) in cases {
            let path = folder.path().join(name);
            clip(&path, &format!("{video} {line}"));
            let bytes = fs::read(&path).unwrap();
            assert_eq!(sniff(&bytes[..bytes.len().min(SNIFF_BYTES)]).unwrap().demuxer, demuxer, "{name}");
            let probe = probed(&path, Some(demuxer)).await.unwrap();
            assert_eq!(probe, probed(&path, None).await.unwrap(), "{name}");
            assert!(probe.video.is_some() || !probe.audio.is_empty(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_playlist_is_not_followed_whatever_it_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a.ts");
        clip(&inner, "-f lavfi -i testsrc2=s=64x36:d=0.2");
        let playlist = folder.path().join("a.mp4");
        fs::write(&playlist, "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n").unwrap();
        for demuxer in [None, Some("mov")] {
            let error = probed(&playlist, demuxer).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
        }
        fs::write(&playlist, format!("ffconcat version 1.0\nfile '{}'\n", inner.display())).unwrap();
        assert_eq!(probed(&playlist, None).await.unwrap_err().kind(), ErrorKind::BadInput);
    }

    #[tokio::test]
    async fn a_turned_phone_clip_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (flat, turned) = (folder.path().join("flat.mp4"), folder.path().join("turned.mp4"));
        clip(&flat, "-f lavfi -i testsrc2=s=160x90:d=0.2 -c:v libx264");
        // From this tag FFmpeg 5.1's muxer writes a matrix that rotates anticlockwise, and its own player
        // does so.
        clip(&turned, &format!("-i {} -c copy -metadata:s:v rotate=90", flat.display()));
        let video = probed(&turned, Some("mov")).await.unwrap().video.unwrap();
        assert_eq!((video.rotation, video.width, video.height), (270, 160, 90));
    }
}
