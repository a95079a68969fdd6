//! Task runner: decodes the tasks that the scheduler sends, runs each on threads of its own, and reports how
//! it ended.

use std::{
    panic::AssertUnwindSafe,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ballista_core::{
    RuntimeProducer,
    error::BallistaError,
    extension::SessionConfigExt,
    registry::BallistaFunctionRegistry,
    serde::{
        BallistaCodec,
        protobuf::{
            FailedTask, LaunchMultiTaskParams, MultiTaskDefinition, OperatorMetricsSet, SuccessfulTask,
            TaskStatus, task_status::Status,
        },
        scheduler::{TaskDefinition, from_proto::get_task_definition_vec},
    },
};
use ballista_executor::execution_engine::{ExecutionEngine, QueryStageExecutor};
use datafusion::{
    execution::{
        TaskContext,
        memory_pool::GreedyMemoryPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    prelude::SessionConfig,
};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use futures::FutureExt;
use prost::Message;
use spool_media::encode::worker::Worker;
use spool_udfs::{cooperative::yield_between_batches, session};
use spool_wire::v1::{self, ExecutorMessage, executor_message::Message as ToScheduler};
use tokio::{runtime, sync::mpsc::WeakSender};
use tracing::{debug, warn};

use crate::{
    error::Error,
    plan_check::{NoObjectStores, check_plan},
    tasks::{Engine, Tasks},
};

/// Threads that run tasks, at most. Tasks wait for FFmpeg most of the time; slots are counted by the worker
/// and the scheduler.
const THREADS_MAX: usize = 8;

/// How much the threads of tasks, and FFmpeg below them, yield to the threads that keep the session alive.
const NICE: i32 = 10;

/// Stack of each thread: plans are walked recursively.
const STACK_BYTES: usize = 16 << 20;

/// Memory that the operators of one task may reserve. Rows are names and numbers: the merge of a film of ten
/// hours takes a tenth of it.
const TASK_MEMORY_BYTES: usize = 256 << 20;

/// Runs the tasks of one session. Dropping it ends its threads; [`Tasks::stop`] ends its tasks before that.
pub(crate) struct TaskRunner {
    shared: Arc<Shared>,
    /// `None` only while this is dropped.
    threads: Option<runtime::Runtime>,
}

struct Shared {
    executor_id: String,
    work_dir: String,
    engine: Engine,
    tasks: Tasks,
    functions: BallistaFunctionRegistry,
    /// Messages to the scheduler. Weak, so that the session ends the call when it drops its own.
    outbound: WeakSender<ExecutorMessage>,
}

impl TaskRunner {
    /// Makes the runner of a session. Results of tasks are written to `work_dir`.
    pub(crate) fn new(
        executor_id: &str,
        slots: usize,
        work_dir: &Path,
        worker: &Arc<Worker>,
        tasks: &Tasks,
        outbound: WeakSender<ExecutorMessage>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::WorkFolder { path: work_dir.to_owned(), source };
        std::fs::create_dir_all(work_dir).map_err(failed)?;
        let state = session::state(worker, session::config()).map_err(Error::Functions)?;
        let threads = runtime::Builder::new_multi_thread()
            .worker_threads(slots.min(THREADS_MAX))
            .thread_name("task")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(yield_to_others)
            .enable_all()
            .build()
            .map_err(Error::Threads)?;
        let shared = Shared {
            executor_id: executor_id.to_owned(),
            work_dir: work_dir.to_string_lossy().into_owned(),
            engine: Engine::new(tasks.clone()),
            tasks: tasks.clone(),
            functions: BallistaFunctionRegistry::from(&state),
            outbound,
        };
        Ok(Self { shared: Arc::new(shared), threads: Some(threads) })
    }

    /// Starts tasks, which come as an encoded [`LaunchMultiTaskParams`].
    pub(crate) fn launch(&self, tasks: &[u8]) {
        let tasks = match LaunchMultiTaskParams::decode(tasks) {
            Ok(launch) => launch.multi_tasks,
            Err(error) => {
                // Attempts whose tasks no executor reports are started again.
                warn!(%error, "ignored tasks that cannot be read");
                return;
            }
        };
        let Some(threads) = &self.threads else { return };
        for stage in tasks {
            let shared = self.shared.clone();
            // Counted until the scheduler knows how the tasks ended: an executor that drains waits for that.
            let counted = shared.tasks.count();
            threads.spawn(async move {
                let running = shared.start(stage).into_iter().map(|task| {
                    let shared = shared.clone();
                    tokio::spawn(async move { shared.run(task).await })
                });
                futures::future::join_all(running.collect::<Vec<_>>()).await;
                drop(counted);
            });
        }
    }
}

impl Drop for TaskRunner {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

impl Shared {
    /// Decodes the tasks of a stage. If that fails, reports it for each of them and returns none.
    fn start(self: &Arc<Self>, stage: MultiTaskDefinition) -> Vec<TaskDefinition> {
        let statuses: Vec<TaskStatus> = stage
            .task_ids
            .iter()
            .map(|task| TaskStatus {
                task_id: task.task_id,
                job_id: stage.job_id.clone(),
                stage_id: stage.stage_id,
                stage_attempt_num: stage.stage_attempt_num,
                launch_time: stage.launch_time,
                start_exec_time: unix_ms(),
                ..TaskStatus::default()
            })
            .collect();
        let job = stage.job_id.clone();
        self.decode(stage).unwrap_or_else(|error| {
            warn!(job, %error, "refused tasks");
            let failed = FailedTask::from(error);
            let shared = self.clone();
            tokio::spawn(async move {
                for status in statuses {
                    let status = TaskStatus {
                        end_exec_time: unix_ms(),
                        status: Some(Status::Failed(failed.clone())),
                        ..status
                    };
                    shared.report(&status).await;
                }
            });
            Vec::new()
        })
    }

    fn decode(&self, stage: MultiTaskDefinition) -> Result<Vec<TaskDefinition>, BallistaError> {
        let producer: RuntimeProducer = Arc::new(|_: &SessionConfig| task_runtime());
        let tasks = get_task_definition_vec::<LogicalPlanNode, PhysicalPlanNode>(
            stage,
            producer,
            session::config().upgrade_for_ballista(),
            self.functions.scalar_functions.clone(),
            self.functions.aggregate_functions.clone(),
            self.functions.window_functions.clone(),
            self.functions.higher_order_functions.clone(),
            BallistaCodec::default(),
        )?;
        tasks.iter().try_for_each(|task| check_plan(&task.plan))?;
        let yielding = tasks.into_iter().map(|task| {
            let plan = yield_between_batches(task.plan)?;
            Ok(TaskDefinition { plan, ..task })
        });
        yielding.collect()
    }

    /// Runs one task and reports how it ended.
    async fn run(&self, task: TaskDefinition) {
        let started = unix_ms();
        let status = TaskStatus {
            task_id: u32::try_from(task.task_id).unwrap_or(u32::MAX),
            job_id: task.job_id.to_string(),
            stage_id: u32::try_from(task.stage_id).unwrap_or(u32::MAX),
            stage_attempt_num: u32::try_from(task.stage_attempt_num).unwrap_or(u32::MAX),
            launch_time: task.launch_time,
            start_exec_time: started,
            ..TaskStatus::default()
        };
        let ended = self.execute(task).await;
        let end_exec_time = unix_ms();
        let status = match ended {
            Ok((metrics, success)) => {
                TaskStatus { metrics, end_exec_time, status: Some(Status::Successful(success)), ..status }
            }
            Err(error) => {
                debug!(job = status.job_id, %error, "a task failed");
                TaskStatus { end_exec_time, status: Some(Status::Failed(error.into())), ..status }
            }
        };
        self.report(&status).await;
    }

    async fn execute(
        &self,
        task: TaskDefinition,
    ) -> Result<(Vec<OperatorMetricsSet>, SuccessfulTask), BallistaError> {
        let stage = self.engine.create_query_stage_exec(
            task.job_id.clone(),
            task.stage_id,
            task.task_id,
            task.global_output_partition_ids,
            task.plan,
            &self.work_dir,
            &task.session_config,
        )?;
        let name = format!("{}/{}/{}", task.job_id, task.stage_id, task.task_id);
        let functions = task.function_registry;
        let context = TaskContext::new(
            Some(name),
            task.session_id,
            task.session_config,
            functions.scalar_functions.clone(),
            functions.higher_order_functions.clone(),
            functions.aggregate_functions.clone(),
            functions.window_functions.clone(),
            task_runtime()?,
        );
        let running = AssertUnwindSafe(stage.execute_query_stage(task.task_id, Arc::new(context)));
        let partitions = match running.catch_unwind().await {
            Ok(written) => written?,
            Err(panic) => return Err(BallistaError::Internal(panic_message(panic.as_ref()))),
        };
        // Later stages cannot do without these.
        let window_state = stage.collect_window_state_reports()?;
        let success = SuccessfulTask {
            executor_id: self.executor_id.clone(),
            partitions,
            runtime_stats: stage.collect_runtime_stats_reports(),
            task_column_stats: stage.collect_column_stats(),
            window_state,
        };
        Ok((metrics(stage.as_ref()), success))
    }

    /// Sends the status of a task, and waits while the connection is slow: the scheduler waits for it.
    async fn report(&self, status: &TaskStatus) {
        // Without a session there is none to report to: the scheduler runs the task elsewhere.
        let Some(outbound) = self.outbound.upgrade() else { return };
        let status = v1::TaskStatus { status: status.encode_to_vec() };
        let _ = outbound.send(ExecutorMessage { message: Some(ToScheduler::TaskStatus(status)) }).await;
    }
}

fn metrics(stage: &dyn QueryStageExecutor) -> Vec<OperatorMetricsSet> {
    let sets = stage.collect_plan_metrics().into_iter().map(TryInto::try_into);
    sets.collect::<Result<_, BallistaError>>().unwrap_or_default()
}

/// Returns the environment of one task: a bound on its memory, no spilling, and no object store that a scan
/// or a sink could open.
fn task_runtime() -> datafusion::error::Result<Arc<RuntimeEnv>> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(TASK_MEMORY_BYTES)))
        .with_object_store_registry(Arc::new(NoObjectStores))
        .build_arc()
}

fn yield_to_others() {
    // On Linux it is the thread's own, and what the thread starts inherits it. A failure costs nothing but
    // some latency under load.
    let _ = rustix::process::setpriority_process(None, NICE);
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(|s| &**s));
    format!("the task panicked: {}", text.unwrap_or("without a message"))
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
