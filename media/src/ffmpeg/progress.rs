//! Parser of FFmpeg's `-progress` lines.

/// Most bytes of one line that are kept. FFmpeg's own lines are under 40 bytes; a longer line is not progress
/// and is dropped.
const LINE_BYTES_MAX: usize = 256;

/// Progress of an encode.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Frames written to the first video output; 0 without video.
    pub frame: u64,
    /// Microseconds of media written; 0 until FFmpeg knows.
    pub out_time_us: i64,
    /// Bytes written.
    pub total_bytes: u64,
    /// Media seconds per second; `None` until FFmpeg knows.
    pub speed: Option<f64>,
    /// Whether this is the last report.
    pub done: bool,
}

impl Progress {
    /// Returns whether anything was written since `earlier`.
    pub fn is_beyond(&self, earlier: &Self) -> bool {
        self.frame > earlier.frame
            || self.out_time_us > earlier.out_time_us
            || self.total_bytes > earlier.total_bytes
    }
}

/// Parser of `-progress` blocks: `key=value` lines, of which `progress=` closes a block.
#[derive(Debug, Default)]
pub struct ProgressParser {
    line: Vec<u8>,
    overlong: bool,
    block: Progress,
}

impl ProgressParser {
    /// Takes the next bytes, cut anywhere, and returns the last block that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Progress> {
        let mut last = None;
        for &byte in bytes {
            if byte == b'\n' {
                if !self.overlong && self.take_line() {
                    last = Some(self.block);
                }
                self.line.clear();
                self.overlong = false;
            } else if self.line.len() < LINE_BYTES_MAX {
                self.line.push(byte);
            } else {
                self.overlong = true;
            }
        }
        last
    }

    /// Reads one line, and returns whether it closes a block. Values such as `N/A` leave the former value.
    fn take_line(&mut self) -> bool {
        let Ok(line) = std::str::from_utf8(&self.line) else { return false };
        let Some((key, value)) = line.split_once('=') else { return false };
        let value = value.trim();
        match key {
            "frame" => self.block.frame = value.parse().unwrap_or(self.block.frame),
            "out_time_us" => self.block.out_time_us = value.parse().unwrap_or(self.block.out_time_us),
            "total_size" => self.block.total_bytes = value.parse().unwrap_or(self.block.total_bytes),
            "speed" => self.block.speed = value.trim_end_matches('x').trim().parse().ok(),
            "progress" => {
                self.block.done = value == "end";
                return true;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: &str = "frame=0\nfps=0.00\ntotal_size=0\nout_time_us=N/A\nspeed=N/A\nprogress=continue\n\
        frame=48\nfps=47.61\ntotal_size=1024\nout_time_us=1920000\nspeed= 1.9x\nprogress=end\n";

    #[test]
    fn any_cut_gives_the_same_last_block() {
        let expected =
            Progress { frame: 48, out_time_us: 1_920_000, total_bytes: 1024, speed: Some(1.9), done: true };
        for cut in 0..BLOCKS.len() {
            let mut parser = ProgressParser::default();
            let (a, b) = BLOCKS.as_bytes().split_at(cut);
            let last = [parser.push(a), parser.push(b)].into_iter().flatten().last();
            assert_eq!(last, Some(expected), "cut at {cut}");
        }
    }

    #[test]
    fn not_available_is_not_progress() {
        let mut parser = ProgressParser::default();
        let first = parser.push(&BLOCKS.as_bytes()[..BLOCKS.find("frame=48").unwrap()]).unwrap();
        assert_eq!(first, Progress::default());
        assert!(!first.is_beyond(&Progress::default()));
        assert!(parser.push(BLOCKS.as_bytes()).unwrap().is_beyond(&first));
    }

    #[test]
    fn a_line_without_end_is_bounded_and_dropped() {
        let mut parser = ProgressParser::default();
        assert_eq!(parser.push(&vec![b'9'; 100_000]), None);
        assert!(parser.line.capacity() <= 2 * LINE_BYTES_MAX);
        assert_eq!(parser.push(b"\nframe=7\nprogress=continue\n").map(|p| p.frame), Some(7));
    }
}
