//! How does a job tell how far it is? Bars on a terminal, plain lines elsewhere, JSON lines on request.

use std::{
    collections::HashMap,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use spool_media::{
    machine::{Event, Machine},
    segments::{Segment, SegmentTrack},
    store::shown,
};
use tokio::{
    sync::{broadcast, oneshot},
    task::JoinHandle,
};

use crate::args::{Global, Progress};

/// Sound encodes so much faster than pictures that a millisecond of it counts for little.
const SOUND_WEIGHT: f64 = 0.02;

/// How often a plain line is written at most.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// The work of one video.
pub struct Work<'a> {
    /// What the video is called.
    pub name: String,
    /// Its rows.
    pub segments: &'a [Segment],
}

/// What was done, in rungs of rows.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Tally {
    /// Encoded by this command.
    pub encoded: usize,
    /// There already.
    pub reused: usize,
}

/// Shows progress until it is told that the work ended.
pub struct Reporter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Tally>,
}

impl Reporter {
    /// Starts to show the progress of these videos.
    pub fn start<'a>(wanted: Progress, global: &Global, machine: &Machine, work: impl Iterator<Item = Work<'a>>) -> Self {
        let terminal = std::io::stderr().is_terminal() && global.verbose == 0;
        let shape = match wanted {
            Progress::Auto if terminal => Progress::Bar,
            Progress::Auto => Progress::Plain,
            other => other,
        };
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let videos =
            work.map(|work| (work.segments.first().map_or_else(String::new, |s| s.source.clone()), Video::new(shape, &bars, work)));
        let board = Board { shape, videos: videos.collect(), tally: Tally::default() };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(board.watch(machine.events(), stopped));
        Self { stop, task }
    }

    /// Ends the show; says what was done.
    pub async fn finish(self) -> Tally {
        let _ = self.stop.send(());
        self.task.await.unwrap_or_default()
    }
}

struct Board {
    shape: Progress,
    videos: HashMap<String, Video>,
    tally: Tally,
}

impl Board {
    async fn watch(mut self, mut events: broadcast::Receiver<Event>, mut stopped: oneshot::Receiver<()>) -> Tally {
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(event) => self.take(&event),
                    // Some were missed: the next ones tell where things stand.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                _ = &mut stopped => break,
            }
        }
        for video in self.videos.values_mut() {
            video.end(self.shape);
        }
        self.tally
    }

    fn take(&mut self, event: &Event) {
        if self.shape == Progress::Json {
            print_json(event);
        }
        let (segment, done_ms) = match event {
            Event::Started { segment, .. } => (segment, 0),
            Event::Advanced { segment, done_ms } => (segment, *done_ms),
            Event::Finished { segment, encoded, reused } => {
                self.tally.encoded += encoded;
                self.tally.reused += reused;
                (segment, segment.duration_ms)
            }
        };
        let Some(video) = self.videos.get_mut(&segment.source) else { return };
        video.rows.insert((segment.track == SegmentTrack::Audio, segment.index), weight(segment) * done_ms as f64);
        if let Event::Finished { segment, encoded, .. } = event {
            video.rows_done += 1;
            if *encoded == 0 {
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
    rows_done: usize,
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
            rows_done: 0,
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
        let mut text = format!("{}/{} rows", self.rows_done, self.row_count);
        if speed > 0.0 {
            let left = Duration::from_secs_f64(((self.total - done).max(0.0) / 1000.0 / speed).min(360_000.0));
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

    fn permille(&self) -> u64 {
        if self.total <= 0.0 { 0 } else { (self.done() / self.total * 1000.0).clamp(0.0, 1000.0) as u64 }
    }

    fn end(&mut self, shape: Progress) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if shape == Progress::Plain {
            eprintln!("{}: {}% {}/{} rows", self.name, self.permille() / 10, self.rows_done, self.row_count);
        }
    }
}

/// One event as a line of JSON.
fn print_json(event: &Event) {
    #[derive(Serialize)]
    #[serde(tag = "event", rename_all = "snake_case")]
    enum Line<'a> {
        Started { source: String, track: SegmentTrack, index: u32, rungs: &'a [String] },
        Advanced { source: String, track: SegmentTrack, index: u32, done_ms: i64, duration_ms: i64 },
        Finished { source: String, track: SegmentTrack, index: u32, encoded: usize, reused: usize },
    }
    let line = match event {
        Event::Started { segment: s, rungs } => Line::Started { source: shown(&s.source), track: s.track, index: s.index, rungs },
        Event::Advanced { segment: s, done_ms } => Line::Advanced {
            source: shown(&s.source),
            track: s.track,
            index: s.index,
            done_ms: *done_ms,
            duration_ms: s.duration_ms,
        },
        Event::Finished { segment: s, encoded, reused } => {
            Line::Finished { source: shown(&s.source), track: s.track, index: s.index, encoded: *encoded, reused: *reused }
        }
    };
    if let Ok(json) = serde_json::to_string(&line) {
        eprintln!("{json}");
    }
}
