//! `spool plan`: shows the segments and renditions of a video, and predicts processor time, wall time and
//! bytes.

use comfy_table::Cell;
use serde::Serialize;
use spool_media::{
    plan::{
        ladder::{Ladder, VideoRendition},
        rows,
        segments::{Lengths, Segment},
    },
    predict::{cost_model::Prediction, features::EncodeFeatures},
};

use crate::{
    args::{GlobalArgs, OutputFormat, PlanArgs},
    error::CliError,
    output::{self, bitrate, bytes, right},
    paths::display_uri,
    signals, worker,
};

/// Plan of a video.
#[derive(Debug, Serialize)]
struct Planned {
    /// URI of the video.
    source: String,
    /// Length of the video in bytes.
    bytes: u64,
    /// Bytes that planning read.
    planning_bytes: u64,
    /// Way in which rows read the source.
    reading: &'static str,
    /// Rows of the video.
    segments: Vec<Segment>,
    /// Renditions of each video row.
    renditions: Vec<VideoRendition>,
    /// Predicted cost on this machine.
    prediction: Prediction,
}

pub async fn run(global: &GlobalArgs, args: PlanArgs) -> Result<(), CliError> {
    let ladder = Ladder::parse(&args.ladder).map_err(|e| CliError::Usage(format!("--ladder: {e}")))?;
    let lengths = Lengths::new(args.segmentation.segment(false), args.segmentation.media_segment)
        .map_err(|e| CliError::Usage(e.to_string()))?;
    let cancel = signals::interrupt();
    let worker = worker::worker(global)?;
    let timeline = worker.open(&args.source, args.segmentation.deinterlace).await?;
    let renditions = match &timeline.source.probe.video {
        Some(video) => ladder.fit(video, &timeline.grid).map_err(spool_media::Error::from)?,
        None => Vec::new(),
    };
    let rows = rows::rows(&timeline, lengths)?;
    // Read before the prediction, which reads further bytes.
    let planning_bytes = timeline.source.reader.inner().bytes_read();
    let samples = tokio::select! {
        samples = worker.complexity(&timeline, &ladder) => samples,
        () = cancel.cancelled() => return Err(CliError::interrupted()),
    };
    let features = rows
        .iter()
        .map(|row| EncodeFeatures::of(&timeline, row, &ladder, samples.as_ref()))
        .collect::<Result<Vec<_>, _>>()?;
    let planned = Planned {
        source: timeline.source.source.redacted_uri(),
        bytes: timeline.source.source.bytes,
        planning_bytes,
        reading: timeline.source.reading(),
        segments: rows.iter().map(Segment::without_secrets).collect(),
        renditions,
        prediction: Prediction::of(&worker.cost_model(), &features, args.slots.count(), args.slots.threads),
    };
    match args.output {
        OutputFormat::Json => output::print_json(&planned),
        OutputFormat::Table => output::print(&planned.text()),
    }
}

impl Planned {
    /// Returns the plan as a table of segments and lines of renditions and predictions.
    fn text(&self) -> String {
        let mut table =
            output::table(&["track", "index", "first_frame", "frames", "start", "length", "media segments"]);
        for s in &self.segments {
            table.add_row([
                Cell::new(format!("{:?}", s.track).to_lowercase()),
                right(s.index),
                right(s.first_frame),
                right(s.frames),
                right(format!("{:.3} s", s.start_ms as f64 / 1000.0)),
                right(format!("{:.3} s", s.duration_ms as f64 / 1000.0)),
                right(s.frames.div_ceil(u64::from(s.media_segment_frames).max(1))),
            ]);
        }
        let mut lines = vec![table.to_string()];
        lines.extend(self.renditions.iter().map(|r| {
            let level =
                r.level.map_or_else(String::new, |level| format!(", level {}.{}", level / 10, level % 10));
            let peak = bitrate(u64::from(r.max_bitrate_bps));
            format!(
                "rung    {}: {} {}x{}, crf {}, peak {peak}{level}",
                r.name, r.codec, r.width, r.height, r.crf
            )
        }));
        lines.push(format!("source  {} ({})", display_uri(&self.source), bytes(self.bytes)));
        lines.push(format!("reading by {}; planning read {}", self.reading, bytes(self.planning_bytes)));
        lines.push(format!("takes   {}", self.prediction));
        lines.join("\n")
    }
}
