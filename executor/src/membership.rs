//! How does an executor belong to a scheduler? By a call that both keep open. When it ends, what was in hand is given up, and the
//! executor comes back under another name.
//!
//! Another name, because Ballista takes nobody back under an old one until it has declared that one dead.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::BackoffBuilder;
use spool_media::encode::worker::Worker;
use spool_wire::{
    Channel,
    v1::{
        Draining, FromExecutor, FromScheduler, GiveUp, Hello, Pulse, from_executor,
        from_scheduler::Message as Heard, members_client::MembersClient,
    },
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    task::JoinHandle,
    time::{interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use crate::{
    Error,
    ballista::{self, Address},
    engine::Tasks,
    results::Results,
};

/// How long a scheduler may take to take an executor in.
const ADMISSION: Duration = Duration::from_secs(10);

/// How often an executor says that it is alive, and what it has in hand.
const PULSE: Duration = Duration::from_secs(1);

/// Silence of the scheduler after which it counts as gone. It says something every other second.
const SILENCE: Duration = Duration::from_secs(15);

/// Messages that wait for a slow network.
const QUEUE: usize = 1024;

/// How long tasks that are told to end may take: they kill what they started.
const TASKS_END: Duration = Duration::from_secs(5);

/// How long a scheduler may take to hear that an executor is leaving.
const GOODBYE: Duration = Duration::from_millis(500);

/// The wait before a scheduler is asked again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// Which scheduler an executor works for, and with how much of its machine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The scheduler's `HOST:PORT`.
    pub scheduler: String,
    /// Rows that run at a time.
    pub slots: usize,
    /// Folder for the engine's own intermediate results.
    pub work_dir: PathBuf,
    /// Address that the scheduler reaches this machine at; found out unless given.
    pub address: Option<std::net::IpAddr>,
    /// What the scheduler wants to be shown, if it wants something.
    pub token: Option<String>,
    /// How long rows in hand may take to finish once the executor is told to leave.
    pub grace: Duration,
    /// How long it may have nothing in hand before it leaves by itself; for ever unless given.
    pub leave_idle: Option<Duration>,
}

/// How an executor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It looks for its scheduler.
    Away,
    /// It takes rows.
    Member,
    /// It finishes its rows.
    Draining,
}

/// What an executor is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders {
    /// Stop now.
    pub(crate) quit: CancellationToken,
    /// Take nothing new, and stop when what is in hand is done.
    pub(crate) drain: CancellationToken,
}

/// Belongs to the scheduler, again and again, until told to leave or refused.
pub(crate) async fn run(
    settings: Settings,
    worker: Arc<Worker>,
    orders: Orders,
    standing: watch::Sender<Standing>,
) -> Result<(), Error> {
    let waits = || {
        backon::ExponentialBuilder::new()
            .with_min_delay(RETRY_FIRST)
            .with_max_delay(RETRY_MOST)
            .without_max_times()
            .with_jitter()
            .build()
    };
    let mut backoff = waits();
    loop {
        let joined = Instant::now();
        let ended = Session { settings: &settings, worker: &worker, orders: &orders, standing: &standing }
            .run()
            .await;
        standing.send_replace(Standing::Away);
        match ended {
            Ok(()) => return Ok(()),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                warn!(scheduler = settings.scheduler, %error, "not with the scheduler; trying again")
            }
        }
        if joined.elapsed() > RETRY_MOST * 2 {
            backoff = waits();
        }
        tokio::select! {
            () = sleep(backoff.next().unwrap_or(RETRY_MOST)) => {}
            () = orders.quit.cancelled() => return Ok(()),
            () = orders.drain.cancelled() => return Ok(()),
        }
    }
}

/// One membership.
struct Session<'a> {
    settings: &'a Settings,
    worker: &'a Arc<Worker>,
    orders: &'a Orders,
    standing: &'a watch::Sender<Standing>,
}

impl Session<'_> {
    async fn run(&self) -> Result<(), Error> {
        let admitted = async {
            let address = Address::find(&self.settings.scheduler, self.settings.address).await?;
            let id = ballista::new_id(&self.worker.environment().host);
            let (outbound, inbound) = self.join(&id).await?;
            Ok::<_, Error>((address, id, outbound, inbound))
        };
        let (address, id, outbound, mut inbound) = tokio::select! {
            admitted = admitted => admitted?,
            () = self.orders.quit.cancelled() => return Ok(()),
            () = self.orders.drain.cancelled() => return Ok(()),
        };
        let tasks = Tasks::default();
        let mut engine = ballista::start(self.settings, &address, &id, self.worker, &tasks)?;
        self.standing.send_replace(Standing::Member);
        info!(executor = id, scheduler = self.settings.scheduler, slots = self.settings.slots, address = %address.ours, "joined");
        let results = Results::of(self.settings.work_dir.join(&id), tasks.clone());
        let ended = tokio::select! {
            ended = self.belong(&outbound, &mut inbound, &tasks, &results, &mut engine) => ended,
            never = results.sweep() => never,
        };
        // The scheduler hears of it, and sends no more tasks, before what takes them is gone.
        drop(outbound);
        let goodbye = async { while let Ok(Some(_)) = inbound.message().await {} };
        let _ = timeout(GOODBYE, goodbye).await;
        engine.abort();
        if timeout(TASKS_END, tasks.stop()).await.is_err() {
            warn!("tasks of the executor are still running");
        }
        // What others still wanted of its results they get by running rows again: records answer.
        if let Err(error) = results.remove_all() {
            debug!(%error, "the engine's folder stays until the process ends");
        }
        info!(executor = id, "left");
        ended
    }

    /// Asks to be taken in.
    async fn join(&self, id: &str) -> Result<(mpsc::Sender<FromExecutor>, Streaming<FromScheduler>), Error> {
        let hello = Hello {
            executor_id: id.to_owned(),
            host: self.worker.environment().host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            encoder: self.worker.environment().default_encoder_build().await?.to_owned(),
            slots: u32::try_from(self.settings.slots).unwrap_or(u32::MAX),
        };
        let (outbound, messages) = mpsc::channel(QUEUE);
        // There is room: it is the first.
        let _ = outbound.try_send(said(from_executor::Message::Hello(hello)));
        let scheduler = &self.settings.scheduler;
        let admission = async {
            let channel = Channel::connect(scheduler, self.settings.token.as_deref()).await?;
            let mut inbound =
                MembersClient::new(channel).join(ReceiverStream::new(messages)).await?.into_inner();
            match inbound.message().await? {
                Some(FromScheduler { message: Some(Heard::Welcome(welcome)) }) => {
                    debug!(scheduler = welcome.scheduler_id, "taken in");
                    Ok(inbound)
                }
                _ => Err(Status::unavailable("the call ended")),
            }
        };
        match timeout(ADMISSION, admission).await {
            Ok(Ok(inbound)) => Ok((outbound, inbound)),
            Ok(Err(status)) => Err(refusal(scheduler, &status)),
            Err(_) => Err(Error::Unreachable {
                scheduler: scheduler.clone(),
                why: "it did not answer in time".to_owned(),
            }),
        }
    }

    /// Works until told to leave, or until the scheduler is gone.
    async fn belong(
        &self,
        outbound: &mpsc::Sender<FromExecutor>,
        inbound: &mut Streaming<FromScheduler>,
        tasks: &Tasks,
        results: &Results,
        engine: &mut JoinHandle<Result<(), Error>>,
    ) -> Result<(), Error> {
        let lost = |why: &str| {
            Err(Error::Unreachable { scheduler: self.settings.scheduler.clone(), why: why.to_owned() })
        };
        let mut events = self.worker.events();
        let mut pulse = interval(PULSE);
        let mut heard = Instant::now();
        let mut draining = None;
        let mut idle: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = self.orders.quit.cancelled() => return Ok(()),
                () = self.orders.drain.cancelled(), if draining.is_none() => {
                    info!(grace_s = self.settings.grace.as_secs(), in_hand = tasks.jobs().len(), "told to leave: rows in hand finish first");
                    draining = Some(Instant::now());
                    self.standing.send_replace(Standing::Draining);
                    // A queue that is full is a network that is gone, which shows soon.
                    let _ = outbound.try_send(said(from_executor::Message::Draining(Draining {})));
                }
                () = tasks.finished(), if draining.is_some() => return Ok(()),
                message = inbound.message() => match message {
                    Ok(Some(FromScheduler { message })) => {
                        heard = Instant::now();
                        match message {
                            Some(Heard::GiveUp(GiveUp { jobs })) => {
                                warn!(?jobs, "nobody waits for these any more");
                                tasks.give_up(&jobs);
                            }
                            Some(Heard::Pulse(Pulse { fetched, .. })) => results.remove(fetched),
                            Some(Heard::Welcome(_)) | None => {}
                        }
                    }
                    Ok(None) => return lost("it ended the membership"),
                    Err(status) => return Err(refusal(&self.settings.scheduler, &status)),
                },
                ended = &mut *engine => return match ended {
                    // Ballista hears of the signal by itself, and ends when its tasks have.
                    _ if draining.is_some() => Ok(()),
                    Ok(Err(error)) => Err(error),
                    Ok(Ok(())) => lost("the engine was told to stop"),
                    Err(error) => lost(&error.to_string()),
                },
                event = events.recv() => match event {
                    // What a full queue drops is made up for by the next event.
                    Ok(event) => drop(outbound.try_send(said(from_executor::Message::Row((&event).into())))),
                    Err(RecvError::Lagged(missed)) => debug!(missed, "events were missed"),
                    Err(RecvError::Closed) => return lost("its machine is gone"),
                },
                _ = pulse.tick() => {
                    if heard.elapsed() > SILENCE {
                        return lost("it fell silent");
                    }
                    if draining.is_some_and(|since: Instant| since.elapsed() > self.settings.grace) {
                        warn!(in_hand = tasks.jobs().len(), "the grace is over: rows in hand are given up");
                        return Ok(());
                    }
                    idle = if tasks.jobs().is_empty() { idle.or_else(|| Some(Instant::now())) } else { None };
                    let for_too_long = |limit| idle.is_some_and(|since| since.elapsed() > limit);
                    if draining.is_none() && self.settings.leave_idle.is_some_and(for_too_long) {
                        info!("nothing to do for too long");
                        self.orders.drain.cancel();
                    }
                    let trouble = self.worker.environment().unavailable_reason().unwrap_or_default();
                    let _ = outbound.try_send(said(from_executor::Message::Pulse(Pulse { jobs: tasks.jobs(), trouble, fetched: Vec::new() })));
                }
            }
        }
    }
}

fn said(message: from_executor::Message) -> FromExecutor {
    FromExecutor { message: Some(message) }
}

/// What the end of a call means.
fn refusal(scheduler: &str, status: &Status) -> Error {
    let (scheduler, why) = (scheduler.to_owned(), status.message().to_owned());
    match status.code() {
        Code::FailedPrecondition | Code::Unauthenticated | Code::Unimplemented => {
            Error::Refused { scheduler, why }
        }
        _ => Error::Unreachable { scheduler, why },
    }
}
