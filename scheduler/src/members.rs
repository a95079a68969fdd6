//! Who works for this scheduler? Executors that keep a call open; its end, or silence, ends their membership at once.
//!
//! Ballista learns of executors by heartbeats on the wall clock and keeps count of their slots itself; both go wrong (a clock that
//! jumps, slots that leak). So this list decides: who is not on it gets no row, and whoever leaves it is removed from Ballista.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// The executors of a scheduler.
#[derive(Debug, Clone)]
pub(crate) struct Members(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    list: Mutex<HashMap<String, Member>>,
    /// Counts changes, for those who wait for one.
    changes: watch::Sender<u64>,
}

/// An executor.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Its name, for people.
    pub(crate) host: String,
    /// Rows that it runs at a time.
    pub(crate) slots: usize,
    /// Finishes what it has in hand and takes nothing new.
    pub(crate) draining: bool,
    /// When it joined.
    pub(crate) joined: Instant,
    /// Jobs that were placed on it and have not ended, and since when.
    placed: HashMap<String, Instant>,
    /// Jobs that it said it has in hand, when it said so last.
    in_hand: HashSet<String>,
    heard: Instant,
}

/// A change of the list, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) executors: usize,
    /// Of those that are not draining.
    pub(crate) slots: usize,
}

/// A placed job that its executor does not have in hand after so long, though it was heard since, is lost: the engine forgot it.
pub(crate) const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

impl Default for Members {
    fn default() -> Self {
        Self(Arc::new(Shared { list: Mutex::default(), changes: watch::Sender::new(0) }))
    }
}

impl Members {
    /// Adds an executor; not if there is one by this id.
    pub(crate) fn join(&self, id: &str, host: String, slots: usize) -> bool {
        let now = Instant::now();
        let member =
            Member { host, slots, draining: false, joined: now, placed: HashMap::new(), in_hand: HashSet::new(), heard: now };
        self.change(|list| match list.entry(id.to_owned()) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(member);
                true
            }
        })
    }

    /// Takes an executor off the list.
    pub(crate) fn leave(&self, id: &str) {
        self.change(|list| list.remove(id));
    }

    /// Notes that an executor finishes what it has in hand and takes nothing new.
    pub(crate) fn drain(&self, id: &str) {
        self.change(|list| {
            if let Some(member) = list.get_mut(id) {
                member.draining = true;
            }
        });
    }

    /// Notes what an executor has in hand.
    pub(crate) fn pulse(&self, id: &str, in_hand: HashSet<String>) {
        if let Some(member) = self.list().get_mut(id) {
            member.in_hand = in_hand;
            member.heard = Instant::now();
        }
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.list().contains_key(id)
    }

    pub(crate) fn count(&self) -> Count {
        let list = self.list();
        let active = list.values().filter(|member| !member.draining);
        Count { executors: list.len(), slots: active.map(|member| member.slots).sum() }
    }

    /// Everybody, by id, in order.
    pub(crate) fn all(&self) -> Vec<(String, Member)> {
        let mut all: Vec<_> = self.list().iter().map(|(id, member)| (id.clone(), member.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Tells when the list changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The executor that a job should go to, with a free slot there taken for it: one that it was not tried on if there is any, then the
    /// one with the most free slots. `tried` are those that it was tried on, `ready` tells whether the engine knows one already.
    pub(crate) fn place(&self, job: &str, tried: &HashSet<String>, ready: impl Fn(&str) -> bool) -> Option<String> {
        let mut list = self.list();
        let free = |member: &Member| member.slots.saturating_sub(member.placed.len());
        let takes = |id: &str, member: &Member| !member.draining && ready(id);
        // Where all that are left were tried already, waiting for another is of no use: the first to be free is taken.
        let others = list.iter().any(|(id, member)| takes(id, member) && !tried.contains(id));
        let best = list
            .iter()
            .filter(|(id, member)| takes(id, member) && free(member) > 0 && !(others && tried.contains(*id)))
            .max_by(|(one_id, one), (other_id, other)| free(one).cmp(&free(other)).then_with(|| other_id.cmp(one_id)))
            .map(|(id, _)| id.clone())?;
        list.get_mut(&best)?.placed.insert(job.to_owned(), Instant::now());
        Some(best)
    }

    /// Gives the slot of a job back.
    pub(crate) fn ended(&self, executor: &str, job: &str) {
        if let Some(member) = self.list().get_mut(executor) {
            member.placed.remove(job);
        }
    }

    /// Is a job that was placed on an executor still there, as far as can be told? `placed_as` is the name that it was placed under,
    /// `job` the engine's name of it.
    pub(crate) fn holds(&self, executor: &str, placed_as: &str, job: &str) -> bool {
        let list = self.list();
        let Some(member) = list.get(executor) else { return false };
        let Some(since) = member.placed.get(placed_as) else { return false };
        // What it said before the job could have reached it says nothing of the job.
        member.in_hand.contains(job) || member.heard.saturating_duration_since(*since) < FORGOTTEN_AFTER
    }

    /// May a job that was placed on nobody in particular still be somewhere? Not if everybody was heard and nobody has it.
    pub(crate) fn anybody_holds(&self, job: &str) -> bool {
        let list = self.list();
        list.is_empty() || list.values().any(|member| member.in_hand.contains(job))
    }

    fn list(&self) -> std::sync::MutexGuard<'_, HashMap<String, Member>> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<String, Member>) -> T) -> T {
        let result = change(&mut self.list());
        self.0.changes.send_modify(|changes| *changes += 1);
        result
    }
}

impl Member {
    /// Rows that were placed on it and have not ended.
    pub(crate) fn rows(&self) -> usize {
        self.placed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Members {
        let members = Members::default();
        assert!(members.join("a", "one".to_owned(), 2) && members.join("b", "two".to_owned(), 1));
        members
    }

    #[test]
    fn rows_go_where_there_is_most_room_and_never_beyond_the_slots() {
        let members = two();
        let place = |job| members.place(job, &HashSet::new(), |_| true);
        assert_eq!(place("1").as_deref(), Some("a"));
        assert_eq!(place("2").as_deref(), Some("a"));
        assert_eq!(place("3").as_deref(), Some("b"));
        assert_eq!(place("4"), None);
        members.ended("a", "2");
        assert_eq!(place("4").as_deref(), Some("a"));
        assert!(!members.join("a", "another".to_owned(), 9), "an id is one executor's");
    }

    #[test]
    fn a_row_that_failed_goes_elsewhere_or_waits_for_it() {
        let members = two();
        let failed_on = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<HashSet<_>>();
        assert_eq!(members.place("1", &failed_on(&["a"]), |_| true).as_deref(), Some("b"));
        assert_eq!(members.place("2", &failed_on(&["a"]), |_| true), None, "b will be free");
        assert_eq!(members.place("3", &failed_on(&["a", "b"]), |_| true).as_deref(), Some("a"));
        members.drain("b");
        assert_eq!(members.place("2", &failed_on(&["a"]), |_| true).as_deref(), Some("a"));
        assert_eq!(members.count(), Count { executors: 2, slots: 2 });
    }

    #[test]
    fn a_job_that_its_executor_never_heard_of_is_lost() {
        let members = two();
        let a = members.place("1", &HashSet::new(), |_| true).unwrap();
        assert!(members.holds(&a, "1", "1"), "it may be on its way");
        let age = FORGOTTEN_AFTER * 2;
        members.list().get_mut(&a).unwrap().placed.insert("1".to_owned(), Instant::now().checked_sub(age).unwrap());
        members.pulse(&a, HashSet::from(["1".to_owned()]));
        assert!(members.holds(&a, "1", "1"));
        members.pulse(&a, HashSet::new());
        assert!(!members.holds(&a, "1", "1"));
        members.leave(&a);
        assert!(!members.has(&a) && !members.holds(&a, "1", "1"));
    }
}
