//! What is known of a job's rows.

use serde::{Deserialize, Serialize};
use spool_media::plan::segments::{Segment, SegmentTrack};

use crate::Error;

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// Nobody encodes it.
    Waiting,
    /// FFmpeg is at it.
    Running,
    /// Its part is there.
    Done,
}

impl RowState {
    const ALL: [Self; 3] = [Self::Waiting, Self::Running, Self::Done];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
        }
    }
}

impl std::str::FromStr for RowState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Unknown { what: "state of a row", value: text.to_owned() };
        Self::ALL.into_iter().find(|state| state.word() == text).ok_or_else(unknown)
    }
}

/// A row of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its number in the job, from 0, as planned.
    pub number: i64,
    /// Pictures or sound?
    pub track: SegmentTrack,
    /// Number of the segment within the video, or of the audio track within the source, from 0.
    pub track_index: i64,
    /// First grid frame.
    pub first_frame: i64,
    /// Number of grid frames.
    pub frames: i64,
    /// Start in milliseconds from the start of the title.
    pub start_ms: i64,
    /// Length in milliseconds.
    pub duration_ms: i64,
    /// Where it stands.
    pub state: RowState,
    /// Milliseconds of it that are encoded.
    pub done_ms: i64,
    /// How often it was begun, by whoever has the job in hand.
    pub attempts: i64,
    /// Rungs that were encoded for it.
    pub encoded: i64,
    /// Rungs that were there already.
    pub reused: i64,
}

impl Row {
    /// A row that is planned and not begun.
    pub fn planned(number: usize, segment: &Segment) -> Self {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Self {
            number: i64::try_from(number).unwrap_or(i64::MAX),
            track: segment.track,
            track_index: segment.index.into(),
            first_frame: count(segment.first_frame),
            frames: count(segment.frames),
            start_ms: segment.start_ms,
            duration_ms: segment.duration_ms,
            state: RowState::Waiting,
            done_ms: 0,
            attempts: 0,
            encoded: 0,
            reused: 0,
        }
    }
}

/// An attempt at a row that did not give its part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The row's number.
    pub row: i64,
    /// The claim that it belongs to: a job that is taken over counts anew.
    pub claim: i64,
    /// Its number, from 1.
    pub attempt: i64,
    /// When it was given up, in milliseconds since 1970.
    pub at_ms: i64,
    /// Why, with FFmpeg's last lines where FFmpeg failed.
    pub reason: String,
}
