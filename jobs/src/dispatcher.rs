//! Who works the jobs off? Takes them in hand a few at a time, has a cluster run them, and writes down what happens; whatever waits, waits
//! in the store.

mod ear;
mod hand;

use std::{sync::Arc, time::Duration};

use backon::BackoffBuilder;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Claim, Cluster, Error, Store};
use hand::Hand;

/// The wait before a store that fails is asked again, at first and at most.
const STORE_AGAIN_FIRST: Duration = Duration::from_millis(250);
const STORE_AGAIN_MOST: Duration = Duration::from_secs(10);

/// How long what was told to stop may take to be written down.
const LEAVE: Duration = Duration::from_secs(30);

/// How a dispatcher works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name, which no other dispatcher of the store has.
    pub name: String,
    /// Jobs that it has in hand at a time.
    pub active: usize,
    /// How long a job stays its own without a word of it: as long as others wait before they take over from it where it died.
    pub lease: Duration,
    /// How often it looks for a job where there is none.
    pub poll: Duration,
    /// How often it writes down what happened, and looks whether a job is to be stopped.
    pub report: Duration,
    /// How often a job is begun before it is given up.
    pub tries: u32,
    /// The wait before a job that failed is tried again, at first and at most; it doubles in between.
    pub again: (Duration, Duration),
}

impl Settings {
    /// What suits a cluster.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            active: 16,
            lease: Duration::from_secs(15),
            poll: Duration::from_millis(250),
            report: Duration::from_millis(500),
            tries: 5,
            again: (Duration::from_secs(2), Duration::from_secs(300)),
        }
    }
}

/// Works a store's jobs off. Several do so side by side, on one machine or on many.
pub struct Dispatcher {
    store: Arc<dyn Store>,
    cluster: Arc<dyn Cluster>,
    settings: Settings,
}

impl Dispatcher {
    /// A dispatcher that has yet to run.
    pub fn new(store: Arc<dyn Store>, cluster: Arc<dyn Cluster>, settings: Settings) -> Self {
        Self { store, cluster, settings }
    }

    /// Works until told to leave; then gives what it has in hand back to the store, where others find it at once.
    pub async fn run(self, leave: CancellationToken) {
        let mut hands = JoinSet::new();
        let mut look_at = Instant::now();
        let mut waits = None;
        loop {
            tokio::select! {
                biased;
                () = leave.cancelled() => break,
                Some(_) = hands.join_next(), if !hands.is_empty() => look_at = Instant::now(),
                () = sleep_until(look_at), if hands.len() < self.settings.active => {
                    // From before it is asked for: by this process's clock the lease does not end later than by the store's.
                    let held_until = Instant::now() + self.settings.lease;
                    match self.store.claim(&self.settings.name, self.settings.lease).await {
                        Ok(Some(claim)) => {
                            waits = None;
                            hands.spawn(self.hand(claim, held_until, leave.clone()).work());
                        }
                        Ok(None) => {
                            waits = None;
                            look_at = Instant::now() + self.settings.poll;
                        }
                        Err(error) => {
                            let wait = waits.get_or_insert_with(store_again).next().unwrap_or(STORE_AGAIN_MOST);
                            warn!(%error, wait_ms = wait.as_millis() as u64, "no jobs can be taken from the store");
                            look_at = Instant::now() + wait;
                        }
                    }
                }
            }
        }
        info!(dispatcher = self.settings.name, jobs = hands.len(), "leaving");
        let all = async { while hands.join_next().await.is_some() {} };
        if timeout(LEAVE, all).await.is_err() {
            warn!(
                dispatcher = self.settings.name,
                "left with jobs in hand: others take them over when their leases end"
            );
        }
    }

    fn hand(&self, claim: Claim, held_until: Instant, leave: CancellationToken) -> Hand {
        Hand {
            store: self.store.clone(),
            cluster: self.cluster.clone(),
            settings: self.settings.clone(),
            claim,
            leave,
            held_until,
            unsaid: Vec::new(),
            told: 0,
        }
    }
}

/// Waits between two calls of a store that fails: several dispatchers must not all come back at once.
fn store_again() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::new()
        .with_min_delay(STORE_AGAIN_FIRST)
        .with_max_delay(STORE_AGAIN_MOST)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Does trying again help?
fn is_away(error: &Error) -> bool {
    matches!(error, Error::Database { .. })
}
