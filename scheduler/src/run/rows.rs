//! Rows of one statement: longest first, each attempted until it is done, on another executor after a
//! failure, and twice if it is slow.
//!
//! Each row is a job of Ballista's. In Ballista the cost of a job is quadratic in its rows, a failed task is
//! retried at once on the same executor, no task runs twice, and statements do not share slots fairly; with
//! one job per row, this module decides all of that.

use std::{collections::HashSet, sync::Arc, time::Duration};

use datafusion::{
    arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef},
    physical_plan::ExecutionPlan,
    prelude::SessionContext,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use spool_media::{
    encode::events::{RowEvent, RowEventKind},
    plan::segments::{Segment, SegmentTrack},
};
use spool_storage::Backoff;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    attempt::{Attempt, AttemptContext, AttemptProgress, AttemptedRow},
    early_playback::EarlyPlayback,
    stragglers::{RowProgress, find_stragglers},
};
use crate::queue::fair_queue::{FairQueue, RowPermit};
use crate::{
    error::{Error, Result},
    metrics::RowCounters,
};

/// Most failures of a row before its statement fails, and most losses of its executor.
const FAILURES_MAX: usize = 5;
const LOSSES_MAX: usize = 20;

/// First and longest wait before a row is attempted again.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

/// Interval between checks for stragglers.
const STRAGGLERS_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Approximate speed of encoding audio relative to video: a second of audio took 0.02 s of processor time, a
/// second of 1080p at three rungs 1.6 s, and at small rungs a tenth of that. The value lies between these
/// ratios, since a long row that starts last delays the statement, and a short one that starts first hardly
/// does.
const AUDIO_SPEED: i64 = 40;

/// Parts of a scheduler that the rows of a statement use.
#[derive(Clone)]
pub(crate) struct RowsContext {
    pub(crate) attempts: AttemptContext,
    pub(crate) fair_queue: FairQueue,
    pub(crate) counters: RowCounters,
}

/// The rows of one statement.
pub(crate) struct Rows<'a> {
    pub(crate) context: &'a RowsContext,
    pub(crate) session: Arc<SessionContext>,
    /// The statement's number.
    pub(crate) statement: u64,
    /// A plan with one partition per row.
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// The columns of the plan.
    pub(crate) schema: SchemaRef,
    /// Ordinal of the first row; the others are consecutive.
    pub(crate) first_ordinal: u32,
    /// Segment of each row; `None` if planning could not determine it.
    pub(crate) segments: Vec<Option<Segment>>,
    /// Early playback, if it is on.
    pub(crate) early_playback: Option<&'a EarlyPlayback>,
    /// Receives the rows' events.
    pub(crate) on_event: &'a (dyn Fn(RowEvent) + Send + Sync),
}

/// The state of one row.
#[derive(Default)]
struct RowState {
    /// Executors of earlier attempts.
    tried: HashSet<String>,
    /// Number of attempts that failed on their executor.
    failures: usize,
    /// Number of attempts whose executor was lost, which is no fault of the row.
    losses: usize,
    /// Running attempts.
    attempts: Vec<RunningAttempt>,
    result: Option<RecordBatch>,
    /// Time of FFmpeg in the attempt that succeeded.
    took: Option<Duration>,
}

struct RunningAttempt {
    number: u64,
    progress: Arc<Mutex<AttemptProgress>>,
    cancel: CancellationToken,
}

/// An ended attempt.
struct EndedAttempt {
    row: usize,
    number: u64,
    executor: Option<String>,
    result: Result<RecordBatch>,
}

impl Rows<'_> {
    /// Runs all rows. Returns their results in the order of planning.
    pub(crate) async fn run(self) -> Result<Vec<RecordBatch>> {
        let mut rows: Vec<RowState> = self.segments.iter().map(|_| RowState::default()).collect();
        let mut queued = self.next_last();
        let mut running: FuturesUnordered<BoxFuture<'_, EndedAttempt>> = FuturesUnordered::new();
        let mut delayed: FuturesUnordered<BoxFuture<'_, usize>> = FuturesUnordered::new();
        let queue = self.context.fair_queue.statement_queue(self.statement);
        let mut request: Option<BoxFuture<'_, RowPermit>> = None;
        let mut ticks = interval(STRAGGLERS_POLL_INTERVAL);
        while rows.iter().any(|row| row.result.is_none()) {
            if request.is_none() && !queued.is_empty() {
                request = Some(Box::pin(queue.acquire()));
            }
            let granted = async {
                match &mut request {
                    Some(request) => request.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(ended) = running.next() => {
                    if let Some(delay) = self.on_end(&mut rows, ended)? {
                        delayed.push(delay);
                    }
                }
                Some(row) = delayed.next() => self.insert(&mut queued, row),
                permit = granted => {
                    request = None;
                    if let Some(row) = queued.pop() {
                        running.push(self.attempt(&mut rows[row], row, permit));
                    }
                }
                _ = ticks.tick() => {
                    if queued.is_empty() && delayed.is_empty() {
                        let slots = self.context.attempts.executors.count().slots;
                        for row in self.stragglers(&rows) {
                            let Some(permit) = queue.try_acquire(slots) else { break };
                            running.push(self.speculate(&mut rows[row], row, permit));
                        }
                    }
                }
            }
        }
        Ok(rows.into_iter().filter_map(|row| row.result).collect())
    }

    /// Returns the key by which rows are ordered, the highest first: the relative duration of encoding the
    /// row or, with early playback, its place in the video.
    fn rank(&self, row: usize) -> (i64, i64) {
        let Some(segment) = &self.segments[row] else { return (i64::MIN, 0) };
        let audio = segment.track == SegmentTrack::Audio;
        match self.early_playback {
            // Audio starts with the first video, since nothing plays without it.
            Some(_) => (-segment.start_ms, i64::from(!audio)),
            // Audio is one row of any length: the longest of a long source, and the shortest of a short one.
            None => (segment.duration_ms / if audio { AUDIO_SPEED } else { 1 }, 0),
        }
    }

    /// Returns the rows ordered by rank, the next one last.
    fn next_last(&self) -> Vec<usize> {
        let mut rows: Vec<usize> = (0..self.segments.len()).rev().collect();
        rows.sort_by_key(|row| self.rank(*row));
        rows
    }

    /// Inserts a row to attempt again, by its rank.
    fn insert(&self, queued: &mut Vec<usize>, row: usize) {
        let at = queued.partition_point(|other| self.rank(*other) <= self.rank(row));
        queued.insert(at, row);
    }

    /// Starts an attempt at a row that has none running.
    fn attempt<'a>(
        &'a self,
        state: &mut RowState,
        row: usize,
        permit: RowPermit,
    ) -> BoxFuture<'a, EndedAttempt> {
        let tried = state.tried.clone();
        self.start(state, row, tried, permit)
    }

    /// Starts a second attempt beside the first, if no row waits for the slot.
    fn speculate<'a>(
        &'a self,
        state: &mut RowState,
        row: usize,
        permit: RowPermit,
    ) -> BoxFuture<'a, EndedAttempt> {
        let busy = state.attempts.iter().filter_map(|attempt| attempt.progress.lock().executor.clone());
        let tried = state.tried.iter().cloned().chain(busy).collect();
        self.context.counters.speculated.inc();
        self.emit_retry(row, "it is far behind the other rows; the first attempt to finish counts");
        self.start(state, row, tried, permit)
    }

    fn start<'a>(
        &'a self,
        state: &mut RowState,
        row: usize,
        tried: HashSet<String>,
        permit: RowPermit,
    ) -> BoxFuture<'a, EndedAttempt> {
        let number = self.context.attempts.next_number();
        let (progress, cancel) = (Arc::<Mutex<AttemptProgress>>::default(), CancellationToken::new());
        state.attempts.push(RunningAttempt { number, progress: progress.clone(), cancel: cancel.clone() });
        let attempt = Attempt {
            context: &self.context.attempts,
            session: self.session.clone(),
            plan: self.plan.clone(),
            row: Some(AttemptedRow { partition: row, ordinal: self.ordinal(row) }),
            number,
            tried,
            progress: progress.clone(),
            cancel,
            on_event: self.on_event,
        };
        Box::pin(async move {
            let result = attempt.run().await.and_then(|batches| self.single_row(&batches));
            let executor = progress.lock().executor.clone();
            drop(permit);
            EndedAttempt { row, number, executor, result }
        })
    }

    /// Returns the only row of a row's result.
    fn single_row(&self, batches: &[RecordBatch]) -> Result<RecordBatch> {
        let schema = batches.first().map_or_else(|| self.schema.clone(), RecordBatch::schema);
        let batch = concat_batches(&schema, batches).map_err(|e| Error::Engine { message: e.to_string() })?;
        if batch.num_rows() == 1 {
            Ok(batch)
        } else {
            Err(Error::Engine { message: format!("a row gave {} rows", batch.num_rows()) })
        }
    }

    /// Handles the end of an attempt. Returns the delay after which a retryable failure is attempted again.
    fn on_end<'a>(&self, rows: &mut [RowState], ended: EndedAttempt) -> Result<Option<BoxFuture<'a, usize>>> {
        let EndedAttempt { row, number, executor, result } = ended;
        let state = &mut rows[row];
        if let Some(executor) = &executor {
            self.record_result(executor, &result);
        }
        let at = state.attempts.iter().position(|attempt| attempt.number == number);
        let attempt = at.map(|at| state.attempts.swap_remove(at));
        if state.result.is_some() {
            // The slower of two attempts.
            return Ok(None);
        }
        let error = match result {
            Ok(batch) => {
                if let Some(early_playback) = self.early_playback {
                    early_playback.add(&batch);
                }
                state.result = Some(batch);
                self.context.counters.done.inc();
                state.took =
                    attempt.and_then(|attempt| attempt.progress.lock().started).map(|at| at.elapsed());
                state.attempts.iter().for_each(|attempt| attempt.cancel.cancel());
                return Ok(None);
            }
            Err(error) => error,
        };
        if !error.is_retryable() {
            return Err(error);
        }
        let reason = format!(
            "{error}{}",
            executor.as_ref().map_or_else(String::new, |executor| format!(" (on {executor})"))
        );
        self.context.counters.failed.inc();
        let lost = matches!(error, Error::Lost { .. });
        let count = if lost { &mut state.losses } else { &mut state.failures };
        *count += 1;
        let (times, max) = (*count, if lost { LOSSES_MAX } else { FAILURES_MAX });
        warn!(statement = self.statement, row, times, reason, "attempt failed");
        state.tried.extend(executor);
        if !state.attempts.is_empty() {
            // The other attempt continues.
            return Ok(None);
        }
        if times >= max {
            return Err(error.after_attempts(times));
        }
        self.emit_retry(row, &reason);
        let delay = Backoff::delay_after(RETRY_DELAY_MIN, RETRY_DELAY_MAX, times);
        Ok(Some(Box::pin(async move {
            sleep(delay).await;
            row
        })))
    }

    /// Records the result of an attempt for its executor. A lost or canceled attempt does not count, nor does
    /// bad input.
    fn record_result(&self, executor: &str, result: &Result<RecordBatch>) {
        let executors = &self.context.attempts.executors;
        match result {
            Ok(_) => executors.record_result(executor, true),
            Err(Error::Lost { .. } | Error::Canceled) => {}
            Err(error) if error.is_retryable() => executors.record_result(executor, false),
            Err(_) => {}
        }
    }

    fn emit_retry(&self, row: usize, reason: &str) {
        info!(statement = self.statement, row, reason, "row retried");
        // A row without a segment has no `Planned` event.
        if self.segments[row].is_some() {
            let kind = RowEventKind::Retrying { reason: reason.to_owned() };
            (self.on_event)(RowEvent { ordinal: self.ordinal(row), kind });
        }
    }

    fn ordinal(&self, row: usize) -> u32 {
        self.first_ordinal.saturating_add(u32::try_from(row).unwrap_or(u32::MAX))
    }

    /// Returns the rows to attempt a second time, the furthest behind first; none with fewer than two
    /// executors.
    fn stragglers(&self, rows: &[RowState]) -> Vec<usize> {
        if self.context.attempts.executors.count().executors < 2 {
            return Vec::new();
        }
        let progress = rows.iter().zip(&self.segments).map(|(row, segment)| {
            let segment = segment.as_ref()?;
            let running = row.attempts.first().and_then(|attempt| attempt.progress.lock().elapsed_and_done());
            Some(RowProgress {
                track: segment.track,
                duration_ms: segment.duration_ms,
                took: row.took,
                running: running.filter(|_| row.result.is_none() && row.attempts.len() == 1),
            })
        });
        find_stragglers(&progress.collect::<Vec<_>>())
    }
}
