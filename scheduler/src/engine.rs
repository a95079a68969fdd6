//! Ballista's scheduler as this crate uses it: its type, its largest message, and calls into its event loop.

use std::{sync::Arc, time::Duration};

use ballista_core::{
    JobId,
    error::Result,
    serde::{
        BallistaCodec,
        protobuf::{
            JobStatus, UpdateTaskStatusParams, job_status::Status, scheduler_grpc_server::SchedulerGrpc,
        },
    },
};
use ballista_scheduler::{
    cluster::BallistaCluster, config::SchedulerConfig, metrics::default_metrics_collector,
    scheduler_server::SchedulerServer,
};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::executor_calls::ExecutorCalls;

/// The largest message of the engine: the parts of a long film go through one.
pub(crate) const MESSAGE_MAX_BYTES: u32 = 256 << 20;

/// How long a cancellation may take to reach the engine's event loop.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a job that is to be canceled is checked for the end of its planning.
const PLANNED_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Ballista's scheduler.
pub(crate) type Engine = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// Starts Ballista's scheduler, which sends tasks to executors by `calls`.
pub(crate) async fn start(
    cluster: BallistaCluster,
    config: Arc<SchedulerConfig>,
    calls: ExecutorCalls,
) -> Result<Engine> {
    let endpoint = config.scheduler_endpoint();
    let metrics = default_metrics_collector()?;
    let codec = BallistaCodec::default();
    let mut engine =
        Engine::new_with_task_launcher(endpoint, cluster, codec, config, metrics, Arc::new(calls));
    engine.init().await?;
    Ok(engine)
}

/// Makes Ballista look for tasks that can be placed. Ballista does so when a task's status comes in, also an
/// empty one.
pub(crate) async fn offer_slots(engine: &Engine, executor_id: String) {
    let no_status = UpdateTaskStatusParams { executor_id, task_status: Vec::new() };
    if let Err(status) = SchedulerGrpc::update_task_status(engine, tonic::Request::new(no_status)).await {
        debug!(%status, "the engine took no note of a free slot");
    }
}

/// Cancels a job when dropped, unless the job has ended: a job whose submitter is gone must not run on.
pub(crate) struct CancelOnDrop {
    engine: Engine,
    calls: ExecutorCalls,
    job: Option<JobId>,
}

impl CancelOnDrop {
    /// Guards a submitted job.
    pub(crate) fn new(engine: Engine, calls: ExecutorCalls, job: JobId) -> Self {
        Self { engine, calls, job: Some(job) }
    }

    /// Notes that the job has ended: there is nothing to cancel.
    pub(crate) fn disarm(&mut self) {
        self.job = None;
    }

    /// Cancels the job now, and waits until the engine has taken the cancellation.
    pub(crate) async fn cancel(&mut self) {
        if let Some(job) = self.job.take() {
            cancel(&self.engine, &self.calls, job).await;
        }
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            let (engine, calls) = (self.engine.clone(), self.calls.clone());
            tokio::spawn(async move { cancel(&engine, &calls, job).await });
        }
    }
}

async fn cancel(engine: &Engine, calls: &ExecutorCalls, job: JobId) {
    // The tasks end at once; the engine's own call to executors is refused (see `engine_config`).
    calls.cancel(&job);
    let canceled = async {
        // The engine forgets the cancellation of a job that it still plans.
        while matches!(status_of(engine, &job).await, None | Some(Status::Queued(_))) {
            sleep(PLANNED_POLL_INTERVAL).await;
        }
        engine.cancel_job(job.clone()).await
    };
    match timeout(CANCEL_TIMEOUT, canceled).await {
        Ok(Ok(())) => debug!(%job, "job canceled"),
        Ok(Err(error)) => warn!(%job, %error, "failed to cancel a job"),
        Err(_) => warn!(%job, "the engine did not take a cancellation in time"),
    }
}

async fn status_of(engine: &Engine, job: &JobId) -> Option<Status> {
    let status: Option<JobStatus> = engine.state.task_manager.get_job_status(job).await.ok().flatten();
    status.and_then(|status| status.status)
}
