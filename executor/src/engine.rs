//! How does a task that is canceled stop its FFmpeg? Every task gets a token, which fires when the task ends.
//!
//! Ballista's cancel frees the slot but leaves what the task started running. And after some failures it sends an executor
//! more tasks than it has slots; so the slots are counted here, too.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use ballista_core::{
    JobId,
    serde::protobuf::{RuntimeStatsReport, ShuffleWritePartition, TaskColumnStats, WindowStateReport},
};
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use datafusion::{
    error::{DataFusionError, Result},
    execution::TaskContext,
    physical_plan::{ExecutionPlan, metrics::MetricsSet},
    prelude::SessionConfig,
};
use spool_udfs::control::TaskControl;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Ballista's engine with a token and a slot for every task.
pub(crate) struct Engine {
    inner: DefaultExecutionEngine,
    slots: Slots,
}

impl Engine {
    pub(crate) fn new(slots: Slots) -> Self {
        Self { inner: DefaultExecutionEngine::new(), slots }
    }
}

/// What an executor's tasks share: they run in its slots, and end when it stops.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Slots {
    pub(crate) fn new(slots: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(slots)), stop: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// Lets no task begin any more, tells those that run to end, and waits until they have.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
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
        let inner =
            self.inner.create_query_stage_exec(job_id, stage_id, task_id, global_output_partition_ids, plan, work_dir, config)?;
        Ok(Arc::new(Task { inner, slots: self.slots.clone() }))
    }
}

#[derive(Debug)]
struct Task {
    inner: Arc<dyn QueryStageExecutor>,
    slots: Slots,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl QueryStageExecutor for Task {
    async fn execute_query_stage(&self, task_id: usize, context: Arc<TaskContext>) -> Result<Vec<ShuffleWritePartition>> {
        // Before the look at `stop`: so whoever stops waits for this task, or this task sees that it must not begin.
        let _counted = self.slots.tasks.token();
        let token = self.slots.stop.child_token();
        // Fires when this future ends or is dropped, so an abort reaches FFmpeg.
        let _ended = token.clone().drop_guard();
        let stopping = || DataFusionError::Execution("the executor is stopping".to_owned());
        let stopped = token.clone();
        let _slot = tokio::select! {
            biased;
            () = stopped.cancelled() => return Err(stopping()),
            slot = self.slots.free.acquire() => slot.map_err(|_| stopping())?,
        };
        let config = context.session_config().clone().with_option_extension(TaskControl { token });
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
            written = self.inner.execute_query_stage(task_id, Arc::new(context)) => written,
            () = stopped.cancelled() => Err(stopping()),
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
