//! What did x264 make of the pictures? It tells when it ends how many it coded, of which kind, and how much of them it skipped.

use std::{io::SeekFrom, path::Path};

use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};

use super::sandbox::open_written;

/// The file in the scratch folder of a run that FFmpeg writes what it has to say to.
pub(super) const REPORT: &str = "ffmpeg.log";

/// More than it may be: every damaged picture of a day is told of in less.
pub(super) const REPORT_BYTES_MAX: usize = 256 << 20;

/// How much of its end is read: x264 says 2 KB at most.
const TAIL_BYTES: u64 = 256 << 10;

/// What one encoder told.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// Pictures that refer to none.
    pub key: Pictures,
    /// Pictures that refer to one.
    pub predicted: Pictures,
    /// Pictures that refer to two.
    pub bidirectional: Pictures,
}

/// Pictures of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pictures {
    /// How many.
    pub count: u64,
    /// Share of their macroblocks that are like those they refer to, and are not coded: 0 to 1.
    pub skipped: f64,
}

impl Pictures {
    /// How many it would be if all of it had been coded.
    fn coded(self) -> f64 {
        self.count as f64 * (1.0 - self.skipped)
    }
}

impl Report {
    /// Share of the pictures that was coded and not skipped, from 0 to 1; `None` where nothing was encoded.
    pub fn coded(&self) -> Option<f64> {
        let all = self.key.count.saturating_add(self.changes_count());
        (all > 0).then(|| (self.key.coded() + self.predicted.coded() + self.bidirectional.coded()) / all as f64)
    }

    /// The same of the pictures that refer to others alone: what lies between keyframes. `None` where there is none.
    pub fn coded_changes(&self) -> Option<f64> {
        let all = self.changes_count();
        (all > 0).then(|| (self.predicted.coded() + self.bidirectional.coded()) / all as f64)
    }

    fn changes_count(&self) -> u64 {
        self.predicted.count.saturating_add(self.bidirectional.count)
    }
}

/// What the encoders of a run told, from the end of FFmpeg's report: none unless there are as many as expected. In the order of their ends,
/// which is that of the outputs; where it should not be, a cost is predicted from another rung's pictures, and nothing else goes wrong.
pub(super) async fn read(scratch: &Path, encoders: usize) -> Vec<Report> {
    if encoders == 0 {
        return Vec::new();
    }
    // Other builds of FFmpeg may write none.
    let told = tail(&scratch.join(REPORT)).await.unwrap_or_default();
    let reports = parse(&String::from_utf8_lossy(&told));
    if reports.len() == encoders { reports } else { Vec::new() }
}

/// Has somebody's source made FFmpeg say more than a disk should hold?
pub(super) fn is_too_long(scratch: &Path) -> bool {
    std::fs::metadata(scratch.join(REPORT)).is_ok_and(|report| report.len() > REPORT_BYTES_MAX as u64)
}

async fn tail(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::from_std(open_written(path)?);
    let length = file.metadata().await?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).await?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).await?;
    Ok(tail)
}

/// One report for each encoder that says how many pictures it coded. What is in other words than its versions have used since 2008 is passed
/// over.
fn parse(text: &str) -> Vec<Report> {
    let mut reports: Vec<(&str, Report)> = Vec::new();
    for line in text.lines() {
        let Some((name, words)) = line.strip_prefix("[libx264 @ ").and_then(|rest| rest.split_once("] ")) else { continue };
        let mut words_of = words.split_ascii_whitespace();
        let (Some(what @ ("frame" | "mb")), Some(kind)) = (words_of.next(), words_of.next()) else { continue };
        let at = reports.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            reports.push((name, Report::default()));
            reports.len() - 1
        });
        let report = &mut reports[at].1;
        let pictures = match kind.as_bytes().first() {
            Some(b'I') => &mut report.key,
            Some(b'P') => &mut report.predicted,
            Some(b'B') => &mut report.bidirectional,
            _ => continue,
        };
        if what == "frame" {
            pictures.count = number(kind.get(2..)).unwrap_or(pictures.count);
        } else {
            let percent = words.split_once("skip:").and_then(|(_, rest)| number::<f64>(rest.split('%').next()));
            pictures.skipped =
                percent.filter(|percent| percent.is_finite()).map_or(0.0, |percent| (percent / 100.0).clamp(0.0, 1.0));
        }
    }
    reports.into_iter().map(|(_, report)| report).collect()
}

fn number<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
    text?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What x264 160 said of 65 frames.
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

    /// The lines as FFmpeg reports them, each by who says it.
    fn told(of: &[(&str, &str)]) -> String {
        of.iter().flat_map(|(from, text)| text.lines().map(move |line| format!("[{from}] {line}\n"))).collect()
    }

    #[test]
    fn what_was_skipped_is_read() {
        let [report] = parse(&told(&[("libx264 @ 0x1", SAID)]))[..] else { panic!() };
        let expected = Report {
            key: Pictures { count: 1, skipped: 0.0 },
            predicted: Pictures { count: 17, skipped: 23.6 / 100.0 },
            bidirectional: Pictures { count: 47, skipped: 84.1 / 100.0 },
        };
        assert_eq!(report, expected);
        let changes = 17.0 * 0.764 + 47.0 * 0.159;
        assert!((report.coded_changes().unwrap() - changes / 64.0).abs() < 1e-9);
        assert!((report.coded().unwrap() - (1.0 + changes) / 65.0).abs() < 1e-9);
    }

    #[test]
    fn encoders_are_told_apart_and_others_passed_over() {
        let found = parse(&told(&[
            ("libx264 @ 0x1", "profile High"),
            ("libx264 @ 0x2", "frame P:3     Avg QP:24.94  size:  8701"),
            ("libx264 @ 0x1", "frame P:5     Avg QP:24.94  size:  8701"),
            ("libx264 @ 0x2", "mb P  I16..4:  1.2%  skip:50.0%"),
            ("aac @ 0x3", "frame P:9"),
        ]));
        assert_eq!(found.iter().map(|report| report.predicted.count).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(found[0].predicted.skipped, 0.5);
        assert_eq!(Report::default().coded(), None);
    }

    #[test]
    fn other_words_do_no_harm() {
        for text in
            ["", "frame", "frame P", "frame P:", "frame \u{e9}:1", "mb P skip:", "mb P skip:nan%", "mb B skip:900%", "frame P:-1"]
        {
            let found = parse(&told(&[("libx264 @ 0x1", text)]));
            assert!(found.iter().all(|report| report.coded().is_none()), "{text}");
        }
        let most = parse(&told(&[("libx264 @ 0x1", "frame I:18446744073709551615\nframe P:18446744073709551615")]));
        assert!(most[0].coded().unwrap() <= 2.0);
        assert_eq!(parse("[libx264 @ \n[libx264 @ 0x1]\n[libx264 @ 0x1] "), []);
    }

    #[tokio::test]
    async fn the_end_of_a_report_is_read_and_none_is_no_failure() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(read(scratch.path(), 1).await, []);
        let noise = "[h264 @ 0x9] error while decoding MB 1 2\n".repeat(100_000);
        std::fs::write(scratch.path().join(REPORT), noise + &told(&[("libx264 @ 0x1", SAID)])).unwrap();
        assert_eq!(read(scratch.path(), 1).await.len(), 1);
        assert_eq!(read(scratch.path(), 2).await, [], "not as many as there are outputs");
    }
}
