//! Statement list: the running statements, their progress, and their cancellation by number.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Serialize;
use spool_media::{
    encode::events::{RowEvent, RowEventKind},
    plan::segments::Segment,
};
use spool_storage::redact_in;
use tokio_util::sync::CancellationToken;

use crate::error::Result;

/// The running statements. Clones share one list.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatementList {
    running: Arc<Mutex<BTreeMap<u64, Running>>>,
    last_id: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Running {
    sql: String,
    started: Instant,
    cancel: CancellationToken,
    start: CancellationToken,
    progress: StatementProgress,
    /// Milliseconds of media of each row by its ordinal, until the row is done.
    pending_ms: Vec<Option<i64>>,
}

/// Progress of a statement, in rows and milliseconds of media.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StatementProgress {
    /// Rows of the statement.
    pub(crate) rows: usize,
    /// Rows that are done.
    pub(crate) rows_done: usize,
    /// Milliseconds of media in all rows.
    pub(crate) media_ms: i64,
    /// Milliseconds of media in the rows that are done.
    pub(crate) media_done_ms: i64,
}

/// A running statement in the response of `/statements`.
#[derive(Debug, Serialize)]
pub(crate) struct StatementInfo {
    /// Number by which the statement can be canceled.
    pub(crate) id: u64,
    /// The statement's text, without secrets.
    pub(crate) sql: String,
    /// Seconds since the statement started.
    pub(crate) seconds: u64,
    #[serde(flatten)]
    pub(crate) progress: StatementProgress,
}

/// Hook that a statement awaits when its rows are planned, before the first of them runs. Its error fails the
/// statement.
pub type BeforeRows = Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// A running statement's entry in the list. Dropping the entry removes the statement.
pub(crate) struct StatementEntry {
    list: StatementList,
    id: u64,
    started: Instant,
    cancel: CancellationToken,
    start: CancellationToken,
    before_rows: Option<BeforeRows>,
}

impl StatementList {
    /// Adds a statement. It is canceled when `cancel` fires, or by its number.
    pub(crate) fn add(&self, sql: &str, cancel: &CancellationToken) -> StatementEntry {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (cancel, start, started) = (cancel.child_token(), CancellationToken::new(), Instant::now());
        let statement = Running {
            sql: sql.to_owned(),
            started,
            cancel: cancel.clone(),
            start: start.clone(),
            progress: StatementProgress::default(),
            pending_ms: Vec::new(),
        };
        self.running.lock().insert(id, statement);
        StatementEntry { list: self.clone(), id, started, cancel, start, before_rows: None }
    }

    /// Returns the number of running statements.
    pub(crate) fn len(&self) -> usize {
        self.running.lock().len()
    }

    /// Returns all running statements, the oldest first.
    pub(crate) fn all(&self) -> Vec<StatementInfo> {
        let info = |(id, statement): (&u64, &Running)| StatementInfo {
            id: *id,
            sql: redact_in(&statement.sql),
            seconds: statement.started.elapsed().as_secs(),
            progress: statement.progress,
        };
        self.running.lock().iter().map(info).collect()
    }

    /// Returns the sum of the progress of all running statements.
    pub(crate) fn total_progress(&self) -> StatementProgress {
        let running = self.running.lock();
        running.values().map(|statement| statement.progress).fold(StatementProgress::default(), |sum, one| {
            StatementProgress {
                rows: sum.rows + one.rows,
                rows_done: sum.rows_done + one.rows_done,
                media_ms: sum.media_ms + one.media_ms,
                media_done_ms: sum.media_done_ms + one.media_done_ms,
            }
        })
    }

    /// Cancels the statement with this number. Returns whether it runs.
    pub(crate) fn cancel(&self, id: u64) -> bool {
        let running = self.running.lock();
        running.get(&id).inspect(|statement| statement.cancel.cancel()).is_some()
    }

    /// Starts the rows of the held statement with this number. Returns whether it runs.
    pub(crate) fn start(&self, id: u64) -> bool {
        let running = self.running.lock();
        running.get(&id).inspect(|statement| statement.start.cancel()).is_some()
    }
}

impl StatementEntry {
    /// Returns the number by which the statement can be canceled.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the time since the statement started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until the statement is canceled.
    pub(crate) async fn canceled(&self) {
        self.cancel.cancelled().await;
    }

    /// Sets the hook that the statement awaits before its rows run, returning the updated entry.
    pub(crate) fn with_before_rows(mut self, before_rows: Option<BeforeRows>) -> Self {
        self.before_rows = before_rows;
        self
    }

    /// Returns a token that [`StatementList::start`] cancels.
    pub(crate) fn start_token(&self) -> CancellationToken {
        self.start.clone()
    }

    /// Awaits the hook of the statement, if it has one.
    pub(crate) async fn before_rows(&self) -> Result<()> {
        match &self.before_rows {
            Some(before_rows) => before_rows().await,
            None => Ok(()),
        }
    }

    /// Adds planned rows to the statement. Returns the ordinal of the first; the others are consecutive.
    pub(crate) fn add_rows(&self, segments: &[Option<Segment>]) -> u32 {
        let durations = segments.iter().map(|segment| segment.as_ref().map_or(0, |known| known.duration_ms));
        let mut running = self.list.running.lock();
        let Some(Running { progress, pending_ms, .. }) = running.get_mut(&self.id) else { return 0 };
        let first = u32::try_from(pending_ms.len()).unwrap_or(u32::MAX);
        progress.rows += segments.len();
        progress.media_ms += durations.clone().sum::<i64>();
        pending_ms.extend(durations.map(Some));
        first
    }

    /// Updates the statement's progress from an event of one of its rows.
    pub(crate) fn on_event(&self, event: &RowEvent) {
        let RowEventKind::Finished { .. } = event.kind else { return };
        let mut running = self.list.running.lock();
        let Some(Running { progress, pending_ms, .. }) = running.get_mut(&self.id) else { return };
        // Both attempts of a speculated row may report that they finished: only the first counts.
        if let Some(duration_ms) = pending_ms.get_mut(event.ordinal as usize).and_then(Option::take) {
            progress.rows_done += 1;
            progress.media_done_ms += duration_ms;
        }
    }
}

impl Drop for StatementEntry {
    fn drop(&mut self) {
        self.list.running.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use spool_media::encode::timing::Timing;

    use super::*;

    #[test]
    fn a_canceled_statement_leaves_the_list_when_it_ends() {
        let list = StatementList::default();
        let entry = list.add("SELECT 1", &CancellationToken::new());
        assert!(!list.cancel(entry.id() + 1));
        assert!(list.cancel(entry.id()) && entry.cancel.is_cancelled());
        assert_eq!(list.all().len(), 1);
        drop(entry);
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn ordinals_go_on_from_one_projection_to_the_next_and_a_row_is_done_once() {
        let list = StatementList::default();
        let entry = list.add("SELECT 1", &CancellationToken::new());
        assert_eq!((entry.add_rows(&[None, None]), entry.add_rows(&[None])), (0, 2));
        let finished = RowEventKind::Finished { encoded: 1, reused: 0, timing: Timing::default() };
        for ordinal in [1, 1, 2, 9] {
            entry.on_event(&RowEvent { ordinal, kind: finished.clone() });
        }
        let progress = list.total_progress();
        assert_eq!((progress.rows, progress.rows_done), (3, 2));
    }

    #[test]
    fn start_reaches_the_statement_with_its_number() {
        let list = StatementList::default();
        let entry = list.add("SELECT 1", &CancellationToken::new());
        assert!(!list.start(entry.id() + 1) && !entry.start_token().is_cancelled());
        assert!(list.start(entry.id()) && entry.start_token().is_cancelled());
    }
}
