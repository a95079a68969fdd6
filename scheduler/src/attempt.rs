//! How is one job run, once? Submitted to Ballista, listened to, canceled when nobody waits for it any more, and its result fetched.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ballista_core::{
    JobId,
    serde::protobuf::{
        JobStatus, SuccessfulJob, UpdateTaskStatusParams, job_status::Status,
        scheduler_grpc_server::SchedulerGrpc,
    },
};
use ballista_scheduler::state::task_builder::restrict_plan_to_partitions;
use datafusion::{arrow::array::RecordBatch, physical_plan::ExecutionPlan, prelude::SessionContext};
use spool_media::encode::events::{RowEvent, RowEventKind};
use tokio::{
    sync::mpsc,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    error::{Error, Result},
    executors::{
        event_router::Subscription,
        placement::{PlacementGuard, ROW_PREFIX},
        registry::JOB_LOST_AFTER,
    },
    results::fetch,
    service::{Scheduler, Server},
};

/// Status messages that may wait to be read: a job sends a handful.
const STATUS_QUEUE: usize = 64;

/// How long the rows of a finished job may take to come from the executors: they are names and numbers.
const FETCH_DEADLINE: Duration = Duration::from_secs(60);

/// How long a cancel may take to reach the scheduler's own event loop.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// How often it is looked whether a job is planned that is to be canceled.
const PLANNED_SOON: Duration = Duration::from_millis(10);

/// How long what a row said last may take to arrive after its result.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often it is looked whether the executor still has the job.
const LOOK: Duration = Duration::from_secs(1);

/// One run of one job.
pub(crate) struct Attempt<'a> {
    pub(crate) scheduler: &'a Scheduler,
    pub(crate) session: Arc<SessionContext>,
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// The row of the plan that it runs; all of the plan for a job that is no row.
    pub(crate) partition: Option<usize>,
    /// Its place among what is submitted.
    pub(crate) order: u64,
    /// Executors that it was tried on.
    pub(crate) tried: HashSet<String>,
    pub(crate) standing: Arc<Mutex<Standing>>,
    pub(crate) cancel: CancellationToken,
    /// Is told what the row says.
    pub(crate) tell: &'a (dyn Fn(RowEvent) + Send + Sync),
}

/// How an attempt stands.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Where it runs.
    pub(crate) executor: Option<String>,
    /// When FFmpeg started.
    pub(crate) started: Option<Instant>,
    /// Milliseconds of the row that are encoded.
    pub(crate) done_ms: i64,
}

impl Standing {
    /// How long it has run, and how far it got.
    pub(crate) fn progress(&self) -> Option<(Duration, i64)> {
        self.started.map(|started| (started.elapsed(), self.done_ms))
    }
}

impl Attempt<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// [`Error::Failed`] where a function failed, [`Error::Lost`] where its executor is gone, [`Error::Canceled`] once `cancel` fires,
    /// [`Error::Engine`] for whatever else.
    pub(crate) async fn run(self) -> Result<Vec<RecordBatch>> {
        let scheduler = self.scheduler;
        let engine = |e: ballista_core::error::BallistaError| Error::from_engine(&e.to_string());
        let name =
            format!("{}{}", if self.partition.is_some() { ROW_PREFIX } else { "statement-" }, self.order);
        let placed = self.partition.map(|_| {
            scheduler.placements.request(&scheduler.executors, name.clone(), self.order, self.tried.clone())
        });
        let plan = match self.partition {
            Some(row) => restrict_plan_to_partitions(self.plan.clone(), &[row])
                .map_err(|e| Error::from_engine(&e.to_string()))?,
            None => self.plan.clone(),
        };
        let (sender, mut statuses) = mpsc::channel(STATUS_QUEUE);
        let job = scheduler
            .server
            .submit_physical_plan(&name, self.session.clone(), plan, Some(sender))
            .await
            .map_err(engine)?;
        debug!(%job, name, "submitted");
        let mut subscription = scheduler.event_router.subscribe(job.as_str());
        let mut guard = CancelOnDrop { server: scheduler.server.clone(), job: Some(job) };
        let result = self.watch(&mut guard, &mut statuses, &mut subscription, placed.as_ref()).await;
        if let Some(executor) = placed.as_ref().and_then(PlacementGuard::executor) {
            self.standing().executor = Some(executor.clone());
            drop(placed);
            // A slot is free, which Ballista does not know.
            offer_again(&scheduler.server, executor).await;
        }
        result
    }

    async fn watch(
        &self,
        guard: &mut CancelOnDrop,
        statuses: &mut mpsc::Receiver<JobStatus>,
        subscription: &mut Subscription,
        placed: Option<&PlacementGuard>,
    ) -> Result<Vec<RecordBatch>> {
        let executors = &self.scheduler.executors;
        let job = guard.job.as_ref().map_or_else(String::new, |job| job.as_str().to_owned());
        let mut changes = executors.subscribe();
        let mut look = interval(LOOK);
        let mut finished = false;
        let mut seen = Instant::now();
        let success = loop {
            tokio::select! {
                biased;
                status = statuses.recv() => match status.map(|status| status.status) {
                    Some(Some(Status::Successful(success))) => break success,
                    Some(Some(Status::Failed(failed))) => {
                        guard.job = None;
                        return Err(Error::from_engine(&failed.error));
                    }
                    Some(Some(Status::Queued(_) | Status::Running(_)) | None) => {}
                    None => return Err(Error::Engine { message: "the engine forgot the job".to_owned() }),
                },
                event = subscription.next() => finished |= self.hear(event),
                () = self.cancel.cancelled() => {
                    guard.cancel().await;
                    return Err(Error::Canceled);
                }
                _ = changes.changed() => self.check_held(placed, &job, &mut seen)?,
                _ = look.tick() => {
                    self.check_held(placed, &job, &mut seen)?;
                    // A slot may have become free without the engine being told.
                    if placed.is_some_and(|placed| placed.executor().is_none()) && let Some(somebody) = executors.any_ready() {
                        offer_again(&self.scheduler.server, somebody).await;
                    }
                }
            }
        };
        guard.job = None;
        let batches = self.fetch(success).await?;
        // What is no row may have run on several.
        executors.mark_fetched(placed.and_then(PlacementGuard::executor).as_deref(), &job);
        for event in subscription.queued() {
            finished |= self.hear(event);
        }
        if self.partition.is_some() && !finished {
            let last_words = async { while !self.hear(subscription.next().await) {} };
            // Progress only: the result is here.
            let _ = timeout(LAST_WORDS, last_words).await;
        }
        Ok(batches)
    }

    /// Notes what the row says, and passes it on; tells whether it was the last.
    fn hear(&self, event: RowEvent) -> bool {
        let mut standing = self.standing();
        match &event.kind {
            RowEventKind::Started { .. } => standing.started = Some(Instant::now()),
            RowEventKind::Progress { done_ms } => standing.done_ms = *done_ms,
            RowEventKind::Planned | RowEventKind::Finished { .. } | RowEventKind::Retrying { .. } => {}
        }
        drop(standing);
        let last = matches!(event.kind, RowEventKind::Finished { .. });
        (self.tell)(event);
        last
    }

    /// What the engine forgot is not waited for.
    fn check_held(&self, placed: Option<&PlacementGuard>, job: &str, seen: &mut Instant) -> Result<()> {
        let executors = &self.scheduler.executors;
        let executor = match placed.map(PlacementGuard::executor) {
            // It waits for a slot.
            Some(None) => {
                *seen = Instant::now();
                return Ok(());
            }
            Some(Some(executor)) => Some(executor),
            None => None,
        };
        let held = match &executor {
            Some(executor) => {
                self.standing().executor = Some(executor.clone());
                if !executors.contains(executor) {
                    return Err(Error::Lost { executor: executor.clone() });
                }
                executors.is_running(executor, job)
            }
            None => executors.count().executors == 0 || executors.is_running_anywhere(job),
        };
        if held {
            *seen = Instant::now();
        }
        match executor {
            _ if seen.elapsed() <= JOB_LOST_AFTER => Ok(()),
            Some(executor) => Err(Error::Lost { executor }),
            None => Err(Error::Engine { message: "no executor has the job in hand".to_owned() }),
        }
    }

    async fn fetch(&self, success: SuccessfulJob) -> Result<Vec<RecordBatch>> {
        let executors = &self.scheduler.executors;
        let metas = success.partition_location.iter().filter_map(|location| location.executor_meta.as_ref());
        let holders: HashSet<String> = metas.map(|meta| meta.id.clone()).collect();
        let gone = async {
            let mut changes = executors.subscribe();
            loop {
                if let Some(executor) = holders.iter().find(|id| !executors.contains(id)) {
                    return executor.clone();
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let fetching = fetch(
            success.partition_location,
            self.scheduler.server.state.config.grpc_client_max_message_size,
        );
        tokio::select! {
            batches = timeout(FETCH_DEADLINE, fetching) => batches.unwrap_or_else(|_| {
                Err(Error::Engine { message: "the executors did not hand out the result in time".to_owned() })
            }),
            executor = gone => Err(Error::Lost { executor }),
            () = self.cancel.cancelled() => Err(Error::Canceled),
        }
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has Ballista look again for tasks that can be placed: it does so when a status comes in, also one that says nothing.
pub(crate) async fn offer_again(server: &Server, executor_id: String) {
    let nothing = UpdateTaskStatusParams { executor_id, task_status: Vec::new() };
    if let Err(status) = SchedulerGrpc::update_task_status(server, tonic::Request::new(nothing)).await {
        debug!(%status, "the engine took no note of a free slot");
    }
}

/// A job whose submitter is gone must not run on.
struct CancelOnDrop {
    server: Server,
    job: Option<JobId>,
}

impl CancelOnDrop {
    async fn cancel(&mut self) {
        if let Some(job) = self.job.take() {
            cancel(&self.server, job).await;
        }
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            let server = self.server.clone();
            tokio::spawn(async move { cancel(&server, job).await });
        }
    }
}

async fn cancel(server: &Server, job: JobId) {
    let canceled = async {
        // A cancel of what is still being planned is forgotten.
        while matches!(status_of(server, &job).await, None | Some(Status::Queued(_))) {
            sleep(PLANNED_SOON).await;
        }
        server.cancel_job(job.clone()).await
    };
    match timeout(CANCEL_DEADLINE, canceled).await {
        Ok(Ok(())) => debug!(%job, "canceled"),
        Ok(Err(error)) => warn!(%job, %error, "job could not be canceled"),
        Err(_) => warn!(%job, "the scheduler did not take the cancel in time"),
    }
}

async fn status_of(server: &Server, job: &JobId) -> Option<Status> {
    server.state.task_manager.get_job_status(job).await.ok().flatten().and_then(|status| status.status)
}
