//! Ballista proxy: the part of Ballista's scheduler that executors may call. Only executors with a session
//! are served, and the list of executors overrides what an executor reports of its state.

use std::time::Duration;

use ballista_core::serde::protobuf::{
    CancelJobParams, CancelJobResult, CleanJobDataParams, CleanJobDataResult, CreateUpdateSessionParams,
    CreateUpdateSessionResult, ExecuteQueryParams, ExecuteQueryResult, ExecutorRegistration, ExecutorStatus,
    ExecutorStoppedParams, ExecutorStoppedResult, GetJobMetricsParams, GetJobMetricsResult,
    GetJobStatusParams, GetJobStatusResult, HeartBeatParams, HeartBeatResult, PollWorkParams, PollWorkResult,
    RegisterExecutorParams, RegisterExecutorResult, RemoveSessionParams, RemoveSessionResult,
    UpdateTaskStatusParams, UpdateTaskStatusResult, executor_resource::Resource,
    executor_status::Status as ReportedStatus, scheduler_grpc_server::SchedulerGrpc,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tracing::debug;

use crate::{
    engine::Engine,
    executors::{placement::BALLISTA_VCORES, registry::ExecutorRegistry, service::update_capacity},
    fair_queue::FairQueue,
};

/// How long the engine may take to connect to an executor that registers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Ballista's scheduler, as executors reach it.
#[derive(Clone)]
pub(crate) struct BallistaProxy {
    pub(crate) engine: Engine,
    pub(crate) executors: ExecutorRegistry,
    pub(crate) fair_queue: FairQueue,
}

impl BallistaProxy {
    fn require_session(&self, executor: &str) -> Result<(), Status> {
        if self.executors.contains(executor) {
            Ok(())
        } else {
            Err(Status::failed_precondition(format!(
                "executor {executor} has no session: it has to connect first"
            )))
        }
    }

    /// Notes that the engine reached an executor, and offers its slots to waiting rows.
    fn reached(&self, executor: &str) {
        if self.executors.mark_ready(executor) {
            update_capacity(&self.fair_queue, &self.executors);
        }
    }
}

/// Refuses a plan: statements come in as SQL, where they are checked, queued fairly and retried (see `run`).
fn refuse_plan<T>() -> Result<T, Status> {
    Err(Status::unimplemented(
        "plans are not accepted: submit SQL, by `spool sql --cluster`, Flight SQL or spool_scheduler::Client",
    ))
}

/// Gives an executor so many slots in Ballista's eyes that there is always a free one: the list of executors
/// counts the real ones.
fn override_slots(registration: Option<&mut ExecutorRegistration>) {
    let resources = registration
        .and_then(|registration| registration.specification.as_mut())
        .map(|spec| &mut spec.resources);
    for resource in resources.into_iter().flatten() {
        resource.resource = Some(Resource::Vcores(BALLISTA_VCORES));
    }
}

#[tonic::async_trait]
impl SchedulerGrpc for BallistaProxy {
    type ExecuteQueryPushStream = futures::stream::BoxStream<'static, Result<GetJobStatusResult, Status>>;

    async fn poll_work(&self, _: Request<PollWorkParams>) -> Result<Response<PollWorkResult>, Status> {
        Err(Status::unimplemented("work is pushed, not polled"))
    }

    async fn register_executor(
        &self,
        mut request: Request<RegisterExecutorParams>,
    ) -> Result<Response<RegisterExecutorResult>, Status> {
        let registration = request.get_mut().metadata.as_mut();
        let id = registration.as_ref().map_or_else(String::new, |registration| registration.id.clone());
        self.require_session(&id)?;
        override_slots(registration);
        let late = |_| {
            let seconds = CONNECT_TIMEOUT.as_secs();
            Status::deadline_exceeded(format!(
                "the scheduler failed to reach the executor within {seconds} s: give its address with \
                    --address"
            ))
        };
        let registering = SchedulerGrpc::register_executor(&self.engine, request);
        let registered = timeout(CONNECT_TIMEOUT, registering).await.map_err(late)??;
        self.reached(&id);
        Ok(registered)
    }

    async fn heart_beat_from_executor(
        &self,
        mut request: Request<HeartBeatParams>,
    ) -> Result<Response<HeartBeatResult>, Status> {
        let heartbeat = request.get_mut();
        self.require_session(&heartbeat.executor_id)?;
        override_slots(heartbeat.metadata.as_mut());
        // The executor's session tells whether it drains; Ballista would remove a draining one, and with it
        // results that are still to be fetched.
        heartbeat.status = Some(ExecutorStatus { status: Some(ReportedStatus::Active(String::new())) });
        let id = heartbeat.executor_id.clone();
        let response = SchedulerGrpc::heart_beat_from_executor(&self.engine, request).await?;
        self.reached(&id);
        Ok(response)
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusParams>,
    ) -> Result<Response<UpdateTaskStatusResult>, Status> {
        self.require_session(&request.get_ref().executor_id)?;
        SchedulerGrpc::update_task_status(&self.engine, request).await
    }

    async fn create_update_session(
        &self,
        _: Request<CreateUpdateSessionParams>,
    ) -> Result<Response<CreateUpdateSessionResult>, Status> {
        refuse_plan()
    }

    async fn remove_session(
        &self,
        _: Request<RemoveSessionParams>,
    ) -> Result<Response<RemoveSessionResult>, Status> {
        refuse_plan()
    }

    async fn execute_query_push(
        &self,
        _: Request<ExecuteQueryParams>,
    ) -> Result<Response<Self::ExecuteQueryPushStream>, Status> {
        refuse_plan()
    }

    async fn execute_query(
        &self,
        _: Request<ExecuteQueryParams>,
    ) -> Result<Response<ExecuteQueryResult>, Status> {
        refuse_plan()
    }

    async fn get_job_status(
        &self,
        _: Request<GetJobStatusParams>,
    ) -> Result<Response<GetJobStatusResult>, Status> {
        refuse_plan()
    }

    async fn get_job_metrics(
        &self,
        _: Request<GetJobMetricsParams>,
    ) -> Result<Response<GetJobMetricsResult>, Status> {
        refuse_plan()
    }

    async fn executor_stopped(
        &self,
        request: Request<ExecutorStoppedParams>,
    ) -> Result<Response<ExecutorStoppedResult>, Status> {
        // Ballista's executor calls this when it begins to drain. Its session ends when it is gone.
        debug!(executor = request.get_ref().executor_id, "an executor begins to stop");
        Ok(Response::new(ExecutorStoppedResult {}))
    }

    async fn cancel_job(&self, _: Request<CancelJobParams>) -> Result<Response<CancelJobResult>, Status> {
        refuse_plan()
    }

    async fn clean_job_data(
        &self,
        _: Request<CleanJobDataParams>,
    ) -> Result<Response<CleanJobDataResult>, Status> {
        refuse_plan()
    }
}
