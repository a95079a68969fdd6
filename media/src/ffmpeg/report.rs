//! Report of an FFmpeg run: the number of damaged frames, and x264's summary at its end, which counts the
//! pictures of each type and the share of skipped macroblocks.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use tokio::task::spawn_blocking;

use super::sandbox::open_written;
use crate::codec::VideoCodec;

/// Name of FFmpeg's log file in the scratch folder of a run.
pub(super) const REPORT: &str = "ffmpeg.log";

/// Largest report that is read, in bytes: messages for all damaged pictures of a day fit into less.
pub(super) const REPORT_BYTES_MAX: usize = 256 << 20;

/// Longest part of a line that is searched, in bytes: a match follows a path.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// FFmpeg's messages for a frame that was decoded with errors, and for one that was not decoded at all: up to
/// version 6.0, and since.
const DAMAGED: [&str; 4] = [
    "corrupt decoded frame",
    "Error while decoding stream #",
    "Error submitting packet to decoder",
    "Decoding error: ",
];

/// Prefixes of lines in which FFmpeg quotes the source: its name and its texts.
const QUOTES: [&str; 3] = [" ", "Input #", "Output #"];

/// Contents of a report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Summary of each x264 encoder, in the order in which they end, which is that of the outputs. If it is
    /// not, a cost is predicted from another rung's pictures, without other harm.
    pub encoded: Vec<Encoded>,
    /// Frames of the source that were decoded with errors, or not at all.
    pub damaged_frames: u64,
}

impl Report {
    /// Returns the summary of each output, if there are as many summaries as outputs of x264.
    pub fn of<'a>(&'a self, codecs: &[VideoCodec]) -> Vec<Option<&'a Encoded>> {
        let is_x264 = |codec: &&VideoCodec| **codec == VideoCodec::H264;
        let complete = codecs.iter().filter(is_x264).count() == self.encoded.len();
        let mut encoded = self.encoded.iter().filter(|_| complete);
        codecs.iter().map(|codec| if is_x264(&codec) { encoded.next() } else { None }).collect()
    }
}

/// Summary of one encoder.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Encoded {
    /// Pictures that refer to no other.
    pub key: Pictures,
    /// Pictures that refer to one other.
    pub predicted: Pictures,
    /// Pictures that refer to two others.
    pub bidirectional: Pictures,
}

/// Pictures of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pictures {
    /// Number of pictures.
    pub count: u64,
    /// Share of macroblocks that are skipped, from 0 to 1.
    pub skipped: f64,
}

impl Pictures {
    /// Returns the number of pictures, less the share that was skipped.
    fn coded(self) -> f64 {
        self.count as f64 * (1.0 - self.skipped)
    }
}

impl Encoded {
    /// Returns the share of the pictures that was coded and not skipped, from 0 to 1; `None` if nothing was
    /// encoded.
    pub fn coded(&self) -> Option<f64> {
        let all = self.key.count.saturating_add(self.changes_count());
        (all > 0)
            .then(|| (self.key.coded() + self.predicted.coded() + self.bidirectional.coded()) / all as f64)
    }

    /// Returns the same share for the pictures that refer to others; `None` if there are none.
    pub fn coded_changes(&self) -> Option<f64> {
        let all = self.changes_count();
        (all > 0).then(|| (self.predicted.coded() + self.bidirectional.coded()) / all as f64)
    }

    fn changes_count(&self) -> u64 {
        self.predicted.count.saturating_add(self.bidirectional.count)
    }
}

/// Reads the report of a run in this folder. Other builds of FFmpeg may write none.
pub(super) async fn read(scratch: &Path) -> Report {
    let path = scratch.join(REPORT);
    let read = spawn_blocking(move || open_written(&path).map(parse));
    read.await.ok().and_then(std::io::Result::ok).unwrap_or_default()
}

/// Returns whether the report exceeds [`REPORT_BYTES_MAX`].
pub(super) fn is_too_long(scratch: &Path) -> bool {
    std::fs::metadata(scratch.join(REPORT)).is_ok_and(|report| report.len() > REPORT_BYTES_MAX as u64)
}

/// Parses a report line by line, since untrusted sources decide its length. Lines are ignored unless they are
/// worded as x264's versions since 2008 do.
fn parse(file: File) -> Report {
    let (mut reader, mut line) = (BufReader::new(file.take(REPORT_BYTES_MAX as u64)), Vec::new());
    let (mut encoders, mut damaged_frames) = (Vec::new(), 0);
    loop {
        line.clear();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let is_quote = QUOTES.iter().any(|begin| text.starts_with(begin));
        damaged_frames += u64::from(!is_quote && DAMAGED.iter().any(|words| text.contains(words)));
        hear(&text, &mut encoders);
    }
    Report { encoded: encoders.into_iter().map(|(_, encoded)| encoded).collect(), damaged_frames }
}

/// Parses a line of one of the x264 encoders, which differ by name.
fn hear(line: &str, encoders: &mut Vec<(String, Encoded)>) {
    let Some((name, words)) = line.strip_prefix("[libx264 @ ").and_then(|rest| rest.split_once("] ")) else {
        return;
    };
    let mut words_of = words.split_ascii_whitespace();
    let (Some(what @ ("frame" | "mb")), Some(kind)) = (words_of.next(), words_of.next()) else { return };
    let at = encoders.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        encoders.push((name.to_owned(), Encoded::default()));
        encoders.len() - 1
    });
    let encoded = &mut encoders[at].1;
    let pictures = match kind.as_bytes().first() {
        Some(b'I') => &mut encoded.key,
        Some(b'P') => &mut encoded.predicted,
        Some(b'B') => &mut encoded.bidirectional,
        _ => return,
    };
    if what == "frame" {
        pictures.count = number(kind.get(2..)).unwrap_or(pictures.count);
    } else {
        let percent = words.split_once("skip:").and_then(|(_, rest)| number::<f64>(rest.split('%').next()));
        pictures.skipped = percent
            .filter(|percent| percent.is_finite())
            .map_or(0.0, |percent| (percent / 100.0).clamp(0.0, 1.0));
    }
}

fn number<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
    text?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Report of x264 160 on 65 frames.
    const SAID: &str = "using cpu capabilities: MMX2 SSE2Fast
profile High, level 3.0, 4:2:0, 8-bit
frame I:1     Avg QP:23.01  size: 61346
frame P:17    Avg QP:24.94  size:  8701
frame B:47    Avg QP:28.65  size:  1095
consecutive B-frames:  1.5%  6.2%  0.0% 92.3%
mb I  I16..4:  2.8% 13.7% 83.5%
mb P  I16..4:  1.2%  5.7%  2.2%  P16..4: 39.3% 17.1% 10.8%  0.0%  0.0%    skip:23.6%
mb B  I16..4:  0.1%  0.4%  0.1%  B16..8:  8.5%  3.6%  0.6%  direct: 2.6%  skip:84.1%  L0:35.2% L1:38.5% BI:26.3%
kb/s:802.29";

    /// Lines as FFmpeg reports them, each with its component.
    fn log(of: &[(&str, &str)]) -> String {
        of.iter()
            .flat_map(|(from, text)| text.lines().map(move |line| format!("[{from}] {line}\n")))
            .collect()
    }

    fn parsed(text: &str) -> Report {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        parse(file)
    }

    #[test]
    fn what_was_skipped_is_read() {
        let [encoded] = parsed(&log(&[("libx264 @ 0x1", SAID)])).encoded[..] else { panic!() };
        let expected = Encoded {
            key: Pictures { count: 1, skipped: 0.0 },
            predicted: Pictures { count: 17, skipped: 23.6 / 100.0 },
            bidirectional: Pictures { count: 47, skipped: 84.1 / 100.0 },
        };
        assert_eq!(encoded, expected);
        let changes = 17.0 * 0.764 + 47.0 * 0.159;
        assert!((encoded.coded_changes().unwrap() - changes / 64.0).abs() < 1e-9);
        assert!((encoded.coded().unwrap() - (1.0 + changes) / 65.0).abs() < 1e-9);
    }

    #[test]
    fn encoders_are_distinguished_and_others_ignored() {
        let found = parsed(&log(&[
            ("libx264 @ 0x1", "profile High"),
            ("libx264 @ 0x2", "frame P:3     Avg QP:24.94  size:  8701"),
            ("libx264 @ 0x1", "frame P:5     Avg QP:24.94  size:  8701"),
            ("libx264 @ 0x2", "mb P  I16..4:  1.2%  skip:50.0%"),
            ("aac @ 0x3", "frame P:9"),
        ]));
        assert_eq!(found.encoded.iter().map(|encoded| encoded.predicted.count).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(found.encoded[0].predicted.skipped, 0.5);
        assert_eq!(Encoded::default().coded(), None);
    }

    #[test]
    fn damaged_frames_are_counted() {
        let text = "a.mp4: corrupt decoded frame in stream 0\n[h264 @ 0x5] concealing 3 errors\n[x] y a.mp4: corrupt decoded frame in stream 0\n\
            Error while decoding stream #0:1: Invalid data found when processing input\n\
            Input #0, matroska, from 'corrupt decoded frame':\n    title           : corrupt decoded frame in stream 0\n\
            [dec:h264 @ 0x7] Error submitting packet to decoder: Invalid data found when processing input\n";
        assert_eq!(parsed(text), Report { encoded: Vec::new(), damaged_frames: 4 });
    }

    #[test]
    fn other_words_do_no_harm() {
        for text in [
            "",
            "frame",
            "frame P",
            "frame P:",
            "frame \u{e9}:1",
            "mb P skip:",
            "mb P skip:nan%",
            "mb B skip:900%",
            "frame P:-1",
        ] {
            let found = parsed(&log(&[("libx264 @ 0x1", text)]));
            assert!(found.encoded.iter().all(|encoded| encoded.coded().is_none()), "{text}");
        }
        let most =
            parsed(&log(&[("libx264 @ 0x1", "frame I:18446744073709551615\nframe P:18446744073709551615")]));
        assert!(most.encoded[0].coded().unwrap() <= 2.0);
        assert_eq!(parsed("[libx264 @ \n[libx264 @ 0x1]\n[libx264 @ 0x1] "), Report::default());
    }

    #[tokio::test]
    async fn what_a_run_said_is_found_behind_much_else_and_none_is_no_failure() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(read(scratch.path()).await, Report::default());
        let noise = "[h264 @ 0x9] error while decoding MB 1 2\n".repeat(100_000);
        std::fs::write(scratch.path().join(REPORT), noise + &log(&[("libx264 @ 0x1", SAID)])).unwrap();
        assert_eq!(read(scratch.path()).await.encoded.len(), 1);
    }

    #[test]
    fn reports_of_x264_go_to_its_own_outputs() {
        let report = Report { encoded: vec![Encoded::default()], damaged_frames: 0 };
        let found = report.of(&[VideoCodec::Av1, VideoCodec::H264]);
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
        assert_eq!(report.of(&[VideoCodec::Vp9]), [None], "a report without an output of x264");
    }
}
