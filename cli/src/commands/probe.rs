//! `spool probe`: shows the container, tracks and format of a video.

use std::time::Duration;

use comfy_table::{Table, presets};
use spool_media::listing::{self, FileInfo};

use crate::{
    args::{GlobalArgs, OutputFormat, ProbeArgs},
    error::CliError,
    output,
    paths::display_uri,
    worker,
};

pub async fn run(global: &GlobalArgs, args: ProbeArgs) -> Result<(), CliError> {
    let worker = worker::worker(global)?;
    let file = listing::file(worker.timelines(), &args.source).await?;
    match args.output {
        OutputFormat::Json => output::print_json(&file),
        OutputFormat::Table => output::print(&text(&file)),
    }
}

/// Returns a line per known property of a file.
fn text(file: &FileInfo) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.add_row([name, &value]);
        }
    };
    row("uri", Some(display_uri(&file.uri)));
    row("bytes", Some(format!("{} ({})", file.bytes, output::bytes(file.bytes))));
    row("container", file.container.clone());
    let duration = file.duration_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    row("duration", duration.map(output::clock_ms));
    let size = file.width.zip(file.height).map(|(width, height)| format!("{width}x{height}"));
    row("picture", size);
    row("rotation", file.rotation.filter(|r| *r != 0).map(|r| format!("{r} degrees clockwise")));
    row("fps", file.fps.map(|fps| format!("{fps:.3}")));
    row(
        "video",
        file.video_codec
            .as_ref()
            .map(|codec| format!("{codec} {}", file.pixel_format.as_deref().unwrap_or(""))),
    );
    row("hdr", file.hdr.filter(|hdr| *hdr).map(|_| "yes".to_owned()));
    row("interlaced", file.interlaced.filter(|interlaced| *interlaced).map(|_| "yes".to_owned()));
    for (index, audio) in file.audio.iter().enumerate() {
        let language =
            audio.language.as_deref().map_or_else(String::new, |language| format!(" ({language})"));
        let text = format!("{} {} Hz, {} channels{language}", audio.codec, audio.sample_rate, audio.channels);
        row(&format!("audio {index}"), Some(text));
    }
    table.to_string()
}
