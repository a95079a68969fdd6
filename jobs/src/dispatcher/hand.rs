//! How is one job worked off? Run beside a watch on its lease: whoever cannot be sure any more that the job is its own lets go of it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::BackoffBuilder;
use serde_json::Value;
use spool_storage::ErrorKind;
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Settings, ear::Ear, is_away, store_again};
use crate::{Claim, Cluster, Ending, Error, Failure, Report, Standing, Store};

/// How long a run that was told to stop may take; then it is left alone.
const STOP: Duration = Duration::from_secs(10);

/// A lease is made longer when this share of it is over.
const RENEW_SHARE: u32 = 3;

/// A dispatcher's hold on one job.
pub(super) struct Hand {
    pub(super) store: Arc<dyn Store>,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) settings: Settings,
    pub(super) claim: Claim,
    /// Fires when the dispatcher leaves.
    pub(super) leave: CancellationToken,
    /// Until then nobody else can have the job, by this process's own clock.
    pub(super) held_until: Instant,
    /// What was heard and is not known to be written down.
    pub(super) unsaid: Vec<Report>,
    /// How many events are known to be.
    pub(super) told: i64,
}

/// Why a run is stopped before its end.
enum Stop {
    /// Somebody asked for it.
    Canceled,
    /// The dispatcher leaves.
    Leaving,
    /// Somebody else has the job, or may have it.
    Lost,
}

/// A run in a task of its own, so that a slow store does not keep it from going on. It stops when dropped.
struct Run {
    task: JoinHandle<Result<Value, Failure>>,
    cancel: CancellationToken,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.task.abort();
    }
}

impl Hand {
    pub(super) async fn work(mut self) {
        let (job, fence) = (self.claim.job.id.clone(), self.claim.fence);
        info!(%job, fence, tries = self.claim.job.tries, "job taken in hand");
        let ear = Arc::new(Mutex::new(Ear::new(self.claim.job.percent())));
        let ending = match self.refused() {
            Some(ending) => ending,
            None => match self.run(&ear).await {
                Some(ending) => ending,
                None => {
                    warn!(%job, fence, "job lost: another dispatcher has it, or may have it");
                    return;
                }
            },
        };
        self.unsaid.push(locked(&ear).report());
        let report = self.merged_report();
        match self.end(&report, &ending).await {
            Ok(()) => info!(%job, fence, ending = word(&ending), "job let go"),
            Err(error) => {
                warn!(%job, fence, %error, "how the job ended could not be written down: it is taken over")
            }
        }
    }

    /// What is not even begun.
    fn refused(&self) -> Option<Ending> {
        let job = &self.claim.job;
        if job.cancel_requested {
            return Some(Ending::Canceled);
        }
        let begun = job.tries - 1;
        (begun >= i64::from(self.settings.tries)).then(|| Ending::Failed {
            kind: ErrorKind::Transient,
            message: format!(
                "it was begun {begun} times and never ended: whoever had it in hand died or was stopped each time. See what the \
                 schedulers say of it, and then retry it"
            ),
        })
    }

    /// Runs the job; `None` where it is not this dispatcher's any more.
    async fn run(&mut self, ear: &Arc<Mutex<Ear>>) -> Option<Ending> {
        let mut run = self.start(ear);
        let stop = match self.watch(&mut run, ear).await {
            Ok(ended) => return Some(self.ending(ended)),
            Err(stop) => stop,
        };
        run.cancel.cancel();
        match timeout(STOP, &mut run.task).await {
            // It was faster.
            Ok(Ok(Ok(result))) => return Some(Ending::Published(result)),
            Ok(_) => {}
            Err(_) => warn!(job = %self.claim.job.id, "the cluster did not stop a job in time"),
        }
        match stop {
            Stop::Canceled => Some(Ending::Canceled),
            Stop::Leaving => Some(Ending::Released),
            Stop::Lost => None,
        }
    }

    fn start(&self, ear: &Arc<Mutex<Ear>>) -> Run {
        let (cluster, job, ear) = (self.cluster.clone(), self.claim.job.clone(), ear.clone());
        let cancel = CancellationToken::new();
        let canceled = cancel.clone();
        let task =
            tokio::spawn(
                async move { cluster.run(&job, &canceled, &|event| locked(&ear).hear(&event)).await },
            );
        Run { task, cancel }
    }

    /// Writes down what is heard and keeps the lease, until the run ends or has to be stopped.
    async fn watch(&mut self, run: &mut Run, ear: &Mutex<Ear>) -> Result<Result<Value, Failure>, Stop> {
        let mut tick = interval(self.settings.report);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                ended = &mut run.task => {
                    let nothing = |error| Failure { kind: ErrorKind::Bug, message: format!("the run broke off: {error}"), passes: true };
                    return Ok(ended.map_err(nothing).flatten());
                }
                () = self.leave.cancelled() => return Err(Stop::Leaving),
                _ = tick.tick() => {}
            }
            // Not left half-way: what was heard is kept until it is known to be written.
            self.unsaid.push(locked(ear).report());
            match self.tell().await {
                Ok(Standing { cancel_requested: true }) => return Err(Stop::Canceled),
                Ok(_) => {}
                Err(Error::Lost { .. }) => return Err(Stop::Lost),
                Err(error) => {
                    warn!(job = %self.claim.job.id, %error, "what happens to a job cannot be written down")
                }
            }
            if Instant::now() >= self.held_until {
                return Err(Stop::Lost);
            }
        }
    }

    /// Writes down what was not yet, or looks how the claim stands where there is nothing to write and the lease is young.
    async fn tell(&mut self) -> Result<Standing, Error> {
        let report = self.merged_report();
        let young =
            Instant::now() + self.settings.lease - self.settings.lease / RENEW_SHARE < self.held_until;
        if report.is_empty() && young {
            return self.until_lost(self.store.standing(&self.claim)).await;
        }
        let asked = Instant::now();
        let standing = self.until_lost(self.store.report(&self.claim, self.settings.lease, &report)).await;
        match &standing {
            Ok(_) => {
                self.held_until = asked + self.settings.lease;
                self.told += i64::try_from(report.events.len()).unwrap_or_default();
            }
            // Whether it was written is not known: it is sent again, and written down once.
            Err(_) => self.unsaid.push(report),
        }
        standing
    }

    /// What is not known to be written down, as one report.
    fn merged_report(&mut self) -> Report {
        Report { told: Some(self.told), ..merged(&mut self.unsaid) }
    }

    /// A store that does not answer does not keep anybody beyond the lease.
    async fn until_lost<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let lost = Error::Lost { what: "job", id: self.claim.job.id.clone(), fence: self.claim.fence };
        timeout_at(self.held_until, call).await.unwrap_or(Err(lost))
    }

    /// What a run's end means for its job.
    fn ending(&self, ended: Result<Value, Failure>) -> Ending {
        let failure = match ended {
            Ok(result) => return Ending::Published(result),
            Err(failure) => failure,
        };
        let Failure { kind, message, passes } = failure;
        if !passes {
            return Ending::Failed { kind, message };
        }
        let tries = u32::try_from(self.claim.job.tries).unwrap_or(u32::MAX);
        if tries >= self.settings.tries {
            return Ending::Failed { kind, message: format!("{message} (the job was tried {tries} times)") };
        }
        let (first, most) = self.settings.again;
        let mut waits = backon::ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(most)
            .with_max_times(self.settings.tries as usize)
            .with_jitter()
            .build();
        let after = waits.nth(tries.saturating_sub(1) as usize).unwrap_or(most);
        debug!(job = %self.claim.job.id, message, after_ms = after.as_millis() as u64, "a job is tried again");
        Ending::Again { kind, message, after }
    }

    /// Writes down how it ended, as long as the job may be this dispatcher's.
    async fn end(&self, report: &Report, ending: &Ending) -> Result<(), Error> {
        let mut waits = store_again();
        loop {
            match self.until_lost(self.store.end(&self.claim, report, ending)).await {
                Ok(_) => return Ok(()),
                Err(error) if is_away(&error) && Instant::now() < self.held_until => {
                    sleep(waits.next().unwrap_or(super::STORE_AGAIN_MOST)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Several reports as one: the last word on each row, and every event.
fn merged(reports: &mut Vec<Report>) -> Report {
    let mut merged = Report::default();
    for report in reports.drain(..) {
        merged.phase = report.phase.or(merged.phase);
        merged.progress = report.progress.or(merged.progress);
        merged.rows.retain(|row| report.rows.iter().all(|newer| newer.number != row.number));
        merged.rows.extend(report.rows);
        merged.attempts.extend(report.attempts);
        merged.events.extend(report.events);
    }
    merged
}

fn word(ending: &Ending) -> &'static str {
    match ending {
        Ending::Published(_) => "published",
        Ending::Failed { .. } => "failed",
        Ending::Canceled => "canceled",
        Ending::Again { .. } => "tried again",
        Ending::Released => "released",
    }
}

fn locked(ear: &Mutex<Ear>) -> MutexGuard<'_, Ear> {
    ear.lock().unwrap_or_else(PoisonError::into_inner)
}
