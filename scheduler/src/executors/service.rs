//! Executor service: the scheduler's side of an executor's session, from its registration to its removal.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ballista_core::serde::{
    protobuf::{
        self, ExecutorStoppedParams, UpdateTaskStatusParams, scheduler_grpc_server::SchedulerGrpc,
        task_status::Status as TaskEnd,
    },
    scheduler::{
        ExecutorData, ExecutorMetadata, ExecutorOperatingSystemSpecification, ExecutorSpecification,
    },
};
use ballista_scheduler::cluster::ClusterState;
use prost::Message as _;
use spool_media::encode::worker::Worker;
use spool_wire::{
    authenticate,
    v1::{
        CancelJobs, ExecutorMessage, Heartbeat, Register, Registered, ResultMessage, SchedulerHeartbeat,
        SchedulerMessage, SendResultResponse, TaskStatus, executor_message::Message as FromExecutor,
        executor_service_server, scheduler_message::Message as ToExecutor,
    },
};
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::{
    engine::{Engine, offer_slots},
    executor_calls::{ExecutorCalls, Outbound},
    executors::{event_router::EventRouter, placement::BALLISTA_VCORES, registry::ExecutorRegistry},
    queue::fair_queue::FairQueue,
};

/// Limit on the wait for an executor's first message.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the scheduler sends a heartbeat.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Messages that wait for a slow network. Tasks wait for room; heartbeats and cancellations are repeated.
const OUTBOUND_QUEUE: usize = 64;

/// Limit on the wait for the first message of a result.
const RESULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Rows that may be on their way beyond those that have a slot, so that a slot that gets free is filled at
/// once: one for so many slots.
const SLOTS_PER_ROW_AHEAD: usize = 4;

/// Sets the capacity of the fair queue to the slots of all executors, and a few more.
pub(crate) fn update_capacity(fair_queue: &FairQueue, executors: &ExecutorRegistry) {
    fair_queue.set_capacity(|| match executors.count().slots {
        0 => 0,
        slots => slots + slots / SLOTS_PER_ROW_AHEAD + 1,
    });
}

/// Serves the sessions of executors.
#[derive(Clone)]
pub(crate) struct ExecutorService {
    pub(crate) engine: Engine,
    /// The executors that the engine knows.
    pub(crate) known: Arc<dyn ClusterState>,
    pub(crate) calls: ExecutorCalls,
    pub(crate) worker: Arc<Worker>,
    pub(crate) executors: ExecutorRegistry,
    pub(crate) event_router: EventRouter,
    pub(crate) fair_queue: FairQueue,
    pub(crate) rules: Arc<SessionRules>,
}

/// Which executors may register, and when a session counts as lost.
#[derive(Debug, Clone)]
pub(crate) struct SessionRules {
    /// Token that an executor must send, if any.
    pub(crate) token: Option<String>,
    /// Accept executors of another version, or with another build of the encoders.
    pub(crate) allow_version_skew: bool,
    /// Silence after which an executor counts as lost.
    pub(crate) silence: Duration,
}

#[tonic::async_trait]
impl executor_service_server::ExecutorService for ExecutorService {
    type ConnectStream = ReceiverStream<Result<SchedulerMessage, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ExecutorMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        authenticate(request.metadata(), self.rules.token.as_deref())?;
        let mut inbound = request.into_inner();
        let register = match timeout(REGISTER_TIMEOUT, inbound.message()).await {
            Ok(Ok(Some(ExecutorMessage { message: Some(FromExecutor::Register(register)) }))) => register,
            Ok(Err(status)) => return Err(status),
            Ok(Ok(_)) => {
                return Err(Status::invalid_argument("the first message of an executor must be Register"));
            }
            Err(_) => {
                let seconds = REGISTER_TIMEOUT.as_secs();
                return Err(Status::deadline_exceeded(format!(
                    "the executor did not register within {seconds} s"
                )));
            }
        };
        self.check(&register).await.inspect_err(|status| {
            warn!(executor = register.executor_id, why = status.message(), "executor refused")
        })?;
        let Register { executor_id: id, host, slots, .. } = register;
        if !self.executors.register(&id, host.clone(), slots as usize) {
            return Err(Status::already_exists(format!("an executor {id} is registered already")));
        }
        info!(executor = id, host, slots, "executor joined");
        let (outbound, messages) = mpsc::channel(OUTBOUND_QUEUE);
        let scheduler_id = self.engine.scheduler_id.clone();
        // The queue has room: this is its first message.
        send(&outbound, ToExecutor::Registered(Registered { scheduler_id }));
        self.calls.open(&id, outbound.clone());
        if let Err(error) = self.known.register_executor(metadata(&id, &host), executor_data(&id)).await {
            self.remove(&id, "the engine refused it").await;
            return Err(Status::internal(error.to_string()));
        }
        self.executors.mark_ready(&id);
        self.update_capacity();
        offer_slots(&self.engine, id.clone()).await;
        let service = self.clone();
        tokio::spawn(async move {
            let why = service.run_session(&id, inbound, &outbound).await;
            info!(executor = id, host, why, "executor left");
            service.remove(&id, &why).await;
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn send_result(
        &self,
        request: Request<Streaming<ResultMessage>>,
    ) -> Result<Response<SendResultResponse>, Status> {
        authenticate(request.metadata(), self.rules.token.as_deref())?;
        let mut inbound = request.into_inner();
        let late = |_| Status::deadline_exceeded("the result did not begin in time");
        let first = timeout(RESULT_TIMEOUT, inbound.message()).await.map_err(late)??;
        let first = first.ok_or_else(|| Status::invalid_argument("the result names no fetch"))?;
        self.calls.receive(&first.fetch_id, inbound.map(|message| message.map(|part| part.part))).await;
        Ok(Response::new(SendResultResponse {}))
    }
}

impl ExecutorService {
    /// Checks that an executor may register: equal arguments must give equal bytes on every executor, and
    /// both sides must understand each other's messages.
    async fn check(&self, register: &Register) -> Result<(), Status> {
        if register.slots == 0 {
            return Err(Status::failed_precondition("an executor needs at least one slot: give it --slots"));
        }
        if self.rules.allow_version_skew {
            return Ok(());
        }
        let ours = env!("CARGO_PKG_VERSION");
        if register.version != ours {
            let theirs = &register.version;
            return Err(Status::failed_precondition(format!(
                "the executor is Spool {theirs} and the scheduler is {ours}: install {ours} on the \
                 executor, or start the scheduler with --allow-version-skew"
            )));
        }
        let encoder = self
            .worker
            .environment()
            .default_encoder_build()
            .await
            .map_err(|e| Status::internal(e.to_string()))?;
        if register.encoder != encoder {
            return Err(Status::failed_precondition(
                "the executor's FFmpeg or x264 is another build than the scheduler's and would encode other \
                 bytes: install the same build, or start the scheduler with --allow-version-skew",
            ));
        }
        Ok(())
    }

    /// Runs a session until it ends. Returns why it ended.
    async fn run_session(
        &self,
        id: &str,
        mut inbound: Streaming<ExecutorMessage>,
        outbound: &Outbound,
    ) -> String {
        let mut heartbeat = interval(HEARTBEAT_INTERVAL);
        let mut last_message = Instant::now();
        // Jobs that the executor ran without an attempt that waits for them, by its last heartbeat.
        let mut abandoned = HashSet::new();
        loop {
            tokio::select! {
                message = inbound.message() => {
                    last_message = Instant::now();
                    match message {
                        Ok(Some(ExecutorMessage { message: Some(FromExecutor::Heartbeat(heartbeat)) })) => {
                            let Heartbeat { running, unavailable_reason } = heartbeat;
                            let running: HashSet<String> = running.into_iter().collect();
                            abandoned = self.cancel_abandoned(id, &running, &abandoned, outbound);
                            self.record_heartbeat(id, running, unavailable_reason);
                        }
                        Ok(Some(ExecutorMessage { message: Some(FromExecutor::TaskStatus(status)) })) => {
                            self.on_task_status(id, &status).await;
                        }
                        Ok(Some(ExecutorMessage { message })) => self.on_message(id, message),
                        Ok(None) => return "it ended its session".to_owned(),
                        Err(status) => return format!("the connection broke: {}", status.message()),
                    }
                }
                _ = heartbeat.tick() => {
                    if last_message.elapsed() > self.rules.silence {
                        return format!("it was silent for {} s", last_message.elapsed().as_secs());
                    }
                    let fetched = self.executors.take_fetched(id);
                    send(outbound, ToExecutor::Heartbeat(SchedulerHeartbeat { fetched }));
                }
            }
        }
    }

    /// Cancels the jobs that an executor runs without an attempt that waits for them, at the second heartbeat
    /// in a row that says so: at the first, the attempt may not have subscribed yet. Returns those of this
    /// heartbeat.
    fn cancel_abandoned(
        &self,
        id: &str,
        running: &HashSet<String>,
        before: &HashSet<String>,
        outbound: &Outbound,
    ) -> HashSet<String> {
        let abandoned: HashSet<String> =
            running.iter().filter(|job| !self.event_router.has_subscriber(job)).cloned().collect();
        let jobs: Vec<String> = abandoned.intersection(before).cloned().collect();
        if !jobs.is_empty() {
            warn!(executor = id, ?jobs, "canceling rows that no statement waits for");
            send(outbound, ToExecutor::CancelJobs(CancelJobs { jobs }));
        }
        abandoned
    }

    fn record_heartbeat(&self, id: &str, running: HashSet<String>, unavailable_reason: String) {
        let reason = Some(unavailable_reason).filter(|reason| !reason.is_empty());
        if self.executors.record_heartbeat(id, running, reason.clone()) {
            match reason {
                Some(reason) => warn!(executor = id, reason, "executor is unavailable"),
                None => info!(executor = id, "executor is available again"),
            }
            self.update_capacity();
        }
    }

    fn on_message(&self, id: &str, message: Option<FromExecutor>) {
        match message {
            Some(FromExecutor::Draining(_)) => {
                info!(executor = id, "executor drains");
                self.executors.mark_draining(id);
                self.update_capacity();
            }
            Some(FromExecutor::Row(row)) => match row.try_into() {
                Ok(event) => self.event_router.route(event),
                Err(spool_wire::InvalidEvent) => warn!(executor = id, "ignored an invalid event"),
            },
            // Handled before, or of a newer version.
            Some(FromExecutor::Heartbeat(_) | FromExecutor::Register(_) | FromExecutor::TaskStatus(_))
            | None => {}
        }
    }

    /// Passes the end of a task on to the engine.
    async fn on_task_status(&self, id: &str, status: &TaskStatus) {
        let mut status = match protobuf::TaskStatus::decode(status.status.as_slice()) {
            Ok(status) => status,
            Err(error) => {
                // The attempt notices that no executor runs its task, and starts another.
                warn!(executor = id, %error, "ignored a task status that cannot be read");
                return;
            }
        };
        // An executor reports its own tasks only.
        if let Some(TaskEnd::Successful(success)) = &mut status.status {
            id.clone_into(&mut success.executor_id);
        }
        let update = UpdateTaskStatusParams { executor_id: id.to_owned(), task_status: vec![status] };
        if let Err(status) = SchedulerGrpc::update_task_status(&self.engine, Request::new(update)).await {
            warn!(executor = id, %status, "the engine took no note of a task's end");
        }
    }

    async fn remove(&self, id: &str, why: &str) {
        self.executors.remove(id);
        self.calls.close(id);
        self.update_capacity();
        // Ballista's grace period is 0: it forgets the executor now, and runs its tasks elsewhere.
        let stopped = ExecutorStoppedParams { executor_id: id.to_owned(), reason: why.to_owned() };
        if let Err(status) = SchedulerGrpc::executor_stopped(&self.engine, Request::new(stopped)).await {
            warn!(executor = id, %status, "failed to remove an executor from the engine");
        }
    }

    fn update_capacity(&self) {
        update_capacity(&self.fair_queue, &self.executors);
    }
}

/// Returns how the engine knows an executor: by its ID. It has no port that the engine could call.
fn metadata(id: &str, host: &str) -> ExecutorMetadata {
    ExecutorMetadata {
        id: id.to_owned(),
        host: host.to_owned(),
        port: 0,
        grpc_port: 0,
        specification: ExecutorSpecification::default().with_vcores(BALLISTA_VCORES),
        os_info: ExecutorOperatingSystemSpecification::default(),
    }
}

/// Returns so many slots that the engine always finds a free one: the registry counts the real ones.
fn executor_data(id: &str) -> ExecutorData {
    ExecutorData {
        executor_id: id.to_owned(),
        total_vcores: BALLISTA_VCORES,
        available_vcores: BALLISTA_VCORES,
    }
}

/// Queues a message. A full queue is a network that is cut, which shows in the executor's silence.
fn send(outbound: &Outbound, message: ToExecutor) {
    let _ = outbound.try_send(Ok(SchedulerMessage { message: Some(message) }));
}
