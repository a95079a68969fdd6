//! Which statement's row is next? Statements take turns, so that none starves, and no more rows are under way than there is room for.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;

/// Where as many statements have begun as rows fit in, they are finished first, so that results come early and not all at the end. Still
/// every so many turns one begins that waits: a small one must not wait for the end of a big one.
const NEWCOMER_EVERY: usize = 4;

/// Lets rows in, as many at a time as there is room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turnstile(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    room: usize,
    /// Rows that are in, by the statement that they are of.
    held: HashMap<u64, usize>,
    /// Statements that had a turn and are not done.
    begun: HashSet<u64>,
    /// Turns since a statement began that had to wait for it.
    since_newcomer: usize,
    /// Who waits, longest first.
    waiting: VecDeque<(u64, oneshot::Sender<Permit>)>,
}

/// A statement's turns. It is done when this is dropped.
#[derive(Debug)]
pub(crate) struct Turns {
    turnstile: Turnstile,
    statement: u64,
}

/// A row that is in. It leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    turnstile: Turnstile,
    statement: u64,
}

impl Turnstile {
    /// The turns of a statement.
    pub(crate) fn turns(&self, statement: u64) -> Turns {
        Turns { turnstile: self.clone(), statement }
    }

    /// Sets how many rows may be in at a time. Those that are in stay. `room` is asked inside, so that of two who change it at once the
    /// later has looked later.
    pub(crate) fn make_room(&self, room: impl FnOnce() -> usize) {
        self.inside(|inside| inside.room = room());
        self.let_in();
    }

    /// Rows that are in.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.inside(|inside| inside.rows())
    }

    fn let_in(&self) {
        while let Some((statement, sender)) = self.inside(Inside::next) {
            // Where the receiver has just gone, the permit comes back and leaves by being dropped.
            drop(sender.send(Permit { turnstile: self.clone(), statement }));
        }
    }

    fn inside<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inside {
    fn rows(&self) -> usize {
        self.held.values().sum()
    }

    /// Takes out who is next, if there is room.
    fn next(&mut self) -> Option<(u64, oneshot::Sender<Permit>)> {
        self.forget_gone();
        if self.rows() >= self.room {
            return None;
        }
        let at = self.choose()?;
        let (statement, sender) = self.waiting.remove(at)?;
        self.since_newcomer = if self.begun.insert(statement) { 0 } else { self.since_newcomer + 1 };
        *self.held.entry(statement).or_default() += 1;
        Some((statement, sender))
    }

    /// Of the statements that wait the one with the fewest rows in, of equals who came first.
    fn choose(&self) -> Option<usize> {
        let fewest = |of: &dyn Fn(u64) -> bool| {
            let held = |statement: u64| self.held.get(&statement).copied().unwrap_or(0);
            let waiting = self.waiting.iter().enumerate().map(|(at, (statement, _))| (at, *statement));
            waiting
                .filter(|(_, statement)| of(*statement))
                .min_by_key(|(_, statement)| held(*statement))
                .map(|(at, _)| at)
        };
        let begun = |statement: u64| self.begun.contains(&statement);
        let first = if self.begun.len() < self.room {
            None
        } else if self.since_newcomer + 1 < NEWCOMER_EVERY {
            fewest(&begun)
        } else {
            fewest(&|statement| !begun(statement))
        };
        first.or_else(|| fewest(&|_| true))
    }

    fn forget_gone(&mut self) {
        self.waiting.retain(|(_, sender)| !sender.is_closed());
    }
}

impl Turns {
    /// Waits for a turn. Whoever stops waiting loses nothing.
    pub(crate) async fn next(&self) -> Permit {
        let (sender, receiver) = oneshot::channel();
        self.turnstile.inside(|inside| inside.waiting.push_back((self.statement, sender)));
        self.turnstile.let_in();
        match receiver.await {
            Ok(permit) => permit,
            // The sender is dropped with the turnstile only, and we hold one.
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets a row in that is not worth a wait: if nobody waits, and fewer than `limit` rows are in.
    pub(crate) fn try_next(&self, limit: usize) -> Option<Permit> {
        let entered = self.turnstile.inside(|inside| {
            inside.forget_gone();
            let may = inside.waiting.is_empty() && inside.rows() < limit.min(inside.room);
            if may {
                *inside.held.entry(self.statement).or_default() += 1;
            }
            may
        });
        entered.then(|| Permit { turnstile: self.turnstile.clone(), statement: self.statement })
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.turnstile.inside(|inside| inside.begun.remove(&self.statement));
        self.turnstile.let_in();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.turnstile.inside(|inside| {
            if let Some(held) = inside.held.get_mut(&self.statement) {
                *held -= 1;
                if *held == 0 {
                    inside.held.remove(&self.statement);
                }
            }
        });
        self.turnstile.let_in();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn with_room(room: usize) -> (Turnstile, [Turns; 4]) {
        let turnstile = Turnstile::default();
        turnstile.make_room(|| room);
        let turns = [1, 2, 3, 4].map(|statement| turnstile.turns(statement));
        (turnstile, turns)
    }

    #[test]
    fn nobody_gets_in_without_room() {
        let (turnstile, [first, second, ..]) = with_room(0);
        let mut waiting = Box::pin(first.next());
        assert!(waiting.as_mut().now_or_never().is_none());
        turnstile.make_room(|| 1);
        let permit = waiting.now_or_never().unwrap();
        assert!(second.next().now_or_never().is_none());
        drop(permit);
        assert!(second.next().now_or_never().is_some());
    }

    #[test]
    fn a_newcomer_does_not_wait_behind_all_rows_of_another() {
        let (_turnstile, [first, second, ..]) = with_room(2);
        let mut held = [(), ()].map(|()| first.next().now_or_never().unwrap()).into_iter();
        let mut big = Box::pin(first.next());
        assert!(big.as_mut().now_or_never().is_none());
        let mut small = Box::pin(second.next());
        assert!(small.as_mut().now_or_never().is_none());
        drop(held.next());
        assert!(big.as_mut().now_or_never().is_none(), "it has a row in already");
        let permit = small.as_mut().now_or_never().unwrap();
        drop(permit);
        assert!(big.as_mut().now_or_never().is_some());
    }

    #[test]
    fn what_has_begun_is_finished_before_more_is_begun() {
        let (_turnstile, [first, second, third, _]) = with_room(1);
        let permit = first.next().now_or_never().unwrap();
        let mut newcomers = [Box::pin(second.next()), Box::pin(third.next())];
        assert!(newcomers.iter_mut().all(|waiting| waiting.as_mut().now_or_never().is_none()));
        let mut again = Box::pin(first.next());
        assert!(again.as_mut().now_or_never().is_none());
        drop(permit);
        drop(again.now_or_never().expect("it came last and has begun"));
        // Nothing of the first waits any more, so the next has begun by now.
        assert!(newcomers[0].as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_newcomer_does_not_wait_for_the_end_of_what_has_begun() {
        let (_turnstile, [big, small, ..]) = with_room(1);
        let mut permit = big.next().now_or_never().unwrap();
        let mut waiting = Box::pin(small.next());
        assert!(waiting.as_mut().now_or_never().is_none());
        let mut turns = 0;
        let entered = loop {
            let mut again = Box::pin(big.next());
            assert!(again.as_mut().now_or_never().is_none());
            drop(permit);
            if let Some(entered) = waiting.as_mut().now_or_never() {
                break entered;
            }
            turns += 1;
            assert!(turns < NEWCOMER_EVERY, "it starves");
            permit = again.now_or_never().unwrap();
        };
        drop(entered);
    }

    #[test]
    fn what_is_not_worth_a_wait_goes_behind_those_who_wait() {
        let (_turnstile, [one, other, ..]) = with_room(2);
        let first = one.try_next(1).unwrap();
        assert!(one.try_next(1).is_none(), "beyond its limit");
        let second = one.try_next(2).unwrap();
        let mut waiting = Box::pin(other.next());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(one.try_next(9).is_none());
        drop((first, second));
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn who_gave_up_takes_no_room() {
        let (turnstile, [first, second, ..]) = with_room(0);
        drop(first.next());
        let mut gone = Box::pin(first.next());
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        turnstile.make_room(|| 1);
        assert_eq!(turnstile.held(), 0);
        assert!(second.next().now_or_never().is_some());
        assert_eq!(turnstile.held(), 0);
    }
}
