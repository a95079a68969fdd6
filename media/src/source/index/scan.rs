//! Index of containers without one, from one pass over their packets.

use std::{ffi::OsString, path::Path, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Container, Index, Sample, Track, TrackKind};
use crate::{
    ffmpeg::{self, Invocation, Lines, OutputVerdict, Program, Tools},
    limits::{MEMORY_MAX, STREAMS_MAX},
    time::Rational,
};
use spool_storage::ErrorKind;

/// Most packets of a source, which need 40 bytes each: twelve hours at 60 frames per second with two audio
/// tracks are six million.
pub const PACKETS_MAX: usize = 8_000_000;
/// Time limit of a scan. Reading a file of 100 GB from a slow disk takes half an hour.
const DEADLINE: Duration = Duration::from_secs(3600);
/// Longest pause between packets: ffprobe prints them continuously, and a pause means a stuck disk or an
/// endless loop.
const STALL: Duration = Duration::from_secs(120);
/// Most bytes of output, with room for 100 bytes per line.
const STDOUT_BYTES_MAX: usize = PACKETS_MAX * 128;

/// Most frames that a decoder holds back: 16 in H.264 and HEVC.
const DELAY_MAX: u8 = 16;

/// Limits of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Packets of all tracks together.
    pub packets: usize,
    /// Tracks.
    pub tracks: usize,
    /// Time from start to end.
    pub deadline: Duration,
    /// Time between two packets.
    pub stall: Duration,
    /// Bytes of ffprobe's address space.
    pub memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packets: PACKETS_MAX,
            tracks: STREAMS_MAX,
            deadline: DEADLINE,
            stall: STALL,
            memory_bytes: MEMORY_MAX,
        }
    }
}

/// Failure to scan a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ffprobe failed or was stopped.
    #[error(transparent)]
    Ffprobe(#[from] ffmpeg::Error),
    /// The source has more packets than the limit.
    #[error("the source has more than {limit} packets")]
    TooManyPackets {
        /// The limit.
        limit: usize,
    },
    /// The source has more tracks than the limit.
    #[error("the source has more than {limit} tracks")]
    TooManyTracks {
        /// The limit.
        limit: usize,
    },
    /// The source has no packets.
    #[error("the source has no packets")]
    NoPackets,
    /// ffprobe printed no timebase for a track.
    #[error("track {track} has packets and no timebase")]
    NoTimebase {
        /// FFmpeg's stream index.
        track: usize,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ffprobe(error) => error.kind(),
            _ => ErrorKind::BadInput,
        }
    }
}

/// Indexes a local file by one pass over its packets, without decoding; reads all of it.
///
/// Times are those of FFmpeg's demuxer with `-copyts`. A packet without `pts` gets the time at which FFmpeg's
/// decoder will show it, derived from `dts`; one without both gets its predecessor's end.
///
/// # Errors
/// Returns any variant of [`Error`].
pub async fn scan(
    tools: &Tools,
    path: &Path,
    demuxer: &str,
    limits: &Limits,
    cancel: &CancellationToken,
) -> Result<Index, Error> {
    let args = args(path, demuxer);
    let scratch = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let of_run = ffmpeg::Limits {
        stall: limits.stall,
        ..ffmpeg::Limits::within(limits.deadline, STDOUT_BYTES_MAX, limits.memory_bytes)
    };
    let job = Invocation {
        tools,
        program: Program::Ffprobe,
        args: &args,
        scratch,
        input: Some(path),
        limits: of_run,
        cancel,
        report: false,
    };
    let (mut lines, mut builder) = (Lines::default(), Builder::new(*limits));
    job.run(|bytes| {
        lines.push(bytes, |line| builder.take(line));
        if builder.error.is_some() { OutputVerdict::Enough } else { OutputVerdict::Progress }
    })
    .await?;
    builder.finish(demuxer)
}

fn args(path: &Path, demuxer: &str) -> Vec<OsString> {
    let mut file = OsString::from("file:");
    file.push(path);
    let entries = "stream=index,codec_type,time_base,has_b_frames:stream_disposition=attached_pic:\
        packet=stream_index,pts,dts,duration,size,pos,flags";
    let words = [
        "-v",
        "error",
        "-protocol_whitelist",
        "file,pipe",
        "-f",
        demuxer,
        "-of",
        "compact",
        "-show_entries",
        entries,
        "-i",
    ];
    words.into_iter().map(OsString::from).chain([file]).collect()
}

/// Builder of an index.
#[derive(Debug)]
struct Builder {
    limits: Limits,
    tracks: Vec<Partial>,
    packets: usize,
    error: Option<Error>,
}

/// A track whose packets may be printed before its properties.
#[derive(Debug, Default)]
struct Partial {
    kind: Option<TrackKind>,
    timebase: Option<Rational>,
    samples: Vec<Sample>,
    /// Samples without `pts`, whose `pts` is set to their `dts` for now.
    unshown: Vec<usize>,
    /// Frames that the decoder holds back to reorder them.
    delay: u8,
}

impl Partial {
    /// Sets presentation times of samples that have a decoding time only, as all in AVI and some in program
    /// streams.
    ///
    /// A decoder that holds `delay` frames back shows one at each decoding time from the `delay`th on. Of
    /// these times, those without a sample are assigned, in order, to the samples without a time. This is
    /// exact if FFmpeg knows the times of B-frames; if it knows none (H.264), it is correct for each
    /// keyframe, and for all frames taken together.
    fn show(&mut self) {
        let Some(last) = self.samples.last().copied().filter(|_| self.delay > 0 && !self.unshown.is_empty())
        else {
            return;
        };
        let held = (1..=i64::from(self.delay))
            .map(|step| last.dts.saturating_add(i64::from(last.duration).saturating_mul(step)));
        let delay = usize::from(self.delay);
        let mut times: Vec<i64> =
            self.samples.iter().skip(delay).map(|sample| sample.dts).chain(held).collect();
        times.sort_unstable();
        let mut missing = self.unshown.iter().copied().peekable();
        let is_given = |(at, sample): (usize, &Sample)| {
            if missing.next_if_eq(&at).is_some() { None } else { Some(sample.pts) }
        };
        let mut given: Vec<i64> = self.samples.iter().enumerate().filter_map(is_given).collect();
        given.sort_unstable();
        let mut given = given.into_iter().peekable();
        let free: Vec<i64> = times
            .into_iter()
            .filter(|time| {
                while given.next_if(|given| given < time).is_some() {}
                given.next_if_eq(time).is_none()
            })
            .collect();
        // If the numbers differ, decoding times are the best guess.
        if free.len() == self.unshown.len() {
            self.unshown.iter().zip(free).for_each(|(at, pts)| self.samples[*at].pts = pts);
        }
    }
}

impl Builder {
    fn new(limits: Limits) -> Self {
        Self { limits, tracks: Vec::new(), packets: 0, error: None }
    }

    /// Parses one line: `packet|stream_index=0|pts=…` or `stream|index=0|codec_type=video|…`; others are
    /// ignored.
    fn take(&mut self, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else { return };
        let mut fields = line.split('|');
        let outcome = match fields.next() {
            Some("packet") => self.packet(fields),
            Some("stream") => self.stream(fields),
            _ => Ok(()),
        };
        if let Err(error) = outcome {
            self.error.get_or_insert(error);
        }
    }

    fn track(&mut self, number: usize) -> Result<&mut Partial, Error> {
        if number >= self.limits.tracks {
            return Err(Error::TooManyTracks { limit: self.limits.tracks });
        }
        if number >= self.tracks.len() {
            self.tracks.resize_with(number + 1, Partial::default);
        }
        Ok(&mut self.tracks[number])
    }

    fn packet<'a>(&mut self, fields: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let (mut number, mut pts, mut dts) = (None, None, None);
        let (mut duration, mut size, mut offset, mut key) = (0, 0, 0, false);
        for (name, value) in fields.filter_map(|field| field.split_once('=')) {
            match name {
                "stream_index" => number = value.parse().ok(),
                "pts" => pts = value.parse::<i64>().ok(),
                "dts" => dts = value.parse::<i64>().ok(),
                "duration" => duration = value.parse().unwrap_or(0),
                "size" => size = value.parse().unwrap_or(0),
                "pos" => offset = value.parse().unwrap_or(0),
                "flags" => key = value.starts_with('K'),
                _ => {}
            }
        }
        let Some(number) = number else { return Ok(()) };
        self.packets += 1;
        if self.packets > self.limits.packets {
            return Err(Error::TooManyPackets { limit: self.limits.packets });
        }
        let Partial { samples, unshown, .. } = self.track(number)?;
        if pts.is_none() && dts.is_some() {
            unshown.push(samples.len());
        }
        let last = samples.last();
        let pts = pts
            .or(dts)
            .or_else(|| last.map(|last| last.pts.saturating_add(i64::from(last.duration))))
            .unwrap_or(0);
        // Without a decoding time, as for the first packets of a Matroska track, the earliest possible one is
        // used: it is for seeking.
        let dts = dts.or_else(|| last.map(|last| last.dts)).unwrap_or(pts).min(pts);
        samples.push(Sample { pts, dts, duration, offset, size, key });
        Ok(())
    }

    fn stream<'a>(&mut self, fields: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let (mut number, mut kind, mut timebase, mut delay, mut is_picture) =
            (None, TrackKind::Other, None, 0, false);
        for (name, value) in fields.filter_map(|field| field.split_once('=')) {
            match (name, value) {
                ("index", _) => number = value.parse().ok(),
                ("codec_type", "video") => kind = TrackKind::Video,
                ("codec_type", "audio") => kind = TrackKind::Audio,
                ("time_base", _) => timebase = value.parse().ok(),
                ("has_b_frames", _) => delay = value.parse().unwrap_or(0).min(DELAY_MAX),
                ("disposition:attached_pic", "1") => is_picture = true,
                _ => {}
            }
        }
        let Some(number) = number else { return Ok(()) };
        let track = self.track(number)?;
        track.kind = Some(if is_picture { TrackKind::Other } else { kind });
        track.timebase = timebase.or(track.timebase);
        track.delay = delay;
        Ok(())
    }

    fn finish(self, demuxer: &str) -> Result<Index, Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.packets == 0 {
            return Err(Error::NoPackets);
        }
        let tracks = self.tracks.into_iter().enumerate().map(|(track, mut partial)| {
            partial.show();
            let timebase = partial.timebase.ok_or(Error::NoTimebase { track })?;
            Ok(Track {
                kind: partial.kind.unwrap_or(TrackKind::Other),
                timebase,
                samples: partial.samples,
                lost_ticks: 0,
            })
        });
        Ok(Index {
            container: Container::Whole { demuxer: demuxer.to_owned() },
            tracks: tracks.collect::<Result<_, Error>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "tests make their own clips")]
    fn clip(path: &Path, line: &str) {
        let line = format!("-nostdin -v error -y {line}");
        let status = Command::new("ffmpeg").args(line.split_whitespace()).arg(path).status().unwrap();
        assert!(status.success());
    }

    async fn scanned(path: &Path, demuxer: &str, limits: Limits) -> Result<Index, Error> {
        scan(&Tools::from_env().unwrap(), path, demuxer, &limits, &CancellationToken::new()).await
    }

    const CLIP: &str = "-f lavfi -i testsrc2=s=64x36:r=25:d=2 -f lavfi -i sine=d=2 -c:v libx264 -preset ultrafast -bf 2 -g 10 -c:a aac";

    #[tokio::test]
    async fn every_packet_is_indexed_with_its_times() {
        let folder = tempfile::tempdir().unwrap();
        for (name, demuxer, timebase, frame) in
            [("a.ts", "mpegts", "1/90000", 3600), ("a.mkv", "matroska", "1/1000", 40)]
        {
            let path = folder.path().join(name);
            clip(&path, CLIP);
            let index = scanned(&path, demuxer, Limits::default()).await.unwrap();
            assert!(matches!(&index.container, Container::Whole { demuxer: forced } if forced == demuxer));
            assert_eq!(
                index.tracks.iter().map(|track| track.kind).collect::<Vec<_>>(),
                [TrackKind::Video, TrackKind::Audio]
            );
            let video = &index.tracks[0];
            assert_eq!((video.timebase.to_string().as_str(), video.samples.len()), (timebase, 50));
            assert_eq!(video.samples.iter().filter(|sample| sample.key).count(), 5);
            assert!(
                video.samples[0].key
                    && video.samples.iter().all(|sample| sample.dts <= sample.pts && sample.size > 0)
            );
            assert!(
                video
                    .samples
                    .windows(2)
                    .all(|pair| pair[0].dts <= pair[1].dts && pair[0].offset < pair[1].offset)
            );
            let mut shown: Vec<i64> = video.samples.iter().map(|sample| sample.pts).collect();
            shown.sort_unstable();
            assert!(shown.windows(2).all(|pair| pair[1] - pair[0] == frame), "{name}: {shown:?}");
        }
    }

    /// Times of the decoded frames.
    #[expect(clippy::disallowed_methods, reason = "tests ask FFmpeg itself")]
    fn decoded(path: &Path) -> Vec<i64> {
        let line = format!(
            "-nostdin -v error -copyts -i {} -map 0:v -fps_mode passthrough -enc_time_base -1 -f framemd5 -",
            path.display()
        );
        let output = Command::new("ffmpeg").args(line.split_whitespace()).output().unwrap().stdout;
        let text = String::from_utf8(output).unwrap();
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        rows.map(|row| row.split(',').nth(2).unwrap().trim().parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn the_times_are_those_of_the_decoded_frames() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            ("h264.avi", "avi", "-c:v libx264 -bf 3"),
            ("h264-plain.avi", "avi", "-c:v libx264 -bf 0"),
            ("mpeg4.avi", "avi", "-c:v mpeg4 -bf 2"),
            ("mpeg4-plain.avi", "avi", "-c:v mpeg4"),
            ("mpeg2.mpg", "mpeg", "-c:v mpeg2video -bf 2"),
            ("mpeg2-dense.mpg", "mpeg", "-c:v mpeg2video -bf 2 -q:v 31"),
            ("mpeg2.avi", "avi", "-c:v mpeg2video -bf 2"),
            ("mpeg2.mxf", "mxf", "-c:v mpeg2video -bf 2"),
            ("h264.flv", "flv", "-c:v libx264 -bf 3"),
            ("h264.mkv", "matroska", "-c:v libx264 -bf 3"),
            ("h264.ts", "mpegts", "-c:v libx264 -bf 3"),
            ("theora.ogg", "ogg", "-c:v libtheora"),
            ("wmv.wmv", "asf", "-c:v wmv2"),
        ];
        for (name, demuxer, codec) in cases {
            let path = folder.path().join(name);
            clip(&path, &format!("-f lavfi -i testsrc2=s=64x48:r=25:d=2 -g 10 {codec}"));
            let index = scanned(&path, demuxer, Limits::default()).await.unwrap();
            let mut shown: Vec<i64> = index.tracks[0].samples.iter().map(|sample| sample.pts).collect();
            shown.sort_unstable();
            assert_eq!(shown, decoded(&path), "{name}");
            assert!(index.tracks[0].samples.iter().all(|sample| sample.dts <= sample.pts), "{name}");
        }
    }

    #[tokio::test]
    async fn limits_end_a_scan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mkv");
        clip(&path, CLIP);
        let error =
            scanned(&path, "matroska", Limits { packets: 30, ..Limits::default() }).await.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.kind()),
            ("the source has more than 30 packets", ErrorKind::BadInput)
        );
        let error = scanned(&path, "matroska", Limits { tracks: 1, ..Limits::default() }).await.unwrap_err();
        assert!(matches!(error, Error::TooManyTracks { limit: 1 }), "{error}");
        let error = scanned(&path, "mpegts", Limits::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
    }

    #[test]
    fn missing_times_follow_from_what_is_there() {
        let mut builder = Builder::new(Limits::default());
        for line in [
            "packet|stream_index=0|pts=143|dts=N/A|duration=40|size=9|pos=100|flags=K__",
            "packet|stream_index=0|pts=303|dts=N/A|duration=40|size=9|pos=N/A|flags=___",
            "packet|stream_index=0|pts=N/A|dts=223|duration=40|size=9|pos=120|flags=___",
            "packet|stream_index=0|pts=N/A|dts=N/A|duration=N/A|size=9|pos=130|flags=___",
            "packet|stream_index=0|pts=9223372036854775807|dts=N/A|duration=4294967295|size=9|pos=130|flags=___",
            "packet|stream_index=0|pts=N/A|dts=N/A|duration=99999999999|size=-1|pos=-1|flags=",
            "packet|pts=1",
            "side_data|",
            "",
            "stream|index=0|codec_type=video|time_base=1/1000|disposition:attached_pic=1",
        ] {
            builder.take(line.as_bytes());
        }
        let index = builder.finish("avi").unwrap();
        assert_eq!(index.tracks[0].kind, TrackKind::Other);
        let times: Vec<(i64, i64)> =
            index.tracks[0].samples.iter().map(|sample| (sample.pts, sample.dts)).collect();
        assert_eq!(times, [(143, 143), (303, 143), (223, 223), (263, 223), (i64::MAX, 223), (i64::MAX, 223)]);
    }
}
