//! Running tasks: each has a token that fires when the task ends, so that a canceled task stops its FFmpeg.
//!
//! Ballista's cancel frees the slot but leaves running what the task started. And after some failures
//! Ballista sends an executor more tasks than it has slots; so encodes take their slots from
//! [`spool_media`]'s worker, and tasks are counted here.

use std::{collections::HashMap, fmt, sync::Arc};

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
use parking_lot::Mutex;
use spool_media::encode::worker;
use spool_udfs::{control::TaskControl, error::engine_error};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// The tasks that an executor runs. They end when it stops.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    jobs: Jobs,
}

/// Jobs with running tasks, by the engine's names.
type Jobs = Arc<Mutex<HashMap<String, RunningJob>>>;

/// A job with running tasks.
#[derive(Debug)]
struct RunningJob {
    tasks: usize,
    /// Cancels them.
    token: CancellationToken,
}

/// A running task. It is counted until this is dropped.
struct TaskGuard {
    jobs: Jobs,
    job: String,
    token: CancellationToken,
}

impl Tasks {
    /// Refuses tasks from now on, cancels those that run, and waits until they have ended.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.finished().await;
    }

    /// Waits until no task runs.
    pub(crate) async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Counts as a running task until it is dropped.
    pub(crate) fn count(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    /// Returns the jobs with running tasks.
    pub(crate) fn jobs(&self) -> Vec<String> {
        self.jobs.lock().keys().cloned().collect()
    }

    /// Cancels the tasks of these jobs.
    pub(crate) fn cancel(&self, jobs: &[String]) {
        let running = self.jobs.lock();
        jobs.iter().filter_map(|job| running.get(job)).for_each(|job| job.token.cancel());
    }

    fn begin(&self, name: String) -> TaskGuard {
        let mut jobs = self.jobs.lock();
        let job = jobs
            .entry(name.clone())
            .or_insert_with(|| RunningJob { tasks: 0, token: self.stop.child_token() });
        job.tasks += 1;
        TaskGuard { jobs: self.jobs.clone(), job: name, token: job.token.child_token() }
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let mut jobs = self.jobs.lock();
        if let Some(job) = jobs.get_mut(&self.job) {
            job.tasks -= 1;
            if job.tasks == 0 {
                jobs.remove(&self.job);
            }
        }
    }
}

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
        // Counted before `stop` is read: so either `Tasks::stop` waits for this task, or this task sees that
        // it must not begin.
        let _counted = self.tasks.tracker.token();
        let guard = self.tasks.begin(self.job.clone());
        let token = guard.token.clone();
        // Fires when this future ends or is dropped, so an abort reaches FFmpeg.
        let _ended = token.clone().drop_guard();
        let canceled = token.clone();
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
            () = canceled.cancelled() => Err(engine_error(worker::Error::ShuttingDown)),
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
