//! `Scheduler`: the handle to run, list and cancel statements.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use spool_media::encode::events::RowEvent;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Result,
    metrics::Metrics,
    queue::statement_list::{BeforeRows, StatementEntry, StatementList},
    run::{results::StatementResult, statement::RunContext},
};

/// A running scheduler. Clones share it.
#[derive(Clone)]
pub struct Scheduler {
    pub(crate) context: Arc<RunContext>,
    pub(crate) statements: StatementList,
    pub(crate) metrics: Arc<Metrics>,
}

impl Scheduler {
    /// Runs one statement to its end. `settings` are session settings such as `("spool.threads", "2")`;
    /// `on_event` receives the events of the statement's rows.
    ///
    /// # Errors
    /// Returns [`crate::Error::Sql`] if planning fails, [`crate::Error::Refused`] if the statement would
    /// silently go wrong, [`crate::Error::Failed`] if a function fails, [`crate::Error::NoExecutors`] if no
    /// executor takes rows for too long, [`crate::Error::Canceled`] once `cancel` fires: then the statement's
    /// rows are canceled.
    pub async fn run(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
        cancel: &CancellationToken,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<StatementResult> {
        self.run_held(sql, settings, cancel, on_event, None).await
    }

    /// Runs one statement as [`Scheduler::run`] does, and awaits `before_rows` when its rows are planned,
    /// before the first of them runs.
    ///
    /// # Errors
    /// Returns the errors of [`Scheduler::run`], and the error of `before_rows`.
    pub async fn run_held(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
        cancel: &CancellationToken,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
        before_rows: Option<BeforeRows>,
    ) -> Result<StatementResult> {
        let entry = self.add(sql, cancel).with_before_rows(before_rows);
        self.run_added(&entry, sql, settings, on_event).await
    }

    /// Returns the columns of a statement, which is planned but not run.
    ///
    /// # Errors
    /// Returns the errors of planning, as [`Scheduler::run`] does.
    pub async fn schema(&self, sql: &str, settings: &[(&str, &str)]) -> Result<SchemaRef> {
        self.context.schema(sql, settings).await
    }

    /// Adds a statement to the list, and assigns the number by which it can be canceled.
    pub(crate) fn add(&self, sql: &str, cancel: &CancellationToken) -> StatementEntry {
        self.metrics.statements.inc();
        self.statements.add(sql, cancel)
    }

    /// Runs a statement that is in the list, as [`Scheduler::run`] does.
    pub(crate) async fn run_added(
        &self,
        entry: &StatementEntry,
        sql: &str,
        settings: &[(&str, &str)],
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<StatementResult> {
        self.context.run(entry, sql, settings, on_event).await
    }
}
