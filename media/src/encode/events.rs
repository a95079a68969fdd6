//! Events of a row: planned, started, progressing, finished, retrying.

use crate::{encode::timing::Timing, plan::segments::Segment};

/// One event of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowEvent {
    /// The engine's name of the job that the row runs in.
    pub job: String,
    /// The row.
    pub segment: Segment,
    /// The event.
    pub kind: RowEventKind,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq)]
pub enum RowEventKind {
    /// The row is planned and waits.
    Planned,
    /// FFmpeg starts on the row.
    Started {
        /// Rungs that are encoded; the others are in storage already.
        rungs: Vec<String>,
    },
    /// FFmpeg made progress.
    Progress {
        /// Milliseconds of the row that are encoded.
        done_ms: i64,
    },
    /// The row is done.
    Finished {
        /// Rungs that were encoded for it.
        encoded: usize,
        /// Rungs that were in storage already.
        reused: usize,
        /// Where its time went.
        timing: Timing,
    },
    /// The row runs again, on another executor if there is one.
    Retrying {
        /// Why, for people.
        reason: String,
    },
}
