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
    /// Starts an executor that runs its rows on `worker`. [`Executor::stopped`] returns its result.
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

    /// Waits until the executor stops. It stops by itself only if it cannot continue.
    ///
    /// # Errors
    /// Returns the failure that stopped it, unless it was drained or stopped by its owner.
    pub async fn stopped(&mut self) -> Result<(), Error> {
        let Some(sessions) = &mut self.sessions else { return Ok(()) };
        let ended = sessions.await.unwrap_or_else(|error| Err(Error::Stopped { message: error.to_string() }));
        self.sessions = None;
        ended
    }

    /// Drains the executor: it accepts no new rows, and stops when the running rows are done or the drain
    /// timeout has passed.
    pub fn drain(&self) {
        self.signals.drain.cancel();
    }

    /// Stops now, and returns once no task of the executor runs and none can start.
    pub async fn stop(mut self) {
        self.signals.stop.cancel();
        // The owner stops it, so its error is ignored.
        let _ = self.stopped().await;
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.signals.stop.cancel();
    }
}
