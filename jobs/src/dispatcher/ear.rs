//! What of all that rows say is worth writing down? The last word of each, what happened once, and how far the whole of it is.

use std::collections::HashMap;

use serde_json::{Value, json};
use spool_media::{
    encode::events::{RowEvent, RowEventKind},
    plan::segments::{Segment, SegmentTrack},
};

use crate::{Attempt, Kind, Phase, Progress, Report, Row, RowState, State, job};

/// The longest reason that is kept, in bytes: the last lines of FFmpeg are at its end.
const MAX_REASON: usize = 8 << 10;

/// Events of rows that one report holds; of more, the rows themselves tell.
const MAX_EVENTS: usize = 256;

/// Hears what happens to a job's rows, and says what changed since it was last asked.
#[derive(Debug, Default)]
pub(super) struct Ear {
    rows: Vec<Heard>,
    /// Which rows a segment may be: several, where a statement names a title twice.
    numbers: HashMap<(String, SegmentTrack, u32), Vec<usize>>,
    attempts: Vec<Attempt>,
    events: Vec<(Kind, Value)>,
    /// Were rows planned since the last report?
    planned: bool,
    told: Told,
}

#[derive(Debug)]
struct Heard {
    row: Row,
    /// Attempts that gave no part.
    failed: i64,
    changed: bool,
}

/// What was said last.
#[derive(Debug, Default)]
struct Told {
    phase: Option<Phase>,
    progress: Progress,
    percent: i64,
}

impl Ear {
    /// An ear for a job that is so far already: that is not taken back.
    pub(super) fn new(percent: i64) -> Self {
        Self { told: Told { percent, ..Told::default() }, ..Self::default() }
    }

    /// Hears one thing.
    pub(super) fn hear(&mut self, event: &RowEvent) {
        let segment = &event.segment;
        if event.kind == RowEventKind::Planned {
            let number = self.rows.len();
            self.numbers.entry(key(segment)).or_default().push(number);
            self.rows.push(Heard { row: Row::planned(number, segment), failed: 0, changed: true });
            self.planned = true;
            return;
        }
        let Some(heard) = self.find(segment) else { return };
        let row = &mut heard.row;
        if row.state == RowState::Done {
            // The slower of two runs of a row still speaks.
            return;
        }
        heard.changed = true;
        let said = match &event.kind {
            RowEventKind::Planned => None,
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
                let data =
                    json!({ "row": row.number, "track": row.track, "encoded": encoded, "reused": reused });
                Some((Kind::RowFinished, data))
            }
            RowEventKind::Retrying { reason } => {
                heard.failed += 1;
                let (number, attempt, reason) = (row.number, heard.failed, last_of(reason));
                let data = json!({ "row": number, "attempt": attempt, "reason": reason });
                self.attempts.push(Attempt { row: number, claim: 0, attempt, at_ms: 0, reason });
                Some((Kind::RowAgain, data))
            }
        };
        if self.events.len() < MAX_EVENTS {
            self.events.extend(said);
        }
    }

    /// What changed since the last time.
    pub(super) fn report(&mut self) -> Report {
        let progress = self.progress();
        let phase = match progress.rows {
            0 => None,
            rows if rows == progress.rows_done => Some(Phase::Publishing),
            _ => Some(Phase::Encoding),
        };
        let mut events = Vec::new();
        if std::mem::take(&mut self.planned) {
            events.push((Kind::Planned, json!({ "rows": progress.rows, "media_ms": progress.media_ms })));
        }
        events.append(&mut self.events);
        let percent =
            job::percent(State::Processing, progress.media_done_ms, progress.media_ms).max(self.told.percent);
        if percent > self.told.percent || phase != self.told.phase {
            let phase = phase.unwrap_or(Phase::Planning);
            let data = json!({ "phase": phase, "percent": percent, "rows": progress.rows, "rows_done": progress.rows_done });
            events.push((Kind::Progress, data));
        }
        let report = Report {
            phase: phase.filter(|_| phase != self.told.phase),
            progress: (progress != self.told.progress).then_some(progress),
            rows: self
                .rows
                .iter_mut()
                .filter_map(|heard| std::mem::take(&mut heard.changed).then(|| heard.row.clone()))
                .collect(),
            attempts: std::mem::take(&mut self.attempts),
            events,
            told: None,
        };
        self.told = Told { phase, progress, percent };
        report
    }

    fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        for Heard { row, .. } in &self.rows {
            progress.rows += 1;
            progress.rows_done += i64::from(row.state == RowState::Done);
            progress.media_ms += row.duration_ms;
            progress.media_done_ms += row.done_ms;
        }
        progress
    }

    /// The row that a segment is: of several the first that is not done.
    fn find(&mut self, segment: &Segment) -> Option<&mut Heard> {
        let numbers = self.numbers.get(&key(segment))?;
        let open = numbers.iter().find(|number| self.rows[**number].row.state != RowState::Done);
        let number = *open.or(numbers.last())?;
        self.rows.get_mut(number)
    }
}

fn key(segment: &Segment) -> (String, SegmentTrack, u32) {
    (segment.source.clone(), segment.track, segment.index)
}

/// The end of a text, which says most.
fn last_of(text: &str) -> String {
    let from = text.len().saturating_sub(MAX_REASON);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use spool_media::{encode::timing::Timing, plan::deinterlace::Deinterlace, time::Rational};

    use super::*;

    fn segment(track: SegmentTrack, index: u32, duration_ms: i64) -> Segment {
        Segment {
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
        }
    }

    fn heard(ear: &mut Ear, segment: &Segment, what: RowEventKind) {
        ear.hear(&RowEvent { job: String::new(), segment: segment.clone(), kind: what });
    }

    fn finished() -> RowEventKind {
        RowEventKind::Finished { encoded: 3, reused: 0, timing: Timing::default() }
    }

    fn kinds(report: &Report) -> Vec<Kind> {
        report.events.iter().map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn a_report_holds_what_changed_and_nothing_twice() {
        let (one, two) = (segment(SegmentTrack::Video, 0, 8_000), segment(SegmentTrack::Video, 1, 2_000));
        let mut ear = Ear::new(0);
        assert!(ear.report().is_empty());
        for row in [&one, &two] {
            heard(&mut ear, row, RowEventKind::Planned);
        }
        let report = ear.report();
        assert_eq!(kinds(&report), [Kind::Planned, Kind::Progress]);
        assert_eq!((report.rows.len(), report.phase), (2, Some(Phase::Encoding)));
        heard(&mut ear, &one, RowEventKind::Started { rungs: vec!["1080p".to_owned()] });
        heard(&mut ear, &one, RowEventKind::Progress { done_ms: 4_000 });
        heard(&mut ear, &one, RowEventKind::Progress { done_ms: 3_000 });
        let report = ear.report();
        assert_eq!((report.rows.len(), report.rows[0].done_ms, report.phase), (1, 4_000, None));
        assert_eq!(
            report.progress,
            Some(Progress { rows: 2, rows_done: 0, media_ms: 10_000, media_done_ms: 4_000 })
        );
        assert_eq!(
            report.events,
            [(Kind::Progress, json!({ "phase": "encoding", "percent": 40, "rows": 2, "rows_done": 0 }))]
        );
        assert!(ear.report().is_empty());
        heard(&mut ear, &one, finished());
        heard(&mut ear, &one, finished());
        heard(&mut ear, &two, finished());
        let report = ear.report();
        assert_eq!(kinds(&report), [Kind::RowFinished, Kind::RowFinished, Kind::Progress]);
        assert_eq!((report.phase, report.progress.unwrap().rows_done), (Some(Phase::Publishing), 2));
        assert_eq!(report.events[2].1["percent"], 99, "it is not published yet");
    }

    #[test]
    fn attempts_are_counted_and_their_last_lines_kept() {
        let row = segment(SegmentTrack::Audio, 0, 1_000);
        let mut ear = Ear::new(0);
        heard(&mut ear, &row, RowEventKind::Planned);
        for last in ["x264: out of memory", "é".repeat(MAX_REASON).as_str()] {
            let reason = format!("{}{last}", "…".repeat(MAX_REASON));
            heard(&mut ear, &row, RowEventKind::Retrying { reason });
        }
        let report = ear.report();
        let [one, two] = report.attempts.as_slice() else { panic!("{report:?}") };
        assert!(
            one.reason.ends_with("x264: out of memory") && one.reason.len() <= MAX_REASON && one.attempt == 1
        );
        assert!(two.attempt == 2 && two.reason.starts_with('é'));
    }

    #[test]
    fn what_was_said_of_a_job_is_not_taken_back_by_whoever_takes_over() {
        let row = segment(SegmentTrack::Video, 0, 10_000);
        let mut ear = Ear::new(60);
        heard(&mut ear, &row, RowEventKind::Planned);
        heard(&mut ear, &row, RowEventKind::Progress { done_ms: 2_000 });
        assert_eq!(ear.report().events[1].1["percent"], 60);
        heard(&mut ear, &row, RowEventKind::Progress { done_ms: 7_000 });
        assert_eq!(ear.report().events[0].1["percent"], 70);
    }

    #[test]
    fn a_title_that_is_named_twice_has_its_rows_twice() {
        let row = segment(SegmentTrack::Video, 0, 1_000);
        let mut ear = Ear::new(0);
        for what in [RowEventKind::Planned, RowEventKind::Planned, finished(), finished()] {
            heard(&mut ear, &row, what);
        }
        assert_eq!(ear.report().progress.unwrap().rows_done, 2);
    }
}
