//! Event router: passes events of rows from executors to the attempts that they belong to.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use spool_media::encode::events::AttemptEvent;
use tokio::sync::mpsc;

/// Events of a job that wait for its subscriber. The next event makes up for what a slow subscriber misses:
/// each says how far the row is.
const EVENT_QUEUE: usize = 256;

/// Jobs without a subscriber whose events are kept: a row may start a moment before its submitter knows the
/// job's name.
const EARLY_JOBS: usize = 64;

/// Routes events by the engine's name of the job.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventRouter(Arc<Mutex<Routes>>);

#[derive(Debug, Default)]
struct Routes {
    subscribers: HashMap<String, mpsc::Sender<AttemptEvent>>,
    /// Events of jobs that have no subscriber yet, the oldest job first.
    early: VecDeque<(String, Vec<AttemptEvent>)>,
}

/// Receives the events of one job, until dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    router: EventRouter,
    job: String,
    events: mpsc::Receiver<AttemptEvent>,
}

impl EventRouter {
    /// Passes an event to the subscriber of its job, or keeps it for a subscriber to come.
    pub(crate) fn route(&self, event: AttemptEvent) {
        let mut routes = self.routes();
        if let Some(subscriber) = routes.subscribers.get(&event.job) {
            // A full queue belongs to a subscriber that is behind, a closed one to a subscriber that is gone.
            let _ = subscriber.try_send(event);
        } else if let Some((_, early)) = routes.early.iter_mut().find(|(job, _)| *job == event.job) {
            if early.len() < EVENT_QUEUE {
                early.push(event);
            }
        } else {
            if routes.early.len() >= EARLY_JOBS {
                routes.early.pop_front();
            }
            routes.early.push_back((event.job.clone(), vec![event]));
        }
    }

    /// Subscribes to a job. Its first events are those that were routed before.
    pub(crate) fn subscribe(&self, job: &str) -> Subscription {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let mut routes = self.routes();
        let early =
            routes.early.iter().position(|(other, _)| other == job).and_then(|at| routes.early.remove(at));
        for event in early.into_iter().flat_map(|(_, events)| events) {
            let _ = sender.try_send(event);
        }
        routes.subscribers.insert(job.to_owned(), sender);
        Subscription { router: self.clone(), job: job.to_owned(), events }
    }

    /// Returns whether a job has a subscriber.
    pub(crate) fn has_subscriber(&self, job: &str) -> bool {
        self.routes().subscribers.contains_key(job)
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.0.lock()
    }
}

impl Subscription {
    /// Waits for the next event.
    pub(crate) async fn next(&mut self) -> AttemptEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The router holds the sender for as long as this subscription exists.
            None => std::future::pending().await,
        }
    }

    /// Returns the events that are queued.
    pub(crate) fn queued(&mut self) -> impl Iterator<Item = AttemptEvent> + '_ {
        std::iter::from_fn(|| self.events.try_recv().ok())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.router.routes().subscribers.remove(&self.job);
    }
}

#[cfg(test)]
mod tests {
    use spool_media::encode::events::RowEventKind;

    use super::*;

    fn event(job: &str, done_ms: i64) -> AttemptEvent {
        AttemptEvent { job: job.to_owned(), kind: RowEventKind::Progress { done_ms } }
    }

    #[tokio::test]
    async fn a_subscription_gets_the_events_of_its_job_and_those_before_it_first() {
        let router = EventRouter::default();
        router.route(event("a", 1));
        router.route(event("b", 2));
        let mut subscription = router.subscribe("a");
        router.route(event("a", 3));
        assert_eq!(subscription.next().await, event("a", 1));
        assert_eq!(subscription.queued().collect::<Vec<_>>(), [event("a", 3)]);
    }

    #[test]
    fn a_dropped_subscription_is_removed() {
        let router = EventRouter::default();
        let subscription = router.subscribe("a");
        assert!(router.has_subscriber("a") && !router.has_subscriber("b"));
        drop(subscription);
        assert!(!router.has_subscriber("a"));
    }
}
