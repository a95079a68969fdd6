//! Results on stdout: JSON documents, tables, and figures with their units.

use std::{io::Write, time::Duration};

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use serde::Serialize;

use crate::error::CliError;

/// Prints a value as indented JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| CliError::Print(e.to_string()))?;
    print(&text)
}

/// Prints a text and a line break. A reader that has closed the pipe (`| head`) is not an error.
pub fn print(text: &str) -> Result<(), CliError> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Print(error.to_string()))
        }
        _ => Ok(()),
    }
}

/// Style of tables: one line, under the header.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Characters of a struct or list that a table shows; `--output json` shows all of it.
const NESTED_CHARS: usize = 40;

/// Returns an empty table that fits the width of a terminal. Elsewhere its lines are as long as their texts.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table
}

/// Returns a text cut to the width of a nested value in a table.
pub fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(NESTED_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Returns a right-aligned cell.
pub fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Formats a bit rate with its unit: `2.81 Mb/s`.
pub fn bitrate(bps: u64) -> String {
    match bps {
        0..1_000_000 => format!("{:.0} kb/s", bps as f64 / 1e3),
        _ => format!("{:.2} Mb/s", bps as f64 / 1e6),
    }
}

/// Formats a size with its unit: `1.4 MB`.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

/// Formats a length of time in whole seconds: `1:02:03`, `0:05`.
pub fn clock(length: Duration) -> String {
    let seconds = length.as_secs_f64().round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Formats a length of time in milliseconds: `0:05.280`.
pub fn clock_ms(length: Duration) -> String {
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
}
