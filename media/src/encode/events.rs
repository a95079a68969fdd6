//! Events of rows: what an attempt reports while it runs, and what a statement reports of its rows.

use crate::{encode::timing::Timing, plan::segments::Segment};

/// An event of an attempt, as the process that runs it reports it. The process knows the engine's job of the
/// attempt; only the scheduler knows which row of which statement that job is for.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptEvent {
    /// Job that the attempt runs in, by the engine's name.
    pub job: String,
    /// Kind of the event.
    pub kind: RowEventKind,
}

/// An event of a row, as its statement reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct RowEvent {
    /// Number of the row in its statement, from 0, in the order of planning.
    pub ordinal: u32,
    /// Kind of the event.
    pub kind: RowEventKind,
}

/// Kind of an event of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowEventKind {
    /// The row is planned, and no attempt of it has started. The first event of every row.
    Planned {
        /// The row's segment.
        segment: Box<Segment>,
    },
    /// An attempt started FFmpeg.
    Started {
        /// Rungs that are encoded; the others have a part already.
        rungs: Vec<String>,
    },
    /// FFmpeg encoded more of the row.
    Progress {
        /// Milliseconds of the row that are encoded.
        done_ms: i64,
    },
    /// The row is done.
    Finished {
        /// Rungs that were encoded.
        encoded: usize,
        /// Rungs that had a part already.
        reused: usize,
        /// Timing of the attempt.
        timing: Timing,
    },
    /// The row is attempted once more, on another executor if there is one.
    Retrying {
        /// Human-readable reason.
        reason: String,
    },
}
