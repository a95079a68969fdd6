//! How is a statement executed? Planned here, run by the executors, canceled when nobody waits for it any more.

use std::time::Duration;

use ballista_core::{
    JobId,
    serde::protobuf::{JobStatus, job_status::Status},
};
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    logical_expr::LogicalPlan,
    prelude::{SQLOptions, SessionContext},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    error::{Error, Result},
    results::fetch,
    service::{Scheduler, Server},
};

/// Status messages that may wait to be read: a job sends a handful.
const STATUS_QUEUE: usize = 64;

/// How long the rows of a finished statement may take to come from the executors: they are names and numbers.
const FETCH_DEADLINE: Duration = Duration::from_secs(300);

/// How long a cancel may take to reach the scheduler's own event loop.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// What a statement returned.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The columns, also where there are no rows.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
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
    /// Runs one statement to its end. `settings` are session settings such as `("spool.threads", "2")`.
    ///
    /// # Errors
    /// [`Error::Sql`] where it cannot be planned, [`Error::Failed`] where a function refuses or fails, [`Error::Canceled`]
    /// once `cancel` fires: its tasks are told to stop before this returns.
    pub async fn run(&self, sql: &str, settings: &[(&str, &str)], cancel: &CancellationToken) -> Result<Outcome> {
        let session = self.session(settings).await?;
        let planning = async {
            // A statement that makes or changes a table would run at once, here, beside slots and cancellation; and the table would be gone.
            let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false);
            let frame = session.sql_with_options(sql, options).await?;
            frame.into_optimized_plan()
        };
        let plan = tokio::select! {
            plan = planning => plan.map_err(|e| Error::from_planner(&e))?,
            () = cancel.cancelled() => return Err(Error::Canceled),
        };
        let schema = plan.schema().inner().clone();
        if runs_here(&plan) {
            // EXPLAIN, SHOW and SET are answered by the session itself.
            let here = async { session.execute_logical_plan(plan).await?.collect().await };
            let batches = tokio::select! {
                batches = here => batches.map_err(|e| Error::from_planner(&e))?,
                () = cancel.cancelled() => return Err(Error::Canceled),
            };
            return Ok(Outcome { schema, batches });
        }
        self.submit(session, &plan, schema, cancel).await
    }

    async fn session(&self, settings: &[(&str, &str)]) -> Result<std::sync::Arc<SessionContext>> {
        let mut config = self.session_config.clone();
        for (name, value) in settings {
            config = config.set_str(name, value);
        }
        let id = format!("spool-{}", ballista_core::ids::new_instance_id());
        self.server
            .state
            .session_manager
            .create_or_update_session(&id, &config)
            .await
            .map_err(|e| Error::from_engine(&e.to_string()))
    }

    async fn submit(
        &self,
        session: std::sync::Arc<SessionContext>,
        plan: &LogicalPlan,
        schema: SchemaRef,
        cancel: &CancellationToken,
    ) -> Result<Outcome> {
        let (sender, mut statuses) = mpsc::channel(STATUS_QUEUE);
        let engine = |e: ballista_core::error::BallistaError| Error::from_engine(&e.to_string());
        let job = self.server.submit_job("spool", session, plan, Some(sender)).await.map_err(engine)?;
        info!(%job, "statement submitted");
        let mut guard = CancelOnDrop { server: self.server.clone(), job: Some(job) };
        let success = tokio::select! {
            ended = ended(&mut statuses) => ended?,
            () = cancel.cancelled() => {
                guard.cancel().await;
                return Err(Error::Canceled);
            }
        };
        guard.job = None;
        let fetching = fetch(success.partition_location, self.server.state.config.grpc_client_max_message_size);
        let batches = tokio::select! {
            batches = tokio::time::timeout(FETCH_DEADLINE, fetching) => {
                batches.map_err(|_| Error::Engine { message: "the executors did not hand out the result in time".to_owned() })??
            }
            () = cancel.cancelled() => return Err(Error::Canceled),
        };
        Ok(Outcome { schema, batches })
    }
}

fn runs_here(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::Statement(_) | LogicalPlan::DescribeTable(_))
}

/// Waits for the last status of a job.
async fn ended(statuses: &mut mpsc::Receiver<JobStatus>) -> Result<ballista_core::serde::protobuf::SuccessfulJob> {
    while let Some(status) = statuses.recv().await {
        match status.status {
            Some(Status::Successful(success)) => return Ok(success),
            Some(Status::Failed(failed)) => return Err(Error::from_engine(&failed.error)),
            Some(Status::Queued(_) | Status::Running(_)) | None => debug!(job = status.job_id, "statement goes on"),
        }
    }
    Err(Error::Engine { message: "the scheduler stopped before the statement ended".to_owned() })
}

/// A job whose submitter is gone must not run on.
struct CancelOnDrop {
    server: Server,
    job: Option<JobId>,
}

impl CancelOnDrop {
    async fn cancel(&mut self) {
        if let Some(job) = self.job.take() {
            cancel(&self.server, job).await;
        }
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            let server = self.server.clone();
            tokio::spawn(async move { cancel(&server, job).await });
        }
    }
}

async fn cancel(server: &Server, job: JobId) {
    match tokio::time::timeout(CANCEL_DEADLINE, server.cancel_job(job.clone())).await {
        Ok(Ok(())) => info!(%job, "statement canceled"),
        Ok(Err(error)) => tracing::warn!(%job, %error, "statement could not be canceled"),
        Err(_) => tracing::warn!(%job, "the scheduler did not take the cancel in time"),
    }
}
