//! Rows of a job and the failed attempts at them.

use serde::{Deserialize, Serialize};
use spool_media::plan::segments::{Segment, SegmentTrack};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::FencingToken;

/// State of a row.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Display, EnumString, IntoStaticStr, EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum RowState {
    /// No executor encodes it yet.
    Waiting,
    /// An executor encodes it.
    Running,
    /// Its parts are stored.
    Done,
}

/// A row of a job: one segment's place in the statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Position in the order of planning, from 0.
    pub ordinal: i64,
    /// Type of its track.
    pub track: SegmentTrack,
    /// Index of the segment within the video, or of the audio track within the source, from 0.
    pub track_index: i64,
    /// First grid frame.
    pub first_frame: i64,
    /// Number of grid frames.
    pub frames: i64,
    /// Start, in milliseconds from the start of the source.
    pub start_ms: i64,
    /// Duration, in milliseconds.
    pub duration_ms: i64,
    /// State.
    pub state: RowState,
    /// Milliseconds of it that are encoded.
    pub done_ms: i64,
    /// Attempts begun during the current try of the job.
    pub attempts: i64,
    /// Rungs that were encoded for it.
    pub encoded: i64,
    /// Rungs whose parts existed already.
    pub reused: i64,
}

impl Row {
    /// Returns a planned row, which waits.
    pub fn planned(ordinal: u32, segment: &Segment) -> Self {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Self {
            ordinal: ordinal.into(),
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

/// A failed attempt at a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Ordinal of the row.
    pub ordinal: i64,
    /// Token of the lease under which it ran: the numbers of attempts start again with each lease.
    pub fencing_token: FencingToken,
    /// Number among the row's attempts under that lease, from 1.
    pub attempt: i64,
    /// Time of the failure, in milliseconds since 1970.
    pub at_ms: i64,
    /// The error, with the last lines of FFmpeg's log if FFmpeg failed.
    pub reason: String,
}
