//! How is a statement executed? Planned here; its rows are encoded first, and what they gave takes their place; then the rest runs.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use backon::BackoffBuilder;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    logical_expr::LogicalPlan,
    physical_plan::ExecutionPlanProperties,
    prelude::{SQLOptions, SessionContext},
};
use spool_media::{
    encode::events::{RowEvent, RowEventKind},
    plan::segments::Segment,
};
use spool_storage::ErrorKind;
use spool_udfs::options::SpoolOptions;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    attempt::Attempt,
    error::{Error, Result},
    live::Live,
    phases::{self, Encode},
    rows::Rows,
    service::Scheduler,
    statements::Entry,
};

/// How often what follows the rows is tried: the merge and the publishing.
const ATTEMPTS: usize = 4;

/// The wait before it is tried again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(10);

/// How often it is looked whether anybody works here.
const LOOK: Duration = Duration::from_secs(1);

/// RowEventKind a statement returned.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The columns, also where there are no rows.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Where the time went.
    pub spent: Spent,
}

/// Where a statement's time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Planning, which opens and cuts sources.
    pub planning: Duration,
    /// Encoding rows.
    pub rows: Duration,
    /// RowEventKind follows the rows: the merge and the publishing.
    pub merging: Duration,
}

impl Outcome {
    /// The structs of one column, as what they stand for; NULLs are left out.
    ///
    /// # Errors
    /// Where there is no such column, or its fields are others.
    pub fn structs<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<Vec<T>> {
        let mut values = Vec::new();
        for batch in &self.batches {
            let array = batch
                .column_by_name(column)
                .ok_or_else(|| Error::Engine { message: format!("the result has no column {column}") })?;
            let found = spool_udfs::value::values(array).map_err(|e| Error::from_engine(&e.to_string()))?;
            values.extend(found.into_iter().flatten());
        }
        Ok(values)
    }
}

impl Scheduler {
    /// Runs one statement to its end. `settings` are session settings such as `("spool.threads", "2")`; `tell` hears what happens to
    /// rows.
    ///
    /// # Errors
    /// [`Error::Sql`] where it cannot be planned, [`Error::Refused`] where it would silently go wrong, [`Error::Failed`] where a function
    /// fails, [`Error::NoExecutors`] where nobody comes to work, [`Error::Canceled`] once `cancel` fires: then its rows are told to stop.
    pub async fn run(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
        cancel: &CancellationToken,
        tell: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Outcome> {
        let entry = self.statements.enter(sql, cancel);
        let outcome = tokio::select! {
            biased;
            () = entry.canceled() => Err(Error::Canceled),
            outcome = self.execute(&entry, sql, settings, tell) => outcome,
            error = self.nobody_works() => Err(error),
        };
        // Also where it failed: what is encoded is not encoded again, and so not measured again.
        self.worker.save_cost_model();
        match &outcome {
            Ok(outcome) => {
                let rows: usize = outcome.batches.iter().map(RecordBatch::num_rows).sum();
                info!(statement = entry.number(), rows, ms = elapsed_ms(entry.started()), "statement done");
            }
            Err(error) => {
                info!(statement = entry.number(), %error, ms = elapsed_ms(entry.started()), "statement ended")
            }
        }
        outcome
    }

    /// The columns that a statement would give; it is planned and not run.
    ///
    /// # Errors
    /// As [`Scheduler::run`], as far as planning goes.
    pub async fn schema(&self, sql: &str, settings: &[(&str, &str)]) -> Result<SchemaRef> {
        let session = self.session(settings).await?;
        Ok(self.plan(&session, sql).await?.schema().inner().clone())
    }

    async fn execute(
        &self,
        entry: &Entry,
        sql: &str,
        settings: &[(&str, &str)],
        tell: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Outcome> {
        let (mut spent, begun) = (Spent::default(), Instant::now());
        let session = self.session(settings).await?;
        let mut plan = self.plan(&session, sql).await?;
        spent.planning = begun.elapsed();
        let schema = plan.schema().inner().clone();
        if runs_here(&plan) {
            if let LogicalPlan::Explain(explain) = &plan {
                let batches = self.explain(&session, &plan, &explain.plan).await?;
                return Ok(Outcome { schema, batches, spent });
            }
            // SHOW and SET are answered by the session itself.
            let frame = session.execute_logical_plan(plan).await.map_err(|e| Error::from_planner(&e))?;
            let batches = frame.collect().await.map_err(|e| Error::from_planner(&e))?;
            return Ok(Outcome { schema, batches, spent });
        }
        let engine = |e: datafusion::error::DataFusionError| Error::from_engine(&e.to_string());
        let mut lives = Vec::new();
        plan = phases::unnest(plan).map_err(engine)?;
        while let Some(encode) = phases::find_encode(&plan).map_err(engine)? {
            let gave = self.encode(entry, &session, &encode, tell, &mut spent, &mut lives).await?;
            plan = phases::replace_encode(plan, &encode, gave).map_err(engine)?;
        }
        let begun = Instant::now();
        let batches = self.finish(&session, &plan, tell).await?;
        for live in lives {
            live.end().await;
        }
        spent.merging = begun.elapsed();
        Ok(Outcome { schema, batches, spent })
    }

    async fn session(&self, settings: &[(&str, &str)]) -> Result<Arc<SessionContext>> {
        let mut config = self.session_config.clone();
        for (name, value) in settings {
            // One that does not exist panics in the setter that does not tell.
            config.options_mut().set(name, value).map_err(|e| Error::Sql { message: e.strip_backtrace() })?;
        }
        let id = format!("spool-{}", ballista_core::ids::new_instance_id());
        self.server
            .state
            .session_manager
            .create_or_update_session(&id, &config)
            .await
            .map_err(|e| Error::from_engine(&e.to_string()))
    }

    async fn plan(&self, session: &SessionContext, sql: &str) -> Result<LogicalPlan> {
        let _planner = self.planners.acquire().await;
        let planning = async {
            // A statement that makes or changes a table would run at once, here, beside slots and cancellation; and the table would be gone.
            // And whoever is confined has no say in the settings.
            let confined = SpoolOptions::confines(session.state().config().options()).is_some();
            let options = SQLOptions::new()
                .with_allow_ddl(false)
                .with_allow_dml(false)
                .with_allow_statements(!confined);
            session.sql_with_options(sql, options).await?.into_optimized_plan()
        };
        planning.await.map_err(|e| Error::from_planner(&e))
    }

    /// Encodes the rows that a projection is over; gives what it gives.
    async fn encode(
        &self,
        entry: &Entry,
        session: &Arc<SessionContext>,
        encode: &Encode,
        tell: &(dyn Fn(RowEvent) + Send + Sync),
        spent: &mut Spent,
        lives: &mut Vec<Live>,
    ) -> Result<Vec<RecordBatch>> {
        let begun = Instant::now();
        let planning = async {
            let _planner = self.planners.acquire().await;
            let input =
                session.execute_logical_plan(encode.input().clone()).await?.collect_partitioned().await?;
            let rows: Vec<RecordBatch> =
                input.into_iter().flatten().flat_map(|batch| one_row_each(&batch)).collect();
            let state = session.state();
            let segment = state.create_physical_expr(encode.segment.clone(), encode.input().schema())?;
            // RowEventKind is no segment is refused where it is encoded; here it only has no weight.
            let segments = rows.iter().map(|row| {
                let array = segment.evaluate(row).and_then(|value| value.into_array(1)).ok()?;
                spool_udfs::value::values::<Segment>(&array).ok()?.pop().flatten()
            });
            let segments: Vec<Option<Segment>> = segments.collect();
            let plan = state.create_physical_plan(&encode.over(rows)?).await?;
            Ok::<_, datafusion::error::DataFusionError>((segments, plan))
        };
        let (segments, plan) = planning.await.map_err(|e| Error::from_engine(&e.to_string()))?;
        spent.planning += begun.elapsed();
        if segments.is_empty() {
            return Ok(Vec::new());
        }
        let partitions = plan.output_partitioning().partition_count();
        if partitions != segments.len() {
            return Err(Error::Engine {
                message: format!("{} rows were planned as {partitions}", segments.len()),
            });
        }
        entry.add_rows(&segments);
        info!(statement = entry.number(), rows = segments.len(), "rows planned");
        let tell = |event: RowEvent| {
            entry.hear(&event);
            self.worker.learn(&event);
            tell(event);
        };
        for segment in segments.iter().flatten() {
            tell(RowEvent { job: String::new(), segment: segment.clone(), kind: RowEventKind::Planned });
        }
        let schema = Arc::new(encode.schema().as_arrow().clone());
        let options =
            session.state().config().options().extensions.get::<SpoolOptions>().cloned().unwrap_or_default();
        if options.live {
            lives.push(Live::start(self.worker.clone(), &segments));
        }
        let live = lives.last().filter(|_| options.live);
        let rows = Rows {
            scheduler: self,
            session: session.clone(),
            statement: entry.number(),
            plan,
            schema,
            segments,
            live,
            tell: &tell,
        };
        let begun = Instant::now();
        let gave = rows.run().await?;
        spent.rows += begun.elapsed();
        Ok(gave)
    }

    /// Runs what no row has to be encoded for any more. RowEventKind it does can be done again, so a failure that may pass is tried again.
    async fn finish(
        &self,
        session: &Arc<SessionContext>,
        plan: &LogicalPlan,
        tell: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Vec<RecordBatch>> {
        let plan = {
            let _planner = self.planners.acquire().await;
            session
                .state()
                .create_physical_plan(plan)
                .await
                .map_err(|e| Error::from_engine(&e.to_string()))?
        };
        let mut waits = backon::ExponentialBuilder::new()
            .with_min_delay(RETRY_FIRST)
            .with_max_delay(RETRY_MOST)
            .with_max_times(ATTEMPTS - 1)
            .with_jitter()
            .build();
        loop {
            let attempt = Attempt {
                scheduler: self,
                session: session.clone(),
                plan: plan.clone(),
                partition: None,
                order: self.next(),
                tried: Default::default(),
                standing: Arc::<Mutex<_>>::default(),
                cancel: CancellationToken::new(),
                tell,
            };
            match attempt.run().await {
                Err(error)
                    if error.kind() == ErrorKind::Transient
                        || matches!(error, Error::Engine { .. } | Error::Lost { .. }) =>
                {
                    let Some(wait) = waits.next() else { return Err(error.after(ATTEMPTS)) };
                    warn!(%error, "a job failed and is tried again");
                    tokio::time::sleep(wait).await;
                }
                ended => return ended,
            }
        }
    }

    /// Waits until there was no executor for longer than anybody should wait.
    async fn nobody_works(&self) -> Error {
        let no_executor_timeout = self.settings.no_executor_timeout;
        let mut look = tokio::time::interval(LOOK);
        let mut alone = None;
        loop {
            look.tick().await;
            match self.executors.stall_reason() {
                None => alone = None,
                Some(why) if alone.get_or_insert_with(Instant::now).elapsed() > no_executor_timeout => {
                    return Error::no_executors(&why, no_executor_timeout);
                }
                Some(_) => {}
            }
        }
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn one_row_each(batch: &RecordBatch) -> Vec<RecordBatch> {
    (0..batch.num_rows()).map(|row| batch.slice(row, 1)).collect()
}

fn runs_here(plan: &LogicalPlan) -> bool {
    matches!(
        plan,
        LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::DescribeTable(_)
    )
}
