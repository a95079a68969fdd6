//! `JobStore` for `SqlStore`: each call within its deadline.

use std::time::Duration;

use async_trait::async_trait;
use spool_storage::path_policy::PathPolicy;

use super::{
    job_leases, jobs,
    pool::{SqlStore, with_deadline},
    read,
};
use crate::{
    Attempt, Counts, Created, Event, Id, Job, JobFilter, JobStore, Lease, LeaseStatus, NewJob, Outcome, Page,
    Report, Result, Row, Video,
};

#[async_trait]
impl JobStore for SqlStore {
    async fn create(&self, new: &NewJob) -> Result<Created> {
        with_deadline(jobs::create(self, new)).await
    }

    async fn job(&self, tenant: &str, id: &Id) -> Result<Job> {
        with_deadline(read::job(self, tenant, id)).await
    }

    async fn jobs(
        &self,
        tenant: &str,
        filter: &JobFilter,
        after: Option<&Id>,
        limit: u32,
    ) -> Result<Page<Job>> {
        with_deadline(read::jobs(self, tenant, filter, after, limit)).await
    }

    async fn video(&self, tenant: &str, id: &Id) -> Result<Video> {
        with_deadline(read::video(self, tenant, id)).await
    }

    async fn videos(&self, tenant: &str, after: Option<&Id>, limit: u32) -> Result<Page<Video>> {
        with_deadline(read::videos(self, tenant, after, limit)).await
    }

    async fn cancel(&self, tenant: &str, id: &Id) -> Result<Job> {
        with_deadline(jobs::cancel(self, tenant, id)).await
    }

    async fn retry(&self, tenant: &str, id: &Id, path_policy: Option<&PathPolicy>) -> Result<Job> {
        with_deadline(jobs::retry(self, tenant, id, path_policy)).await
    }

    async fn rows(&self, tenant: &str, id: &Id, first: i64, limit: u32) -> Result<Vec<Row>> {
        with_deadline(read::rows(self, tenant, id, first, limit)).await
    }

    async fn attempts(&self, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Attempt>> {
        with_deadline(read::attempts(self, tenant, id, limit)).await
    }

    async fn events(&self, tenant: &str, id: &Id, after: i64, limit: u32) -> Result<Vec<Event>> {
        with_deadline(read::events(self, tenant, id, after, limit)).await
    }

    async fn counts(&self) -> Result<Counts> {
        with_deadline(read::counts(self)).await
    }

    async fn lease_job(&self, dispatcher: &str, lease_time: Duration) -> Result<Option<Lease>> {
        with_deadline(job_leases::lease(self, dispatcher, lease_time)).await
    }

    async fn lease_status(&self, lease: &Lease) -> Result<LeaseStatus> {
        with_deadline(job_leases::status(self, lease)).await
    }

    async fn renew_lease(&self, lease: &Lease, lease_time: Duration, report: &Report) -> Result<LeaseStatus> {
        with_deadline(job_leases::renew(self, lease, lease_time, report)).await
    }

    async fn finish(&self, lease: &Lease, report: &Report, outcome: &Outcome) -> Result<Job> {
        with_deadline(job_leases::finish(self, lease, report, outcome)).await
    }
}
