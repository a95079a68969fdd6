//! Executor registry: the executors that are connected, their state, their results and their slots.
//!
//! Ballista learns of executors by heartbeats on the wall clock and counts their slots itself. Both go wrong:
//! a clock jumps, slots leak. So this registry decides: an executor that is not in it gets no row, and one
//! that is removed from it is removed from Ballista.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tokio::{sync::watch, time::timeout};
use tracing::warn;

/// An executor on which this many rows failed one after the other is in cooldown for this long: something is
/// wrong with it, and since it fails fast, it would always be the one with a free slot.
const COOLDOWN_FAILURES: u32 = 3;
const COOLDOWN: Duration = Duration::from_secs(30);

/// A job that no executor has reported as running for this long is lost: the engine forgot it.
pub(crate) const JOB_LOST_AFTER: Duration = Duration::from_secs(10);

/// The executors of a scheduler.
#[derive(Debug, Clone)]
pub(crate) struct ExecutorRegistry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    executors: Mutex<HashMap<String, Executor>>,
    /// Counts changes, for tasks that wait for one.
    changes: watch::Sender<u64>,
}

/// State of an executor in the registry, derived from what its session, its heartbeats and its rows report.
///
/// | from | to | when |
/// | --- | --- | --- |
/// | not in the registry | `Registered` | its session begins ([`ExecutorRegistry::register`]) |
/// | `Registered` | `Ready` | the engine reaches it ([`ExecutorRegistry::mark_ready`]) |
/// | `Ready`, `Cooldown` | `Unavailable` | its heartbeat gives a reason, such as a full disk |
/// | `Unavailable` | `Ready` or `Cooldown` | its heartbeat gives no reason any more |
/// | `Ready` | `Cooldown` | [`COOLDOWN_FAILURES`] rows failed on it, one after the other |
/// | `Cooldown` | `Ready` | a row succeeds on it, or [`COOLDOWN`] has passed since the last failure |
/// | `Ready`, `Cooldown`, `Unavailable` | `Draining` | it announces that it leaves; there is no way back |
/// | any | not in the registry | its session ends ([`ExecutorRegistry::remove`]); its rows run elsewhere |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExecutorState {
    /// The session is open, and the engine has not reached the executor: no task can be sent.
    Registered,
    /// The executor accepts rows.
    Ready,
    /// The executor accepts rows, and is the last choice: rows keep failing on it.
    Cooldown,
    /// The executor reported why it cannot accept rows.
    Unavailable,
    /// The executor finishes its rows and accepts no new ones.
    Draining,
}

/// An executor.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    /// Host name, for people.
    pub(crate) host: String,
    /// Rows that it runs at a time.
    pub(crate) slots: usize,
    /// When its session began.
    pub(crate) registered: Instant,
    /// Why it cannot accept rows, by its last heartbeat.
    pub(crate) unavailable_reason: Option<String>,
    /// The engine has reached it.
    reached: bool,
    draining: bool,
    /// Jobs that were placed on it and have not ended.
    placed: HashSet<String>,
    /// Jobs that it runs, by its last heartbeat.
    running: HashSet<String>,
    /// Jobs whose results were fetched from it, which the next heartbeat reports to it.
    fetched: Vec<String>,
    /// Rows that failed on it since one succeeded, and when the last one did.
    failures: u32,
    last_failure: Option<Instant>,
}

/// Executors and slots of a registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExecutorCounts {
    /// Executors that the engine has reached.
    pub(crate) executors: usize,
    /// Slots of those that accept rows.
    pub(crate) slots: usize,
}

impl Default for ExecutorRegistry {
    fn default() -> Self {
        Self(Arc::new(Shared { executors: Mutex::default(), changes: watch::Sender::new(0) }))
    }
}

impl ExecutorRegistry {
    /// Adds an executor. Returns `false`, and changes nothing, if there is one by this id.
    pub(crate) fn register(&self, id: &str, host: String, slots: usize) -> bool {
        let executor = Executor {
            host,
            slots,
            registered: Instant::now(),
            unavailable_reason: None,
            reached: false,
            draining: false,
            placed: HashSet::new(),
            running: HashSet::new(),
            fetched: Vec::new(),
            failures: 0,
            last_failure: None,
        };
        self.change(|executors| match executors.entry(id.to_owned()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(executor);
                true
            }
        })
    }

    /// Removes an executor.
    pub(crate) fn remove(&self, id: &str) {
        self.change(|executors| executors.remove(id));
    }

    /// Records that an executor finishes its rows and accepts no new ones.
    pub(crate) fn mark_draining(&self, id: &str) {
        self.change(|executors| {
            if let Some(executor) = executors.get_mut(id) {
                executor.draining = true;
            }
        });
    }

    /// Records that the engine has reached an executor. Returns whether there is one by this id.
    pub(crate) fn mark_ready(&self, id: &str) -> bool {
        self.change(|executors| executors.get_mut(id).map(|executor| executor.reached = true).is_some())
    }

    /// Records a heartbeat: the jobs that an executor runs, and why it cannot accept rows, if it cannot.
    /// Returns whether its availability has changed.
    pub(crate) fn record_heartbeat(
        &self,
        id: &str,
        running: HashSet<String>,
        unavailable_reason: Option<String>,
    ) -> bool {
        let changed = self.executors().get_mut(id).is_some_and(|executor| {
            let changed = executor.unavailable_reason.is_some() != unavailable_reason.is_some();
            (executor.running, executor.unavailable_reason) = (running, unavailable_reason);
            changed
        });
        if changed {
            self.notify();
        }
        changed
    }

    /// Records whether a row succeeded on an executor or failed there.
    pub(crate) fn record_result(&self, id: &str, succeeded: bool) {
        if let Some(executor) = self.executors().get_mut(id) {
            (executor.failures, executor.last_failure) = match succeeded {
                true => (0, None),
                false => (executor.failures.saturating_add(1), Some(Instant::now())),
            };
            if executor.failures == COOLDOWN_FAILURES {
                warn!(
                    executor = id,
                    host = executor.host,
                    cooldown_s = COOLDOWN.as_secs(),
                    "rows keep failing on this executor: it is the last choice during its cooldown"
                );
            }
        }
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.executors().contains_key(id)
    }

    /// Returns whether an executor accepts rows.
    pub(crate) fn accepts_rows(&self, id: &str) -> bool {
        self.executors().get(id).is_some_and(Executor::accepts_rows)
    }

    /// Returns why no row can make progress: no executor accepts rows, and none runs one.
    pub(crate) fn stall_reason(&self) -> Option<String> {
        let executors = self.executors();
        let mut reached = executors.values().filter(|executor| executor.reached).peekable();
        if reached.peek().is_none() {
            return Some("no executor joined".to_owned());
        }
        if reached.any(|executor| executor.accepts_rows() || executor.placed_rows() > 0) {
            return None;
        }
        let reasons = executors.values().map(|executor| {
            let otherwise = if executor.draining { "draining" } else { "not reached" };
            format!("{}: {}", executor.host, executor.unavailable_reason.as_deref().unwrap_or(otherwise))
        });
        Some(format!("no executor accepts rows ({})", reasons.collect::<Vec<_>>().join("; ")))
    }

    /// Returns the id of an executor that the engine has reached.
    pub(crate) fn any_ready(&self) -> Option<String> {
        self.executors().iter().find(|(_, executor)| executor.reached).map(|(id, _)| id.clone())
    }

    pub(crate) fn count(&self) -> ExecutorCounts {
        let executors = self.executors();
        let reached = || executors.values().filter(|executor| executor.reached);
        ExecutorCounts {
            executors: reached().count(),
            slots: reached().filter(|executor| executor.accepts_rows()).map(|executor| executor.slots).sum(),
        }
    }

    /// Returns all executors with their ids, ordered by id.
    pub(crate) fn snapshot(&self) -> Vec<(String, Executor)> {
        let mut all: Vec<_> =
            self.executors().iter().map(|(id, executor)| (id.clone(), executor.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Waits until an executor accepts rows, at most for `limit`.
    pub(crate) async fn wait_for_slots(&self, limit: Duration) {
        let mut changes = self.subscribe();
        let available = async {
            // An error means that the registry itself is gone.
            while self.count().slots == 0 && changes.changed().await.is_ok() {}
        };
        let _ = timeout(limit, available).await;
    }

    /// Returns a receiver that is notified of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Takes a slot for a job and returns the executor that has it; `None` where the job has to wait.
    ///
    /// An executor in cooldown is the last choice, and one in `tried`, where the row was tried before, the
    /// last but one. Of equals the one with the most free slots is taken. A better choice whose slots are
    /// taken is waited for. `known` returns whether the engine knows an executor.
    pub(crate) fn place(
        &self,
        job: &str,
        tried: &HashSet<String>,
        known: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let mut executors = self.executors();
        let candidates = || executors.iter().filter(|(id, executor)| executor.accepts_rows() && known(id));
        let rank = |id: &str, executor: &Executor| (executor.in_cooldown(), tried.contains(id));
        let best = candidates().map(|(id, executor)| rank(id, executor)).min()?;
        let free = |executor: &Executor| executor.slots.saturating_sub(executor.placed.len());
        let id = candidates()
            .filter(|(id, executor)| rank(id, executor) == best && free(executor) > 0)
            .max_by(|(one_id, one), (other_id, other)| {
                free(one).cmp(&free(other)).then_with(|| other_id.cmp(one_id))
            })
            .map(|(id, _)| id.clone())?;
        executors.get_mut(&id)?.placed.insert(job.to_owned());
        Some(id)
    }

    /// Releases the slot of a job.
    pub(crate) fn release(&self, executor: &str, job: &str) {
        if let Some(executor) = self.executors().get_mut(executor) {
            executor.placed.remove(job);
        }
    }

    /// Records that an executor, or every executor, may delete the results of a job.
    pub(crate) fn mark_fetched(&self, executor: Option<&str>, job: &str) {
        let mut executors = self.executors();
        let holders = executors.iter_mut().filter(|(id, _)| executor.is_none_or(|executor| executor == *id));
        holders.for_each(|(_, executor)| executor.fetched.push(job.to_owned()));
    }

    /// Returns the jobs whose results an executor may delete, and forgets them.
    pub(crate) fn take_fetched(&self, executor: &str) -> Vec<String> {
        let mut executors = self.executors();
        executors.get_mut(executor).map(|executor| std::mem::take(&mut executor.fetched)).unwrap_or_default()
    }

    /// Returns whether an executor runs a job, by its last heartbeat.
    pub(crate) fn is_running(&self, executor: &str, job: &str) -> bool {
        self.executors().get(executor).is_some_and(|executor| executor.running.contains(job))
    }

    /// Returns whether any executor runs a job, by the last heartbeats.
    pub(crate) fn is_running_anywhere(&self, job: &str) -> bool {
        self.executors().values().any(|executor| executor.running.contains(job))
    }

    fn executors(&self) -> MutexGuard<'_, HashMap<String, Executor>> {
        self.0.executors.lock()
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<String, Executor>) -> T) -> T {
        let result = change(&mut self.executors());
        self.notify();
        result
    }

    fn notify(&self) {
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

impl Executor {
    /// Returns the state. Of several that hold, the one that says most about why it gets no rows.
    pub(crate) fn state(&self) -> ExecutorState {
        match self {
            _ if self.draining => ExecutorState::Draining,
            _ if !self.reached => ExecutorState::Registered,
            _ if self.unavailable_reason.is_some() => ExecutorState::Unavailable,
            _ if self.in_cooldown() => ExecutorState::Cooldown,
            _ => ExecutorState::Ready,
        }
    }

    /// Returns the number of rows that were placed on it and have not ended.
    pub(crate) fn placed_rows(&self) -> usize {
        self.placed.len()
    }

    /// Returns whether rows may be placed on it. The engine's own list says whether it can be reached: it may
    /// know of an executor a moment before [`ExecutorRegistry::mark_ready`] is called.
    fn accepts_rows(&self) -> bool {
        !self.draining && self.unavailable_reason.is_none()
    }

    /// Returns whether rows keep failing on it, so that it is the last choice.
    fn in_cooldown(&self) -> bool {
        self.failures >= COOLDOWN_FAILURES && self.last_failure.is_some_and(|at| at.elapsed() < COOLDOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> ExecutorRegistry {
        let registry = ExecutorRegistry::default();
        assert!(registry.register("a", "one".to_owned(), 2) && registry.register("b", "two".to_owned(), 1));
        assert_eq!(registry.count(), ExecutorCounts::default(), "the engine has not reached them yet");
        assert!(registry.mark_ready("a") && registry.mark_ready("b"));
        registry
    }

    fn state(registry: &ExecutorRegistry, id: &str) -> Option<ExecutorState> {
        registry.snapshot().into_iter().find(|(other, _)| other == id).map(|(_, executor)| executor.state())
    }

    #[test]
    fn rows_are_placed_where_most_slots_are_free_and_never_beyond_the_slots() {
        let registry = two();
        let place = |job| registry.place(job, &HashSet::new(), |_| true);
        assert_eq!(place("1").as_deref(), Some("a"));
        assert_eq!(place("2").as_deref(), Some("a"));
        assert_eq!(place("3").as_deref(), Some("b"));
        assert_eq!(place("4"), None);
        registry.release("a", "2");
        assert_eq!(place("4").as_deref(), Some("a"));
        assert!(!registry.register("a", "another".to_owned(), 9), "an id belongs to one executor");
    }

    #[test]
    fn a_row_that_failed_is_placed_on_another_executor_or_waits_for_it() {
        let registry = two();
        let failed_on = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<HashSet<_>>();
        assert_eq!(registry.place("1", &failed_on(&["a"]), |_| true).as_deref(), Some("b"));
        assert_eq!(registry.place("2", &failed_on(&["a"]), |_| true), None, "b will be free");
        assert_eq!(registry.place("3", &failed_on(&["a", "b"]), |_| true).as_deref(), Some("a"));
        registry.mark_draining("b");
        assert_eq!(registry.place("2", &failed_on(&["a"]), |_| true).as_deref(), Some("a"));
        assert_eq!(registry.count(), ExecutorCounts { executors: 2, slots: 2 });
    }

    #[test]
    fn running_jobs_are_those_of_the_last_heartbeat() {
        let registry = two();
        registry.record_heartbeat("a", HashSet::from(["1".to_owned()]), None);
        assert!(registry.is_running("a", "1") && registry.is_running_anywhere("1"));
        assert!(!registry.is_running("b", "1"));
        registry.record_heartbeat("a", HashSet::new(), None);
        assert!(!registry.is_running("a", "1"));
    }

    #[test]
    fn fetched_jobs_are_reported_once() {
        let registry = two();
        registry.mark_fetched(Some("a"), "1");
        registry.mark_fetched(None, "2");
        assert_eq!(registry.take_fetched("a"), ["1", "2"]);
        assert_eq!((registry.take_fetched("a").len(), registry.take_fetched("b").len()), (0, 1));
        registry.remove("a");
        assert!(!registry.contains("a") && !registry.mark_ready("a"));
    }

    #[test]
    fn an_unavailable_executor_gets_no_rows_until_it_is_available() {
        let registry = two();
        let full = || Some("the disk is full".to_owned());
        assert!(registry.record_heartbeat("a", HashSet::new(), full()));
        assert!(!registry.record_heartbeat("a", HashSet::new(), full()));
        assert_eq!(registry.count(), ExecutorCounts { executors: 2, slots: 1 });
        let place = |job| registry.place(job, &HashSet::new(), |_| true);
        assert_eq!(place("1").as_deref(), Some("b"));
        assert_eq!((place("2"), registry.stall_reason()), (None, None));
        registry.release("b", "1");
        registry.mark_draining("b");
        assert_eq!(registry.stall_reason().map(|why| why.contains("one: the disk is full")), Some(true));
        assert!(registry.record_heartbeat("a", HashSet::new(), None));
        assert_eq!((place("2").as_deref(), registry.stall_reason()), (Some("a"), None));
    }

    #[test]
    fn an_executor_in_cooldown_is_the_last_choice() {
        let registry = two();
        let place = |job| registry.place(job, &HashSet::new(), |_| true);
        (0..COOLDOWN_FAILURES).for_each(|_| registry.record_result("a", false));
        assert_eq!((place("1").as_deref(), place("2")), (Some("b"), None), "b will be free");
        let tried = HashSet::from(["b".to_owned()]);
        assert_eq!(registry.place("2", &tried, |_| true), None, "b once more before a");
        registry.mark_draining("b");
        assert_eq!(place("2").as_deref(), Some("a"), "there is no other");
        registry.release("a", "2");
        assert!(registry.register("c", "three".to_owned(), 1) && registry.mark_ready("c"));
        assert_eq!(place("3").as_deref(), Some("c"));
        registry.record_result("a", true);
        assert_eq!(place("4").as_deref(), Some("a"));
    }

    #[test]
    fn states_follow_the_table() {
        let registry = ExecutorRegistry::default();
        assert_eq!(state(&registry, "a"), None);
        registry.register("a", "one".to_owned(), 1);
        assert_eq!(state(&registry, "a"), Some(ExecutorState::Registered));
        registry.mark_ready("a");
        assert_eq!(state(&registry, "a"), Some(ExecutorState::Ready));
        (0..COOLDOWN_FAILURES).for_each(|_| registry.record_result("a", false));
        assert_eq!(state(&registry, "a"), Some(ExecutorState::Cooldown));
        registry.record_heartbeat("a", HashSet::new(), Some("the disk is full".to_owned()));
        assert_eq!(state(&registry, "a"), Some(ExecutorState::Unavailable));
        registry.record_heartbeat("a", HashSet::new(), None);
        assert_eq!(state(&registry, "a"), Some(ExecutorState::Cooldown));
        registry.record_result("a", true);
        assert_eq!(state(&registry, "a"), Some(ExecutorState::Ready));
        registry.mark_draining("a");
        assert_eq!(state(&registry, "a"), Some(ExecutorState::Draining));
        registry.remove("a");
        assert_eq!(state(&registry, "a"), None);
    }
}
