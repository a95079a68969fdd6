//! How does a task that is canceled stop its FFmpeg? Every task gets a token, which fires when the task ends.
//!
//! Ballista's cancel frees the slot but leaves what the task started running. And after some failures it sends an executor more tasks
//! than it has slots; so encodes take their slots from the machine (`media::machine`), and tasks are counted here.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use ballista_core::{
    JobId,
    serde::protobuf::{RuntimeStatsReport, ShuffleWritePartition, TaskColumnStats, WindowStateReport},
};
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use datafusion::{
    error::Result,
    execution::TaskContext,
    physical_plan::{ExecutionPlan, metrics::MetricsSet},
    prelude::SessionConfig,
};
use spool_media::encode::worker;
use spool_udfs::{control::TaskControl, error::engine_error};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Ballista's engine, with a token for every task.
pub(crate) struct Engine {
    inner: DefaultExecutionEngine,
    tasks: Tasks,
}

impl Engine {
    pub(crate) fn new(tasks: Tasks) -> Self {
        Self { inner: DefaultExecutionEngine::new(), tasks }
    }
}

/// The tasks that an executor has in hand. They end when it stops.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    jobs: Arc<Mutex<HashMap<String, Job>>>,
}

/// A job that tasks are in hand of.
#[derive(Debug)]
struct Job {
    tasks: usize,
    /// Ends them.
    token: CancellationToken,
}

/// A task that is in hand, until this is dropped.
struct InHand {
    jobs: Arc<Mutex<HashMap<String, Job>>>,
    job: String,
    token: CancellationToken,
}

impl Tasks {
    /// Lets no task begin any more, tells those that run to end, and waits until they have.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.finished().await;
    }

    /// Waits until no task is in hand.
    pub(crate) async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// The jobs that tasks are in hand of.
    pub(crate) fn jobs(&self) -> Vec<String> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Ends what is in hand of jobs that nobody waits for.
    pub(crate) fn give_up(&self, jobs: &[String]) {
        let in_hand = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().filter_map(|job| in_hand.get(job)).for_each(|job| job.token.cancel());
    }

    fn take(&self, job: String) -> InHand {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let of = jobs.entry(job.clone()).or_insert_with(|| Job { tasks: 0, token: self.stop.child_token() });
        of.tasks += 1;
        InHand { jobs: self.jobs.clone(), job, token: of.token.child_token() }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = jobs.get_mut(&self.job) {
            of.tasks -= 1;
            if of.tasks == 0 {
                jobs.remove(&self.job);
            }
        }
    }
}

impl ExecutionEngine for Engine {
    fn create_query_stage_exec(
        &self,
        job_id: JobId,
        stage_id: usize,
        task_id: usize,
        global_output_partition_ids: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        work_dir: &str,
        config: &SessionConfig,
    ) -> Result<Arc<dyn QueryStageExecutor>> {
        let job = job_id.as_str().to_owned();
        let inner = self.inner.create_query_stage_exec(
            job_id,
            stage_id,
            task_id,
            global_output_partition_ids,
            plan,
            work_dir,
            config,
        )?;
        Ok(Arc::new(Task { inner, job, tasks: self.tasks.clone() }))
    }
}

#[derive(Debug)]
struct Task {
    inner: Arc<dyn QueryStageExecutor>,
    job: String,
    tasks: Tasks,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl QueryStageExecutor for Task {
    async fn execute_query_stage(
        &self,
        task_id: usize,
        context: Arc<TaskContext>,
    ) -> Result<Vec<ShuffleWritePartition>> {
        // Before the look at `stop`: so whoever stops waits for this task, or this task sees that it must not begin.
        let _counted = self.tasks.tracker.token();
        let in_hand = self.tasks.take(self.job.clone());
        let token = in_hand.token.clone();
        // Fires when this future ends or is dropped, so an abort reaches FFmpeg.
        let _ended = token.clone().drop_guard();
        let stopped = token.clone();
        let config = context
            .session_config()
            .clone()
            .with_option_extension(TaskControl { token, job: self.job.clone() });
        let context = TaskContext::new(
            context.task_id(),
            context.session_id(),
            config,
            context.scalar_functions().clone(),
            context.higher_order_functions().clone(),
            context.aggregate_functions().clone(),
            context.window_functions().clone(),
            context.runtime_env(),
        );
        tokio::select! {
            biased;
            () = stopped.cancelled() => Err(engine_error(worker::Error::ShuttingDown)),
            written = self.inner.execute_query_stage(task_id, Arc::new(context)) => written,
        }
    }

    fn collect_plan_metrics(&self) -> Vec<MetricsSet> {
        self.inner.collect_plan_metrics()
    }

    fn collect_runtime_stats_reports(&self) -> Vec<RuntimeStatsReport> {
        self.inner.collect_runtime_stats_reports()
    }

    fn collect_window_state_reports(&self) -> Result<Vec<WindowStateReport>> {
        self.inner.collect_window_state_reports()
    }

    fn collect_column_stats(&self) -> Vec<TaskColumnStats> {
        self.inner.collect_column_stats()
    }
}
