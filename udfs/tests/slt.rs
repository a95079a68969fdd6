//! SQL logic tests of the functions on DataFusion alone; `tests/tests/sql.rs` runs the files through Ballista
//! too.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests make their own clips"
)]

#[path = "../../tests/src/footage.rs"]
#[allow(dead_code, reason = "the library of the whole-system tests, of which this needs a part")]
mod footage;
#[path = "../../tests/src/repository.rs"]
mod repository;
#[path = "../../tests/src/slt.rs"]
#[allow(dead_code, reason = "the library of the whole-system tests, of which this needs a part")]
mod slt;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::RecordBatch,
        util::display::{ArrayFormatter, FormatOptions},
    },
    error::DataFusionError,
    prelude::SessionContext,
};
use spool_media::{encode::worker::Worker, environment::Environment, ffmpeg::Tools};
use spool_storage::Stores;
use spool_udfs::{error::Failure, session};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};
use tempfile::TempDir;

/// Session of every role, without an engine.
struct PlainSession {
    context: SessionContext,
    _scratch: TempDir,
}

impl PlainSession {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let worker = Arc::new(Worker::new(
            Environment::new(Stores::from_env(), Tools::from_env().unwrap(), scratch.path()).unwrap(),
        ));
        let state = session::state(&worker, session::config()).unwrap();
        Self { context: SessionContext::new_with_state(state), _scratch: scratch }
    }
}

/// Returns the message of a failing statement.
#[derive(Debug)]
struct StatementError(String);

impl std::fmt::Display for StatementError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StatementError {}

impl From<DataFusionError> for StatementError {
    fn from(error: DataFusionError) -> Self {
        let text = error.to_string();
        Self(Failure::find(&text).map_or(text, |failure| failure.message))
    }
}

#[async_trait]
impl AsyncDB for PlainSession {
    type Error = StatementError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, StatementError> {
        let frame = self.context.sql(sql).await?;
        let types = vec![DefaultColumnType::Any; frame.schema().fields().len()];
        let batches = frame.collect().await?;
        Ok(DBOutput::Rows { types, rows: batches.iter().flat_map(rows).collect() })
    }

    async fn shutdown(&mut self) {}
}

/// Returns the rows of a batch, with their fields as text.
fn rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default();
    let columns: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let field = |column: &ArrayFormatter<'_>, row| match column.value(row).to_string() {
        text if text.is_empty() => slt::EMPTY.to_owned(),
        text => text,
    };
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| field(column, row)).collect()).collect()
}

async fn on_datafusion(file: &str) {
    slt::run(file, || async { Ok(PlainSession::new()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments() {
    on_datafusion("segments.slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probe() {
    on_datafusion("probe.slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media() {
    on_datafusion("media.slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ladder() {
    on_datafusion("ladder.slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transcode() {
    on_datafusion("transcode.slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused() {
    on_datafusion("refused.slt").await;
}
