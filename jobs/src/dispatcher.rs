//! `Dispatcher`: leases due jobs, a few at a time, and runs them on a backend. All other jobs wait in the
//! store.

mod job_run;
mod progress_tracker;
mod settings;

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{JobBackend, JobStore, Lease};
use job_run::JobRun;
use settings::store_backoff;

pub use settings::DispatcherSettings;

/// Time limit for the running jobs to stop and to be recorded at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the jobs of a store. Several dispatchers can share one store, on one host or on many.
pub struct Dispatcher {
    store: Arc<dyn JobStore>,
    backend: Arc<dyn JobBackend>,
    settings: DispatcherSettings,
}

impl Dispatcher {
    /// Returns a dispatcher, which does nothing until [`Dispatcher::run`] is called.
    pub fn new(store: Arc<dyn JobStore>, backend: Arc<dyn JobBackend>, settings: DispatcherSettings) -> Self {
        Self { store, backend, settings }
    }

    /// Runs jobs until `shutdown` fires; then releases the leases, so that other dispatchers take the jobs
    /// over at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut runs = JoinSet::new();
        let mut poll_at = Instant::now();
        let mut backoff = store_backoff();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = runs.join_next(), if !runs.is_empty() => poll_at = Instant::now(),
                () = sleep_until(poll_at), if runs.len() < self.settings.max_concurrent_jobs => {
                    // Computed before the call: by this process's clock the lease ends no later than by the
                    // store's.
                    let leased_until = Instant::now() + self.settings.lease_time;
                    match self.store.lease_job(&self.settings.name, self.settings.lease_time).await {
                        Ok(Some(lease)) => {
                            backoff.reset();
                            runs.spawn(self.job_run(lease, leased_until, shutdown.clone()).execute());
                        }
                        Ok(None) => {
                            backoff.reset();
                            poll_at = Instant::now() + self.settings.poll_interval;
                        }
                        Err(error) => {
                            let wait = backoff.delay();
                            warn!(%error, wait_ms = wait.as_millis() as u64, "failed to lease a job");
                            poll_at = Instant::now() + wait;
                        }
                    }
                }
            }
        }
        info!(dispatcher = self.settings.name, jobs = runs.len(), "dispatcher shuts down");
        let all = async { while runs.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_TIMEOUT, all).await.is_err() {
            warn!(
                dispatcher = self.settings.name,
                "dispatcher shut down with leased jobs; other dispatchers take them over when the leases end"
            );
        }
    }

    fn job_run(&self, lease: Lease, leased_until: Instant, shutdown: CancellationToken) -> JobRun {
        JobRun {
            store: self.store.clone(),
            backend: self.backend.clone(),
            settings: self.settings.clone(),
            lease,
            shutdown,
            leased_until,
            unwritten: Vec::new(),
            events_written: 0,
        }
    }
}
