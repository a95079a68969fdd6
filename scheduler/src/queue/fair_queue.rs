//! Fair queue: chooses the statement whose row starts next, within the executors' capacity.
//!
//! The algorithm is max-min fair queueing over running rows: a free slot goes to the waiting statement with
//! the fewest running rows, and among equals to the oldest request. Once as many statements have started as
//! rows fit, started statements go first (shortest time to first result), and every fourth grant goes to a
//! statement that has not started, so that none starves.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Number of grants of which one goes to a statement that has not started, once as many statements have
/// started as rows can run. Started statements are preferred, so that results come early and not all at the
/// end; but a small statement must not wait for the end of a large one.
const NEW_STATEMENT_EVERY: usize = 4;

/// Grants rows of many statements the right to run, as many at a time as the capacity allows. Clones share
/// one queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct FairQueue(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Number of rows that may run at a time.
    capacity: usize,
    /// Running rows by statement.
    running: HashMap<u64, usize>,
    /// Statements that were granted a row and have not ended.
    started: HashSet<u64>,
    /// Grants since one went to a statement that had not started.
    since_new_statement: usize,
    /// Waiting requests, the oldest first.
    waiting: VecDeque<(u64, oneshot::Sender<RowPermit>)>,
}

/// One statement's access to the queue. Dropping it ends the statement.
#[derive(Debug)]
pub(crate) struct StatementQueue {
    queue: FairQueue,
    statement: u64,
}

/// A row's right to run. Dropping the permit frees its capacity.
#[derive(Debug)]
pub(crate) struct RowPermit {
    queue: FairQueue,
    statement: u64,
}

impl FairQueue {
    /// Returns the queue of one statement.
    pub(crate) fn statement_queue(&self, statement: u64) -> StatementQueue {
        StatementQueue { queue: self.clone(), statement }
    }

    /// Sets the number of rows that may run at a time. Running rows continue. `capacity` is called under the
    /// lock, so that of two concurrent changes the later one has read the later state.
    pub(crate) fn set_capacity(&self, capacity: impl FnOnce() -> usize) {
        self.with_state(|state| state.capacity = capacity());
        self.grant();
    }

    /// Returns the number of statements that wait for their first row to start.
    pub(crate) fn queued_statements(&self) -> usize {
        self.with_state(|state| {
            let waiting = state.waiting.iter().filter(|(_, sender)| !sender.is_closed());
            let queued = waiting.map(|(statement, _)| statement).filter(|id| !state.started.contains(id));
            queued.collect::<HashSet<_>>().len()
        })
    }

    /// Returns the number of running rows.
    #[cfg(test)]
    fn running(&self) -> usize {
        self.with_state(|state| state.running_rows())
    }

    fn grant(&self) {
        while let Some((statement, sender)) = self.with_state(State::take_next) {
            // If the receiver is gone, the permit is returned and dropped, which frees its capacity.
            drop(sender.send(RowPermit { queue: self.clone(), statement }));
        }
    }

    fn with_state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock())
    }
}

impl State {
    fn running_rows(&self) -> usize {
        self.running.values().sum()
    }

    /// Removes the next request, if there is capacity for it.
    fn take_next(&mut self) -> Option<(u64, oneshot::Sender<RowPermit>)> {
        self.remove_abandoned();
        if self.running_rows() >= self.capacity {
            return None;
        }
        let at = self.choose()?;
        let (statement, sender) = self.waiting.remove(at)?;
        self.since_new_statement =
            if self.started.insert(statement) { 0 } else { self.since_new_statement + 1 };
        *self.running.entry(statement).or_default() += 1;
        Some((statement, sender))
    }

    /// Returns the position of the request to grant next: of the preferred statements the one with the fewest
    /// running rows, of equals the oldest request.
    fn choose(&self) -> Option<usize> {
        let fewest_running = |preferred: &dyn Fn(u64) -> bool| {
            let running = |statement: u64| self.running.get(&statement).copied().unwrap_or(0);
            let waiting = self.waiting.iter().enumerate().map(|(at, (statement, _))| (at, *statement));
            waiting
                .filter(|(_, statement)| preferred(*statement))
                .min_by_key(|(_, statement)| running(*statement))
                .map(|(at, _)| at)
        };
        let started = |statement: u64| self.started.contains(&statement);
        let first = if self.started.len() < self.capacity {
            None
        } else if self.since_new_statement + 1 < NEW_STATEMENT_EVERY {
            fewest_running(&started)
        } else {
            fewest_running(&|statement| !started(statement))
        };
        first.or_else(|| fewest_running(&|_| true))
    }

    /// Removes requests whose callers stopped waiting.
    fn remove_abandoned(&mut self) {
        self.waiting.retain(|(_, sender)| !sender.is_closed());
    }
}

impl StatementQueue {
    /// Waits until one more row of the statement may run. A caller may stop waiting without loss.
    pub(crate) async fn acquire(&self) -> RowPermit {
        let (sender, receiver) = oneshot::channel();
        self.queue.with_state(|state| state.waiting.push_back((self.statement, sender)));
        self.queue.grant();
        match receiver.await {
            Ok(permit) => permit,
            // The sender is dropped only with the queue, which `self` holds.
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns a permit without waiting, if no request waits and fewer than `limit` rows run.
    pub(crate) fn try_acquire(&self, limit: usize) -> Option<RowPermit> {
        let granted = self.queue.with_state(|state| {
            state.remove_abandoned();
            let granted = state.waiting.is_empty() && state.running_rows() < limit.min(state.capacity);
            if granted {
                *state.running.entry(self.statement).or_default() += 1;
            }
            granted
        });
        granted.then(|| RowPermit { queue: self.queue.clone(), statement: self.statement })
    }
}

impl Drop for StatementQueue {
    fn drop(&mut self) {
        self.queue.with_state(|state| state.started.remove(&self.statement));
        self.queue.grant();
    }
}

impl Drop for RowPermit {
    fn drop(&mut self) {
        self.queue.with_state(|state| {
            if let Some(running) = state.running.get_mut(&self.statement) {
                *running -= 1;
                if *running == 0 {
                    state.running.remove(&self.statement);
                }
            }
        });
        self.queue.grant();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn with_capacity(capacity: usize) -> (FairQueue, [StatementQueue; 4]) {
        let queue = FairQueue::default();
        queue.set_capacity(|| capacity);
        let statements = [1, 2, 3, 4].map(|statement| queue.statement_queue(statement));
        (queue, statements)
    }

    #[test]
    fn no_row_runs_without_capacity() {
        let (queue, [first, second, ..]) = with_capacity(0);
        let mut waiting = Box::pin(first.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        queue.set_capacity(|| 1);
        let permit = waiting.now_or_never().unwrap();
        assert!(second.acquire().now_or_never().is_none());
        drop(permit);
        assert!(second.acquire().now_or_never().is_some());
    }

    #[test]
    fn a_new_statement_does_not_wait_behind_all_rows_of_another() {
        let (_queue, [first, second, ..]) = with_capacity(2);
        let mut permits = [(), ()].map(|()| first.acquire().now_or_never().unwrap()).into_iter();
        let mut big = Box::pin(first.acquire());
        assert!(big.as_mut().now_or_never().is_none());
        let mut small = Box::pin(second.acquire());
        assert!(small.as_mut().now_or_never().is_none());
        drop(permits.next());
        assert!(big.as_mut().now_or_never().is_none(), "it has a running row already");
        let permit = small.as_mut().now_or_never().unwrap();
        drop(permit);
        assert!(big.as_mut().now_or_never().is_some());
    }

    #[test]
    fn started_statements_are_finished_before_new_ones_start() {
        let (_queue, [first, second, third, _]) = with_capacity(1);
        let permit = first.acquire().now_or_never().unwrap();
        let mut new_statements = [Box::pin(second.acquire()), Box::pin(third.acquire())];
        assert!(new_statements.iter_mut().all(|waiting| waiting.as_mut().now_or_never().is_none()));
        let mut again = Box::pin(first.acquire());
        assert!(again.as_mut().now_or_never().is_none());
        drop(permit);
        drop(again.now_or_never().expect("it came last and has started"));
        // No row of the first statement waits any more, so the next has started by now.
        assert!(new_statements[0].as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_new_statement_does_not_wait_for_the_end_of_a_started_one() {
        let (_queue, [big, small, ..]) = with_capacity(1);
        let mut permit = big.acquire().now_or_never().unwrap();
        let mut waiting = Box::pin(small.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        let mut grants = 0;
        let granted = loop {
            let mut again = Box::pin(big.acquire());
            assert!(again.as_mut().now_or_never().is_none());
            drop(permit);
            if let Some(granted) = waiting.as_mut().now_or_never() {
                break granted;
            }
            grants += 1;
            assert!(grants < NEW_STATEMENT_EVERY, "it starves");
            permit = again.now_or_never().unwrap();
        };
        drop(granted);
    }

    #[test]
    fn a_row_not_worth_a_wait_goes_behind_waiting_requests() {
        let (_queue, [one, other, ..]) = with_capacity(2);
        let first = one.try_acquire(1).unwrap();
        assert!(one.try_acquire(1).is_none(), "beyond its limit");
        let second = one.try_acquire(2).unwrap();
        let mut waiting = Box::pin(other.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(one.try_acquire(9).is_none());
        drop((first, second));
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn an_abandoned_request_takes_no_capacity() {
        let (queue, [first, second, ..]) = with_capacity(0);
        drop(first.acquire());
        let mut gone = Box::pin(first.acquire());
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        queue.set_capacity(|| 1);
        assert_eq!(queue.running(), 0);
        assert!(second.acquire().now_or_never().is_some());
        assert_eq!(queue.running(), 0);
    }
}
