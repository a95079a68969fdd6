//! How do a statement's rows get encoded? Longest first, each until it is done: elsewhere where an executor fails, and twice where one
//! is slow.
//!
//! Each row is a job of Ballista's. Its cost is quadratic in the rows of a job, it tries again at once and on the same executor, it
//! runs nothing twice, and knows no turns between statements; with a row a job all of that is decided here.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backon::BackoffBuilder;
use datafusion::{
    arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef},
    physical_plan::ExecutionPlan,
    prelude::SessionContext,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use spool_media::{
    encode::events::{RowEvent, RowEventKind},
    plan::segments::{Segment, SegmentTrack},
};
use spool_storage::ErrorKind;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    attempt::{Attempt, Standing},
    error::{Error, Result},
    live::Live,
    pace::{self, Progress},
    service::Scheduler,
    turnstile::Permit,
};

/// How often a row may fail before it fails its statement, and how often it may lose its executor.
const ATTEMPTS: usize = 5;
const LOSSES: usize = 20;

/// The wait before a row is tried again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(10);

/// How often it is looked for rows that are left behind.
const LOOK: Duration = Duration::from_secs(1);

/// How many times faster sound is encoded than pictures, roughly: a second took 0.02 s of processor time, one of 1080p at three rungs 1.6 s,
/// and of small rungs a tenth of that. Between them, since a long row that begins last delays all and a short one that begins first little.
const SOUND_SPEED: i64 = 40;

/// The rows of one statement.
pub(crate) struct Rows<'a> {
    pub(crate) scheduler: &'a Scheduler,
    pub(crate) session: Arc<SessionContext>,
    /// The statement that they are of.
    pub(crate) statement: u64,
    /// A plan with a partition for each row.
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// RowEventKind the plan gives.
    pub(crate) schema: SchemaRef,
    /// The rows' segments, where they could be told.
    pub(crate) segments: Vec<Option<Segment>>,
    /// The playlists of what is done, where they are wanted.
    pub(crate) live: Option<&'a Live>,
    /// Is told what happens.
    pub(crate) tell: &'a (dyn Fn(RowEvent) + Send + Sync),
}

/// RowEventKind is known of one row.
#[derive(Default)]
struct Row {
    /// Executors that it was tried on.
    tried: HashSet<String>,
    /// Attempts that failed where they ran.
    failed: usize,
    /// Attempts that ended because their executor was gone: no fault of the row.
    lost: usize,
    /// Its attempts that run.
    runs: Vec<Run>,
    gave: Option<RecordBatch>,
    /// When the attempt that gave it began, and how long it took.
    took: Option<Duration>,
}

struct Run {
    number: u64,
    standing: Arc<Mutex<Standing>>,
    cancel: CancellationToken,
}

/// An attempt that ended.
struct Ended {
    row: usize,
    run: u64,
    executor: Option<String>,
    result: Result<RecordBatch>,
}

impl Rows<'_> {
    /// Runs them all; gives what each gave, in order.
    pub(crate) async fn run(self) -> Result<Vec<RecordBatch>> {
        let mut rows: Vec<Row> = self.segments.iter().map(|_| Row::default()).collect();
        let mut waiting = self.next_last();
        let mut running: FuturesUnordered<BoxFuture<'_, Ended>> = FuturesUnordered::new();
        let mut resting: FuturesUnordered<BoxFuture<'_, usize>> = FuturesUnordered::new();
        let turns = self.scheduler.turnstile.turns(self.statement);
        let mut turn: Option<BoxFuture<'_, Permit>> = None;
        let mut look = tokio::time::interval(LOOK);
        while rows.iter().any(|row| row.gave.is_none()) {
            if turn.is_none() && !waiting.is_empty() {
                turn = Some(Box::pin(turns.next()));
            }
            tokio::select! {
                biased;
                Some(ended) = running.next() => {
                    if let Some(rest) = self.ended(&mut rows, ended)? {
                        resting.push(rest);
                    }
                }
                Some(row) = resting.next() => self.queue(&mut waiting, row),
                permit = async { match &mut turn { Some(turn) => turn.await, None => std::future::pending().await } } => {
                    turn = None;
                    if let Some(row) = waiting.pop() {
                        running.push(self.attempt(&mut rows[row], row, permit));
                    }
                }
                _ = look.tick() => {
                    if waiting.is_empty() && resting.is_empty() {
                        let slots = self.scheduler.executors.count().slots;
                        for row in self.left_behind(&rows) {
                            let Some(permit) = turns.try_next(slots) else { break };
                            running.push(self.double(&mut rows[row], row, permit));
                        }
                    }
                }
            }
        }
        Ok(rows.into_iter().filter_map(|row| row.gave).collect())
    }

    /// RowEventKind a row's turn goes by, the highest first: how long it takes next to others, or, where it is played meanwhile, when it is played.
    fn rank(&self, row: usize) -> (i64, i64) {
        let Some(segment) = &self.segments[row] else { return (i64::MIN, 0) };
        let sound = segment.track == SegmentTrack::Audio;
        match self.live {
            // Beside the first pictures, since nothing is played without it.
            Some(_) => (-segment.start_ms, i64::from(!sound)),
            // Sound is one row whatever its length: the longest of a long title, and of a short one the shortest.
            None => (segment.duration_ms / if sound { SOUND_SPEED } else { 1 }, 0),
        }
    }

    /// The rows, the next one last.
    fn next_last(&self) -> Vec<usize> {
        let mut rows: Vec<usize> = (0..self.segments.len()).rev().collect();
        rows.sort_by_key(|row| self.rank(*row));
        rows
    }

    /// Puts a row back into its place.
    fn queue(&self, waiting: &mut Vec<usize>, row: usize) {
        let at = waiting.partition_point(|other| self.rank(*other) <= self.rank(row));
        waiting.insert(at, row);
    }

    /// Starts a row, at its turn.
    fn attempt<'a>(&'a self, row: &mut Row, number: usize, permit: Permit) -> BoxFuture<'a, Ended> {
        let tried = row.tried.clone();
        self.start(row, number, tried, permit)
    }

    /// Starts a second run of a row beside the first, in a slot that nobody waits for.
    fn double<'a>(&'a self, row: &mut Row, number: usize, permit: Permit) -> BoxFuture<'a, Ended> {
        let busy = row
            .runs
            .iter()
            .filter_map(|run| run.standing.lock().unwrap_or_else(PoisonError::into_inner).executor.clone());
        let tried = row.tried.iter().cloned().chain(busy).collect();
        self.scheduler.count_doubled();
        self.again(number, "it is far behind the others; the first to finish counts");
        self.start(row, number, tried, permit)
    }

    fn start<'a>(
        &'a self,
        row: &mut Row,
        number: usize,
        tried: HashSet<String>,
        permit: Permit,
    ) -> BoxFuture<'a, Ended> {
        let run = self.scheduler.next();
        let (standing, cancel) = (Arc::<Mutex<Standing>>::default(), CancellationToken::new());
        row.runs.push(Run { number: run, standing: standing.clone(), cancel: cancel.clone() });
        let attempt = Attempt {
            scheduler: self.scheduler,
            session: self.session.clone(),
            plan: self.plan.clone(),
            partition: Some(number),
            order: run,
            tried,
            standing: standing.clone(),
            cancel,
            tell: self.tell,
        };
        Box::pin(async move {
            let result = attempt.run().await.and_then(|batches| self.one(&batches));
            let executor = standing.lock().unwrap_or_else(PoisonError::into_inner).executor.clone();
            drop(permit);
            Ended { row: number, run, executor, result }
        })
    }

    /// A row gives a row.
    fn one(&self, batches: &[RecordBatch]) -> Result<RecordBatch> {
        let schema = batches.first().map_or_else(|| self.schema.clone(), RecordBatch::schema);
        let batch = concat_batches(&schema, batches).map_err(|e| Error::Engine { message: e.to_string() })?;
        if batch.num_rows() == 1 {
            Ok(batch)
        } else {
            Err(Error::Engine { message: format!("a row gave {} rows", batch.num_rows()) })
        }
    }

    /// Notes the end of an attempt. A failure that may pass is tried again after the wait that this gives.
    fn ended<'a>(&self, rows: &mut [Row], ended: Ended) -> Result<Option<BoxFuture<'a, usize>>> {
        let Ended { row: number, run, executor, result } = ended;
        let row = &mut rows[number];
        if let Some(executor) = &executor {
            self.judge(executor, &result);
        }
        let this = row.runs.iter().position(|other| other.number == run).map(|at| row.runs.swap_remove(at));
        if row.gave.is_some() {
            // The slower of two.
            return Ok(None);
        }
        let error = match result {
            Ok(batch) => {
                if let Some(live) = self.live {
                    live.add(&batch);
                }
                row.gave = Some(batch);
                self.scheduler.count_done();
                row.took = this
                    .and_then(|run| run.standing.lock().unwrap_or_else(PoisonError::into_inner).started)
                    .map(|at| at.elapsed());
                row.runs.iter().for_each(|run| run.cancel.cancel());
                return Ok(None);
            }
            Err(error) => error,
        };
        let passes = matches!(error, Error::Engine { .. } | Error::Lost { .. })
            || error.kind() == ErrorKind::Transient;
        if !passes {
            return Err(error);
        }
        let reason = format!(
            "{error}{}",
            executor.as_ref().map_or_else(String::new, |executor| format!(" (on {executor})"))
        );
        self.scheduler.count_failed();
        let lost = matches!(error, Error::Lost { .. });
        let count = if lost { &mut row.lost } else { &mut row.failed };
        *count += 1;
        let (times, limit) = (*count, if lost { LOSSES } else { ATTEMPTS });
        warn!(statement = self.statement, row = number, times, reason, "row failed and may be tried again");
        row.tried.extend(executor);
        if !row.runs.is_empty() {
            // The other run of two goes on.
            return Ok(None);
        }
        if times >= limit {
            return Err(error.after(times));
        }
        self.again(number, &reason);
        let mut waits = backon::ExponentialBuilder::new()
            .with_min_delay(RETRY_FIRST)
            .with_max_delay(RETRY_MOST)
            .with_max_times(limit)
            .with_jitter()
            .build();
        let wait = waits.nth(times - 1).unwrap_or(RETRY_MOST);
        Ok(Some(Box::pin(async move {
            tokio::time::sleep(wait).await;
            number
        })))
    }

    /// Notes what an attempt says of its executor; one that was lost or canceled says nothing, nor does bad input.
    fn judge(&self, executor: &str, result: &Result<RecordBatch>) {
        match result {
            Ok(_) => self.scheduler.executors.record_result(executor, true),
            Err(Error::Lost { .. } | Error::Canceled) => {}
            Err(error) if matches!(error, Error::Engine { .. }) || error.kind() == ErrorKind::Transient => {
                self.scheduler.executors.record_result(executor, false);
            }
            Err(_) => {}
        }
    }

    fn again(&self, row: usize, reason: &str) {
        info!(statement = self.statement, row, reason, "row runs again");
        if let Some(segment) = &self.segments[row] {
            (self.tell)(RowEvent {
                job: String::new(),
                segment: segment.clone(),
                kind: RowEventKind::Retrying { reason: reason.to_owned() },
            });
        }
    }

    /// Rows that are so far behind the others' pace that running them again elsewhere is faster.
    fn left_behind(&self, rows: &[Row]) -> Vec<usize> {
        if self.scheduler.executors.count().executors < 2 {
            return Vec::new();
        }
        let standings = rows.iter().zip(&self.segments).map(|(row, segment)| {
            let segment = segment.as_ref()?;
            let run = row
                .runs
                .first()
                .and_then(|run| run.standing.lock().unwrap_or_else(PoisonError::into_inner).progress());
            Some(Progress {
                track: segment.track,
                duration_ms: segment.duration_ms,
                took: row.took,
                running: run.filter(|_| row.gave.is_none() && row.runs.len() == 1),
            })
        });
        pace::left_behind(&standings.collect::<Vec<_>>())
    }
}
