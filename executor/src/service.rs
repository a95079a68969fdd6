//! How is an executor started and stopped?

use std::{path::PathBuf, sync::Arc};

use spool_media::encode::worker::Worker;
use tokio::{sync::watch, task::JoinHandle};

use crate::membership::{self, Orders, Settings, Standing};

/// A running executor. It stops when dropped; [`Executor::stop`] also waits until it has.
pub struct Executor {
    /// Nothing once its end was told.
    life: Option<JoinHandle<Result<(), Error>>>,
    orders: Orders,
    standing: watch::Receiver<Standing>,
}

/// Why an executor does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scheduler cannot be reached, or is gone. It is tried again.
    #[error("cannot reach the scheduler at {scheduler}: {why}")]
    Unreachable {
        /// `HOST:PORT`.
        scheduler: String,
        /// What is known.
        why: String,
    },
    /// The scheduler does not want this executor.
    #[error("the scheduler at {scheduler} refuses this executor: {why}")]
    Refused {
        /// `HOST:PORT`.
        scheduler: String,
        /// What the scheduler says.
        why: String,
    },
    /// This machine cannot encode.
    #[error(transparent)]
    Machine(#[from] spool_media::Error),
    /// No port was free.
    #[error("no free port for the executor: {0}")]
    Port(#[source] std::io::Error),
    /// The engine's own folder cannot be made.
    #[error("cannot make {path}: {source}; name another scratch folder with --scratch or SPOOL_SCRATCH")]
    WorkFolder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The functions could not be registered: a defect.
    #[error("cannot set up the executor's functions: {0}")]
    Functions(#[source] datafusion::error::DataFusionError),
    /// Probes cannot be answered.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Ballista's executor stopped.
    #[error("the executor stopped: {message}")]
    Stopped {
        /// What it says.
        message: String,
    },
}

impl Error {
    /// Is it of no use to try again?
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Machine(_) | Self::Functions(_) | Self::Listen { .. } => true,
            // A full disk may have space again, and a port that was taken away is another one the next time.
            Self::Unreachable { .. } | Self::Port(_) | Self::WorkFolder { .. } | Self::Stopped { .. } => {
                false
            }
        }
    }
}

impl Executor {
    /// Starts an executor that runs its rows on `machine`. What becomes of it shows in [`Executor::stopped`].
    pub fn start(settings: Settings, worker: Arc<Worker>) -> Self {
        let orders = Orders::default();
        let (sender, standing) = watch::channel(Standing::Away);
        let life = tokio::spawn(membership::run(settings, worker, orders.clone(), sender));
        Self { life: Some(life), orders, standing }
    }

    /// How it stands, now and later.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Waits until the executor stops, which it does by itself only when it is of no use to go on.
    ///
    /// # Errors
    /// Why it stopped, unless it was told to.
    pub async fn stopped(&mut self) -> Result<(), Error> {
        let Some(life) = &mut self.life else { return Ok(()) };
        let ended = life.await.unwrap_or_else(|error| Err(Error::Stopped { message: error.to_string() }));
        self.life = None;
        ended
    }

    /// Tells it to take nothing new, and to stop when what is in hand is done or its grace is over.
    pub fn drain(&self) {
        self.orders.drain.cancel();
    }

    /// Stops now, and returns once none of its tasks runs any more and none can begin.
    pub async fn stop(mut self) {
        self.orders.quit.cancel();
        // It was told to; whatever else it has to say comes too late.
        let _ = self.stopped().await;
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.orders.quit.cancel();
    }
}
