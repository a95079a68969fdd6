//! Executor handle: starts, drains and stops an executor.

use std::sync::Arc;

use spool_media::encode::worker::Worker;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    error::Error,
    session::{self, SessionState, ShutdownSignals},
    settings::Settings,
};

/// A running executor. It stops when dropped; [`Executor::stop`] also waits until it has.
pub struct Executor {
    /// `None` once [`Executor::stopped`] has returned its result.
    sessions: Option<JoinHandle<Result<(), Error>>>,
    signals: ShutdownSignals,
    state: watch::Receiver<SessionState>,
}

impl Executor {
    /// Starts an executor that runs its rows on `machine`. [`Executor::stopped`] returns how it ends.
    pub fn start(settings: Settings, worker: Arc<Worker>) -> Self {
        let signals = ShutdownSignals::default();
        let (sender, state) = watch::channel(SessionState::Connecting);
        let sessions = tokio::spawn(session::run_sessions(settings, worker, signals.clone(), sender));
        Self { sessions: Some(sessions), signals, state }
    }

    /// Returns a receiver of the session's state.
    pub fn session_state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    /// Waits until the executor stops, which it does by itself only if going on is of no use.
    ///
    /// # Errors
    /// Why it stopped, unless it was drained or stopped by its owner.
    pub async fn stopped(&mut self) -> Result<(), Error> {
        let Some(sessions) = &mut self.sessions else { return Ok(()) };
        let ended = sessions.await.unwrap_or_else(|error| Err(Error::Stopped { message: error.to_string() }));
        self.sessions = None;
        ended
    }

    /// Drains the executor: it accepts no new rows, and stops when those that run are done or the drain
    /// timeout is over.
    pub fn drain(&self) {
        self.signals.drain.cancel();
    }

    /// Stops now, and returns once no task of the executor runs and none can begin.
    pub async fn stop(mut self) {
        self.signals.stop.cancel();
        // An error that it ends with is of no use any more: its owner stops it.
        let _ = self.stopped().await;
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.signals.stop.cancel();
    }
}
