//! Frame grid: one rational output rate for the whole video, at any timing of the source.

mod rate;

use std::ops::Range;

use crate::limits::MAX_TITLE_SECONDS;
use crate::{source::index::Sample, time::Rational};
use spool_storage::ErrorKind;

/// Smallest timescale of an output track, in ticks per second: fine enough for players that compute in ticks,
/// at every frame rate.
pub const MIN_TIMESCALE: u32 = 10_000;

/// Longest duration of the last frame, in seconds, if no other frame lasts half as long. A longer one is a
/// wrong duration, and the frame is shown for one grid frame.
const MAX_LAST_FRAME_SECONDS: u32 = 60;

/// Frame rate of the grid of a source without video, in Hz.
const AUDIO_RATE_HZ: u32 = 1000;

/// The output frame clock: frame `n` is shown at `origin + n / rate` of the source's time, for `n` in
/// `0..frames`.
///
/// Source frames are assigned as by FFmpeg's `fps` filter with `round=near` (its default) on times that count
/// from `origin` (`setpts=PTS-origin` before it): a source frame belongs to the grid frame nearest to it,
/// halves away from zero ([`Grid::frame_at`]); of several in one grid frame the last is shown; a grid frame
/// without a source frame repeats the one before it. The end differs: the filter ends where the last frame's
/// duration ends, and drops that frame if this is the tick after its start. So the last frame must be held
/// before the filter (`tpad`), and the video's end cut after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Frames per second.
    pub rate: Rational,
    /// The video track's timebase, in which `origin` counts.
    pub source_timebase: Rational,
    /// Ticks of the source at which frame 0 is shown.
    pub origin: i64,
    /// Length of the video in frames.
    pub frames: u64,
}

impl Grid {
    /// Returns the grid of a source with video, from the shown samples of its video track, in any order.
    ///
    /// A constant frame rate is kept exactly, up to 120 frames per second, and then the grid has as many
    /// frames as the source shows. Timestamps that a coarse timebase rounded (Matroska's milliseconds) snap
    /// to the rate that they were rounded from. A variable rate becomes the common rate nearest to the usual
    /// distance between frames, at most 60. A single frame lasts as long as the container declares, at
    /// `declared` or else 25 frames per second.
    ///
    /// # Errors
    /// Returns [`Error::NoFrames`] without samples, and [`Error::TooLong`] above [`MAX_TITLE_SECONDS`].
    pub fn of(samples: &[Sample], timebase: Rational, declared: Option<Rational>) -> Result<Self, Error> {
        let shown = shown(samples);
        let (Some(&origin), Some(&last)) = (shown.first(), shown.last()) else {
            return Err(Error::NoFrames);
        };
        check_length(origin, last, timebase)?;
        let chosen = rate::choose(&shown, timebase, declared);
        let mut grid =
            Self { rate: chosen.rate, source_timebase: timebase, origin, frames: shown.len() as u64 };
        if !chosen.constant {
            let end = match last_duration(samples, &shown, timebase) {
                Some(duration) => grid.frame_at(last.saturating_add(duration)),
                None => grid.frame_at(last).saturating_add(1),
            };
            grid.frames = u64::try_from(end).unwrap_or(0).max(1);
        }
        Ok(grid)
    }

    /// Returns the grid of a source without video, from the samples of its first audio track: in
    /// milliseconds.
    ///
    /// A millisecond divides every length that can be requested, at any sample rate. The sound itself is cut
    /// at the encoder's frames nearest to the grid, as under a video grid. The end is rounded up: no sound is
    /// lost.
    ///
    /// # Errors
    /// Returns [`Error::NoFrames`] without samples, and [`Error::TooLong`] above [`MAX_TITLE_SECONDS`].
    pub fn for_audio(samples: &[Sample], timebase: Rational) -> Result<Self, Error> {
        let shown = shown(samples);
        let (Some(&origin), Some(&last)) = (shown.first(), shown.last()) else {
            return Err(Error::NoFrames);
        };
        check_length(origin, last, timebase)?;
        let duration = last_duration(samples, &shown, timebase)
            .or_else(|| shown.windows(2).next_back().map(|pair| pair[1].saturating_sub(pair[0])))
            .unwrap_or(1);
        let rate = Rational::new(AUDIO_RATE_HZ, 1).unwrap_or(timebase);
        let mut grid = Self { rate, source_timebase: timebase, origin, frames: 0 };
        grid.frames = grid.frames_until(last.saturating_add(duration), timebase).max(1);
        Ok(grid)
    }

    /// Returns the grid of the fields: twice the frames at twice the rate. `None` on overflow.
    #[must_use]
    pub fn of_fields(self) -> Option<Self> {
        let rate = Rational::new(self.rate.num().checked_mul(2)?, self.rate.den())?;
        Some(Self { rate, frames: self.frames.checked_mul(2)?, ..self })
    }

    /// Returns the grid frame that a source frame belongs to: negative before the origin, and
    /// [`Grid::frames`] or more after the end.
    ///
    /// Source: `av_rescale_q_rnd` with `AV_ROUND_NEAR_INF`, as `libavfilter/vf_fps.c` calls it.
    pub fn frame_at(&self, pts: i64) -> i64 {
        self.source_timebase.rescale(pts.saturating_sub(self.origin), self.rate.inverse())
    }

    /// Returns the source ticks that belong to a run of grid frames: `t` is in the range exactly if
    /// [`Grid::frame_at`] of `t` is in the run.
    ///
    /// If no source frame belongs to `first_frame`, it repeats an earlier one, which lies before this range:
    /// see [`Grid::needs`].
    pub fn span_of(&self, first_frame: u64, frames: u64) -> Range<i64> {
        self.first_tick_of(first_frame)..self.first_tick_of(first_frame.saturating_add(frames))
    }

    /// Returns the range of source ticks that contains every source frame that a run of grid frames shows,
    /// including the one that is held at its start.
    ///
    /// `shown` are the presentation times of the track, sorted ([`shown`]).
    pub fn needs(&self, shown: &[i64], first_frame: u64, frames: u64) -> Range<i64> {
        let span = self.span_of(first_frame, frames);
        let next = self.first_tick_of(first_frame.saturating_add(1));
        let held = shown[..shown.partition_point(|&pts| pts < next)].last().copied();
        held.map_or(span.start, |held| held.min(span.start))..span.end
    }

    /// Returns the grid frames from the origin to a time of another track of the same source, rounded up; 0
    /// before the origin.
    pub fn frames_until(&self, end: i64, timebase: Rational) -> u64 {
        let [end_num, end_den] = [timebase.num(), timebase.den()].map(i128::from);
        let [num, den] = [self.source_timebase.num(), self.source_timebase.den()].map(i128::from);
        let limit = u64::from(MAX_TITLE_SECONDS)
            .saturating_mul(u64::from(self.rate.num()))
            .div_ceil(u64::from(self.rate.den()));
        let seconds_times_dens =
            (i128::from(end) * end_num * den).checked_sub(i128::from(self.origin) * num * end_den);
        let frames = seconds_times_dens.and_then(|time| {
            let divisor = (end_den * den).checked_mul(i128::from(self.rate.den()))?;
            let time = time.max(0).checked_mul(i128::from(self.rate.num()))?;
            time.checked_add(divisor - 1).map(|time| time / divisor)
        });
        frames.and_then(|frames| u64::try_from(frames).ok()).map_or(limit, |frames| frames.min(limit))
    }

    /// Returns the length of the video in whole seconds.
    pub fn seconds(&self) -> u64 {
        let seconds = u128::from(self.frames) * u128::from(self.rate.den()) / u128::from(self.rate.num());
        u64::try_from(seconds).unwrap_or(u64::MAX)
    }

    /// Returns the ticks per second of the output's video track: the smallest multiple of the rate's
    /// numerator that is at least [`MIN_TIMESCALE`], so that every frame is a whole number of ticks.
    pub fn timescale(&self) -> u32 {
        self.rate.num().saturating_mul(self.ticks_factor())
    }

    /// Returns the ticks of [`Grid::timescale`] per frame.
    pub fn frame_ticks(&self) -> u32 {
        self.rate.den().saturating_mul(self.ticks_factor())
    }

    fn ticks_factor(&self) -> u32 {
        MIN_TIMESCALE.div_ceil(self.rate.num())
    }

    /// Returns the smallest tick whose grid frame is `frame` or later. The range of a frame starts half a
    /// frame before it is shown.
    fn first_tick_of(&self, frame: u64) -> i64 {
        let per_tick = i128::from(self.source_timebase.num()) * i128::from(self.rate.num());
        let per_frame = i128::from(self.source_timebase.den()) * i128::from(self.rate.den());
        // Halves go away from zero: half a frame before frame 0 still belongs to frame -1, half a frame
        // before any other to that one.
        let ticks = if frame == 0 {
            -((per_frame - 1) / (2 * per_tick))
        } else {
            let Some(position) = (2 * i128::from(frame) - 1).checked_mul(per_frame) else { return i64::MAX };
            position.div_euclid(2 * per_tick) + i128::from(position.rem_euclid(2 * per_tick) != 0)
        };
        i64::try_from(ticks + i128::from(self.origin)).unwrap_or(i64::MAX)
    }
}

/// Returns the presentation times of the samples, sorted.
pub fn shown(samples: &[Sample]) -> Vec<i64> {
    let mut shown: Vec<i64> = samples.iter().map(|sample| sample.pts).collect();
    shown.sort_unstable();
    shown
}

/// Returns the container's duration of the frame that is shown last, if it is plausible.
fn last_duration(samples: &[Sample], shown: &[i64], timebase: Rational) -> Option<i64> {
    let last = *shown.last()?;
    let duration =
        samples.iter().filter(|sample| sample.pts == last).map(|sample| i64::from(sample.duration)).max()?;
    let longest_gap = shown.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
    let believed = timebase.inverse().to_f64() * f64::from(MAX_LAST_FRAME_SECONDS);
    (duration > 0 && (duration as f64 <= believed || duration <= longest_gap.saturating_mul(2)))
        .then_some(duration)
}

fn check_length(origin: i64, last: i64, timebase: Rational) -> Result<(), Error> {
    let ticks = i128::from(last) - i128::from(origin);
    let seconds = ticks * i128::from(timebase.num()) / i128::from(timebase.den());
    if seconds > i128::from(MAX_TITLE_SECONDS) {
        return Err(Error::TooLong { seconds: u64::try_from(seconds).unwrap_or(u64::MAX) });
    }
    Ok(())
}

/// Reason why a source has no grid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The track has no samples.
    #[error("the track has no frames")]
    NoFrames,
    /// The first and the last frame are too far apart.
    #[error(
        "the first and the last frame are {seconds} s apart and {MAX_TITLE_SECONDS} s is the most: the timestamps may be broken, \
         remuxing the source may mend them"
    )]
    TooLong {
        /// Seconds between the first and the last frame.
        seconds: u64,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoFrames | Self::TooLong { .. } => ErrorKind::BadInput,
        }
    }
}

#[cfg(test)]
mod tests;
