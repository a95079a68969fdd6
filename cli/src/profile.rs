//! Profile of a transcode command: the time of its stages and of the steps of its rows, as sums or as a trace
//! for Perfetto.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use spool_media::{
    encode::{
        events::RowEventKind,
        timing::{Span, Step, Timing, micros},
    },
    plan::segments::{Segment, SegmentTrack},
};
use spool_scheduler::StatementTiming;

use crate::{error::CliError, output, progress::VideoEvent};

/// Records the time of a command's stages and rows.
#[derive(Debug)]
pub struct Profile {
    started: Instant,
    started_us: u64,
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    stages: Vec<Stage>,
    rows: Vec<Row>,
}

/// Stage of the command. Stages of several videos overlap.
#[derive(Debug, Clone)]
struct Stage {
    name: &'static str,
    /// Microseconds since 1970.
    from_us: u64,
    took_us: u64,
}

#[derive(Debug, Clone)]
struct Row {
    segment: Arc<Segment>,
    timing: Timing,
}

impl Row {
    fn end_us(&self) -> u64 {
        self.timing.begun_us.saturating_add(self.timing.took_us)
    }

    fn preroll_frames(&self) -> u64 {
        self.timing.encode.as_ref().map_or(0, |encode| encode.preroll_frames)
    }

    fn name(&self) -> String {
        match self.segment.track {
            SegmentTrack::Video => format!("segment {}", self.segment.index),
            SegmentTrack::Audio => format!("audio {}", self.segment.index),
        }
    }
}

/// Summary of a profile. Times are in microseconds.
#[derive(Debug, Serialize)]
pub struct Summary {
    wall_us: u64,
    /// Stages in order, each with its time summed over all videos.
    stages: Vec<Sum>,
    /// Most rows that ran at once.
    slots: usize,
    rows: usize,
    /// Steps that the slots spent their time on, from the first row's start to the last row's end.
    steps: Vec<Sum>,
    /// Processor time of all FFmpeg processes that encoded.
    ffmpeg_cpu_us: u64,
    /// Frames that were decoded only because later frames refer to them.
    preroll_frames: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Sum {
    name: &'static str,
    took_us: u64,
    /// Share of the time of all slots.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    /// Longest time that it took in one row.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_us: Option<u64>,
}

impl Profile {
    /// Starts a profile now.
    pub fn start() -> Self {
        let started_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros);
        Self { started: Instant::now(), started_us, recorded: Mutex::default() }
    }

    /// Runs a stage and records its time.
    pub async fn stage<T>(&self, name: &'static str, work: impl Future<Output = T>) -> T {
        let from = Instant::now();
        let result = work.await;
        self.record(name, from, from.elapsed());
        result
    }

    /// Records the stages of a statement that was submitted at `submitted` and has just ended. Between
    /// planning and its rows it may have waited for other videos.
    pub fn statement(&self, submitted: Instant, timing: StatementTiming) {
        let StatementTiming { planning, rows, merging } = timing;
        let before_end = |time| Instant::now().checked_sub(time).unwrap_or(submitted);
        self.record("planning", submitted, planning);
        self.record("rows", before_end(rows + merging), rows);
        self.record("merging and publishing", before_end(merging), merging);
    }

    /// Records the timing of a finished row.
    pub fn on_event(&self, event: &VideoEvent) {
        if let RowEventKind::Finished { timing, .. } = &event.kind {
            let row = Row { segment: event.segment.clone(), timing: timing.clone() };
            self.recorded.lock().rows.push(row);
        }
    }

    fn record(&self, name: &'static str, from: Instant, took: Duration) {
        let from_us = self.started_us + micros(from.saturating_duration_since(self.started));
        self.recorded.lock().stages.push(Stage { name, from_us, took_us: micros(took) });
    }

    /// Sums up the records so far.
    pub fn summary(&self) -> Summary {
        let recorded = self.recorded.lock();
        let mut stages: Vec<Sum> = Vec::new();
        for stage in &recorded.stages {
            match stages.iter_mut().find(|sum| sum.name == stage.name) {
                Some(sum) => sum.took_us += stage.took_us,
                None => stages.push(Sum { name: stage.name, took_us: stage.took_us, ..Sum::default() }),
            }
        }
        let lanes = lanes(&recorded.rows);
        Summary {
            wall_us: micros(self.started.elapsed()),
            stages,
            slots: lanes.len(),
            rows: recorded.rows.len(),
            steps: steps(&recorded.rows, &lanes),
            ffmpeg_cpu_us: recorded
                .rows
                .iter()
                .filter_map(|row| Some(row.timing.encode.as_ref()?.cpu_us))
                .sum(),
            preroll_frames: recorded.rows.iter().map(Row::preroll_frames).sum(),
        }
    }

    /// Returns the records in Chrome's trace format: a process per host, a thread per slot.
    ///
    /// Source: "Trace Event Format", <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.
    pub fn trace(&self) -> Value {
        let recorded = self.recorded.lock();
        let mut events = Vec::new();
        let name = |pid: usize, name: &str| json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}});
        let span = |name: &str, pid: usize, tid: usize, from_us: u64, took_us: u64, args: Value| {
            json!({
                "ph": "X", "name": name, "pid": pid, "tid": tid, "ts": from_us, "dur": took_us, "args": args,
            })
        };
        events.push(name(0, "spool transcode"));
        for (tid, stage) in recorded.stages.iter().enumerate() {
            // A thread for each: stages of several videos overlap.
            events.push(span(stage.name, 0, tid, stage.from_us, stage.took_us, json!({})));
        }
        let mut hosts: Vec<&str> = recorded.rows.iter().map(|row| row.timing.host.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        events.extend(hosts.iter().enumerate().map(|(number, host)| name(number + 1, host)));
        for (tid, lane) in lanes(&recorded.rows).iter().enumerate() {
            for row in lane.iter().map(|at| &recorded.rows[*at]) {
                let Timing { host, begun_us, took_us, spans, encode } = &row.timing;
                let pid = hosts.iter().position(|other| other == host).map_or(0, |number| number + 1);
                let args = json!({"source": spool_storage::redact(&row.segment.source), "encode": encode});
                events.push(span(&row.name(), pid, tid, *begun_us, *took_us, args));
                events.extend(
                    spans.iter().map(|s| {
                        span(step_name(s.step), pid, tid, begun_us + s.from_us, s.took_us, json!({}))
                    }),
                );
            }
        }
        json!({"traceEvents": events, "displayTimeUnit": "ms"})
    }
}

impl Summary {
    /// Prints the summary on stdout.
    pub fn print(&self) -> Result<(), CliError> {
        let seconds = |us: u64| format!("{:.3}", us as f64 / 1e6);
        let mut table = output::table(&["stage", "seconds"]);
        for stage in &self.stages {
            table.add_row([stage.name.into(), output::right(seconds(stage.took_us))]);
        }
        table.add_row(["whole command".into(), output::right(seconds(self.wall_us))]);
        output::print(&format!("\n{table}"))?;
        let mut table = output::table(&["step of rows", "seconds", "share of slots", "longest in a row"]);
        for step in &self.steps {
            table.add_row([
                step.name.into(),
                output::right(seconds(step.took_us)),
                output::right(step.share.map_or_else(String::new, |share| format!("{:.1}%", share * 100.0))),
                output::right(step.max_us.map_or_else(String::new, seconds)),
            ]);
        }
        output::print(&format!(
            "\n{table}\n{} rows in {} slots; FFmpeg took {} s of processor time and decoded {} preroll frames",
            self.rows,
            self.slots,
            seconds(self.ffmpeg_cpu_us),
            self.preroll_frames
        ))
    }
}

/// Returns the rows of each slot, one after the other, by their indices. A row goes to the slot of the row
/// that ended last before it began.
fn lanes(rows: &[Row]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|at| rows[*at].timing.begun_us);
    let mut lanes: Vec<Vec<usize>> = Vec::new();
    for at in order {
        let Timing { begun_us, host, .. } = &rows[at].timing;
        let free = lanes.iter_mut().filter_map(|lane| {
            let last = &rows[*lane.last()?];
            (last.timing.host == *host && last.end_us() <= *begun_us).then(|| (last.end_us(), lane))
        });
        match free.max_by_key(|(end, _)| *end) {
            Some((_, lane)) => lane.push(at),
            None => lanes.push(vec![at]),
        }
    }
    lanes
}

/// Returns the steps that slots spent their time on, from the first row's start to the last row's end.
fn steps(rows: &[Row], lanes: &[Vec<usize>]) -> Vec<Sum> {
    let first = rows.iter().map(|row| row.timing.begun_us).min().unwrap_or(0);
    let last = rows.iter().map(Row::end_us).max().unwrap_or(0);
    let all = (last.saturating_sub(first)).saturating_mul(lanes.len() as u64).max(1);
    let mut sums: BTreeMap<usize, Sum> = BTreeMap::new();
    let mut add = |place: usize, name: &'static str, took_us: u64, in_row: bool| {
        let sum = sums.entry(place).or_insert_with(|| Sum { name, ..Sum::default() });
        sum.took_us += took_us;
        sum.max_us = in_row.then(|| sum.max_us.unwrap_or(0).max(took_us));
    };
    let start = start_without_preroll(rows);
    for row in rows {
        let mut left = row.timing.took_us;
        let mut of_row: BTreeMap<usize, (&'static str, u64)> = BTreeMap::new();
        for span in sequential_steps(&row.timing) {
            left = left.saturating_sub(span.took_us);
            // FFmpeg reports its first frame, not the frames that it decoded before. Rows without preroll
            // show the start alone.
            let starts = span.step == Step::Start && row.preroll_frames() > 0;
            let preroll = if starts { span.took_us.saturating_sub(start) } else { 0 };
            let place = span.step as usize * 2;
            of_row.entry(place).or_insert((step_name(span.step), 0)).1 += span.took_us - preroll;
            if preroll > 0 {
                of_row.insert(place + 1, ("decoding preroll", preroll));
            }
        }
        of_row.insert(100, ("other", left));
        of_row.into_iter().for_each(|(place, (name, took_us))| add(place, name, took_us, true));
    }
    for lane in lanes {
        let mut at = first;
        for row in lane.iter().map(|at| &rows[*at]) {
            add(101, "scheduling", row.timing.begun_us.saturating_sub(at), false);
            at = row.end_us();
        }
        add(102, "idle at the end", last.saturating_sub(at), false);
    }
    sums.into_values().map(|sum| Sum { share: Some(sum.took_us as f64 / all as f64), ..sum }).collect()
}

/// Returns the steps of a row as if they ran one after the other. Rungs are stored concurrently, so their
/// steps share the time that storing took.
fn sequential_steps(timing: &Timing) -> Vec<Span> {
    let is_concurrent = |span: &Span| matches!(span.step, Step::Package | Step::Upload | Step::Commit);
    let sum = |concurrent: bool| {
        timing
            .spans
            .iter()
            .filter(|span| is_concurrent(span) == concurrent)
            .map(|span| span.took_us)
            .sum::<u64>()
    };
    let (available, wanted) = (timing.took_us.saturating_sub(sum(false)), sum(true));
    let fit = |span: &Span| match is_concurrent(span) && wanted > available {
        true => Span {
            took_us: (u128::from(span.took_us) * u128::from(available) / u128::from(wanted)) as u64,
            ..*span
        },
        false => *span,
    };
    timing.spans.iter().map(fit).collect()
}

/// Returns the time that FFmpeg takes to start: the median of rows without preroll.
fn start_without_preroll(rows: &[Row]) -> u64 {
    let start =
        |row: &Row| row.timing.spans.iter().find(|span| span.step == Step::Start).map(|span| span.took_us);
    let without_preroll = |row: &&Row| row.segment.track == SegmentTrack::Video && row.preroll_frames() == 0;
    let mut starts: Vec<u64> = rows.iter().filter(without_preroll).filter_map(start).collect();
    starts.sort_unstable();
    starts.get(starts.len() / 2).copied().unwrap_or(u64::MAX)
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::Open => "opening the source",
        Step::LookUp => "looking up part records",
        Step::Slot => "waiting for a slot",
        Step::Fetch => "fetching the window",
        Step::Start => "starting FFmpeg",
        Step::Encode => "encoding",
        Step::Package => "packaging",
        Step::Upload => "uploading",
        Step::Commit => "committing part records",
    }
}

#[cfg(test)]
mod tests {
    use spool_media::{encode::timing::Encode, time::Rational};

    use super::*;

    fn row(index: u32, host: &str, begun_us: u64, took_us: u64, preroll_frames: u64, start_us: u64) -> Row {
        let segment = Segment {
            source: "talk.mp4".to_owned(),
            etag: "1".to_owned(),
            track: SegmentTrack::Video,
            index,
            first_frame: 0,
            frames: 1,
            timebase: Rational::new(1, 25).unwrap(),
            start_ms: 0,
            duration_ms: 40,
            media_segment_frames: 1,
            title_frames: 1,
            lost_ms: 0,
            deinterlace: Default::default(),
        };
        let spans = vec![
            Span { step: Step::Start, from_us: 0, took_us: start_us },
            Span { step: Step::Encode, from_us: start_us, took_us: took_us - start_us - 1 },
        ];
        Row {
            segment: Arc::new(segment),
            timing: Timing {
                host: host.to_owned(),
                begun_us,
                took_us,
                spans,
                encode: Some(Encode { preroll_frames, ..Encode::default() }),
            },
        }
    }

    #[test]
    fn steps_account_for_the_time_of_all_slots() {
        // Host a has two slots, one of which is idle for 5 us before its second row and for 15 us at the end;
        // host b has one.
        let rows = [
            row(0, "a", 100, 50, 0, 10),
            row(1, "a", 100, 70, 25, 30),
            row(2, "a", 155, 30, 0, 10),
            row(3, "b", 100, 100, 0, 10),
        ];
        let lanes = lanes(&rows);
        assert_eq!(lanes, [vec![0, 2], vec![1], vec![3]]);
        let steps = steps(&rows, &lanes);
        let of = |name: &str| steps.iter().find(|sum| sum.name == name).unwrap().took_us;
        assert_eq!(of("starting FFmpeg"), 40);
        assert_eq!(of("decoding preroll"), 20);
        assert_eq!(of("encoding"), 39 + 39 + 19 + 89);
        assert_eq!(of("other"), 4);
        assert_eq!(of("scheduling"), 5);
        assert_eq!(of("idle at the end"), 15 + 30);
        let all: f64 = steps.iter().filter_map(|sum| sum.share).sum();
        assert!((all - 1.0).abs() < 1e-9, "{steps:?}");
    }

    #[test]
    fn concurrent_steps_share_the_time_that_they_took() {
        let mut row = row(0, "a", 0, 100, 0, 10);
        // 11 us are left; two rungs are stored in 10 us each, concurrently.
        row.timing.spans[1].took_us = 79;
        row.timing.spans.extend([Span { step: Step::Upload, from_us: 89, took_us: 10 }; 2]);
        let took: Vec<u64> = sequential_steps(&row.timing).iter().map(|span| span.took_us).collect();
        assert_eq!(took, [10, 79, 5, 5]);
    }

    #[test]
    fn trace_has_every_step_of_every_row() {
        let profile = Profile::start();
        profile.recorded.lock().rows = vec![row(0, "a", 100, 50, 0, 10), row(1, "b", 100, 70, 25, 30)];
        profile.statement(
            Instant::now(),
            StatementTiming { planning: Duration::from_millis(1), ..StatementTiming::default() },
        );
        let trace = profile.trace();
        let events = trace["traceEvents"].as_array().unwrap();
        let spans: Vec<&str> = events
            .iter()
            .filter(|event| event["ph"] == "X")
            .filter_map(|event| event["name"].as_str())
            .collect();
        for wanted in ["planning", "segment 0", "segment 1", "encoding", "starting FFmpeg"] {
            assert!(spans.contains(&wanted), "{spans:?}");
        }
        assert!(events.iter().all(|event| event["ph"] == "M" || event["ts"].is_u64()));
    }
}
