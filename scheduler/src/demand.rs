//! Demand: the rows that wait and run, and the connected executors, for autoscalers.

use serde::Serialize;

use crate::{executors::registry::ExecutorRegistry, queue::statement_list::StatementList};

/// Amount of work, and of executors and slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Demand {
    /// Running statements.
    pub(crate) statements: usize,
    /// Rows that wait for a slot.
    pub(crate) rows_waiting: usize,
    /// Running rows.
    pub(crate) rows_running: usize,
    /// Seconds of media in rows that are not done.
    pub(crate) media_seconds_left: i64,
    /// Executors that the scheduler can reach.
    pub(crate) executors: usize,
    /// Executors that run no row.
    pub(crate) executors_idle: usize,
    /// Rows that the executors run at a time.
    pub(crate) slots: usize,
}

/// Reads the demand from the statements and the executors.
#[derive(Debug, Clone)]
pub(crate) struct DemandSource {
    pub(crate) statements: StatementList,
    pub(crate) executors: ExecutorRegistry,
}

impl DemandSource {
    /// Returns the current demand.
    pub(crate) fn read(&self) -> Demand {
        let (progress, count) = (self.statements.total_progress(), self.executors.count());
        let executors = self.executors.snapshot();
        let rows_running: usize = executors.iter().map(|(_, executor)| executor.placed_rows()).sum();
        let left = progress.rows.saturating_sub(progress.rows_done);
        Demand {
            statements: self.statements.len(),
            rows_waiting: left.saturating_sub(rows_running),
            rows_running,
            media_seconds_left: (progress.media_ms - progress.media_done_ms) / 1000,
            executors: count.executors,
            executors_idle: executors.iter().filter(|(_, executor)| executor.placed_rows() == 0).count(),
            slots: count.slots,
        }
    }

    /// Returns the most slots that one executor has; `None` without an executor.
    pub(crate) fn slots_per_executor(&self) -> Option<usize> {
        self.executors.snapshot().into_iter().map(|(_, executor)| executor.slots).max()
    }
}

impl Demand {
    /// Returns the rows that wait or run. A statement that is still being planned counts as one, so that a
    /// cluster without executors wakes up.
    pub(crate) fn rows(self) -> usize {
        (self.rows_waiting + self.rows_running).max(self.statements)
    }
}
