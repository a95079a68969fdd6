//! `spool plan`: which rows would a video become, at which rungs, what would be read, and what will it take?

use serde::Serialize;
use spool_media::{
    plan::{
        ladder::{Ladder, VideoRendition},
        rows,
        segments::{Lengths, Segment},
    },
    predict::{cost_model::Prediction, features::EncodeFeatures},
    source::source_cache,
};

use crate::{
    args::{Format, Global, Plan},
    exit::CliError,
    local, output,
};

/// What a plan says.
#[derive(Debug, Serialize)]
pub struct Planned {
    /// The video.
    pub source: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes that planning read.
    pub planning_bytes: u64,
    /// How rows read it.
    pub reading: &'static str,
    /// Its rows.
    pub segments: Vec<Segment>,
    /// What each row of pictures is encoded to.
    pub renditions: Vec<VideoRendition>,
    /// What it will take here.
    pub prediction: Prediction,
}

pub async fn run(global: &Global, args: Plan) -> Result<(), CliError> {
    let ladder = Ladder::parse(&args.ladder).map_err(|e| CliError::Usage(format!("--ladder: {e}")))?;
    let lengths = Lengths::new(args.cut.segment(false), args.cut.media_segment)
        .map_err(|e| CliError::Usage(e.to_string()))?;
    let cancel = local::interrupt();
    let worker = local::worker(global)?;
    let title = worker.open(&args.source, args.cut.deinterlace).await?;
    let renditions = match &title.source.probe.video {
        Some(video) => ladder.fit(video, &title.grid).map_err(spool_media::Error::from)?,
        None => Vec::new(),
    };
    let rows = rows::rows(&title, lengths)?;
    // What is encoded to look at it is not needed to plan.
    let planning_bytes = title.source.reader.inner().bytes_read();
    let samples = tokio::select! {
        samples = worker.complexity(&title, &ladder) => samples,
        () = cancel.cancelled() => return Err(CliError::interrupted()),
    };
    let work = rows
        .iter()
        .map(|row| EncodeFeatures::of(&title, row, &ladder, samples.as_ref()))
        .collect::<Result<Vec<_>, _>>()?;
    let planned = Planned {
        source: title.source.redacted_uri(),
        bytes: title.source.bytes,
        planning_bytes,
        reading: title.source.reading(),
        segments: rows.iter().map(Segment::without_secrets).collect(),
        renditions,
        prediction: Prediction::of(&worker.cost_model(), &work, local::slots(args.share), args.share.threads),
    };
    match args.output {
        Format::Json => output::print_json(&planned),
        Format::Table => {
            output::print_plan(&planned);
            Ok(())
        }
    }
}
