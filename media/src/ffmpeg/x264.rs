//! What did x264 make of the pictures? It tells when it ends how many it coded, of which kind, and how much of them it skipped.

/// Encoders of one run that are listened to: more than a ladder has rungs.
const ENCODERS_MAX: usize = 32;

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
        let all = self.key.count + self.changes_count();
        (all > 0).then(|| (self.key.coded() + self.predicted.coded() + self.bidirectional.coded()) / all as f64)
    }

    /// The same of the pictures that refer to others alone: what lies between keyframes. `None` where there is none.
    pub fn coded_changes(&self) -> Option<f64> {
        let all = self.changes_count();
        (all > 0).then(|| (self.predicted.coded() + self.bidirectional.coded()) / all as f64)
    }

    fn changes_count(&self) -> u64 {
        self.predicted.count + self.bidirectional.count
    }
}

/// What the encoders of a run tell, line by line.
#[derive(Debug, Default)]
pub(super) struct Reports(Vec<(Vec<u8>, Report)>);

impl Reports {
    /// Takes a line of FFmpeg's and which part of it said so. What is not of x264, or in other words than its versions have used since
    /// 2008, is passed over.
    pub(super) fn take(&mut self, from: &[u8], text: &[u8]) {
        if !from.starts_with(b"[libx264 @ ") {
            return;
        }
        // By the first line of each, when it begins: they need not end in the order of their outputs.
        let known = self.0.iter().position(|(name, _)| name == from);
        if known.is_none() && self.0.len() == ENCODERS_MAX {
            return;
        }
        let at = known.unwrap_or_else(|| {
            self.0.push((from.to_owned(), Report::default()));
            self.0.len() - 1
        });
        let report = &mut self.0[at].1;
        let Ok(text) = std::str::from_utf8(text) else { return };
        let mut words = text.split_ascii_whitespace();
        let (Some(what), Some(kind)) = (words.next(), words.next()) else { return };
        let pictures = match kind.as_bytes().first() {
            Some(b'I') => &mut report.key,
            Some(b'P') => &mut report.predicted,
            Some(b'B') => &mut report.bidirectional,
            _ => return,
        };
        match what {
            "frame" => pictures.count = number(kind.get(2..)).unwrap_or(pictures.count),
            "mb" => {
                let percent = text.split_once("skip:").and_then(|(_, rest)| number::<f64>(rest.split('%').next()));
                pictures.skipped =
                    percent.filter(|percent| percent.is_finite()).map_or(0.0, |percent| (percent / 100.0).clamp(0.0, 1.0));
            }
            _ => {}
        }
    }

    /// What each told, in the order in which they began.
    pub(super) fn into_vec(self) -> Vec<Report> {
        self.0.into_iter().map(|(_, report)| report).collect()
    }
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

    fn reports(of: &[(&str, &str)]) -> Vec<Report> {
        let mut reports = Reports::default();
        for (from, text) in of {
            for line in text.lines() {
                reports.take(from.as_bytes(), line.as_bytes());
            }
        }
        reports.into_vec()
    }

    #[test]
    fn what_was_skipped_is_read() {
        let [report] = reports(&[("[libx264 @ 0x1] ", SAID)])[..] else { panic!() };
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
        let found = reports(&[
            ("[libx264 @ 0x1] ", "profile High"),
            ("[libx264 @ 0x2] ", "profile High"),
            ("[libx264 @ 0x2] ", "frame P:5     Avg QP:24.94  size:  8701"),
            ("[libx264 @ 0x1] ", "frame P:3     Avg QP:24.94  size:  8701"),
            ("[aac @ 0x3] ", "frame P:9"),
        ]);
        assert_eq!(found.iter().map(|report| report.predicted.count).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(Report::default().coded(), None);
    }

    #[test]
    fn other_words_do_no_harm() {
        for text in
            ["", "frame", "frame P", "frame P:", "frame \u{e9}:1", "mb P skip:", "mb P skip:nan%", "mb B skip:900%", "frame P:-1"]
        {
            let found = reports(&[("[libx264 @ 0x1] ", text)]);
            assert!(found.first().is_none_or(|report| report.coded().is_none()), "{text}");
        }
    }
}
