//! Limits on sources and on the cost of encoding them. Sources are untrusted: each limit is far above what
//! people make, and far below what does harm.

/// Longest source, in seconds. A longer one is far more often a broken timestamp than a film. With this limit
/// every count of frames and ticks stays far inside its integer type.
pub const MAX_TITLE_SECONDS: u32 = 48 * 3600;

/// Most pixels of a frame: 8192 x 8192, twice the largest format in use (8K).
pub const PIXELS_MAX: u64 = 8192 * 8192;

/// Most streams of a source: a cinema master with all its languages has under 50; a hostile file has
/// thousands.
pub const STREAMS_MAX: usize = 128;

/// Most frames per second: slow-motion cameras write 240; timebases that are read as rates give 90,000.
const FPS_MAX: u32 = 300;

/// Most channels of an audio track: 22.2 has 24.
const CHANNELS_MAX: u16 = 64;

/// Seconds of work for each second of media, for x264's `veryfast`: a 4K ladder on one slow core took 20. The
/// limit is multiplied for slower encoders.
const WORK_MAX: u32 = 100;

/// Bytes of address space of one FFmpeg run. The largest picture that is accepted has 400 MB in 4:4:4 and 16
/// bits, of which a decoder keeps up to seventeen; encoders keep some dozens, none of which is larger than 8K
/// in 4:2:0 and 8 bits.
pub const MEMORY_MAX: u64 = 16 << 30;

/// Bytes of the largest file that an FFmpeg run may write, if its rates allow as much.
const WRITTEN_MAX: u64 = 16 << 30;

/// The limits of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of a frame.
    pub pixels: u64,
    /// Streams of the container.
    pub streams: usize,
    /// Frames per second.
    pub fps: u32,
    /// Channels of an audio track.
    pub channels: u16,
    /// Seconds of a source.
    pub duration_s: u64,
    /// Seconds that encoding may take for each second of media.
    pub work: u32,
    /// Bytes of address space of one run of FFmpeg.
    pub memory_bytes: u64,
    /// Bytes of the largest file that a run of FFmpeg may write.
    pub written_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pixels: PIXELS_MAX,
            streams: STREAMS_MAX,
            fps: FPS_MAX,
            channels: CHANNELS_MAX,
            duration_s: u64::from(MAX_TITLE_SECONDS),
            work: WORK_MAX,
            memory_bytes: MEMORY_MAX,
            written_bytes: WRITTEN_MAX,
        }
    }
}
