//! How are results printed? Tables for people, JSON and CSV for programs, always on stdout.

use std::{io::Write, time::Duration};

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle, presets};
use datafusion::arrow::{
    array::{Array, ArrayRef, RecordBatch},
    csv,
    datatypes::DataType,
    json,
    util::display::{ArrayFormatter, FormatOptions},
};
use serde::Serialize;
use spool_media::{package::publish::Published, source::listing::FileInfo};
use spool_scheduler::Outcome;

use crate::{args::RowFormat, commands::plan::Planned, exit::CliError, profile::Summary, progress::Tally};

/// What a transcode command did.
#[derive(Serialize)]
pub struct Report<'a> {
    /// One ladder per source.
    pub published: &'a [Published],
    /// Wall-clock time of the command.
    #[serde(rename = "wall_ms", serialize_with = "as_ms")]
    pub wall: Duration,
    /// Rungs of rows that were encoded, and that were there already.
    pub tally: Tally,
    /// Where the time went, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Summary>,
}

fn as_ms<S: serde::Serializer>(wall: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
}

/// Prints a value as indented JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| CliError::Print(e.to_string()))?;
    print(&text)
}

/// A reader that went away (`| head`) is not an error.
pub fn print(text: &str) -> Result<(), CliError> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Print(error.to_string()))
        }
        _ => Ok(()),
    }
}

/// A line under the header and nothing else: the rows are the point.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Characters of a struct or list that a table shows; `--output json` shows all of it.
const NESTED_CHARS: usize = 40;

/// On a terminal it fits the width; elsewhere lines are as long as they need to be.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table
}

pub fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(NESTED_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

pub fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Prints what was made, where it is, how long it took, and how to play it.
pub fn print_report(report: &Report<'_>) -> Result<(), CliError> {
    for published in report.published {
        let mut table = table(&["rendition", "size", "fps", "codecs", "average", "peak", "bytes"]);
        for r in &published.renditions {
            let (size, fps) = match r.frame_rate {
                Some(rate) => (format!("{}x{}", r.width, r.height), format!("{:.3}", rate.to_f64())),
                None => ("sound".to_owned(), String::new()),
            };
            table.add_row([
                Cell::new(&r.name),
                Cell::new(size),
                right(fps),
                Cell::new(&r.codecs),
                right(bitrate(r.average_bps)),
                right(bitrate(r.peak_bps)),
                right(bytes(r.bytes)),
            ]);
        }
        print(&table.to_string())?;
        print(&format!("master  {}", display_uri(&published.master)))?;
    }
    let media_ms: i64 = report.published.iter().map(|p| p.duration_ms).sum();
    let media = Duration::from_millis(u64::try_from(media_ms).unwrap_or(0));
    let Tally { encoded, reused } = report.tally;
    let speed = media.as_secs_f64() / report.wall.as_secs_f64().max(0.001);
    print(&format!(
        "took    {} for {} of video ({speed:.1}x); encoded {encoded} parts, reused {reused}",
        clock(report.wall),
        clock(media)
    ))?;
    if let Some(published) = report.published.first() {
        print(&format!("play    {}", how_to_play(&published.master)))?;
    }
    report.profile.as_ref().map_or(Ok(()), Summary::print)
}

/// Says on stderr what is less than the source was to be.
pub fn warn(source: &str, published: &Published) {
    if published.lost_ms > 0 {
        let (lost, there) = (published.lost_ms as f64 / 1000.0, published.duration_ms as f64 / 1000.0);
        eprintln!(
            "warning: {source} was cut off: {there:.1} s are there and {lost:.1} s are missing (--strict refuses it)"
        );
    }
    if published.damaged_frames > 0 {
        let frames = published.damaged_frames;
        eprintln!(
            "warning: {source} is damaged: {frames} frames could not be decoded whole (--strict refuses it)"
        );
    }
}

/// A command that plays a master.
fn how_to_play(master: &str) -> String {
    match master.strip_prefix("file://") {
        Some(_) => format!("ffplay '{}'", display_uri(master)),
        None => format!("any HLS player, at the public URL of {master}"),
    }
}

/// A local file is shown as its path.
pub fn display_uri(uri: &str) -> String {
    url::Url::parse(uri)
        .ok()
        .filter(|url| url.scheme() == "file")
        .and_then(|url| url.to_file_path().ok())
        .map_or_else(|| uri.to_owned(), |path| path.display().to_string())
}

/// The last part of a path or URI.
pub fn short_name(source: &str) -> String {
    let path = display_uri(&spool_storage::redact(source));
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(&path).to_owned()
}

/// Prints what is in a file.
pub fn print_file(file: &FileInfo) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.add_row([name, &value]);
        }
    };
    row("uri", Some(display_uri(&file.uri)));
    row("bytes", Some(format!("{} ({})", file.bytes, bytes(file.bytes))));
    row("container", file.container.clone());
    row(
        "duration",
        file.duration_ms.and_then(|ms| u64::try_from(ms).ok()).map(|ms| clock_ms(Duration::from_millis(ms))),
    );
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
    for (number, audio) in file.audio.iter().enumerate() {
        let language =
            audio.language.as_deref().map_or_else(String::new, |language| format!(" ({language})"));
        let text = format!("{} {} Hz, {} channels{language}", audio.codec, audio.sample_rate, audio.channels);
        row(&format!("sound {number}"), Some(text));
    }
    println!("{table}");
}

/// Prints a plan.
pub fn print_plan(planned: &Planned) {
    let mut rows = table(&["track", "index", "first_frame", "frames", "start", "length", "media segments"]);
    for s in &planned.segments {
        rows.add_row([
            Cell::new(format!("{:?}", s.track).to_lowercase()),
            right(s.index),
            right(s.first_frame),
            right(s.frames),
            right(format!("{:.3} s", s.start_ms as f64 / 1000.0)),
            right(format!("{:.3} s", s.duration_ms as f64 / 1000.0)),
            right(s.frames.div_ceil(u64::from(s.media_segment_frames).max(1))),
        ]);
    }
    println!("{rows}");
    for r in &planned.renditions {
        let level =
            r.level.map_or_else(String::new, |level| format!(", level {}.{}", level / 10, level % 10));
        let peak = bitrate(u64::from(r.max_bitrate_bps));
        println!(
            "rung    {}: {} {}x{}, crf {}, peak {peak}{level}",
            r.name, r.codec, r.width, r.height, r.crf
        );
    }
    println!("source  {} ({})", display_uri(&planned.source), bytes(planned.bytes));
    println!("reading by {}; planning read {}", planned.reading, bytes(planned.planning_bytes));
    println!("takes   {}", planned.prediction);
}

/// Prints rows.
pub fn print_rows(outcome: &Outcome, format: RowFormat) -> Result<(), CliError> {
    let failed = |e: datafusion::arrow::error::ArrowError| CliError::Print(e.to_string());
    match format {
        RowFormat::Table => print(&rows_text(outcome)?),
        RowFormat::Json => {
            let mut out = Vec::new();
            let mut writer = json::ArrayWriter::new(&mut out);
            writer.write_batches(&outcome.batches.iter().collect::<Vec<_>>()).map_err(failed)?;
            writer.finish().map_err(failed)?;
            let text = String::from_utf8_lossy(&out);
            print(if text.is_empty() { "[]" } else { &text })
        }
        RowFormat::Csv => {
            let mut out = Vec::new();
            let mut writer = csv::Writer::new(&mut out);
            // CSV has no nesting: structs and lists become text.
            let flat = |batch: &RecordBatch| flatten(batch).map_err(failed);
            writer.write(&flat(&RecordBatch::new_empty(outcome.schema.clone()))?).map_err(failed)?;
            for batch in &outcome.batches {
                writer.write(&flat(batch)?).map_err(failed)?;
            }
            drop(writer);
            print(String::from_utf8_lossy(&out).trim_end())
        }
    }
}

/// Rows as a table, or, where a terminal is too narrow for it, a line per field.
fn rows_text(outcome: &Outcome) -> Result<String, CliError> {
    let failed = |e: datafusion::arrow::error::ArrowError| CliError::Print(e.to_string());
    let names: Vec<&str> = outcome.schema.fields().iter().map(|f| f.name().as_str()).collect();
    let numeric: Vec<bool> = outcome.schema.fields().iter().map(|f| f.data_type().is_numeric()).collect();
    let options = FormatOptions::default().with_null("");
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in &outcome.batches {
        let formatters: Result<Vec<ArrayFormatter<'_>>, _> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect();
        let formatters = formatters.map_err(failed)?;
        rows.extend((0..batch.num_rows()).map(|row| {
            let texts = formatters.iter().zip(batch.columns());
            texts
                .map(|(formatter, column)| {
                    let text = formatter.value(row).to_string();
                    if column.data_type().is_nested() { shortened(text) } else { text }
                })
                .collect()
        }));
    }
    let mut table = table(&names);
    table.set_content_arrangement(ContentArrangement::Disabled);
    for row in &rows {
        table.add_row(
            row.iter()
                .zip(&numeric)
                .map(|(text, number)| if *number { right(text) } else { Cell::new(text) }),
        );
    }
    let text = table.to_string();
    let too_wide =
        table.width().is_some_and(|width| text.lines().any(|line| line.chars().count() > usize::from(width)));
    Ok(if too_wide { records(&names, &rows) } else { text })
}

/// One block per row, one line per field.
fn records(names: &[&str], rows: &[Vec<String>]) -> String {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let block = |(number, row): (usize, &Vec<String>)| {
        let fields = names.iter().zip(row).map(|(name, text)| format!("{name:width$}  {text}"));
        std::iter::once(format!("── row {}", number + 1)).chain(fields).collect::<Vec<_>>().join("\n")
    };
    rows.iter().enumerate().map(block).collect::<Vec<_>>().join("\n")
}

fn flatten(batch: &RecordBatch) -> Result<RecordBatch, datafusion::arrow::error::ArrowError> {
    use datafusion::arrow::{
        array::StringArray,
        datatypes::{Field, Schema},
    };
    let options = FormatOptions::default();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if column.data_type().is_nested() {
            let formatter = ArrayFormatter::try_new(column, &options)?;
            let texts =
                (0..column.len()).map(|row| (!column.is_null(row)).then(|| formatter.value(row).to_string()));
            columns.push(std::sync::Arc::new(texts.collect::<StringArray>()));
            fields.push(Field::new(field.name(), DataType::Utf8, true));
        } else {
            columns.push(column.clone());
            fields.push(field.as_ref().clone());
        }
    }
    RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), columns)
}

/// A rate with its unit: `2.81 Mb/s`.
pub fn bitrate(bps: u64) -> String {
    match bps {
        0..1_000_000 => format!("{:.0} kb/s", bps as f64 / 1e3),
        _ => format!("{:.2} Mb/s", bps as f64 / 1e6),
    }
}

/// A size with its unit: `1.4 MB`.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

/// A length of time in whole seconds: `1:02:03`, `0:05`.
pub fn clock(length: Duration) -> String {
    let seconds = length.as_secs_f64().round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn clock_ms(length: Duration) -> String {
    let whole = Duration::from_secs(length.as_secs());
    format!("{}.{:03}", clock(whole), length.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_carry_their_units() {
        assert_eq!((bitrate(96_400).as_str(), bitrate(2_812_345).as_str()), ("96 kb/s", "2.81 Mb/s"));
        assert_eq!((bytes(999).as_str(), bytes(1_400_000).as_str()), ("999 B", "1.4 MB"));
        assert_eq!(
            (clock(Duration::from_secs(5)).as_str(), clock(Duration::from_secs(3723)).as_str()),
            ("0:05", "1:02:03")
        );
        assert_eq!(clock_ms(Duration::from_millis(5280)), "0:05.280");
    }

    #[test]
    fn a_source_is_called_by_its_last_part() {
        assert_eq!(short_name("s3://bucket/a/talk.mp4"), "talk.mp4");
        assert_eq!(short_name("file:///a/two%20words.mp4"), "two words.mp4");
    }
}
