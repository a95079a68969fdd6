//! Cuts samples into media segments, with times in integer ticks of the grid.

use std::io::Read;

use crate::time::Rational;

use super::{
    AudioSpec, Clock, Error, MediaSegment, VideoSpec,
    read::{Reader, Sample},
    write,
};

/// Largest media segment, which is held in memory as a whole: 10 s at 400 Mbit/s.
const MAX_MEDIA_SEGMENT_BYTES: u64 = 512 << 20;

/// Cuts the samples of one media segment after the other.
#[derive(Debug)]
pub(super) enum Cutter {
    Video(Video),
    Audio(Audio),
}

/// Cuts video at a fixed number of frames.
#[derive(Debug)]
pub(super) struct Video {
    spec: VideoSpec,
    clock: Clock,
    /// Number of frames cut so far.
    done: u64,
    /// FFmpeg's presentation time of the first frame shown.
    origin: Option<i64>,
}

impl Video {
    pub(super) fn new(spec: &VideoSpec) -> Result<Self, Error> {
        let clock = Clock::of(spec.rate)?;
        let length = u64::from(spec.media_segment_frames);
        if length == 0 || !spec.first_frame.is_multiple_of(length) {
            return Err(Error::Spec("a segment starts at a whole number of media segments"));
        }
        // Checked once here, so that no tick and no number below can overflow.
        let end = spec
            .first_frame
            .checked_add(spec.frames)
            .and_then(|end| end.checked_add(spec.reorder_frames.into()));
        let ticks = end.and_then(|end| end.checked_mul(clock.frame_ticks.into()));
        let numbers = end.map(|end| end / length);
        if ticks.is_none_or(|ticks| ticks > i64::MAX as u64)
            || numbers.is_none_or(|number| number >= u32::MAX.into())
        {
            return Err(Error::Spec("the title is too long to be counted in ticks"));
        }
        if spec.frames == 0 {
            return Err(Error::Spec("a segment has at least one frame"));
        }
        Ok(Self { spec: spec.clone(), clock, done: 0, origin: None })
    }

    pub(super) fn timescale(&self) -> u32 {
        self.clock.timescale
    }

    /// Returns the media time at which the presentation starts: the reordering delay.
    pub(super) fn media_time(&self) -> u64 {
        u64::from(self.spec.reorder_frames) * u64::from(self.clock.frame_ticks)
    }

    /// Returns the next media segment; `None` after the last.
    pub(super) fn next(&mut self, reader: &mut Reader<impl Read>) -> Result<Option<MediaSegment>, Error> {
        let frames = (self.spec.frames - self.done).min(self.spec.media_segment_frames.into());
        if frames == 0 {
            return Ok(None);
        }
        let mut samples = Vec::new();
        let mut bytes = 0;
        while (samples.len() as u64) < frames {
            let Some(sample) = reader.next()? else {
                return Err(Error::FrameCount {
                    expected: self.spec.frames,
                    found: self.done + samples.len() as u64,
                });
            };
            grow(&mut bytes, &sample)?;
            samples.push(sample);
        }
        // The last media segment is returned only when it is certain that no sample follows.
        if self.done + frames == self.spec.frames {
            let mut found = self.spec.frames;
            while reader.next()?.is_some() {
                found += 1;
            }
            if found != self.spec.frames {
                return Err(Error::FrameCount { expected: self.spec.frames, found });
            }
        }
        let first_frame = self.spec.first_frame + self.done;
        let number = u32::try_from(first_frame / u64::from(self.spec.media_segment_frames))
            .map_err(|_| Error::Spec("the title has too many media segments"))?;
        if samples.first().is_none_or(|sample| !sample.key) {
            return Err(Error::NotKey { number });
        }
        let ranks = self.ranks(&samples, reader.track().timescale)?;
        let frame_ticks = self.clock.frame_ticks;
        let mut run = Vec::with_capacity(samples.len());
        for (index, (sample, rank)) in samples.into_iter().zip(ranks).enumerate() {
            let delay =
                (rank + u64::from(self.spec.reorder_frames)).checked_sub(index as u64).ok_or_else(|| {
                    Error::Reorder {
                        frame: first_frame + index as u64,
                        late: index as u64 - rank - u64::from(self.spec.reorder_frames),
                        reorder_frames: self.spec.reorder_frames,
                    }
                })?;
            let offset = u32::try_from(delay * u64::from(frame_ticks))
                .map_err(|_| Error::Spec("a media segment is too long to be counted in ticks"))?;
            let flags = if sample.key { write::SYNC } else { write::NON_SYNC };
            run.push(write::Sample { data: sample.data, duration: frame_ticks, flags, offset });
        }
        let start_ticks = first_frame * u64::from(frame_ticks);
        let bytes = write::media_segment(number, start_ticks, &run)?;
        self.done += frames;
        Ok(Some(MediaSegment { number, start_ticks, duration_ticks: frames * u64::from(frame_ticks), bytes }))
    }

    /// Returns the display position of each sample within the media segment. Each media segment starts with a
    /// closed GOP, so that its frames are shown after all frames of the one before. This checks it against
    /// FFmpeg's times, and checks that the frames lie on the grid.
    fn ranks(&mut self, samples: &[Sample], timescale: u32) -> Result<Vec<u64>, Error> {
        let mut order: Vec<usize> = (0..samples.len()).collect();
        order.sort_by_key(|index| samples[*index].pts);
        let mut ranks = vec![0; samples.len()];
        for (rank, index) in order.into_iter().enumerate() {
            let rank = rank as u64;
            let pts = samples[index].pts;
            let origin = *self.origin.get_or_insert(pts);
            let frame = self.done + rank;
            let rate = self.spec.rate;
            let ticks = pts.saturating_sub(origin);
            // ticks / timescale = frame / rate, without a division.
            if i128::from(ticks) * i128::from(rate.num())
                != i128::from(frame) * i128::from(rate.den()) * i128::from(timescale)
            {
                return Err(Error::OffGrid { frame, ticks, timescale, rate });
            }
            ranks[index] = rank;
        }
        Ok(ranks)
    }
}

/// Cuts sound at the first frame that is heard at or after each video media segment's start.
#[derive(Debug)]
pub(super) struct Audio {
    grid_timebase: Rational,
    media_segment_frames: u32,
    timescale: u32,
    priming: u64,
    frame_ticks: Option<u32>,
    /// Number of the next media segment.
    number: u32,
    /// Number of the next frame.
    index: u64,
    /// Number and ticks of a frame that was shorter than the codec's frames.
    short: Option<(u64, u32)>,
    /// Media time of the next frame.
    position: u64,
}

impl Audio {
    pub(super) fn new(
        spec: &AudioSpec,
        timescale: u32,
        priming: u64,
        frame_ticks: Option<u32>,
    ) -> Result<Self, Error> {
        if spec.media_segment_frames == 0 {
            return Err(Error::Spec("a media segment has at least one frame"));
        }
        Ok(Self {
            grid_timebase: spec.grid_timebase,
            media_segment_frames: spec.media_segment_frames,
            timescale,
            priming,
            frame_ticks,
            number: 0,
            index: 0,
            short: None,
            position: 0,
        })
    }

    /// Returns the next media segment; `None` after the last.
    pub(super) fn next(&mut self, reader: &mut Reader<impl Read>) -> Result<Option<MediaSegment>, Error> {
        let decode_time = self.position;
        let mut run: Vec<write::Sample> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = reader.peek()?.map(|sample| (sample.pts, sample.duration)) {
            if self.reached_next() {
                if run.is_empty() {
                    return Err(Error::Spec("media segments are shorter than an audio frame"));
                }
                break;
            }
            self.check_step(next.0, next.1)?;
            let Some(sample) = reader.next()? else { break };
            grow(&mut bytes, &sample)?;
            self.position = self.position.saturating_add(sample.duration.into());
            run.push(write::Sample {
                data: sample.data,
                duration: sample.duration,
                flags: write::SYNC,
                offset: 0,
            });
        }
        if run.is_empty() {
            return Ok(None);
        }
        let number = self.number;
        let bytes = write::media_segment(number, decode_time, &run)?;
        self.number = number.checked_add(1).ok_or(Error::Spec("the title has too many media segments"))?;
        // Sound before the edit list's media time is decoded but not heard.
        let start_ticks = decode_time.saturating_sub(self.priming);
        let duration_ticks = self.position.saturating_sub(self.priming) - start_ticks;
        Ok(Some(MediaSegment { number, start_ticks, duration_ticks, bytes }))
    }

    /// Checks that frames follow each other from 0 on: a gap would be closed, and all later sound be heard
    /// too early. Only the last frame may be shorter than the codec's frames, so no frame may follow a short
    /// one.
    fn check_step(&mut self, pts: i64, ticks: u32) -> Result<(), Error> {
        if u64::try_from(pts) != Ok(self.position) {
            return Err(Error::AudioGap { index: self.index, ticks: pts, expected: self.position });
        }
        if let Some(expected) = self.frame_ticks {
            if ticks > expected || self.short.is_some() {
                let (index, ticks) = self.short.unwrap_or((self.index, ticks));
                return Err(Error::AudioStep { index, ticks, expected });
            }
            self.short = (ticks < expected).then_some((self.index, ticks));
        }
        self.index += 1;
        Ok(())
    }

    /// Returns whether the next frame is heard at or after the start of the next video media segment.
    fn reached_next(&self) -> bool {
        let number = i128::from(self.number) + 1;
        let heard = i128::from(self.position) - i128::from(self.priming);
        let (num, den) = (self.grid_timebase.num(), self.grid_timebase.den());
        // heard / timescale >= number * media_segment_frames * num / den, without a division.
        heard * i128::from(den)
            >= number * i128::from(self.media_segment_frames) * i128::from(num) * i128::from(self.timescale)
    }
}

/// Adds a sample's size to that of its media segment, and checks the limit.
fn grow(bytes: &mut u64, sample: &Sample) -> Result<(), Error> {
    *bytes += sample.data.len() as u64;
    if *bytes > MAX_MEDIA_SEGMENT_BYTES {
        return Err(Error::TooLarge {
            what: "a media segment in bytes",
            amount: *bytes,
            limit: MAX_MEDIA_SEGMENT_BYTES,
        });
    }
    Ok(())
}
