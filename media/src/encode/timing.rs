//! Timing of a row, step by step.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::predict::features::EncodeFeatures;

/// A step of encoding a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Open the source: read its index and probe it. Once per source and process.
    Open,
    /// Look up the part records.
    LookUp,
    /// Wait for a slot.
    Slot,
    /// Fetch the samples that the row needs.
    Fetch,
    /// Start FFmpeg, and decode from the keyframe before the row to its first frame.
    Start,
    /// Encode.
    Encode,
    /// Package FFmpeg's output.
    Package,
    /// Upload the objects.
    Upload,
    /// Commit the part records.
    Commit,
}

/// Measured time of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The step.
    pub step: Step,
    /// Start of the step, in microseconds after the row's start.
    pub from_us: u64,
    /// Duration in microseconds.
    pub took_us: u64,
}

/// Timing of a row on the host where it ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// The host.
    pub host: String,
    /// Start of the row, in microseconds since 1970 by the host's clock.
    pub begun_us: u64,
    /// Duration in microseconds.
    pub took_us: u64,
    /// Steps, in the order in which they ended.
    pub spans: Vec<Span>,
    /// Facts about the FFmpeg run; `None` if FFmpeg did not run.
    pub encode: Option<Encode>,
}

/// Facts about the FFmpeg run of a row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Encode {
    /// Processor time in microseconds; 0 if the system does not report it.
    pub cpu_us: u64,
    /// Frames that were decoded only because others refer to them.
    pub preroll_frames: u64,
    /// The features of the row.
    pub features: EncodeFeatures,
    /// Bytes of media that were stored.
    pub written_bytes: u64,
}

/// Times the steps of one row.
#[derive(Debug)]
pub struct Stopwatch {
    begun: Instant,
    begun_us: u64,
    spans: Mutex<Vec<Span>>,
}

impl Stopwatch {
    /// Starts the stopwatch.
    pub fn start() -> Self {
        // A clock before 1970 is wrong anyway; durations are measured by another clock that never jumps.
        let begun_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros);
        Self { begun: Instant::now(), begun_us, spans: Mutex::default() }
    }

    /// Runs a step and records its duration, whether it succeeds or fails.
    pub async fn time<T>(&self, step: Step, work: impl Future<Output = T>) -> T {
        let from = Instant::now();
        let done = work.await;
        self.note(step, from, from.elapsed());
        done
    }

    /// Records a step that was timed elsewhere.
    pub fn note(&self, step: Step, from: Instant, took: Duration) {
        let from_us = micros(from.saturating_duration_since(self.begun));
        self.spans().push(Span { step, from_us, took_us: micros(took) });
    }

    /// Returns the spans so far.
    pub fn timing(&self, host: &str) -> Timing {
        Timing {
            host: host.to_owned(),
            begun_us: self.begun_us,
            took_us: micros(self.begun.elapsed()),
            spans: self.spans().clone(),
            ..Timing::default()
        }
    }

    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a duration in microseconds.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn steps_are_noted_with_their_times() {
        let watch = Stopwatch::start();
        assert_eq!(watch.time(Step::Fetch, async { 7 }).await, 7);
        watch.note(Step::Encode, watch.begun + Duration::from_millis(2), Duration::from_millis(3));
        let timing = watch.timing("here");
        assert_eq!(
            timing.spans.iter().map(|span| span.step).collect::<Vec<_>>(),
            [Step::Fetch, Step::Encode]
        );
        assert_eq!(timing.spans[1], Span { step: Step::Encode, from_us: 2000, took_us: 3000 });
        assert!(timing.begun_us > 1_700_000_000_000_000 && timing.host == "here");
    }

    #[test]
    fn steps_travel_by_their_names() {
        let span = Span { step: Step::LookUp, from_us: 1, took_us: 2 };
        assert_eq!(serde_json::to_string(&span).unwrap(), r#"{"step":"look_up","from_us":1,"took_us":2}"#);
    }
}
