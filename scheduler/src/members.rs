//! Who works for this scheduler? Executors that keep a call open; its end, or silence, ends their membership at once.
//!
//! Ballista learns of executors by heartbeats on the wall clock and keeps count of their slots itself; both go wrong (a clock that
//! jumps, slots that leak). So this list decides: who is not on it gets no row, and whoever leaves it is removed from Ballista.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};
use tracing::warn;

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
    /// The engine could reach it, so that tasks can be sent.
    pub(crate) ready: bool,
    /// When it joined.
    pub(crate) joined: Instant,
    /// Jobs that were placed on it and have not ended.
    placed: HashSet<String>,
    /// Jobs that it said it has in hand, when it said so last.
    in_hand: HashSet<String>,
    /// Jobs whose results were fetched from it, which it was not told yet.
    fetched: Vec<String>,
    /// Why it can take no rows, as it said last.
    pub(crate) trouble: Option<String>,
    /// Rows that failed on it since one succeeded, and when the last did.
    failures: u32,
    failed: Option<Instant>,
}

/// A change of the list, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// That the engine can reach.
    pub(crate) executors: usize,
    /// Of those that take rows.
    pub(crate) slots: usize,
}

/// An executor on which so many rows failed one after the other is left alone for so long: something is wrong with it, and since it fails
/// fast, it would always be the one that is free.
const FAILURES: u32 = 3;
const REST: Duration = Duration::from_secs(30);

/// A job that nobody was heard to have in hand for so long is lost: the engine forgot it.
pub(crate) const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

impl Default for Members {
    fn default() -> Self {
        Self(Arc::new(Shared { list: Mutex::default(), changes: watch::Sender::new(0) }))
    }
}

impl Members {
    /// Adds an executor; not if there is one by this id.
    pub(crate) fn join(&self, id: &str, host: String, slots: usize) -> bool {
        let member = Member {
            host,
            slots,
            draining: false,
            ready: false,
            joined: Instant::now(),
            placed: HashSet::new(),
            in_hand: HashSet::new(),
            fetched: Vec::new(),
            trouble: None,
            failures: 0,
            failed: None,
        };
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

    /// Notes what an executor has in hand, and why it can take no rows if it cannot. Tells whether that has changed.
    pub(crate) fn pulse(&self, id: &str, in_hand: HashSet<String>, trouble: Option<String>) -> bool {
        let changed = self.list().get_mut(id).is_some_and(|member| {
            let changed = member.trouble.is_some() != trouble.is_some();
            (member.in_hand, member.trouble) = (in_hand, trouble);
            changed
        });
        if changed {
            self.0.changes.send_modify(|changes| *changes += 1);
        }
        changed
    }

    /// Notes that a row succeeded on an executor, or failed there.
    pub(crate) fn judge(&self, id: &str, succeeded: bool) {
        if let Some(member) = self.list().get_mut(id) {
            (member.failures, member.failed) =
                if succeeded { (0, None) } else { (member.failures.saturating_add(1), Some(Instant::now())) };
            if member.failures == FAILURES {
                warn!(
                    executor = id,
                    host = member.host,
                    rest_s = REST.as_secs(),
                    "rows keep failing there: it gets none for a while"
                );
            }
        }
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.list().contains_key(id)
    }

    /// Notes that the engine can reach an executor; tells whether there is one by this id.
    pub(crate) fn reached(&self, id: &str) -> bool {
        self.change(|list| list.get_mut(id).map(|member| member.ready = true).is_some())
    }

    /// Does an executor take new work?
    pub(crate) fn is_active(&self, id: &str) -> bool {
        self.list().get(id).is_some_and(Member::takes_rows)
    }

    /// Why nothing gets on: nobody who can take rows is here, and nobody has one in hand.
    pub(crate) fn idle_for_good(&self) -> Option<String> {
        let list = self.list();
        let mut ready = list.values().filter(|member| member.ready).peekable();
        if ready.peek().is_none() {
            return Some("no executor joined".to_owned());
        }
        if ready.any(|member| member.takes_rows() || member.rows() > 0) {
            return None;
        }
        let troubles = list.values().map(|member| {
            format!(
                "{}: {}",
                member.host,
                member.trouble.as_deref().unwrap_or(if member.draining { "leaving" } else { "not reached" })
            )
        });
        Some(format!("no executor takes rows ({})", troubles.collect::<Vec<_>>().join("; ")))
    }

    /// Somebody that the engine can reach.
    pub(crate) fn anybody(&self) -> Option<String> {
        self.list().iter().find(|(_, member)| member.ready).map(|(id, _)| id.clone())
    }

    pub(crate) fn count(&self) -> Count {
        let list = self.list();
        let ready = || list.values().filter(|member| member.ready);
        Count {
            executors: ready().count(),
            slots: ready().filter(|member| member.takes_rows()).map(|member| member.slots).sum(),
        }
    }

    /// Everybody, by id, in order.
    pub(crate) fn all(&self) -> Vec<(String, Member)> {
        let mut all: Vec<_> = self.list().iter().map(|(id, member)| (id.clone(), member.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Waits until somebody takes rows, for so long at most.
    pub(crate) async fn somebody(&self, within: Duration) {
        let mut changes = self.changes();
        let joined = async {
            // Ends with the list itself.
            while self.count().slots == 0 && changes.changed().await.is_ok() {}
        };
        let _ = timeout(within, joined).await;
    }

    /// Tells when the list changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The executor that a job should go to, with a free slot there taken for it. One that rows keep failing on is the last choice, and
    /// one that this row was tried on the last but one; of equals it is the one with the most free slots. Who is a better choice and busy
    /// is waited for. `tried` are those that it was tried on, `ready` tells whether the engine knows one already.
    pub(crate) fn place(
        &self,
        job: &str,
        tried: &HashSet<String>,
        ready: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let mut list = self.list();
        let takes = || list.iter().filter(|(id, member)| member.takes_rows() && ready(id));
        let rank = |id: &str, member: &Member| (member.rests(), tried.contains(id));
        let best = takes().map(|(id, member)| rank(id, member)).min()?;
        let free = |member: &Member| member.slots.saturating_sub(member.placed.len());
        let id = takes()
            .filter(|(id, member)| rank(id, member) == best && free(member) > 0)
            .max_by(|(one_id, one), (other_id, other)| {
                free(one).cmp(&free(other)).then_with(|| other_id.cmp(one_id))
            })
            .map(|(id, _)| id.clone())?;
        list.get_mut(&id)?.placed.insert(job.to_owned());
        Some(id)
    }

    /// Gives the slot of a job back.
    pub(crate) fn ended(&self, executor: &str, job: &str) {
        if let Some(member) = self.list().get_mut(executor) {
            member.placed.remove(job);
        }
    }

    /// Notes that an executor, or everybody, need not keep the results of a job any more.
    pub(crate) fn fetched(&self, executor: Option<&str>, job: &str) {
        let mut list = self.list();
        let told = list.iter_mut().filter(|(id, _)| executor.is_none_or(|executor| executor == *id));
        told.for_each(|(_, member)| member.fetched.push(job.to_owned()));
    }

    /// What an executor need not keep any more, since this was asked last.
    pub(crate) fn take_fetched(&self, executor: &str) -> Vec<String> {
        self.list().get_mut(executor).map(|member| std::mem::take(&mut member.fetched)).unwrap_or_default()
    }

    /// Did an executor say that it has a job in hand, when it said so last?
    pub(crate) fn holds(&self, executor: &str, job: &str) -> bool {
        self.list().get(executor).is_some_and(|member| member.in_hand.contains(job))
    }

    /// Did anybody?
    pub(crate) fn anybody_holds(&self, job: &str) -> bool {
        self.list().values().any(|member| member.in_hand.contains(job))
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

    fn takes_rows(&self) -> bool {
        !self.draining && self.trouble.is_none()
    }

    /// Is it left alone, because rows keep failing on it?
    pub(crate) fn rests(&self) -> bool {
        self.failures >= FAILURES && self.failed.is_some_and(|failed| failed.elapsed() < REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Members {
        let members = Members::default();
        assert!(members.join("a", "one".to_owned(), 2) && members.join("b", "two".to_owned(), 1));
        assert_eq!(members.count(), Count::default(), "the engine did not reach them yet");
        assert!(members.reached("a") && members.reached("b"));
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
    fn what_an_executor_has_in_hand_is_what_it_said_last() {
        let members = two();
        members.pulse("a", HashSet::from(["1".to_owned()]), None);
        assert!(members.holds("a", "1") && members.anybody_holds("1") && !members.holds("b", "1"));
        members.pulse("a", HashSet::new(), None);
        assert!(!members.holds("a", "1"));
        members.fetched(Some("a"), "1");
        members.fetched(None, "2");
        assert_eq!(members.take_fetched("a"), ["1", "2"]);
        assert_eq!(
            (members.take_fetched("a").len(), members.take_fetched("b").len()),
            (0, 1),
            "it is told once"
        );
        members.leave("a");
        assert!(!members.has("a") && !members.reached("a"));
    }
    #[test]
    fn who_cannot_work_gets_nothing_until_it_can() {
        let members = two();
        let full = || Some("the disk is full".to_owned());
        assert!(members.pulse("a", HashSet::new(), full()) && !members.pulse("a", HashSet::new(), full()));
        assert_eq!(members.count(), Count { executors: 2, slots: 1 });
        let place = |job| members.place(job, &HashSet::new(), |_| true);
        assert_eq!(place("1").as_deref(), Some("b"));
        assert_eq!((place("2"), members.idle_for_good()), (None, None));
        members.ended("b", "1");
        members.drain("b");
        assert_eq!(members.idle_for_good().map(|why| why.contains("one: the disk is full")), Some(true));
        assert!(members.pulse("a", HashSet::new(), None));
        assert_eq!((place("2").as_deref(), members.idle_for_good()), (Some("a"), None));
    }

    #[test]
    fn who_fails_everything_is_the_last_choice() {
        let members = two();
        let place = |job| members.place(job, &HashSet::new(), |_| true);
        (0..FAILURES).for_each(|_| members.judge("a", false));
        assert_eq!((place("1").as_deref(), place("2")), (Some("b"), None), "b will be free");
        assert_eq!(members.place("2", &HashSet::from(["b".to_owned()]), |_| true), None, "b again before a");
        members.drain("b");
        assert_eq!(place("2").as_deref(), Some("a"), "there is nobody else");
        members.ended("a", "2");
        assert!(members.join("c", "three".to_owned(), 1) && members.reached("c"));
        assert_eq!(place("3").as_deref(), Some("c"));
        members.judge("a", true);
        assert_eq!(place("4").as_deref(), Some("a"));
    }
}
