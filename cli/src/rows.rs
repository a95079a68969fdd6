//! Rows of a statement on stdout: a table, JSON or CSV.

use comfy_table::{Cell, ContentArrangement};
use datafusion::arrow::{
    array::{Array, ArrayRef, RecordBatch},
    csv,
    datatypes::DataType,
    json,
    util::display::{ArrayFormatter, FormatOptions},
};
use spool_scheduler::StatementResult;

use crate::{
    args::RowFormat,
    error::CliError,
    output::{print, right, shortened, table},
};

/// Prints the rows of a statement.
pub fn print_rows(result: &StatementResult, format: RowFormat) -> Result<(), CliError> {
    let failed = |e: datafusion::arrow::error::ArrowError| CliError::Print(e.to_string());
    match format {
        RowFormat::Table => print(&rows_text(result)?),
        RowFormat::Json => {
            let mut out = Vec::new();
            let mut writer = json::ArrayWriter::new(&mut out);
            writer.write_batches(&result.batches.iter().collect::<Vec<_>>()).map_err(failed)?;
            writer.finish().map_err(failed)?;
            let text = String::from_utf8_lossy(&out);
            print(if text.is_empty() { "[]" } else { &text })
        }
        RowFormat::Csv => {
            let mut out = Vec::new();
            let mut writer = csv::Writer::new(&mut out);
            // CSV cannot nest: structs and lists become text.
            let flat = |batch: &RecordBatch| flatten(batch).map_err(failed);
            writer.write(&flat(&RecordBatch::new_empty(result.schema.clone()))?).map_err(failed)?;
            for batch in &result.batches {
                writer.write(&flat(batch)?).map_err(failed)?;
            }
            drop(writer);
            print(String::from_utf8_lossy(&out).trim_end())
        }
    }
}

/// Returns rows as a table, or with a line per field if the table is wider than the terminal.
fn rows_text(result: &StatementResult) -> Result<String, CliError> {
    let failed = |e: datafusion::arrow::error::ArrowError| CliError::Print(e.to_string());
    let names: Vec<&str> = result.schema.fields().iter().map(|f| f.name().as_str()).collect();
    let numeric: Vec<bool> = result.schema.fields().iter().map(|f| f.data_type().is_numeric()).collect();
    let options = FormatOptions::default().with_null("");
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in &result.batches {
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

/// Returns a block per row with a line per field.
fn records(names: &[&str], rows: &[Vec<String>]) -> String {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let block = |(number, row): (usize, &Vec<String>)| {
        let fields = names.iter().zip(row).map(|(name, text)| format!("{name:width$}  {text}"));
        std::iter::once(format!("── row {}", number + 1)).chain(fields).collect::<Vec<_>>().join("\n")
    };
    rows.iter().enumerate().map(block).collect::<Vec<_>>().join("\n")
}

/// Replaces structs and lists by their text.
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
