//! Limits on sources and on what encoding them may cost. Sources are untrusted: each limit is far above what
//! people make, and far below what does harm.

/// The longest title, in seconds. Longer ones are broken timestamps far more often than they are films, and
/// every count of frames and ticks below stays far inside its integer type.
pub const MAX_TITLE_SECONDS: u32 = 48 * 3600;

/// Most pixels of a frame: 8192 x 8192, twice the largest format in use (8K).
pub const PIXELS_MAX: u64 = 8192 * 8192;

/// Most streams of a source: a cinema master with all its languages has under fifty; a hostile file has
/// thousands.
pub const STREAMS_MAX: usize = 128;

/// Most frames per second: slow-motion cameras write 240; timebases taken for rates say 90,000.
const FPS_MAX: u32 = 300;

/// Most channels of a sound track: 22.2 has 24.
const CHANNELS_MAX: u16 = 64;

/// Seconds of work for each of media, by x264's `veryfast`: a 4K ladder on one slow core was seen at twenty.
/// Slower encoders may take as many times longer.
const WORK_MAX: u32 = 100;

/// Address space of one run of FFmpeg. The largest picture that is taken has 400 MB in 4:4:4 and 16 bits, of
/// which a decoder keeps up to seventeen; encoders keep some dozens, none of which is larger than 8K in 4:2:0
/// and 8 bits.
pub const MEMORY_MAX: u64 = 16 << 30;

/// Largest file that a run of FFmpeg may write, if its rates allow as much.
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
    /// Channels of a sound track.
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
