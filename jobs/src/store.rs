//! What has a store of jobs to promise? Every backend promises the same, and passes the same tests.
//!
//! Each call is one atomic change, decided by conditions on what is there: a claim's number, a state, a key. Nothing is held open between
//! two calls, so that a store without transactions across them can keep this promise too.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use spool_storage::{ErrorKind, path_policy::PathPolicy};

use crate::{Attempt, Event, Id, Job, Kind, Order, Phase, Result, Row, State, Video};

/// A job to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Whose it is.
    pub tenant: String,
    /// What it is to do.
    pub order: Order,
    /// Stands for this request: sent again, it makes no second job.
    pub key: Option<String>,
}

/// The job that a request stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The job.
    pub job: Job,
    /// Was it there already?
    pub existed: bool,
}

/// Which jobs of a tenant are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those in this state; all unless given.
    pub state: Option<State>,
    /// Those that make this video.
    pub video: Option<Id>,
}

/// A piece of a list, the newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// What to go on behind, if there is more.
    pub next: Option<Id>,
}

/// A job in a dispatcher's hand: until the lease ends it is nobody else's.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The job, as it was when it was claimed.
    pub job: Job,
    /// The claim's number: higher than that of every claim before.
    pub fence: i64,
}

/// How a claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Has somebody asked to stop the job?
    pub cancel_requested: bool,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Its rows.
    pub rows: i64,
    /// Rows that are done.
    pub rows_done: i64,
    /// Milliseconds of media in its rows.
    pub media_ms: i64,
    /// Milliseconds of media that are done.
    pub media_done_ms: i64,
}

/// What happened to a job since the last report. A store never lets progress go back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// What is done with it.
    pub phase: Option<Phase>,
    /// How far it is, where that changed.
    pub progress: Option<Progress>,
    /// Rows that changed, as they are now.
    pub rows: Vec<Row>,
    /// Attempts that did not give a part.
    pub attempts: Vec<Attempt>,
    /// What is worth an event.
    pub events: Vec<(Kind, Value)>,
    /// How many events of this claim were told before these. Where that is said, what is sent again is written down once.
    pub told: Option<i64>,
}

impl Report {
    /// Is there nothing to say?
    pub fn is_empty(&self) -> bool {
        self.phase.is_none()
            && self.progress.is_none()
            && self.rows.is_empty()
            && self.attempts.is_empty()
            && self.events.is_empty()
    }
}

/// How a claim ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The job is done, with what publishing returned.
    Published(Value),
    /// It failed.
    Failed {
        /// What it means.
        kind: ErrorKind,
        /// What happened, and what to do.
        message: String,
    },
    /// It was stopped, since somebody asked for it.
    Canceled,
    /// It failed in a way that may pass, and is tried again.
    Again {
        /// What it means.
        kind: ErrorKind,
        /// What happened.
        message: String,
        /// When it is tried again.
        after: Duration,
    },
    /// Its dispatcher leaves: somebody else goes on at once, and it was no try.
    Released,
}

/// How the jobs of all tenants stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many are in each state.
    pub jobs: Vec<(State, i64)>,
    /// How long the one waits that is due for longest, in milliseconds.
    pub longest_wait_ms: i64,
    /// Uploads that more may come of.
    pub uploads_open: i64,
}

/// A durable store of jobs.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes a job, and the video that it makes. What it returns survives whatever dies next.
    ///
    /// # Errors
    /// [`Error::KeyUsed`](crate::Error::KeyUsed) where the key stands for another request.
    async fn create(&self, new: &NewJob) -> Result<Created>;

    /// A tenant's job.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) also where it is another tenant's.
    async fn job(&self, tenant: &str, id: &Id) -> Result<Job>;

    /// A tenant's jobs, the newest first, at most `limit`, behind a job.
    async fn jobs(&self, tenant: &str, filter: &Filter, behind: Option<&Id>, limit: u32)
    -> Result<Page<Job>>;

    /// A tenant's video.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) also where it is another tenant's.
    async fn video(&self, tenant: &str, id: &Id) -> Result<Video>;

    /// A tenant's videos, the newest first, at most `limit`, behind a video.
    async fn videos(&self, tenant: &str, behind: Option<&Id>, limit: u32) -> Result<Page<Video>>;

    /// Asks to stop a job. One that nobody has in hand is canceled at once; one that was is no error.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) where it ended in another way.
    async fn cancel(&self, tenant: &str, id: &Id) -> Result<Job>;

    /// Has a job that failed or was canceled tried again, within these places if any are given, and else those of before. One that waits or runs
    /// is no error.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) where it is published; [`Error::NotAllowed`](crate::Error::NotAllowed) where it lies outside of
    /// the places.
    async fn retry(&self, tenant: &str, id: &Id, confines: Option<&PathPolicy>) -> Result<Job>;

    /// A tenant's job's rows, at most `limit`, from a number on.
    async fn rows(&self, tenant: &str, id: &Id, from: i64, limit: u32) -> Result<Vec<Row>>;

    /// The attempts at a tenant's job's rows that gave no part, the newest first, at most `limit`.
    async fn attempts(&self, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Attempt>>;

    /// What happened to a tenant's job behind an event, at most `limit`.
    async fn events(&self, tenant: &str, id: &Id, behind: i64, limit: u32) -> Result<Vec<Event>>;

    /// How the jobs of all tenants stand.
    async fn counts(&self) -> Result<Counts>;

    /// Takes a job in hand for the time of a lease: one whose lease ended, or else the next of the tenant that has the fewest in hand.
    async fn claim(&self, dispatcher: &str, lease: Duration) -> Result<Option<Claim>>;

    /// How a claim stands, without making it longer.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost) where it is not the job's last, or the job has ended.
    async fn standing(&self, claim: &Claim) -> Result<Standing>;

    /// Writes down what happened, and makes the claim's lease as long as it was at first, from now on.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost) where it is not the job's last, or the job has ended: nothing is written then.
    async fn report(&self, claim: &Claim, lease: Duration, report: &Report) -> Result<Standing>;

    /// Writes down what happened last, and ends the claim.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost) as for [`Store::report`].
    async fn end(&self, claim: &Claim, report: &Report, ending: &Ending) -> Result<Job>;
}
