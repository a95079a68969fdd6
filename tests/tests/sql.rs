//! Statements give the results of the `.slt` files through Ballista. `udfs/tests/slt.rs` runs the same files
//! on DataFusion alone.
#![expect(clippy::unwrap_used, reason = "tests")]

use spool_tests::{
    run::Spool,
    slt::{self, EMPTY},
};
use sqllogictest::{DB, DBOutput, DefaultColumnType};

/// Runs statements by `spool sql`: a scheduler and an executor in its process.
struct Command;

/// The error of a statement, as `spool sql` prints it.
#[derive(Debug)]
struct Refusal(String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

impl DB for Command {
    type Error = Refusal;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Refusal> {
        let ran = Spool::new(["sql", "--output", "csv", "-c", sql]).run();
        ran.expect_no_leftovers();
        if ran.code != Some(0) {
            let (_, message) = ran.stderr.split_once("error: ").unwrap_or(("", &ran.stderr));
            return Err(Refusal(message.trim().to_owned()));
        }
        let mut rows = records(&ran.stdout).into_iter();
        let columns = rows.next().unwrap_or_default().len();
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows: rows.collect() })
    }
}

/// Returns the records of a CSV text (RFC 4180), the header first.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    let filled = |field: &mut String| match std::mem::take(field) {
        text if text.is_empty() => EMPTY.to_owned(),
        text => text,
    };
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(filled(&mut field)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                record.push(filled(&mut field));
                records.push(std::mem::take(&mut record));
            }
            other => field.push(other),
        }
    }
    assert!(record.is_empty() && field.is_empty(), "the last line does not end: {text}");
    records
}

#[test]
fn csv_is_parsed_by_rfc_4180() {
    let fields = |row: &[&str]| row.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(records("a,b\n\"x, \"\"y\"\"\",\n"), [fields(&["a", "b"]), fields(&["x, \"y\"", EMPTY])]);
}

fn through_ballista(file: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(slt::run(file, || async { Ok(Command) }));
}

#[test]
fn segments() {
    through_ballista("segments.slt");
}

#[test]
fn probe() {
    through_ballista("probe.slt");
}

#[test]
fn media() {
    through_ballista("media.slt");
}

#[test]
fn ladder() {
    through_ballista("ladder.slt");
}

#[test]
fn transcode() {
    through_ballista("transcode.slt");
}

#[test]
fn refused() {
    through_ballista("refused.slt");
}

#[test]
fn every_file_is_run() {
    let tests = include_str!("sql.rs");
    for entry in std::fs::read_dir(slt::files()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(tests.contains(&format!("through_ballista(\"{name}\")")), "{name} has no test");
    }
}
