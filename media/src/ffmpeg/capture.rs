//! Capture of a program's output: lines of stdout as they arrive, and a bounded tail of stderr.

use std::collections::VecDeque;

/// Longest line that [`Lines`] passes on, in bytes. ffprobe's packet lines are under 300 bytes unless side
/// data is requested.
pub const LINE_BYTES_MAX: usize = 4096;
/// Bytes of the end of stderr that are kept: FFmpeg explains a failure in its last lines.
const TAIL_BYTES_MAX: usize = 8 * 1024;
/// Most lines of it that an error shows.
const TAIL_LINES_MAX: usize = 30;

/// Splits a stream of bytes into lines. It buffers only the line that is not complete yet.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    overlong: bool,
}

impl Lines {
    /// Takes the next bytes and passes each complete line, without its newline, to `line`. Lines longer than
    /// [`LINE_BYTES_MAX`] are dropped.
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

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(TAIL_BYTES_MAX);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }

    /// Returns the last lines. Control characters are replaced: a source's own text may hold escape
    /// sequences.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.trim().lines().collect();
        let kept = &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..];
        kept.join("\n").chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
    }
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
}
