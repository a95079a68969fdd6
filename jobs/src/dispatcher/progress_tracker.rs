//! `ProgressTracker`: reduces the events of a job's rows to reports: the newest state of each row, and the
//! changes of the job.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spool_media::encode::events::{RowEvent, RowEventKind};

use crate::{
    Attempt, EventKind, FencingToken, JobProgress, JobState, Phase, Report, Row, RowState, job::percent,
};

/// Longest stored reason of a failed attempt, in bytes: its end, where FFmpeg's last lines are.
const MAX_REASON_BYTES: usize = 8 << 10;

/// Most events of rows per report. Beyond that, the states of the rows are enough.
const MAX_ROW_EVENTS: usize = 256;

/// Tracks the rows of a job, and reports the changes since the last report.
#[derive(Debug, Default)]
pub(super) struct ProgressTracker {
    /// Rows by ordinal.
    rows: BTreeMap<u32, TrackedRow>,
    attempts: Vec<Attempt>,
    events: Vec<(EventKind, Value)>,
    /// Whether rows were planned since the last report.
    planned: bool,
    last: LastReported,
}

#[derive(Debug)]
struct TrackedRow {
    row: Row,
    failed_attempts: i64,
    changed: bool,
}

/// Values of the last report.
#[derive(Debug, Default)]
struct LastReported {
    phase: Option<Phase>,
    progress: JobProgress,
    percent: i64,
}

impl ProgressTracker {
    /// Returns a tracker for a job that reached `percent` under an earlier lease. No report is below it.
    pub(super) fn new(percent: i64) -> Self {
        Self { last: LastReported { percent, ..LastReported::default() }, ..Self::default() }
    }

    /// Applies an event of a row.
    pub(super) fn on_event(&mut self, event: &RowEvent) {
        if let RowEventKind::Planned { segment } = &event.kind {
            let row = Row::planned(event.ordinal, segment);
            let tracked = TrackedRow { row, failed_attempts: 0, changed: true };
            self.planned |= self.rows.insert(event.ordinal, tracked).is_none();
            return;
        }
        let Some(tracked) = self.rows.get_mut(&event.ordinal) else { return };
        let row = &mut tracked.row;
        if row.state == RowState::Done {
            // Late events of the slower of two attempts.
            return;
        }
        tracked.changed = true;
        let row_event = match &event.kind {
            RowEventKind::Planned { .. } => None,
            RowEventKind::Started { .. } => {
                row.state = RowState::Running;
                row.attempts += 1;
                None
            }
            RowEventKind::Progress { done_ms } => {
                row.state = RowState::Running;
                row.done_ms = row.done_ms.max((*done_ms).min(row.duration_ms));
                None
            }
            RowEventKind::Finished { encoded, reused, .. } => {
                row.state = RowState::Done;
                row.done_ms = row.duration_ms;
                (row.encoded, row.reused) = (*encoded as i64, *reused as i64);
                let data = json!({
                    "ordinal": row.ordinal, "track": row.track, "encoded": encoded, "reused": reused,
                });
                Some((EventKind::RowFinished, data))
            }
            RowEventKind::Retrying { reason } => {
                tracked.failed_attempts += 1;
                let (ordinal, attempt, reason) = (row.ordinal, tracked.failed_attempts, end_of(reason));
                let data = json!({ "ordinal": ordinal, "attempt": attempt, "reason": reason });
                // The store sets the token of the lease and the time.
                let fencing_token = FencingToken::NONE;
                self.attempts.push(Attempt { ordinal, fencing_token, attempt, at_ms: 0, reason });
                Some((EventKind::RowRetried, data))
            }
        };
        if self.events.len() < MAX_ROW_EVENTS {
            self.events.extend(row_event);
        }
    }

    /// Returns the changes since the last report.
    pub(super) fn report(&mut self) -> Report {
        let progress = self.progress();
        let phase = match progress.rows {
            0 => None,
            rows if rows == progress.rows_done => Some(Phase::Publishing),
            _ => Some(Phase::Encoding),
        };
        let mut events = Vec::new();
        if std::mem::take(&mut self.planned) {
            let data = json!({ "rows": progress.rows, "media_ms": progress.media_ms });
            events.push((EventKind::Planned, data));
        }
        events.append(&mut self.events);
        let percent =
            percent(JobState::Processing, progress.media_done_ms, progress.media_ms).max(self.last.percent);
        if percent > self.last.percent || phase != self.last.phase {
            let phase = phase.unwrap_or(Phase::Planning);
            let data = json!({
                "phase": phase, "percent": percent, "rows": progress.rows, "rows_done": progress.rows_done,
            });
            events.push((EventKind::Progress, data));
        }
        let report = Report {
            phase: phase.filter(|_| phase != self.last.phase),
            progress: (progress != self.last.progress).then_some(progress),
            rows: self
                .rows
                .values_mut()
                .filter_map(|tracked| std::mem::take(&mut tracked.changed).then(|| tracked.row.clone()))
                .collect(),
            attempts: std::mem::take(&mut self.attempts),
            events,
            events_written: None,
        };
        self.last = LastReported { phase, progress, percent };
        report
    }

    fn progress(&self) -> JobProgress {
        let mut progress = JobProgress::default();
        for TrackedRow { row, .. } in self.rows.values() {
            progress.rows += 1;
            progress.rows_done += i64::from(row.state == RowState::Done);
            progress.media_ms += row.duration_ms;
            progress.media_done_ms += row.done_ms;
        }
        progress
    }
}

/// Returns the last [`MAX_REASON_BYTES`] of a text.
fn end_of(text: &str) -> String {
    let start = text.len().saturating_sub(MAX_REASON_BYTES);
    let start = (start..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use spool_media::{
        encode::timing::Timing,
        plan::{
            deinterlace::Deinterlace,
            segments::{Segment, SegmentTrack},
        },
        time::Rational,
    };

    use super::*;

    fn planned(track: SegmentTrack, index: u32, duration_ms: i64) -> RowEventKind {
        let segment = Segment {
            source: "s3://uploads/talk.mp4".to_owned(),
            etag: "1".to_owned(),
            track,
            index,
            first_frame: 0,
            frames: 100,
            timebase: Rational::new(1, 25).unwrap(),
            start_ms: 0,
            duration_ms,
            media_segment_frames: 100,
            title_frames: 200,
            lost_ms: 0,
            deinterlace: Deinterlace::Frame,
        };
        RowEventKind::Planned { segment: Box::new(segment) }
    }

    fn apply(tracker: &mut ProgressTracker, ordinal: u32, kind: RowEventKind) {
        tracker.on_event(&RowEvent { ordinal, kind });
    }

    fn finished() -> RowEventKind {
        RowEventKind::Finished { encoded: 3, reused: 0, timing: Timing::default() }
    }

    fn kinds(report: &Report) -> Vec<EventKind> {
        report.events.iter().map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn a_report_holds_each_change_once() {
        let mut tracker = ProgressTracker::new(0);
        assert!(tracker.report().is_empty());
        apply(&mut tracker, 0, planned(SegmentTrack::Video, 0, 8_000));
        apply(&mut tracker, 1, planned(SegmentTrack::Video, 1, 2_000));
        let report = tracker.report();
        assert_eq!(kinds(&report), [EventKind::Planned, EventKind::Progress]);
        assert_eq!((report.rows.len(), report.phase), (2, Some(Phase::Encoding)));
        apply(&mut tracker, 0, RowEventKind::Started { rungs: vec!["1080p".to_owned()] });
        apply(&mut tracker, 0, RowEventKind::Progress { done_ms: 4_000 });
        apply(&mut tracker, 0, RowEventKind::Progress { done_ms: 3_000 });
        let report = tracker.report();
        assert_eq!((report.rows.len(), report.rows[0].done_ms, report.phase), (1, 4_000, None));
        assert_eq!(
            report.progress,
            Some(JobProgress { rows: 2, rows_done: 0, media_ms: 10_000, media_done_ms: 4_000 })
        );
        assert_eq!(
            report.events,
            [(EventKind::Progress, json!({ "phase": "encoding", "percent": 40, "rows": 2, "rows_done": 0 }))]
        );
        assert!(tracker.report().is_empty());
        apply(&mut tracker, 0, finished());
        apply(&mut tracker, 0, finished());
        apply(&mut tracker, 1, finished());
        let report = tracker.report();
        assert_eq!(kinds(&report), [EventKind::RowFinished, EventKind::RowFinished, EventKind::Progress]);
        assert_eq!((report.phase, report.progress.unwrap().rows_done), (Some(Phase::Publishing), 2));
        assert_eq!(report.events[2].1["percent"], 99, "99% until the job is published");
    }

    #[test]
    fn a_failed_attempt_keeps_the_end_of_its_reason() {
        let mut tracker = ProgressTracker::new(0);
        apply(&mut tracker, 0, planned(SegmentTrack::Audio, 0, 1_000));
        for last in ["x264: out of memory", "é".repeat(MAX_REASON_BYTES).as_str()] {
            let reason = format!("{}{last}", "…".repeat(MAX_REASON_BYTES));
            apply(&mut tracker, 0, RowEventKind::Retrying { reason });
        }
        let report = tracker.report();
        let [one, two] = report.attempts.as_slice() else { panic!("{report:?}") };
        assert!(
            one.reason.ends_with("x264: out of memory")
                && one.reason.len() <= MAX_REASON_BYTES
                && one.attempt == 1
        );
        assert!(two.attempt == 2 && two.reason.starts_with('é'));
    }

    #[test]
    fn progress_does_not_decrease_under_a_new_lease() {
        let mut tracker = ProgressTracker::new(60);
        apply(&mut tracker, 0, planned(SegmentTrack::Video, 0, 10_000));
        apply(&mut tracker, 0, RowEventKind::Progress { done_ms: 2_000 });
        assert_eq!(tracker.report().events[1].1["percent"], 60);
        apply(&mut tracker, 0, RowEventKind::Progress { done_ms: 7_000 });
        assert_eq!(tracker.report().events[0].1["percent"], 70);
    }

    #[test]
    fn a_source_that_is_named_twice_has_two_rows_per_segment() {
        let mut tracker = ProgressTracker::new(0);
        for ordinal in [0, 1] {
            apply(&mut tracker, ordinal, planned(SegmentTrack::Video, 0, 1_000));
        }
        apply(&mut tracker, 1, finished());
        assert_eq!(tracker.report().progress.unwrap().rows_done, 1);
        apply(&mut tracker, 0, finished());
        assert_eq!(tracker.report().progress.unwrap().rows_done, 2);
    }
}
