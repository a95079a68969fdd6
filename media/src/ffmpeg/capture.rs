//! How much of what a program says is kept? Lines as they come, and the end of its complaints.

use std::collections::VecDeque;

use super::x264;

/// The longest line that [`Lines`] gives out; ffprobe's packet lines are under 300 bytes unless side data is asked for.
pub const LINE_BYTES_MAX: usize = 4096;
/// The end of stderr that is kept: FFmpeg explains itself in its last lines.
const TAIL_BYTES_MAX: usize = 8 * 1024;
/// The most lines of it that a person wants to read.
const TAIL_LINES_MAX: usize = 30;

/// Lines of a stream of bytes that is cut anywhere; nothing is held but the line that is not whole yet.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    overlong: bool,
}

impl Lines {
    /// Takes the next bytes and gives each whole line, without its end, to `line`. Lines beyond [`LINE_BYTES_MAX`] are dropped.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.extend(&bytes[..end]);
            if !self.overlong {
                line(&self.partial);
            }
            self.partial.clear();
            self.overlong = false;
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.partial.len() + bytes.len() > LINE_BYTES_MAX {
            self.overlong = true;
            self.partial.clear();
        } else if !self.overlong {
            self.partial.extend_from_slice(bytes);
        }
    }
}

/// The end of what a program complains of, and what its encoders told beside it.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: Lines,
    bytes: VecDeque<u8>,
    reports: x264::Reports,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let Self { lines, bytes: kept, reports } = self;
        lines.push(bytes, |line| match leveled(line) {
            Leveled::Remark { from, text } => reports.take(from, text),
            Leveled::Complaint { before, text } => {
                kept.extend(before.iter().chain(text).chain(b"\n"));
                let excess = kept.len().saturating_sub(TAIL_BYTES_MAX);
                kept.drain(..excess);
            }
        });
    }

    /// The last lines, fit for a terminal: a source's own text in them may hold escape sequences.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().chain(self.lines.partial.iter().copied()).collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.trim().lines().collect();
        let kept = &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..];
        kept.join("\n").chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
    }

    /// What each encoder told at its end, in the order in which they began.
    pub(super) fn reports(self) -> Vec<x264::Report> {
        self.reports.into_vec()
    }
}

/// A line of a program's, by what it is worth.
#[derive(Debug, PartialEq)]
enum Leveled<'a> {
    /// What a person wants to read: without its level, as if none had been asked for.
    Complaint { before: &'a [u8], text: &'a [u8] },
    /// What FFmpeg says on the way, and which of its parts.
    Remark { from: &'a [u8], text: &'a [u8] },
}

/// Tells lines of `-loglevel level+info` apart: `[libx264 @ 0x5581e0] [info] text`. What has no level is a complaint: other programs have
/// none, nor has the second line of a message.
fn leveled(line: &[u8]) -> Leveled<'_> {
    let mut at = 0;
    // Up to two names of parts: one within another.
    while let Some(end) = line[at..].strip_prefix(b"[").and_then(|rest| rest.iter().position(|&byte| byte == b']')) {
        let (name, next) = (&line[at + 1..=at + end], at + end + 3);
        match name {
            b"info" | b"warning" | b"verbose" => {
                return Leveled::Remark { from: &line[..at], text: line.get(next..).unwrap_or_default() };
            }
            b"error" | b"fatal" | b"panic" => {
                return Leveled::Complaint { before: &line[..at], text: line.get(next..).unwrap_or_default() };
            }
            _ if next < line.len() && name.windows(5).any(|part| part == b" @ 0x") => at = next,
            _ => break,
        }
    }
    Leveled::Complaint { before: b"", text: line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_whatever_the_cuts() {
        let text = b"a=1\n\nlonger|line\nrest";
        for cut in 0..text.len() {
            let (mut lines, mut got) = (Lines::default(), Vec::new());
            lines.push(&text[..cut], |line| got.push(line.to_vec()));
            lines.push(&text[cut..], |line| got.push(line.to_vec()));
            assert_eq!(got, [b"a=1".to_vec(), Vec::new(), b"longer|line".to_vec()]);
        }
    }

    #[test]
    fn an_endless_line_is_dropped_and_not_held() {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for _ in 0..1000 {
            lines.push(&[b'x'; 1000], |line| got.push(line.to_vec()));
        }
        assert!(lines.partial.capacity() <= 2 * LINE_BYTES_MAX);
        lines.push(b"\nnext\n", |line| got.push(line.to_vec()));
        assert_eq!(got, [b"next".to_vec()]);
    }

    #[test]
    fn the_tail_is_bounded_and_harmless() {
        let mut tail = Tail::default();
        for number in 0..100_000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        tail.push(b"title: \x1b[2Jgone");
        assert!(tail.bytes.len() <= TAIL_BYTES_MAX);
        let text = tail.text();
        assert_eq!(text.lines().count(), TAIL_LINES_MAX);
        assert!(text.ends_with("line 99999\ntitle: ?[2Jgone"));
    }

    #[test]
    fn remarks_are_no_complaints() {
        let mut tail = Tail::default();
        tail.push(b"[libx264 @ 0x55] [info] frame P:10    Avg QP:24.94  size:  8701\n[mov @ 0x1] [h264 @ 0x2] [error] no frame!\n");
        tail.push(
            b"[warning] deprecated\n[fatal] gone: [info] is a name\nplain [info] words\n[AVIOContext @ 0x3] Statistics\n[error",
        );
        assert_eq!(
            tail.text(),
            "[mov @ 0x1] [h264 @ 0x2] no frame!\ngone: [info] is a name\nplain [info] words\n[AVIOContext @ 0x3] Statistics\n[error"
        );
        assert_eq!(tail.reports().len(), 1);
        for line in ["", "[", "[]", "[info]", "[x @ 0x1]", "[x @ 0x1] ", "[x @ 0x1] [error]"] {
            leveled(line.as_bytes());
        }
    }
}
