//! Attempts: submits a job to Ballista, watches its events and status, and fetches its result. An attempt is
//! canceled when dropped.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ballista_core::serde::protobuf::{JobStatus, SuccessfulJob, job_status::Status};
use ballista_scheduler::state::task_builder::restrict_plan_to_partitions;
use datafusion::{arrow::array::RecordBatch, physical_plan::ExecutionPlan, prelude::SessionContext};
use parking_lot::{Mutex, MutexGuard};
use spool_media::encode::events::{AttemptEvent, RowEvent, RowEventKind};
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    engine::{CancelOnDrop, Engine, offer_slots},
    error::{Error, Result},
    executor_calls::ExecutorCalls,
    executors::{
        event_router::{EventRouter, Subscription},
        placement::{PlacementGuard, Placements, ROW_PREFIX},
        registry::{ExecutorRegistry, JOB_LOST_AFTER},
    },
};

/// Capacity of a job's queue of status messages: a job sends a handful.
const STATUS_QUEUE: usize = 64;

/// Time limit of fetching the rows of a finished job from the executors: they are names and numbers.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for which the last event of a row is awaited after its result.
const LAST_EVENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval between checks whether an executor has lost the attempt.
const LOST_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Parts of a scheduler that an attempt uses.
#[derive(Clone)]
pub(crate) struct AttemptContext {
    pub(crate) engine: Engine,
    pub(crate) calls: ExecutorCalls,
    pub(crate) executors: ExecutorRegistry,
    pub(crate) placements: Placements,
    pub(crate) events: EventRouter,
    /// Number of the last attempt. Attempts are placed in the order of their numbers.
    pub(crate) last_number: Arc<AtomicU64>,
}

impl AttemptContext {
    /// Returns the number of a new attempt.
    pub(crate) fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed)
    }
}

/// One attempt at a row, or at a job that is not a row.
pub(crate) struct Attempt<'a> {
    pub(crate) context: &'a AttemptContext,
    pub(crate) session: Arc<SessionContext>,
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// The row; `None` for a job that is not a row, which runs the whole plan.
    pub(crate) row: Option<AttemptedRow>,
    /// The attempt's number: lower ones are placed first.
    pub(crate) number: u64,
    /// Executors of earlier attempts.
    pub(crate) tried: HashSet<String>,
    pub(crate) progress: Arc<Mutex<AttemptProgress>>,
    pub(crate) cancel: CancellationToken,
    /// Receives the row's events.
    pub(crate) on_event: &'a (dyn Fn(RowEvent) + Send + Sync),
}

/// The row that an attempt runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptedRow {
    /// The row's partition of the plan.
    pub(crate) partition: usize,
    /// The row's number in its statement.
    pub(crate) ordinal: u32,
}

/// Progress of an attempt.
#[derive(Debug, Default)]
pub(crate) struct AttemptProgress {
    /// The executor that runs it.
    pub(crate) executor: Option<String>,
    /// Start of FFmpeg.
    pub(crate) started: Option<Instant>,
    /// Milliseconds of the row that are encoded.
    pub(crate) done_ms: i64,
}

impl AttemptProgress {
    /// Returns the time since FFmpeg started, and the milliseconds that it has encoded.
    pub(crate) fn elapsed_and_done(&self) -> Option<(Duration, i64)> {
        self.started.map(|started| (started.elapsed(), self.done_ms))
    }
}

impl Attempt<'_> {
    /// Runs the attempt to its end.
    ///
    /// # Errors
    /// Returns [`Error::Failed`] if a function failed, [`Error::Lost`] if the executor is gone,
    /// [`Error::Canceled`] once `cancel` fires, [`Error::Engine`] otherwise.
    pub(crate) async fn run(self) -> Result<Vec<RecordBatch>> {
        let AttemptContext { engine, calls, executors, placements, events, .. } = self.context;
        let failed = |e: ballista_core::error::BallistaError| Error::from_engine(&e.to_string());
        let name = format!("{}{}", if self.row.is_some() { ROW_PREFIX } else { "statement-" }, self.number);
        let placed =
            self.row.map(|_| placements.request(executors, name.clone(), self.number, self.tried.clone()));
        let plan = match self.row {
            Some(row) => restrict_plan_to_partitions(self.plan.clone(), &[row.partition])
                .map_err(|e| Error::from_engine(&e.to_string()))?,
            None => self.plan.clone(),
        };
        let (sender, mut statuses) = mpsc::channel(STATUS_QUEUE);
        let job = engine
            .submit_physical_plan(&name, self.session.clone(), plan, Some(sender))
            .await
            .map_err(failed)?;
        debug!(%job, name, "job submitted");
        let mut subscription = events.subscribe(job.as_str());
        let job_name = job.as_str().to_owned();
        let mut guard = CancelOnDrop::new(engine.clone(), calls.clone(), job);
        let result =
            self.watch(&job_name, &mut guard, &mut statuses, &mut subscription, placed.as_ref()).await;
        if let Some(executor) = placed.as_ref().and_then(PlacementGuard::executor) {
            self.progress().executor = Some(executor.clone());
            drop(placed);
            // Ballista does not know that a slot is free.
            offer_slots(engine, executor).await;
        }
        result
    }

    async fn watch(
        &self,
        job: &str,
        guard: &mut CancelOnDrop,
        statuses: &mut mpsc::Receiver<JobStatus>,
        subscription: &mut Subscription,
        placed: Option<&PlacementGuard>,
    ) -> Result<Vec<RecordBatch>> {
        let executors = &self.context.executors;
        let mut changes = executors.subscribe();
        let mut ticks = interval(LOST_POLL_INTERVAL);
        let mut finished = false;
        let mut last_seen = Instant::now();
        let success = loop {
            tokio::select! {
                biased;
                status = statuses.recv() => match status.map(|status| status.status) {
                    Some(Some(Status::Successful(success))) => break success,
                    Some(Some(Status::Failed(failed))) => {
                        guard.disarm();
                        return Err(Error::from_engine(&failed.error));
                    }
                    Some(Some(Status::Queued(_) | Status::Running(_)) | None) => {}
                    None => return Err(Error::Engine { message: "the engine forgot the job".to_owned() }),
                },
                event = subscription.next() => finished |= self.on_event(event),
                () = self.cancel.cancelled() => {
                    guard.cancel().await;
                    return Err(Error::Canceled);
                }
                _ = changes.changed() => self.check_not_lost(placed, job, &mut last_seen)?,
                _ = ticks.tick() => {
                    self.check_not_lost(placed, job, &mut last_seen)?;
                    // A slot may have become free without a message to the engine.
                    let waits = placed.is_some_and(|placed| placed.executor().is_none());
                    if waits && let Some(executor) = executors.any_ready() {
                        offer_slots(&self.context.engine, executor).await;
                    }
                }
            }
        };
        guard.disarm();
        let batches = self.fetch(success).await?;
        // A job that is not a row may have run on several executors.
        executors.mark_fetched(placed.and_then(PlacementGuard::executor).as_deref(), job);
        for event in subscription.queued() {
            finished |= self.on_event(event);
        }
        if self.row.is_some() && !finished {
            let last_event = async { while !self.on_event(subscription.next().await) {} };
            // A late event costs only progress: the result has arrived.
            let _ = timeout(LAST_EVENT_TIMEOUT, last_event).await;
        }
        Ok(batches)
    }

    /// Records an event of the attempt and passes it on as its row's. Returns whether the event is the last.
    fn on_event(&self, event: AttemptEvent) -> bool {
        let mut progress = self.progress();
        match &event.kind {
            RowEventKind::Started { .. } => progress.started = Some(Instant::now()),
            RowEventKind::Progress { done_ms } => progress.done_ms = *done_ms,
            RowEventKind::Planned { .. } | RowEventKind::Finished { .. } | RowEventKind::Retrying { .. } => {}
        }
        drop(progress);
        let last = matches!(event.kind, RowEventKind::Finished { .. });
        // A job that is not a row encodes nothing.
        if let Some(row) = self.row {
            (self.on_event)(RowEvent { ordinal: row.ordinal, kind: event.kind });
        }
        last
    }

    /// Returns an error if the executor left, or if no executor has reported the job for [`JOB_LOST_AFTER`]:
    /// the engine lost it.
    fn check_not_lost(
        &self,
        placed: Option<&PlacementGuard>,
        job: &str,
        last_seen: &mut Instant,
    ) -> Result<()> {
        let executors = &self.context.executors;
        let executor = match placed.map(PlacementGuard::executor) {
            // The row waits for a slot.
            Some(None) => {
                *last_seen = Instant::now();
                return Ok(());
            }
            Some(Some(executor)) => Some(executor),
            None => None,
        };
        let runs = match &executor {
            Some(executor) => {
                self.progress().executor = Some(executor.clone());
                if !executors.contains(executor) {
                    return Err(Error::Lost { executor: executor.clone() });
                }
                executors.is_running(executor, job)
            }
            None => executors.count().executors == 0 || executors.is_running_anywhere(job),
        };
        if runs {
            *last_seen = Instant::now();
        }
        match executor {
            _ if last_seen.elapsed() <= JOB_LOST_AFTER => Ok(()),
            Some(executor) => Err(Error::Lost { executor }),
            None => Err(Error::Engine { message: "no executor runs the job".to_owned() }),
        }
    }

    async fn fetch(&self, success: SuccessfulJob) -> Result<Vec<RecordBatch>> {
        let executors = &self.context.executors;
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
        let fetching = self.context.calls.fetch(success.partition_location);
        tokio::select! {
            batches = timeout(FETCH_TIMEOUT, fetching) => batches.unwrap_or_else(|_| {
                let seconds = FETCH_TIMEOUT.as_secs();
                let message = format!("the executors did not send the result within {seconds} s");
                Err(Error::Engine { message })
            }),
            executor = gone => Err(Error::Lost { executor }),
            () = self.cancel.cancelled() => Err(Error::Canceled),
        }
    }

    fn progress(&self) -> MutexGuard<'_, AttemptProgress> {
        self.progress.lock()
    }
}
