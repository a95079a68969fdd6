//! `JobRun`: one leased job. Runs it, reports its progress and renews its lease; stops when the lease may be
//! lost.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::Value;
use spool_storage::{Backoff, ErrorKind};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    progress_tracker::ProgressTracker,
    settings::{DispatcherSettings, store_backoff},
};
use crate::{Error, Failure, JobBackend, JobStore, Lease, LeaseStatus, Outcome, Report};

/// Time limit for a backend to stop a canceled run; then the run is abandoned.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A lease is renewed once this fraction of it, 1/3, has passed.
const RENEWAL_FRACTION: u32 = 3;

/// The run of one leased job.
pub(super) struct JobRun {
    pub(super) store: Arc<dyn JobStore>,
    pub(super) backend: Arc<dyn JobBackend>,
    pub(super) settings: DispatcherSettings,
    pub(super) lease: Lease,
    /// Fires when the dispatcher shuts down.
    pub(super) shutdown: CancellationToken,
    /// Time until which no other dispatcher can lease the job, by this process's clock.
    pub(super) leased_until: Instant,
    /// Reports that are not confirmed yet.
    pub(super) unwritten: Vec<Report>,
    /// Number of events that are confirmed.
    pub(super) events_written: i64,
}

/// Reason to stop a run before its end.
enum Stop {
    /// A client requested cancellation.
    Canceled,
    /// The dispatcher shuts down.
    Shutdown,
    /// Another dispatcher has the job's lease, or may have it.
    LeaseLost,
}

/// The backend's call in a task of its own, so that a slow store does not delay it. Dropping it stops the
/// call.
struct BackendTask {
    task: JoinHandle<Result<Value, Failure>>,
    cancel: CancellationToken,
}

impl Drop for BackendTask {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.task.abort();
    }
}

impl JobRun {
    /// Runs the job to its outcome and writes the outcome, unless the lease is lost.
    pub(super) async fn execute(mut self) {
        let (job, fencing_token) = (self.lease.job.id.clone(), self.lease.fencing_token);
        info!(%job, %fencing_token, tries = self.lease.job.tries, "job leased");
        let tracker = Arc::new(Mutex::new(ProgressTracker::new(self.lease.job.percent())));
        let outcome = match self.outcome_without_run() {
            Some(outcome) => outcome,
            None => match self.run(&tracker).await {
                Some(outcome) => outcome,
                None => {
                    warn!(%job, %fencing_token, "lease lost: another dispatcher may hold the job");
                    return;
                }
            },
        };
        self.unwritten.push(tracker.lock().report());
        let report = self.merged_report();
        match self.finish(&report, &outcome).await {
            Ok(()) => info!(%job, %fencing_token, outcome = outcome.name(), "lease ended"),
            Err(error) => {
                warn!(
                    %job, %fencing_token, %error,
                    "failed to write the outcome; another dispatcher takes the job over"
                )
            }
        }
    }

    /// Returns the outcome of a job that must not run: canceled, or started too often without an end.
    fn outcome_without_run(&self) -> Option<Outcome> {
        let job = &self.lease.job;
        if job.cancel_requested {
            return Some(Outcome::Canceled);
        }
        let begun = job.tries - 1;
        (begun >= i64::from(self.settings.tries)).then(|| Outcome::Failed {
            kind: ErrorKind::Transient,
            message: format!(
                "the job was started {begun} times and never ended: its dispatcher died or was stopped each \
                 time; see the scheduler's log for the job, then retry it"
            ),
        })
    }

    /// Runs the job. `None`: the lease is lost.
    async fn run(&mut self, tracker: &Arc<Mutex<ProgressTracker>>) -> Option<Outcome> {
        let mut run = self.start(tracker);
        let stop = match self.report_until_end(&mut run, tracker).await {
            Ok(ended) => return Some(self.outcome(ended)),
            Err(stop) => stop,
        };
        run.cancel.cancel();
        match timeout(STOP_TIMEOUT, &mut run.task).await {
            // The run succeeded before the cancellation reached it.
            Ok(Ok(Ok(result))) => return Some(Outcome::Published(result)),
            Ok(_) => {}
            Err(_) => warn!(job = %self.lease.job.id, "the backend did not stop the job in time; abandoned"),
        }
        match stop {
            Stop::Canceled => Some(Outcome::Canceled),
            Stop::Shutdown => Some(Outcome::Released),
            Stop::LeaseLost => None,
        }
    }

    fn start(&self, tracker: &Arc<Mutex<ProgressTracker>>) -> BackendTask {
        let (backend, job, tracker) = (self.backend.clone(), self.lease.job.clone(), tracker.clone());
        let cancel = CancellationToken::new();
        let canceled = cancel.clone();
        let task = tokio::spawn(async move {
            backend.run(&job, &canceled, &|event| tracker.lock().on_event(&event)).await
        });
        BackendTask { task, cancel }
    }

    /// Writes reports and renews the lease, until the run ends or must be stopped.
    async fn report_until_end(
        &mut self,
        run: &mut BackendTask,
        tracker: &Mutex<ProgressTracker>,
    ) -> Result<Result<Value, Failure>, Stop> {
        let mut tick = interval(self.settings.report_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                ended = &mut run.task => {
                    let crashed = |error| Failure {
                        kind: ErrorKind::Bug,
                        message: format!("the run crashed: {error}"),
                        retryable: true,
                    };
                    return Ok(ended.map_err(crashed).flatten());
                }
                () = self.shutdown.cancelled() => return Err(Stop::Shutdown),
                _ = tick.tick() => {}
            }
            // Outside the select, which would drop a half-sent report: a report is kept until it is
            // confirmed.
            self.unwritten.push(tracker.lock().report());
            match self.write_report().await {
                Ok(LeaseStatus { cancel_requested: true }) => return Err(Stop::Canceled),
                Ok(_) => {}
                Err(Error::LeaseLost { .. }) => return Err(Stop::LeaseLost),
                Err(error) => {
                    warn!(job = %self.lease.job.id, %error, "failed to write the progress of a job")
                }
            }
            if Instant::now() >= self.leased_until {
                return Err(Stop::LeaseLost);
            }
        }
    }

    /// Writes the pending reports. If there are none and the lease needs no renewal, only reads the lease's
    /// status.
    async fn write_report(&mut self) -> Result<LeaseStatus, Error> {
        let report = self.merged_report();
        let lease_time = self.settings.lease_time;
        let is_fresh = Instant::now() + lease_time - lease_time / RENEWAL_FRACTION < self.leased_until;
        if report.is_empty() && is_fresh {
            return self.while_leased(self.store.lease_status(&self.lease)).await;
        }
        let called = Instant::now();
        let status = self.while_leased(self.store.renew_lease(&self.lease, lease_time, &report)).await;
        match &status {
            Ok(_) => {
                self.leased_until = called + lease_time;
                self.events_written += i64::try_from(report.events.len()).unwrap_or_default();
            }
            // The store may have written it: it is sent again, and `events_written` keeps its events from
            // doubling.
            Err(_) => self.unwritten.push(report),
        }
        status
    }

    /// Returns all unwritten reports as one.
    fn merged_report(&mut self) -> Report {
        Report { events_written: Some(self.events_written), ..merged(&mut self.unwritten) }
    }

    /// Limits a call of the store to the duration of the lease.
    async fn while_leased<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let lost = Error::LeaseLost {
            what: "job",
            id: self.lease.job.id.clone(),
            fencing_token: self.lease.fencing_token,
        };
        timeout_at(self.leased_until, call).await.unwrap_or(Err(lost))
    }

    /// Returns the job's outcome for the end of a run.
    fn outcome(&self, ended: Result<Value, Failure>) -> Outcome {
        let Failure { kind, message, retryable } = match ended {
            Ok(result) => return Outcome::Published(result),
            Err(failure) => failure,
        };
        if !retryable {
            return Outcome::Failed { kind, message };
        }
        let tries = u32::try_from(self.lease.job.tries).unwrap_or(u32::MAX);
        if tries >= self.settings.tries {
            return Outcome::Failed { kind, message: format!("{message} (the job was tried {tries} times)") };
        }
        let DispatcherSettings { retry_delay, max_retry_delay, .. } = self.settings;
        let delay = Backoff::delay_after(retry_delay, max_retry_delay, tries as usize);
        debug!(job = %self.lease.job.id, message, delay_ms = delay.as_millis() as u64, "job will be retried");
        Outcome::Retry { kind, message, delay }
    }

    /// Writes the outcome, with retries while the lease is valid.
    async fn finish(&self, report: &Report, outcome: &Outcome) -> Result<(), Error> {
        let mut backoff = store_backoff();
        loop {
            match self.while_leased(self.store.finish(&self.lease, report, outcome)).await {
                Ok(_) => return Ok(()),
                Err(Error::Database { .. }) if Instant::now() < self.leased_until => {
                    sleep(backoff.delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Merges reports into one: the newest state of each row, and all attempts and events.
fn merged(reports: &mut Vec<Report>) -> Report {
    let mut merged = Report::default();
    for report in reports.drain(..) {
        merged.phase = report.phase.or(merged.phase);
        merged.progress = report.progress.or(merged.progress);
        merged.rows.retain(|row| report.rows.iter().all(|newer| newer.ordinal != row.ordinal));
        merged.rows.extend(report.rows);
        merged.attempts.extend(report.attempts);
        merged.events.extend(report.events);
    }
    merged
}
