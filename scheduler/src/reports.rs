//! Who hears what a row says? Whoever runs the job that the row is in.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use spool_media::encode::events::RowEvent;
use tokio::sync::mpsc;

/// Events of a job that wait for its listener. RowEventKind a slow one misses is made up for by the next: they say how far a row is.
const QUEUE: usize = 256;

/// Jobs that nobody listens to whose events are kept: a row may start a moment before whoever submitted its job knows the job's name.
const EARLY_JOBS: usize = 64;

/// Events on their way from executors to whoever runs the jobs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reports(Arc<Mutex<Desk>>);

#[derive(Debug, Default)]
struct Desk {
    listeners: HashMap<String, mpsc::Sender<RowEvent>>,
    /// Oldest first.
    early: VecDeque<(String, Vec<RowEvent>)>,
}

/// Hears the events of one job, until dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    reports: Reports,
    job: String,
    events: mpsc::Receiver<RowEvent>,
}

impl Reports {
    /// Passes an event on.
    pub(crate) fn deliver(&self, job: &str, event: RowEvent) {
        let mut desk = self.desk();
        if let Some(listener) = desk.listeners.get(job) {
            // A full queue belongs to somebody who is behind, a closed one to somebody who is gone.
            let _ = listener.try_send(event);
        } else if let Some((_, early)) = desk.early.iter_mut().find(|(other, _)| other == job) {
            if early.len() < QUEUE {
                early.push(event);
            }
        } else {
            if desk.early.len() >= EARLY_JOBS {
                desk.early.pop_front();
            }
            desk.early.push_back((job.to_owned(), vec![event]));
        }
    }

    /// Listens to a job; what it said already is heard first.
    pub(crate) fn listen(&self, job: &str) -> Listener {
        let (sender, events) = mpsc::channel(QUEUE);
        let mut desk = self.desk();
        let early =
            desk.early.iter().position(|(other, _)| other == job).and_then(|at| desk.early.remove(at));
        for event in early.into_iter().flat_map(|(_, events)| events) {
            let _ = sender.try_send(event);
        }
        desk.listeners.insert(job.to_owned(), sender);
        Listener { reports: self.clone(), job: job.to_owned(), events }
    }

    /// Does anybody listen to a job?
    pub(crate) fn is_heard(&self, job: &str) -> bool {
        self.desk().listeners.contains_key(job)
    }

    fn desk(&self) -> std::sync::MutexGuard<'_, Desk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Waits for the next event.
    pub(crate) async fn next(&mut self) -> RowEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The sender is at the desk for as long as we listen.
            None => std::future::pending().await,
        }
    }

    /// RowEventKind was said and not yet heard.
    pub(crate) fn rest(&mut self) -> impl Iterator<Item = RowEvent> + '_ {
        std::iter::from_fn(|| self.events.try_recv().ok())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.reports.desk().listeners.remove(&self.job);
    }
}
