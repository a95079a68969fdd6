//! How is an executor taken in, heard, and let go? The scheduler's side of the call that a membership is.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ballista_core::serde::protobuf::{ExecutorStoppedParams, scheduler_grpc_server::SchedulerGrpc};
use spool_media::encode::worker::Worker;
use spool_wire::{
    authorized,
    v1::{
        FromExecutor, FromScheduler, GiveUp, Hello, Pulse, Welcome, from_executor::Message as Said,
        from_scheduler, members_server,
    },
};
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::{members::Members, reports::Reports, service::Server, turnstile::Turnstile};

/// How long an executor may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);

/// How often the scheduler says that it is there.
const PULSE: Duration = Duration::from_secs(1);

/// Pulses that wait for a slow network.
const QUEUE: usize = 8;

/// Rows that may be on their way beyond those that have a slot, so that a slot that gets free is filled at once: a share of the slots.
const AHEAD_SHARE: usize = 4;

/// Lets as many rows in as there are slots, and a few more.
pub(crate) fn make_room(turnstile: &Turnstile, members: &Members) {
    turnstile.make_room(|| match members.count().slots {
        0 => 0,
        slots => slots + slots / AHEAD_SHARE + 1,
    });
}

/// Takes executors in.
#[derive(Clone)]
pub(crate) struct Membership {
    pub(crate) server: Server,
    pub(crate) worker: Arc<Worker>,
    pub(crate) members: Members,
    pub(crate) reports: Reports,
    pub(crate) turnstile: Turnstile,
    pub(crate) rules: Arc<Rules>,
}

/// Who is taken in, and when somebody counts as gone.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// What has to be shown.
    pub(crate) token: Option<String>,
    /// Are executors of another version, or with other encoders, taken in?
    pub(crate) allow_others: bool,
    /// Silence after which an executor counts as lost.
    pub(crate) silence: Duration,
}

#[tonic::async_trait]
impl members_server::Members for Membership {
    type JoinStream = ReceiverStream<Result<FromScheduler, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<FromExecutor>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        authorized(request.metadata(), self.rules.token.as_deref())?;
        let mut inbound = request.into_inner();
        let hello = match timeout(HELLO, inbound.message()).await {
            Ok(Ok(Some(FromExecutor { message: Some(Said::Hello(hello)) }))) => hello,
            Ok(Err(status)) => return Err(status),
            Ok(Ok(_)) => {
                return Err(Status::invalid_argument("the first message of an executor says who it is"));
            }
            Err(_) => return Err(Status::deadline_exceeded("the executor did not say who it is in time")),
        };
        self.admit(&hello)
            .await
            .inspect_err(|status| warn!(executor = hello.executor_id, why = status.message(), "refused"))?;
        let Hello { executor_id: id, host, slots, .. } = hello;
        if !self.members.join(&id, host.clone(), slots as usize) {
            return Err(Status::already_exists(format!("there is an executor {id} already")));
        }
        info!(executor = id, host, slots, "executor joined");
        self.make_room();
        let (outbound, messages) = mpsc::channel(QUEUE);
        let welcome =
            from_scheduler::Message::Welcome(Welcome { scheduler_id: self.server.scheduler_id.clone() });
        // There is room: it is the first.
        let _ = outbound.try_send(Ok(FromScheduler { message: Some(welcome) }));
        let membership = self.clone();
        tokio::spawn(async move {
            let why = membership.listen(&id, inbound, &outbound).await;
            info!(executor = id, host, why, "executor left");
            membership.let_go(&id, &why).await;
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

impl Membership {
    /// Equal arguments must give equal bytes on every executor, and what is said must be understood.
    async fn admit(&self, hello: &Hello) -> Result<(), Status> {
        if hello.slots == 0 {
            return Err(Status::failed_precondition("an executor needs at least one slot: give it --slots"));
        }
        if self.rules.allow_others {
            return Ok(());
        }
        let ours = env!("CARGO_PKG_VERSION");
        if hello.version != ours {
            let theirs = &hello.version;
            return Err(Status::failed_precondition(format!(
                "it is Spool {theirs} and the scheduler is {ours}: install {ours} on it, or start the scheduler with --allow-others"
            )));
        }
        let encoder = self
            .worker
            .environment()
            .default_encoder_build()
            .await
            .map_err(|e| Status::internal(e.to_string()))?;
        if hello.encoder != encoder {
            return Err(Status::failed_precondition(
                "its FFmpeg or x264 is of another build than the scheduler's and would give other bytes: install the same, or start the \
                 scheduler with --allow-others",
            ));
        }
        Ok(())
    }

    /// Hears what an executor says until it is gone; tells why.
    async fn listen(
        &self,
        id: &str,
        mut inbound: Streaming<FromExecutor>,
        outbound: &mpsc::Sender<Result<FromScheduler, Status>>,
    ) -> String {
        let mut pulse = interval(PULSE);
        let mut heard = Instant::now();
        // What it has in hand that nobody waited for when it said so last.
        let mut unwanted = HashSet::new();
        loop {
            tokio::select! {
                message = inbound.message() => {
                    heard = Instant::now();
                    match message {
                        Ok(Some(FromExecutor { message: Some(Said::Pulse(pulse)) })) => {
                            let jobs: HashSet<String> = pulse.jobs.into_iter().collect();
                            let now: HashSet<String> = jobs.iter().filter(|job| !self.reports.is_heard(job)).cloned().collect();
                            let give_up: Vec<String> = now.intersection(&unwanted).cloned().collect();
                            if !give_up.is_empty() {
                                warn!(executor = id, ?give_up, "jobs run that nobody waits for");
                                let message = from_scheduler::Message::GiveUp(GiveUp { jobs: give_up });
                                let _ = outbound.try_send(Ok(FromScheduler { message: Some(message) }));
                            }
                            unwanted = now;
                            let trouble = Some(pulse.trouble).filter(|trouble| !trouble.is_empty());
                            self.note(id, jobs, trouble);
                        }
                        Ok(Some(FromExecutor { message })) => self.hear(id, message),
                        Ok(None) => return "it left".to_owned(),
                        Err(status) => return format!("the connection broke: {}", status.message()),
                    }
                }
                _ = pulse.tick() => {
                    if heard.elapsed() > self.rules.silence {
                        return format!("it was silent for {} s", heard.elapsed().as_secs());
                    }
                    // A full queue is a network that is cut, which shows in its silence.
                    let pulse = Pulse { fetched: self.members.take_fetched(id), ..Pulse::default() };
                    let _ = outbound.try_send(Ok(FromScheduler { message: Some(from_scheduler::Message::Pulse(pulse)) }));
                }
            }
        }
    }

    fn note(&self, id: &str, jobs: HashSet<String>, trouble: Option<String>) {
        let says = trouble.clone();
        if self.members.pulse(id, jobs, trouble) {
            match says {
                Some(trouble) => warn!(executor = id, trouble, "executor can take no rows"),
                None => info!(executor = id, "executor takes rows again"),
            }
            self.make_room();
        }
    }

    fn hear(&self, id: &str, message: Option<Said>) {
        match message {
            Some(Said::Draining(_)) => {
                info!(executor = id, "executor drains");
                self.members.drain(id);
                self.make_room();
            }
            Some(Said::Row(row)) => {
                let job = row.job.clone();
                match row.try_into() {
                    Ok(event) => self.reports.deliver(&job, event),
                    Err(spool_wire::BadEvent) => warn!(executor = id, "an event that makes no sense"),
                }
            }
            // Heard already, or of a newer version.
            Some(Said::Pulse(_) | Said::Hello(_)) | None => {}
        }
    }

    async fn let_go(&self, id: &str, why: &str) {
        self.members.leave(id);
        self.make_room();
        // Ballista's grace is 0: it forgets the executor now, and runs its tasks elsewhere.
        let stopped = ExecutorStoppedParams { executor_id: id.to_owned(), reason: why.to_owned() };
        if let Err(status) = SchedulerGrpc::executor_stopped(&self.server, Request::new(stopped)).await {
            warn!(executor = id, %status, "the engine could not be told that an executor left");
        }
    }

    fn make_room(&self) {
        make_room(&self.turnstile, &self.members);
    }
}
