//! Session with a scheduler: a call that both sides keep open. When it ends, the executor stops its rows and
//! connects again under another id.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use spool_media::encode::worker::Worker;
use spool_storage::Backoff;
use spool_wire::{
    Address, Connection,
    v1::{
        CancelJobs, Draining, ExecutorMessage, Heartbeat, LaunchTasks, Register, SchedulerHeartbeat,
        SchedulerMessage, executor_message::Message as ToScheduler,
        executor_service_client::ExecutorServiceClient, scheduler_message::Message as FromScheduler,
    },
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    time::{interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use crate::{
    error::Error, result_sender::ResultSender, results::Results, settings::Settings, task_runner::TaskRunner,
    tasks::Tasks,
};

/// Limit on the wait for the scheduler to accept a registration.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the executor sends a heartbeat.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Silence after which the scheduler counts as gone. It sends a heartbeat every second.
const SCHEDULER_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest message of a session: the parts of a long film go through one.
const MESSAGE_MAX_BYTES: usize = 256 << 20;

/// Messages that wait for a slow network.
const OUTBOUND_QUEUE: usize = 1024;

/// How long canceled tasks may take to end: they kill their FFmpeg.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the scheduler may take to notice the end of a session.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// The shortest and the longest wait before the next session.
const RETRY_DELAY: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// State of an executor's session.
///
/// | from | to | when |
/// | --- | --- | --- |
/// | `Connecting` | `Ready` | the scheduler accepts the registration |
/// | `Ready` | `Draining` | `ShutdownSignals::drain` fires; the executor ends after this session |
/// | `Ready`, `Draining` | `Connecting` | the session ends |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// There is no session: the executor connects to its scheduler.
    Connecting,
    /// The executor accepts rows.
    Ready,
    /// The executor finishes its rows and accepts no new ones.
    Draining,
}

/// Signals that end an executor.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShutdownSignals {
    /// Stop now.
    pub(crate) stop: CancellationToken,
    /// Accept no new rows, and stop when those that run are done.
    pub(crate) drain: CancellationToken,
}

/// Runs one session after another, until a shutdown signal fires or the scheduler refuses the executor.
pub(crate) async fn run_sessions(
    settings: Settings,
    worker: Arc<Worker>,
    signals: ShutdownSignals,
    state: watch::Sender<SessionState>,
) -> Result<(), Error> {
    let mut backoff = Backoff::new(RETRY_DELAY, RETRY_DELAY_MAX);
    loop {
        let began = Instant::now();
        let session = Session { settings: &settings, worker: &worker, signals: &signals, state: &state };
        let ended = session.run().await;
        state.send_replace(SessionState::Connecting);
        match ended {
            Ok(()) => return Ok(()),
            Err(error) if !error.is_retryable() => return Err(error),
            Err(error) => {
                warn!(scheduler = %settings.scheduler, %error, "session ended; connecting again");
            }
        }
        if began.elapsed() > RETRY_DELAY_MAX * 2 {
            backoff.reset();
        }
        tokio::select! {
            () = sleep(backoff.delay()) => {}
            () = signals.stop.cancelled() => return Ok(()),
            () = signals.drain.cancelled() => return Ok(()),
        }
    }
}

/// An open call to the scheduler.
struct Connected {
    client: ExecutorServiceClient<Connection>,
    outbound: mpsc::Sender<ExecutorMessage>,
    inbound: Streaming<SchedulerMessage>,
}

/// What carries out the scheduler's messages during one session.
struct SessionEngine {
    runner: TaskRunner,
    sender: ResultSender,
    results: Results,
    tasks: Tasks,
}

/// One session.
struct Session<'a> {
    settings: &'a Settings,
    worker: &'a Arc<Worker>,
    signals: &'a ShutdownSignals,
    state: &'a watch::Sender<SessionState>,
}

impl Session<'_> {
    /// Connects, runs the session to its end, and stops every task that it started.
    async fn run(&self) -> Result<(), Error> {
        // Another id each time: results and tasks of a former session are not this one's.
        let id = format!("{}-{}", self.worker.environment().host, ballista_core::ids::new_instance_id());
        let connected = tokio::select! {
            connected = self.connect(&id) => connected?,
            () = self.signals.stop.cancelled() => return Ok(()),
            () = self.signals.drain.cancelled() => return Ok(()),
        };
        let Connected { client, outbound, mut inbound } = connected;
        let (tasks, work_dir) = (Tasks::default(), self.settings.work_dir.join(&id));
        let engine = SessionEngine {
            runner: TaskRunner::new(
                &id,
                self.settings.slots,
                &work_dir,
                self.worker,
                &tasks,
                outbound.downgrade(),
            )?,
            sender: ResultSender::new(client, work_dir.to_string_lossy().into_owned()),
            results: Results::new(work_dir, tasks.clone()),
            tasks,
        };
        self.state.send_replace(SessionState::Ready);
        info!(
            executor = id,
            scheduler = %self.settings.scheduler,
            slots = self.settings.slots,
            "joined"
        );
        let ended = tokio::select! {
            ended = self.run_session(&outbound, &mut inbound, &engine) => ended,
            never = engine.results.delete_expired() => never,
        };
        // The scheduler learns of the end, and sends no more tasks, before their threads are gone.
        drop(outbound);
        let goodbye = async { while let Ok(Some(_)) = inbound.message().await {} };
        let _ = timeout(GOODBYE_TIMEOUT, goodbye).await;
        if timeout(SHUTDOWN_TIMEOUT, engine.tasks.stop()).await.is_err() {
            warn!("tasks of the executor are still running");
        }
        // Results that the scheduler has not fetched are made anew by running their rows elsewhere: part
        // records answer.
        if let Err(error) = engine.results.delete_all() {
            debug!(%error, "the engine's folder stays until the process ends");
        }
        info!(executor = id, "left");
        ended
    }

    /// Opens the call and registers.
    async fn connect(&self, id: &str) -> Result<Connected, Error> {
        let register = Register {
            executor_id: id.to_owned(),
            host: self.worker.environment().host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            encoder: self.worker.environment().default_encoder_build().await?.to_owned(),
            slots: u32::try_from(self.settings.slots).unwrap_or(u32::MAX),
        };
        let (outbound, messages) = mpsc::channel(OUTBOUND_QUEUE);
        // The queue has room: this is its first message.
        send(&outbound, ToScheduler::Register(register));
        let scheduler = &self.settings.scheduler;
        let registered = async {
            let connection = spool_wire::connect(scheduler, (self.settings.token)().as_deref()).await?;
            let mut client = ExecutorServiceClient::new(connection)
                .max_decoding_message_size(MESSAGE_MAX_BYTES)
                .max_encoding_message_size(MESSAGE_MAX_BYTES);
            let mut inbound = client.connect(ReceiverStream::new(messages)).await?.into_inner();
            match inbound.message().await? {
                Some(SchedulerMessage { message: Some(FromScheduler::Registered(registered)) }) => {
                    debug!(scheduler = registered.scheduler_id, "registered");
                    Ok((client, inbound))
                }
                _ => Err(Status::unavailable("the call ended")),
            }
        };
        match timeout(REGISTER_TIMEOUT, registered).await {
            Ok(Ok((client, inbound))) => Ok(Connected { client, outbound, inbound }),
            Ok(Err(status)) => Err(session_error(scheduler, &status)),
            Err(_) => Err(Error::Unreachable {
                scheduler: scheduler.to_string(),
                why: "it did not answer in time".to_owned(),
            }),
        }
    }

    /// Reports rows and heartbeats, and obeys the scheduler, until a shutdown signal fires or the scheduler
    /// is gone.
    async fn run_session(
        &self,
        outbound: &mpsc::Sender<ExecutorMessage>,
        inbound: &mut Streaming<SchedulerMessage>,
        engine: &SessionEngine,
    ) -> Result<(), Error> {
        let SessionEngine { runner, sender, results, tasks } = engine;
        let lost = |why: &str| {
            Err(Error::Unreachable { scheduler: self.settings.scheduler.to_string(), why: why.to_owned() })
        };
        let mut events = self.worker.events();
        let mut heartbeat = interval(HEARTBEAT_INTERVAL);
        let mut last_message = Instant::now();
        let mut draining_since = None;
        let mut idle_since: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = self.signals.stop.cancelled() => return Ok(()),
                () = self.signals.drain.cancelled(), if draining_since.is_none() => {
                    let drain_timeout_s = self.settings.drain_timeout.as_secs();
                    let running = tasks.jobs().len();
                    info!(drain_timeout_s, running, "draining: running rows finish first");
                    draining_since = Some(Instant::now());
                    self.state.send_replace(SessionState::Draining);
                    send(outbound, ToScheduler::Draining(Draining {}));
                }
                () = tasks.finished(), if draining_since.is_some() => return Ok(()),
                message = inbound.message() => match message {
                    Ok(Some(SchedulerMessage { message })) => {
                        last_message = Instant::now();
                        match message {
                            Some(FromScheduler::LaunchTasks(LaunchTasks { tasks })) => runner.launch(&tasks),
                            Some(FromScheduler::FetchResult(fetch)) => sender.send(fetch),
                            Some(FromScheduler::CancelJobs(CancelJobs { jobs })) => tasks.cancel(&jobs),
                            Some(FromScheduler::Heartbeat(SchedulerHeartbeat { fetched })) => {
                                results.delete(fetched);
                            }
                            Some(FromScheduler::Registered(_)) | None => {}
                        }
                    }
                    Ok(None) => return lost("it ended the session"),
                    Err(status) => return Err(session_error(&self.settings.scheduler, &status)),
                },
                event = events.recv() => match event {
                    // The next event makes up for one that a full queue drops.
                    Ok(event) => send(outbound, ToScheduler::Row((&event).into())),
                    Err(RecvError::Lagged(missed)) => debug!(missed, "events were dropped"),
                    Err(RecvError::Closed) => return lost("this process's worker is gone"),
                },
                _ = heartbeat.tick() => {
                    if last_message.elapsed() > SCHEDULER_TIMEOUT {
                        return lost("it fell silent");
                    }
                    let running = tasks.jobs();
                    let is_over = |since: Instant| since.elapsed() > self.settings.drain_timeout;
                    if draining_since.is_some_and(is_over) {
                        warn!(running = running.len(), "drain timeout over: canceling running rows");
                        return Ok(());
                    }
                    idle_since =
                        if running.is_empty() { idle_since.or_else(|| Some(Instant::now())) } else { None };
                    let is_idle = |limit| idle_since.is_some_and(|since| since.elapsed() > limit);
                    if draining_since.is_none() && self.settings.idle_timeout.is_some_and(is_idle) {
                        info!("the idle timeout is over");
                        self.signals.drain.cancel();
                    }
                    let environment = self.worker.environment();
                    let unavailable_reason = environment.unavailable_reason().unwrap_or_default();
                    send(outbound, ToScheduler::Heartbeat(Heartbeat { running, unavailable_reason }));
                }
            }
        }
    }
}

/// Queues a message. A full queue is a network that is cut, which shows in the scheduler's silence.
fn send(outbound: &mpsc::Sender<ExecutorMessage>, message: ToScheduler) {
    let _ = outbound.try_send(ExecutorMessage { message: Some(message) });
}

/// Returns the error that the status of an ended call stands for.
fn session_error(scheduler: &Address, status: &Status) -> Error {
    let (scheduler, why) = (scheduler.to_string(), spool_wire::reason(scheduler, status));
    match status.code() {
        Code::FailedPrecondition | Code::Unauthenticated | Code::Unimplemented => {
            Error::Refused { scheduler, why }
        }
        _ => Error::Unreachable { scheduler, why },
    }
}
