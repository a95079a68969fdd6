//! Progress of a transcode command on stderr: bars on a terminal, plain lines elsewhere, JSON lines on
//! request.

use std::{
    collections::HashMap,
    io::IsTerminal,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use spool_media::{
    encode::events::RowEventKind,
    plan::segments::{Segment, SegmentTrack},
};
use spool_storage::redact;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    args::{GlobalArgs, ProgressMode},
    output::clock,
};

/// Weight of a millisecond of audio: audio encodes so much faster than video.
const AUDIO_WEIGHT: f64 = 0.02;

/// Shortest time between two plain lines of a video.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Events that may wait to be shown. The queue takes memory only as it fills, and has room for the `Planned`
/// events of far more rows than a command has. A later event corrects the display after a dropped one.
const QUEUE: usize = 1 << 16;

/// Most time left that is shown, in seconds: 100 hours.
const TIME_LEFT_MAX_S: f64 = 360_000.0;

/// Event of a row of one video.
#[derive(Debug, Clone)]
pub struct VideoEvent {
    /// Index of the video on the command line.
    pub video: usize,
    /// Ordinal of the row in the video's statement.
    pub ordinal: u32,
    /// Segment of the row.
    pub segment: Arc<Segment>,
    /// The event.
    pub kind: RowEventKind,
}

/// Video whose progress is shown.
#[derive(Debug, Clone)]
pub struct VideoLabel {
    /// Name to show.
    pub name: String,
    /// Playlist that plays what is encoded so far, if there will be one.
    pub early_playlist: Option<String>,
}

/// Number of parts.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Tally {
    /// Parts that this command encoded.
    pub encoded: usize,
    /// Parts that existed already.
    pub reused: usize,
}

/// Shows progress until it is finished.
pub struct Reporter {
    events: mpsc::Sender<VideoEvent>,
    task: JoinHandle<Tally>,
}

impl Reporter {
    /// Starts to show the progress of videos. Their rows become known by their `Planned` events.
    pub fn start(mode: ProgressMode, global: &GlobalArgs, videos: Vec<VideoLabel>) -> Self {
        let terminal = std::io::stderr().is_terminal() && global.verbose == 0;
        let mode = match mode {
            ProgressMode::Auto if terminal => ProgressMode::Bar,
            ProgressMode::Auto => ProgressMode::Plain,
            other => other,
        };
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let videos = videos.into_iter().map(|label| VideoProgress::new(mode, &bars, label)).collect();
        let board = Board { mode, videos, tally: Tally::default() };
        let (events, received) = mpsc::channel(QUEUE);
        Self { events, task: tokio::spawn(board.show_all(received)) }
    }

    /// Shows an event, unless too many wait already.
    pub fn on_event(&self, event: VideoEvent) {
        let _ = self.events.try_send(event);
    }

    /// Ends the display, and returns the number of parts.
    pub async fn finish(self) -> Tally {
        drop(self.events);
        self.task.await.unwrap_or_default()
    }
}

/// Progress of all videos.
struct Board {
    mode: ProgressMode,
    videos: Vec<VideoProgress>,
    tally: Tally,
}

impl Board {
    async fn show_all(mut self, mut events: mpsc::Receiver<VideoEvent>) -> Tally {
        while let Some(event) = events.recv().await {
            self.show(&event);
        }
        for video in &self.videos {
            video.end(self.mode);
        }
        self.tally
    }

    fn show(&mut self, event: &VideoEvent) {
        if self.mode == ProgressMode::Json {
            print_json(event);
        }
        if let RowEventKind::Finished { encoded, reused, .. } = &event.kind {
            self.tally.encoded += encoded;
            self.tally.reused += reused;
        }
        let Some(video) = self.videos.get_mut(event.video) else { return };
        video.update(event);
        match &event.kind {
            RowEventKind::Planned { .. } => video.announce_early_playlist(self.mode, &event.segment),
            RowEventKind::Retrying { reason } => {
                let Segment { track, index, .. } = *event.segment;
                let row = match track {
                    SegmentTrack::Video => "segment",
                    SegmentTrack::Audio => "audio track",
                };
                video.note(self.mode, &format!("{row} {index} is retried: {reason}"));
            }
            RowEventKind::Started { .. } | RowEventKind::Progress { .. } | RowEventKind::Finished { .. } => {
                video.show(self.mode)
            }
        }
    }
}

/// Progress of a row.
#[derive(Debug, Clone, Default)]
struct RowProgress {
    weight: f64,
    duration_ms: i64,
    done_ms: i64,
    finished: bool,
    /// Whether all parts of the row existed already.
    reused: bool,
}

/// Progress of a video. Its unit is the weighted millisecond of media.
struct VideoProgress {
    label: VideoLabel,
    rows: HashMap<u32, RowProgress>,
    /// Time at which the first row started.
    started: Option<Instant>,
    last_line: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl VideoProgress {
    fn new(mode: ProgressMode, bars: &MultiProgress, label: VideoLabel) -> Self {
        let bar = (mode == ProgressMode::Bar).then(|| {
            let bar = bars.add(ProgressBar::new(1000));
            // The template is a constant; the default style is a usable substitute.
            let style = ProgressStyle::with_template("{prefix} {percent:>3}% {wide_bar} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(label.name.clone());
            bar.set_message("planning");
            bar
        });
        Self { label, rows: HashMap::new(), started: None, last_line: None, bar }
    }

    /// Applies an event to its row. The rows of a statement that is sent again are planned again, with the
    /// same ordinals.
    fn update(&mut self, event: &VideoEvent) {
        let Segment { track, duration_ms, .. } = *event.segment;
        let row = self.rows.entry(event.ordinal).or_insert_with(|| RowProgress {
            weight: match track {
                SegmentTrack::Video => 1.0,
                SegmentTrack::Audio => AUDIO_WEIGHT,
            },
            duration_ms,
            ..RowProgress::default()
        });
        match &event.kind {
            RowEventKind::Planned { .. } | RowEventKind::Retrying { .. } => return,
            // If a row ran twice, the slower attempt still reports.
            RowEventKind::Started { .. } | RowEventKind::Progress { .. } if row.finished => {}
            RowEventKind::Started { .. } => row.done_ms = 0,
            RowEventKind::Progress { done_ms } => row.done_ms = *done_ms,
            RowEventKind::Finished { encoded, .. } => {
                row.done_ms = duration_ms;
                row.finished = true;
                row.reused = *encoded == 0;
            }
        }
        self.started.get_or_insert_with(Instant::now);
    }

    fn total(&self) -> f64 {
        self.rows.values().map(|row| row.weight * row.duration_ms as f64).sum()
    }

    fn done(&self) -> f64 {
        self.rows.values().map(|row| row.weight * row.done_ms as f64).sum()
    }

    fn rows_text(&self) -> String {
        let finished = self.rows.values().filter(|row| row.finished).count();
        format!("{finished}/{} rows", self.rows.len())
    }

    fn text(&self) -> String {
        let reused = self.rows.values().filter(|row| row.reused);
        let reused: f64 = reused.map(|row| row.weight * row.duration_ms as f64).sum();
        let (total, done) = (self.total(), self.done());
        let elapsed = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let encoded_seconds = (done - reused).max(0.0) / 1000.0;
        let speed = if elapsed > 0.0 { encoded_seconds / elapsed } else { 0.0 };
        let mut text = self.rows_text();
        if speed > 0.0 {
            let left = ((total - done).max(0.0) / 1000.0 / speed).min(TIME_LEFT_MAX_S);
            text.push_str(&format!("  {speed:.1}x  {} left", clock(Duration::from_secs_f64(left))));
        }
        text
    }

    fn show(&mut self, mode: ProgressMode) {
        match (mode, &self.bar) {
            (ProgressMode::Bar, Some(bar)) => {
                bar.set_position(self.permille());
                bar.set_message(self.text());
            }
            (ProgressMode::Plain, _)
                if self.last_line.is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL) =>
            {
                self.last_line = Some(Instant::now());
                eprintln!("{}: {}% {}", self.label.name, self.permille() / 10, self.text());
            }
            _ => {}
        }
    }

    /// Names the playlist of early playback once. A video without pictures has none.
    fn announce_early_playlist(&mut self, mode: ProgressMode, planned: &Segment) {
        if planned.track != SegmentTrack::Video {
            return;
        }
        let Some(playlist) = self.label.early_playlist.take() else { return };
        let text = format!("early playback: {playlist}, once the audio and the first segment are encoded");
        match (mode, &self.bar) {
            (ProgressMode::None, _) => {}
            (_, Some(bar)) => bar.println(text),
            (_, None) => eprintln!("{text}"),
        }
    }

    /// Shows a message above the progress.
    fn note(&self, mode: ProgressMode, text: &str) {
        match (mode, &self.bar) {
            (ProgressMode::Bar, Some(bar)) => bar.println(format!("{}: {text}", self.label.name)),
            (ProgressMode::Plain, _) => eprintln!("{}: {text}", self.label.name),
            _ => {}
        }
    }

    fn permille(&self) -> u64 {
        let total = self.total();
        if total <= 0.0 { 0 } else { (self.done() / total * 1000.0).clamp(0.0, 1000.0) as u64 }
    }

    fn end(&self, mode: ProgressMode) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if mode == ProgressMode::Plain && self.started.is_some() {
            eprintln!("{}: {}% {}", self.label.name, self.permille() / 10, self.rows_text());
        }
    }
}

/// Prints an event as a line of JSON.
fn print_json(event: &VideoEvent) {
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case", tag = "event")]
    enum Kind<'a> {
        Planned,
        Started { rungs: &'a [String] },
        Progress { done_ms: i64, duration_ms: i64 },
        Finished { encoded: usize, reused: usize },
        Retrying { reason: &'a str },
    }
    #[derive(Serialize)]
    struct Line<'a> {
        source: String,
        track: SegmentTrack,
        index: u32,
        #[serde(flatten)]
        kind: Kind<'a>,
    }
    let Segment { source, track, index, duration_ms, .. } = &*event.segment;
    let kind = match &event.kind {
        RowEventKind::Planned { .. } => Kind::Planned,
        RowEventKind::Started { rungs } => Kind::Started { rungs },
        RowEventKind::Progress { done_ms } => Kind::Progress { done_ms: *done_ms, duration_ms: *duration_ms },
        RowEventKind::Finished { encoded, reused, .. } => {
            Kind::Finished { encoded: *encoded, reused: *reused }
        }
        RowEventKind::Retrying { reason } => Kind::Retrying { reason },
    };
    let line = Line { source: redact(source), track: *track, index: *index, kind };
    if let Ok(json) = serde_json::to_string(&line) {
        eprintln!("{json}");
    }
}
