//! How does a job tell how far it is? Bars on a terminal, plain lines elsewhere, JSON lines on request.

use std::{
    collections::{HashMap, HashSet},
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use spool_media::{
    encode::events::{RowEvent, RowEventKind},
    plan::segments::{Segment, SegmentTrack},
};
use spool_storage::redact;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::args::{Global, Progress};

/// Sound encodes so much faster than pictures that a millisecond of it counts for little.
const SOUND_WEIGHT: f64 = 0.02;

/// How often a plain line is written at most.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Events that wait to be shown; what is missed is made up for by the next.
const QUEUE: usize = 4096;

/// The work of one video.
pub struct Work<'a> {
    /// RowEventKind the video is called.
    pub name: String,
    /// Its rows.
    pub segments: &'a [Segment],
}

/// RowEventKind was done, in rungs of rows.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Tally {
    /// Encoded by this command.
    pub encoded: usize,
    /// There already.
    pub reused: usize,
}

/// Shows progress until it is told that the work ended.
pub struct Reporter {
    events: mpsc::Sender<RowEvent>,
    task: JoinHandle<Tally>,
}

impl Reporter {
    /// Starts to show the progress of these videos.
    pub fn start<'a>(wanted: Progress, global: &Global, work: impl Iterator<Item = Work<'a>>) -> Self {
        let terminal = std::io::stderr().is_terminal() && global.verbose == 0;
        let shape = match wanted {
            Progress::Auto if terminal => Progress::Bar,
            Progress::Auto => Progress::Plain,
            other => other,
        };
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let videos = work.map(|work| {
            (
                work.segments.first().map_or_else(String::new, |s| s.source.clone()),
                Video::new(shape, &bars, work),
            )
        });
        let board = Board { shape, videos: videos.collect(), tally: Tally::default() };
        let (events, told) = mpsc::channel(QUEUE);
        Self { events, task: tokio::spawn(board.watch(told)) }
    }

    /// Takes note of what happened to a row.
    pub fn tell(&self, event: RowEvent) {
        let _ = self.events.try_send(event);
    }

    /// Ends the show; says what was done.
    pub async fn finish(self) -> Tally {
        drop(self.events);
        self.task.await.unwrap_or_default()
    }
}

struct Board {
    shape: Progress,
    videos: HashMap<String, Video>,
    tally: Tally,
}

impl Board {
    async fn watch(mut self, mut told: mpsc::Receiver<RowEvent>) -> Tally {
        while let Some(event) = told.recv().await {
            self.take(&event);
        }
        for video in self.videos.values_mut() {
            video.end(self.shape);
        }
        self.tally
    }

    fn take(&mut self, event: &RowEvent) {
        if self.shape == Progress::Json {
            print_json(event);
        }
        let segment = &event.segment;
        let done_ms = match &event.kind {
            // Of what is shown here the rows are known.
            RowEventKind::Planned => return,
            RowEventKind::Started { .. } => 0,
            RowEventKind::Progress { done_ms } => *done_ms,
            RowEventKind::Finished { encoded, reused, .. } => {
                self.tally.encoded += encoded;
                self.tally.reused += reused;
                segment.duration_ms
            }
            RowEventKind::Retrying { reason } => {
                if let Some(video) = self.videos.get(&segment.source) {
                    let track = if segment.track == SegmentTrack::Audio { "sound track" } else { "segment" };
                    video.note(self.shape, &format!("{track} {} runs again: {reason}", segment.index));
                }
                return;
            }
        };
        let Some(video) = self.videos.get_mut(&segment.source) else { return };
        let row = (segment.track == SegmentTrack::Audio, segment.index);
        video.rows.insert(row, weight(segment) * done_ms as f64);
        if let RowEventKind::Finished { encoded, .. } = event.kind {
            video.rows_done.insert(row);
            if encoded == 0 {
                video.reused += weight(segment) * segment.duration_ms as f64;
            }
        }
        video.show(self.shape);
    }
}

fn weight(segment: &Segment) -> f64 {
    match segment.track {
        SegmentTrack::Video => 1.0,
        SegmentTrack::Audio => SOUND_WEIGHT,
    }
}

/// One video's standing. Work is counted in weighted milliseconds of media.
struct Video {
    name: String,
    total: f64,
    row_count: usize,
    rows: HashMap<(bool, u32), f64>,
    rows_done: HashSet<(bool, u32)>,
    reused: f64,
    started: Instant,
    last_line: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Video {
    fn new(shape: Progress, bars: &MultiProgress, work: Work<'_>) -> Self {
        let total = work.segments.iter().map(|s| weight(s) * s.duration_ms as f64).sum();
        let bar = (shape == Progress::Bar).then(|| {
            let bar = bars.add(ProgressBar::new(1000));
            // The template is a constant; the default style is a fine stand-in.
            let style = ProgressStyle::with_template("{prefix} {percent:>3}% {wide_bar} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(work.name.clone());
            bar
        });
        Self {
            name: work.name,
            total,
            row_count: work.segments.len(),
            rows: HashMap::new(),
            rows_done: HashSet::new(),
            reused: 0.0,
            started: Instant::now(),
            last_line: None,
            bar,
        }
    }

    fn done(&self) -> f64 {
        self.rows.values().sum()
    }

    fn text(&self) -> String {
        let (done, elapsed) = (self.done(), self.started.elapsed().as_secs_f64());
        let encoded_seconds = (done - self.reused).max(0.0) / 1000.0;
        let speed = if elapsed > 0.0 { encoded_seconds / elapsed } else { 0.0 };
        let mut text = format!("{}/{} rows", self.rows_done.len(), self.row_count);
        if speed > 0.0 {
            let left =
                Duration::from_secs_f64(((self.total - done).max(0.0) / 1000.0 / speed).min(360_000.0));
            text.push_str(&format!("  {speed:.1}x  {} left", crate::output::clock(left)));
        }
        text
    }

    fn show(&mut self, shape: Progress) {
        match (shape, &self.bar) {
            (Progress::Bar, Some(bar)) => {
                bar.set_position(self.permille());
                bar.set_message(self.text());
            }
            (Progress::Plain, _) if self.last_line.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) => {
                self.last_line = Some(Instant::now());
                eprintln!("{}: {}% {}", self.name, self.permille() / 10, self.text());
            }
            _ => {}
        }
    }

    /// Says something besides how far it is.
    fn note(&self, shape: Progress, text: &str) {
        match (shape, &self.bar) {
            (Progress::Bar, Some(bar)) => bar.println(format!("{}: {text}", self.name)),
            (Progress::Plain, _) => eprintln!("{}: {text}", self.name),
            _ => {}
        }
    }

    fn permille(&self) -> u64 {
        if self.total <= 0.0 { 0 } else { (self.done() / self.total * 1000.0).clamp(0.0, 1000.0) as u64 }
    }

    fn end(&mut self, shape: Progress) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if shape == Progress::Plain {
            eprintln!(
                "{}: {}% {}/{} rows",
                self.name,
                self.permille() / 10,
                self.rows_done.len(),
                self.row_count
            );
        }
    }
}

/// One event as a line of JSON.
fn print_json(event: &RowEvent) {
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case", tag = "event")]
    enum Happened<'a> {
        Planned,
        Started { rungs: &'a [String] },
        Advanced { done_ms: i64, duration_ms: i64 },
        Finished { encoded: usize, reused: usize },
        Again { reason: &'a str },
    }
    #[derive(Serialize)]
    struct Line<'a> {
        source: String,
        track: SegmentTrack,
        index: u32,
        #[serde(flatten)]
        happened: Happened<'a>,
    }
    let Segment { source, track, index, duration_ms, .. } = &event.segment;
    let happened = match &event.kind {
        RowEventKind::Planned => Happened::Planned,
        RowEventKind::Started { rungs } => Happened::Started { rungs },
        RowEventKind::Progress { done_ms } => {
            Happened::Advanced { done_ms: *done_ms, duration_ms: *duration_ms }
        }
        RowEventKind::Finished { encoded, reused, .. } => {
            Happened::Finished { encoded: *encoded, reused: *reused }
        }
        RowEventKind::Retrying { reason } => Happened::Again { reason },
    };
    let line = Line { source: redact(source), track: *track, index: *index, happened };
    if let Ok(json) = serde_json::to_string(&line) {
        eprintln!("{json}");
    }
}
