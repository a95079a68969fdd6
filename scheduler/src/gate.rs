//! Who may speak to Ballista's scheduler, and what is it told? Executors only; and of what executors say, what our own list of members
//! does not know better.

use std::time::Duration;

use ballista_core::serde::protobuf::{
    CancelJobParams, CancelJobResult, CleanJobDataParams, CleanJobDataResult, CreateUpdateSessionParams,
    CreateUpdateSessionResult, ExecuteQueryParams, ExecuteQueryResult, ExecutorRegistration, ExecutorStatus,
    ExecutorStoppedParams, ExecutorStoppedResult, GetJobMetricsParams, GetJobMetricsResult,
    GetJobStatusParams, GetJobStatusResult, HeartBeatParams, HeartBeatResult, PollWorkParams, PollWorkResult,
    RegisterExecutorParams, RegisterExecutorResult, RemoveSessionParams, RemoveSessionResult,
    UpdateTaskStatusParams, UpdateTaskStatusResult, executor_resource::Resource,
    executor_status::Status as Standing, scheduler_grpc_server::SchedulerGrpc,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tracing::debug;

use crate::{
    executors::{placement::BALLISTA_VCORES, registry::ExecutorRegistry, service::make_room},
    service::Server,
    turnstile::Turnstile,
};

/// How long the engine may take to reach an executor that wants to be sent tasks.
const REACH: Duration = Duration::from_secs(10);

/// Ballista's scheduler, as executors reach it.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) server: Server,
    pub(crate) executors: ExecutorRegistry,
    pub(crate) turnstile: Turnstile,
}

impl Gate {
    fn admit(&self, executor: &str) -> Result<(), Status> {
        if self.executors.contains(executor) {
            Ok(())
        } else {
            Err(Status::failed_precondition(format!("{executor} is no member: it has to join first")))
        }
    }
}

/// Statements come in by SQL, where they are checked, take turns and are tried again: see `run`.
fn refused<T>() -> Result<T, Status> {
    Err(Status::unimplemented(
        "plans are not taken: submit SQL, by `spool sql --cluster`, Flight SQL or spool_scheduler::Remote",
    ))
}

/// Slots are counted by our own list, so Ballista is told that there are always some.
fn with_room(registration: Option<&mut ExecutorRegistration>) {
    let resources = registration
        .and_then(|registration| registration.specification.as_mut())
        .map(|spec| &mut spec.resources);
    for resource in resources.into_iter().flatten() {
        resource.resource = Some(Resource::Vcores(BALLISTA_VCORES));
    }
}

#[tonic::async_trait]
impl SchedulerGrpc for Gate {
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
        self.admit(&id)?;
        with_room(registration);
        let late = |_| {
            Status::deadline_exceeded(
                "the scheduler cannot reach the executor: name its address with --address",
            )
        };
        let registered =
            timeout(REACH, SchedulerGrpc::register_executor(&self.server, request)).await.map_err(late)??;
        if self.executors.mark_ready(&id) {
            make_room(&self.turnstile, &self.executors);
        }
        Ok(registered)
    }

    async fn heart_beat_from_executor(
        &self,
        mut request: Request<HeartBeatParams>,
    ) -> Result<Response<HeartBeatResult>, Status> {
        let heartbeat = request.get_mut();
        self.admit(&heartbeat.executor_id)?;
        with_room(heartbeat.metadata.as_mut());
        // Who drains is known from its call; Ballista would drop it, and with it the results that are still to be fetched.
        heartbeat.status = Some(ExecutorStatus { status: Some(Standing::Active(String::new())) });
        let id = heartbeat.executor_id.clone();
        let heard = SchedulerGrpc::heart_beat_from_executor(&self.server, request).await?;
        if self.executors.mark_ready(&id) {
            make_room(&self.turnstile, &self.executors);
        }
        Ok(heard)
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusParams>,
    ) -> Result<Response<UpdateTaskStatusResult>, Status> {
        self.admit(&request.get_ref().executor_id)?;
        SchedulerGrpc::update_task_status(&self.server, request).await
    }

    async fn create_update_session(
        &self,
        _: Request<CreateUpdateSessionParams>,
    ) -> Result<Response<CreateUpdateSessionResult>, Status> {
        refused()
    }

    async fn remove_session(
        &self,
        _: Request<RemoveSessionParams>,
    ) -> Result<Response<RemoveSessionResult>, Status> {
        refused()
    }

    async fn execute_query_push(
        &self,
        _: Request<ExecuteQueryParams>,
    ) -> Result<Response<Self::ExecuteQueryPushStream>, Status> {
        refused()
    }

    async fn execute_query(
        &self,
        _: Request<ExecuteQueryParams>,
    ) -> Result<Response<ExecuteQueryResult>, Status> {
        refused()
    }

    async fn get_job_status(
        &self,
        _: Request<GetJobStatusParams>,
    ) -> Result<Response<GetJobStatusResult>, Status> {
        refused()
    }

    async fn get_job_metrics(
        &self,
        _: Request<GetJobMetricsParams>,
    ) -> Result<Response<GetJobMetricsResult>, Status> {
        refused()
    }

    async fn executor_stopped(
        &self,
        request: Request<ExecutorStoppedParams>,
    ) -> Result<Response<ExecutorStoppedResult>, Status> {
        // Told when it begins to drain. Its membership ends when it is gone.
        debug!(executor = request.get_ref().executor_id, "an executor begins to stop");
        Ok(Response::new(ExecutorStoppedResult {}))
    }

    async fn cancel_job(&self, _: Request<CancelJobParams>) -> Result<Response<CancelJobResult>, Status> {
        refused()
    }

    async fn clean_job_data(
        &self,
        _: Request<CleanJobDataParams>,
    ) -> Result<Response<CleanJobDataResult>, Status> {
        refused()
    }
}
