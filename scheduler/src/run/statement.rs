//! Statement run: plans a statement, encodes its rows, inserts their results into the plan, and runs the
//! rest.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    error::DataFusionError,
    logical_expr::LogicalPlan,
    prelude::SessionContext,
};
use spool_media::encode::{
    events::{RowEvent, RowEventKind},
    worker::Worker,
};
use spool_storage::Backoff;
use spool_udfs::options::SpoolOptions;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    attempt::{Attempt, AttemptContext},
    early_playback::EarlyPlayback,
    explain::Explainer,
    plan_rewrite::{self, Encode},
    planner::{PlannedRows, Planner},
    results::{StatementResult, StatementTiming},
    rows::{Rows, RowsContext},
};
use crate::error::{Error, Result};
use crate::queue::statement_list::StatementEntry;

/// Most attempts at the work after the rows: merging and publishing.
const ATTEMPTS_MAX: usize = 4;

/// First and longest wait before that work is attempted again.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

/// Interval between checks for executors that take rows.
const EXECUTORS_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Receives the events of a statement's rows.
type OnEvent<'a> = &'a (dyn Fn(RowEvent) + Send + Sync);

/// Parts of a scheduler that running a statement uses.
pub(crate) struct RunContext {
    pub(crate) planner: Planner,
    pub(crate) rows: RowsContext,
    pub(crate) worker: Arc<Worker>,
    /// Time for which a statement waits while no executor takes rows.
    pub(crate) no_executor_timeout: Duration,
}

impl RunContext {
    /// Runs a statement that is in the list to its end.
    pub(crate) async fn run(
        &self,
        entry: &StatementEntry,
        sql: &str,
        settings: &[(&str, &str)],
        on_event: OnEvent<'_>,
    ) -> Result<StatementResult> {
        let result = tokio::select! {
            biased;
            () = entry.canceled() => Err(Error::Canceled),
            result = self.execute(entry, sql, settings, on_event) => result,
            error = self.no_executors() => Err(error),
        };
        // Also after a failure: encoded rows are not encoded again, and so not measured again.
        self.worker.save_cost_model();
        let (statement, ms) = (entry.id(), u64::try_from(entry.elapsed().as_millis()).unwrap_or(u64::MAX));
        match &result {
            Ok(result) => {
                let rows: usize = result.batches.iter().map(RecordBatch::num_rows).sum();
                info!(statement, rows, ms, "statement done");
            }
            Err(error) => info!(statement, %error, ms, "statement ended"),
        }
        result
    }

    /// Returns the columns of a statement, which is planned but not run.
    pub(crate) async fn schema(&self, sql: &str, settings: &[(&str, &str)]) -> Result<SchemaRef> {
        let session = self.planner.session(settings).await?;
        Ok(self.planner.logical_plan(&session, sql).await?.schema().inner().clone())
    }

    async fn execute(
        &self,
        entry: &StatementEntry,
        sql: &str,
        settings: &[(&str, &str)],
        on_event: OnEvent<'_>,
    ) -> Result<StatementResult> {
        let (mut timing, begun) = (StatementTiming::default(), Instant::now());
        let session = self.planner.session(settings).await?;
        let mut plan = self.planner.logical_plan(&session, sql).await?;
        timing.planning = begun.elapsed();
        let schema = plan.schema().inner().clone();
        if runs_in_the_session(&plan) {
            let batches = self.run_in_the_session(&session, plan).await?;
            return Ok(StatementResult { schema, batches, timing });
        }
        let failed = |e: DataFusionError| Error::from_engine(&e.to_string());
        let mut early_playbacks = Vec::new();
        plan = plan_rewrite::unnest(plan).map_err(failed)?;
        while let Some(encode) = plan_rewrite::find_encode(&plan).map_err(failed)? {
            let rows =
                self.encode(entry, &session, &encode, on_event, &mut timing, &mut early_playbacks).await?;
            plan = plan_rewrite::replace_encode(plan, &encode, rows).map_err(failed)?;
        }
        let begun = Instant::now();
        let batches = self.finish(&session, &plan).await?;
        for early_playback in early_playbacks {
            early_playback.end().await;
        }
        timing.merging = begun.elapsed();
        Ok(StatementResult { schema, batches, timing })
    }

    /// Runs `EXPLAIN`, `SHOW` and the like, which need no executor.
    async fn run_in_the_session(
        &self,
        session: &SessionContext,
        plan: LogicalPlan,
    ) -> Result<Vec<RecordBatch>> {
        if let LogicalPlan::Explain(explain) = &plan {
            let explainer = Explainer {
                worker: &self.worker,
                planner: &self.planner,
                executors: &self.rows.attempts.executors,
            };
            return explainer.explain(session, &plan, &explain.plan).await;
        }
        let frame = session.execute_logical_plan(plan).await.map_err(|e| Error::from_planner(&e))?;
        frame.collect().await.map_err(|e| Error::from_planner(&e))
    }

    /// Encodes the rows of a projection. Returns the projection's rows.
    async fn encode(
        &self,
        entry: &StatementEntry,
        session: &Arc<SessionContext>,
        encode: &Encode,
        on_event: OnEvent<'_>,
        timing: &mut StatementTiming,
        early_playbacks: &mut Vec<EarlyPlayback>,
    ) -> Result<Vec<RecordBatch>> {
        let begun = Instant::now();
        let PlannedRows { segments, plan, schema } = self.planner.plan_rows(session, encode).await?;
        timing.planning += begun.elapsed();
        if segments.is_empty() {
            return Ok(Vec::new());
        }
        let first_ordinal = entry.add_rows(&segments);
        info!(statement = entry.id(), rows = segments.len(), "rows planned");
        let on_event = |event: RowEvent| {
            entry.on_event(&event);
            if let RowEventKind::Finished { timing, .. } = &event.kind {
                self.worker.learn(timing);
            }
            on_event(event);
        };
        for (ordinal, segment) in (first_ordinal..).zip(&segments) {
            let Some(segment) = segment.clone().map(Box::new) else { continue };
            on_event(RowEvent { ordinal, kind: RowEventKind::Planned { segment } });
        }
        entry.before_rows().await?;
        let options =
            session.state().config().options().extensions.get::<SpoolOptions>().cloned().unwrap_or_default();
        if options.early_playback {
            early_playbacks.push(EarlyPlayback::start(self.worker.clone(), &segments));
        }
        let rows = Rows {
            context: &self.rows,
            session: session.clone(),
            statement: entry.id(),
            plan,
            schema,
            first_ordinal,
            segments,
            early_playback: early_playbacks.last().filter(|_| options.early_playback),
            on_event: &on_event,
        };
        let begun = Instant::now();
        let results = rows.run().await?;
        timing.rows += begun.elapsed();
        Ok(results)
    }

    /// Runs the rest of a plan, which encodes nothing. Its work is idempotent, so retryable failures are
    /// retried.
    async fn finish(&self, session: &Arc<SessionContext>, plan: &LogicalPlan) -> Result<Vec<RecordBatch>> {
        let plan = self.planner.physical_plan(session, plan).await?;
        let context: &AttemptContext = &self.rows.attempts;
        let mut delays = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX).take(ATTEMPTS_MAX - 1);
        loop {
            let attempt = Attempt {
                context,
                session: session.clone(),
                plan: plan.clone(),
                row: None,
                number: context.next_number(),
                tried: Default::default(),
                progress: Arc::default(),
                cancel: CancellationToken::new(),
                on_event: &|_| {},
            };
            match attempt.run().await {
                Err(error) if error.is_retryable() => {
                    let Some(delay) = delays.next() else { return Err(error.after_attempts(ATTEMPTS_MAX)) };
                    warn!(%error, "job failed; retrying");
                    sleep(delay).await;
                }
                ended => return ended,
            }
        }
    }

    /// Waits until no executor has taken rows for `no_executor_timeout`.
    async fn no_executors(&self) -> Error {
        let timeout = self.no_executor_timeout;
        let mut ticks = interval(EXECUTORS_POLL_INTERVAL);
        let mut since = None;
        loop {
            ticks.tick().await;
            match self.rows.attempts.executors.stall_reason() {
                None => since = None,
                Some(reason) if since.get_or_insert_with(Instant::now).elapsed() > timeout => {
                    return Error::no_executors(&reason, timeout);
                }
                Some(_) => {}
            }
        }
    }
}

fn runs_in_the_session(plan: &LogicalPlan) -> bool {
    matches!(
        plan,
        LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::DescribeTable(_)
    )
}
