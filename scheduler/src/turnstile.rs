//! Which statement's row is next? Statements take turns, so that none starves, and no more rows are under way than there is room for.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;

/// Lets rows in, as many at a time as there is room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turnstile(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    room: usize,
    /// Rows that are in, by the statement that they are of.
    held: HashMap<u64, usize>,
    /// Who waits, longest first.
    waiting: VecDeque<(u64, oneshot::Sender<Permit>)>,
}

/// A row that is in. It leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    turnstile: Turnstile,
    statement: u64,
}

impl Turnstile {
    /// Waits for a turn: of the statements that wait the one with the fewest rows in, of equals who came first. Whoever stops waiting
    /// loses nothing.
    pub(crate) async fn enter(&self, statement: u64) -> Permit {
        let (sender, receiver) = oneshot::channel();
        self.inside(|inside| inside.waiting.push_back((statement, sender)));
        self.let_in();
        match receiver.await {
            Ok(permit) => permit,
            // The sender is dropped with the turnstile only, and we hold one.
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets a row in that is not worth a wait: if nobody waits, and fewer than `limit` rows are in.
    pub(crate) fn try_enter(&self, statement: u64, limit: usize) -> Option<Permit> {
        let entered = self.inside(|inside| {
            inside.waiting.retain(|(_, sender)| !sender.is_closed());
            let may = inside.waiting.is_empty() && inside.held.values().sum::<usize>() < limit.min(inside.room);
            if may {
                *inside.held.entry(statement).or_default() += 1;
            }
            may
        });
        entered.then(|| Permit { turnstile: self.clone(), statement })
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
        self.inside(|inside| inside.held.values().sum())
    }

    fn let_in(&self) {
        loop {
            let next = self.inside(|inside| {
                inside.waiting.retain(|(_, sender)| !sender.is_closed());
                if inside.held.values().sum::<usize>() >= inside.room {
                    return None;
                }
                let held = |statement: &u64| inside.held.get(statement).copied().unwrap_or(0);
                let (at, _) = inside.waiting.iter().enumerate().min_by_key(|(_, (statement, _))| held(statement))?;
                let (statement, sender) = inside.waiting.remove(at)?;
                *inside.held.entry(statement).or_default() += 1;
                Some((statement, sender))
            });
            let Some((statement, sender)) = next else { return };
            // Where the receiver has just gone, the permit comes back and leaves by being dropped.
            drop(sender.send(Permit { turnstile: self.clone(), statement }));
        }
    }

    fn inside<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
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

    #[test]
    fn nobody_gets_in_without_room() {
        let turnstile = Turnstile::default();
        let mut waiting = Box::pin(turnstile.enter(1));
        assert!(waiting.as_mut().now_or_never().is_none());
        turnstile.make_room(|| 1);
        let permit = waiting.now_or_never().unwrap();
        assert!(turnstile.enter(1).now_or_never().is_none());
        drop(permit);
        assert!(turnstile.enter(1).now_or_never().is_some());
    }

    #[test]
    fn a_newcomer_does_not_wait_behind_all_rows_of_another() {
        let turnstile = Turnstile::default();
        turnstile.make_room(|| 2);
        let mut first = [1, 1].map(|statement| turnstile.enter(statement).now_or_never().unwrap()).into_iter();
        let mut big = Box::pin(turnstile.enter(1));
        assert!(big.as_mut().now_or_never().is_none());
        let mut small = Box::pin(turnstile.enter(2));
        assert!(small.as_mut().now_or_never().is_none());
        drop(first.next());
        assert!(big.as_mut().now_or_never().is_none(), "it has a row in already");
        let permit = small.as_mut().now_or_never().unwrap();
        drop(permit);
        assert!(big.as_mut().now_or_never().is_some());
    }

    #[test]
    fn what_is_not_worth_a_wait_goes_behind_those_who_wait() {
        let turnstile = Turnstile::default();
        turnstile.make_room(|| 2);
        let first = turnstile.try_enter(1, 1).unwrap();
        assert!(turnstile.try_enter(1, 1).is_none(), "beyond its limit");
        let second = turnstile.try_enter(1, 2).unwrap();
        let mut waiting = Box::pin(turnstile.enter(2));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(turnstile.try_enter(1, 9).is_none());
        drop((first, second));
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn who_gave_up_takes_no_room() {
        let turnstile = Turnstile::default();
        drop(turnstile.enter(1));
        let mut gone = Box::pin(turnstile.enter(1));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        turnstile.make_room(|| 1);
        assert_eq!(turnstile.held(), 0);
        assert!(turnstile.enter(2).now_or_never().is_some());
        assert_eq!(turnstile.held(), 0);
    }
}
