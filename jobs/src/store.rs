//! `JobStore`: the interface of a durable store of jobs. Every implementation passes the same conformance
//! suite.
//!
//! Each call is one atomic change, decided by conditions on stored values: a fencing token, a state, a key.
//! No transaction stays open between two calls, so a store without transactions across calls can implement it
//! too.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use spool_storage::{ErrorKind, path_policy::PathPolicy};

use crate::{Attempt, Event, EventKind, FencingToken, Id, Job, JobSpec, JobState, Phase, Result, Row, Video};

/// A job to create.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Tenant that owns the job.
    pub tenant: String,
    /// Specification of the job.
    pub spec: JobSpec,
    /// Idempotency key: a second request with it creates no second job.
    pub idempotency_key: Option<String>,
}

/// Result of [`JobStore::create`].
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The job.
    pub job: Job,
    /// Whether an earlier request with the same idempotency key created it.
    pub existed: bool,
}

/// Conditions on a list of jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs in this state.
    pub state: Option<JobState>,
    /// Only jobs that publish this video.
    pub video: Option<Id>,
}

/// One page of a list, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// Items of the page.
    pub items: Vec<T>,
    /// ID after which the next page starts; `None` on the last page.
    pub next: Option<Id>,
}

/// A dispatcher's time-limited right to a job: until it ends, no other dispatcher can lease the job.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// The job, as it was when the lease was taken.
    pub job: Job,
    /// Token under which the holder writes.
    pub fencing_token: FencingToken,
}

/// Status of a valid lease, for its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Whether a client has requested cancellation.
    pub cancel_requested: bool,
}

/// Progress of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// Rows planned.
    pub rows: i64,
    /// Rows that are done.
    pub rows_done: i64,
    /// Milliseconds of media in the rows.
    pub media_ms: i64,
    /// Milliseconds of media that are encoded.
    pub media_done_ms: i64,
}

/// Changes of a job since the last report. In a store, progress never decreases.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// New phase.
    pub phase: Option<Phase>,
    /// New progress.
    pub progress: Option<JobProgress>,
    /// Rows that changed, in their newest state.
    pub rows: Vec<Row>,
    /// Attempts that failed.
    pub attempts: Vec<Attempt>,
    /// New events.
    pub events: Vec<(EventKind, Value)>,
    /// Events of this lease that were written before these. With it, a report that is sent twice is written
    /// once.
    pub events_written: Option<i64>,
}

impl Report {
    /// Returns whether the report holds no change.
    pub fn is_empty(&self) -> bool {
        self.phase.is_none()
            && self.progress.is_none()
            && self.rows.is_empty()
            && self.attempts.is_empty()
            && self.events.is_empty()
    }
}

/// Outcome of a lease.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The job succeeded with this result.
    Published(Value),
    /// The job failed for good.
    Failed {
        /// Class of the error.
        kind: ErrorKind,
        /// Message with the fault and the remedy.
        message: String,
    },
    /// The job was stopped on a client's request.
    Canceled,
    /// The try failed, and another may succeed: the job is pending again.
    Retry {
        /// Class of the error.
        kind: ErrorKind,
        /// Message with the fault.
        message: String,
        /// Wait before the next try.
        delay: Duration,
    },
    /// The dispatcher shuts down: the job is pending again at once, and the try does not count.
    Released,
}

impl Outcome {
    /// Returns the outcome's name for logs and for the table `leases`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Published(_) => "published",
            Self::Failed { .. } => "failed",
            Self::Canceled => "canceled",
            Self::Retry { .. } => "retry",
            Self::Released => "released",
        }
    }
}

/// Gauges over the jobs and uploads of all tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs in each state.
    pub jobs: Vec<(JobState, i64)>,
    /// Time since the longest-waiting due job became due, in milliseconds.
    pub longest_wait_ms: i64,
    /// Uploads that are not complete.
    pub uploads_open: i64,
}

/// A durable store of jobs.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Creates a job and the video that it publishes. Durable once this returns.
    ///
    /// # Errors
    /// Returns [`Error::KeyUsed`](crate::Error::KeyUsed) if the idempotency key belongs to another request;
    /// [`Error::Quota`](crate::Error::Quota) if the tenant's quota of jobs is used up.
    async fn create(&self, new: &NewJob) -> Result<Created>;

    /// Returns a tenant's job.
    ///
    /// # Errors
    /// Returns [`Error::NotFound`](crate::Error::NotFound), also if another tenant owns the job.
    async fn job(&self, tenant: &str, id: &Id) -> Result<Job>;

    /// Returns at most `limit` of a tenant's jobs, newest first, after the job `after`.
    async fn jobs(
        &self,
        tenant: &str,
        filter: &JobFilter,
        after: Option<&Id>,
        limit: u32,
    ) -> Result<Page<Job>>;

    /// Returns a tenant's video.
    ///
    /// # Errors
    /// Returns [`Error::NotFound`](crate::Error::NotFound), also if another tenant owns the video.
    async fn video(&self, tenant: &str, id: &Id) -> Result<Video>;

    /// Returns at most `limit` of a tenant's videos, newest first, after the video `after`.
    async fn videos(&self, tenant: &str, after: Option<&Id>, limit: u32) -> Result<Page<Video>>;

    /// Requests cancellation. A pending job is canceled at once; a canceled one stays canceled, without an
    /// error.
    ///
    /// # Errors
    /// Returns [`Error::InvalidState`](crate::Error::InvalidState) if the job is published or has failed.
    async fn cancel(&self, tenant: &str, id: &Id) -> Result<Job>;

    /// Makes a failed or canceled job pending again, under `path_policy` if given, otherwise under its own. A
    /// pending or running job stays as it is, without an error.
    ///
    /// # Errors
    /// Returns [`Error::InvalidState`](crate::Error::InvalidState) if the job is published;
    /// [`Error::NotAllowed`](crate::Error::NotAllowed) if `path_policy` forbids its paths.
    async fn retry(&self, tenant: &str, id: &Id, path_policy: Option<&PathPolicy>) -> Result<Job>;

    /// Returns at most `limit` rows of a tenant's job, from the ordinal `first` on.
    async fn rows(&self, tenant: &str, id: &Id, first: i64, limit: u32) -> Result<Vec<Row>>;

    /// Returns at most `limit` failed attempts at the rows of a tenant's job, newest first.
    async fn attempts(&self, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Attempt>>;

    /// Returns at most `limit` events of a tenant's job, after the sequence number `after`.
    async fn events(&self, tenant: &str, id: &Id, after: i64, limit: u32) -> Result<Vec<Event>>;

    /// Returns gauges over all tenants.
    async fn counts(&self) -> Result<Counts>;

    /// Leases a job for `lease_time`: one whose lease has expired, or else the next job of the tenant with
    /// the fewest running jobs.
    async fn lease_job(&self, dispatcher: &str, lease_time: Duration) -> Result<Option<Lease>>;

    /// Returns the status of a lease, without extending it.
    ///
    /// # Errors
    /// Returns [`Error::LeaseLost`](crate::Error::LeaseLost) if the job has a newer lease, or has ended.
    async fn lease_status(&self, lease: &Lease) -> Result<LeaseStatus>;

    /// Writes a report and extends the lease to `lease_time` from now.
    ///
    /// # Errors
    /// Returns [`Error::LeaseLost`](crate::Error::LeaseLost) if the job has a newer lease, or has ended: then
    /// nothing is written.
    async fn renew_lease(&self, lease: &Lease, lease_time: Duration, report: &Report) -> Result<LeaseStatus>;

    /// Writes the last report and ends the lease.
    ///
    /// # Errors
    /// [`Error::LeaseLost`](crate::Error::LeaseLost) as for [`JobStore::renew_lease`].
    async fn finish(&self, lease: &Lease, report: &Report, outcome: &Outcome) -> Result<Job>;
}
