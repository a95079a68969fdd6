//! The store in SQLite, for one machine, or in PostgreSQL, for many: the same statements in both.

mod access;
mod claims;
mod jobs;
mod read;
mod sources;
mod uploads;
mod watches;
mod webhooks;

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use spool_storage::path_policy::PathPolicy;
use sqlx::{
    Any, AnyConnection, AnyPool, Connection, Transaction, any::AnyPoolOptions, migrate::Migrator,
    pool::PoolOptions,
};
use tokio::time::timeout;

use crate::{
    Access, ApiKey, Attempt, Claim, Counts, Created, Delivery, DeliveryHold, Ending, Error, Event, Filter,
    Id, Job, NewJob, NewKey, NewUpload, NewUploadToken, NewWatch, Page, Policy, Report, Result, Row, Sent,
    Shown, Sources, Standing, Store, Tenant, Upload, UploadHold, UploadToken, Uploads, Video, Watch, Watches,
    Webhook, Webhooks,
};

pub use access::{check_tenant, drawn};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Connections of a process: what it does at a time is short.
const CONNECTIONS: u32 = 16;

/// How long a call may take in all, and a connection may be waited for.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// A store in a database that speaks SQL.
#[derive(Debug, Clone)]
pub struct SqlStore {
    /// SQLite has one writer at a time: here they queue, where they would otherwise poll for their turn.
    writer: AnyPool,
    reader: AnyPool,
    dialect: Dialect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// The statements that a new connection begins with.
    fn begin(self) -> &'static [&'static str] {
        match self {
            // FULL: what was acknowledged is on the disk, also where the machine loses power.
            Self::Sqlite => &[
                "PRAGMA busy_timeout = 10000",
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
            ],
            Self::Postgres => &[
                "SET lock_timeout = '10s'",
                "SET statement_timeout = '15s'",
                // A process that froze holds no lock for longer.
                "SET idle_in_transaction_session_timeout = '15s'",
            ],
        }
    }
}

impl SqlStore {
    /// Opens a database and brings its tables to this version: `postgres://…`, `sqlite:PATH`, or a path, which is made if it is not
    /// there.
    ///
    /// # Errors
    /// [`Error::Open`] where it cannot be used, with what to do.
    pub async fn open(url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let fault = |message: String| Error::Open { url: shown(url), message };
        let failed = |error: sqlx::Error| fault(error.to_string());
        let (dialect, url) = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            (Dialect::Postgres, url.to_owned())
        } else {
            let path = url.strip_prefix("sqlite:").unwrap_or(url);
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.contains("://") || path.is_empty() {
                return Err(fault("name a file, or postgres://USER@HOST/DATABASE".to_owned()));
            }
            if let Some(folder) = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder)
                    .map_err(|e| fault(format!("its folder cannot be made: {e}")))?;
            }
            (
                Dialect::Sqlite,
                format!(
                    "sqlite:{}?mode=rwc",
                    path.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
                ),
            )
        };
        let writers = if dialect == Dialect::Sqlite { 1 } else { CONNECTIONS };
        let writer = pool(dialect, writers).connect(&url).await.map_err(failed)?;
        migrate(dialect, &writer)
            .await
            .map_err(|e| fault(format!("its tables are not those of this version of Spool: {e}")))?;
        let reader = match dialect {
            Dialect::Sqlite => pool(dialect, CONNECTIONS).connect(&url).await.map_err(failed)?,
            Dialect::Postgres => writer.clone(),
        };
        Ok(Self { writer, reader, dialect })
    }

    /// Closes its connections, once what they do is done.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Begins a change.
    async fn change(&self) -> Result<Change> {
        let mut transaction = match self.dialect {
            // One that begins by reading may find that it must not write any more, and then at once.
            Dialect::Sqlite => self.writer.begin_with("BEGIN IMMEDIATE").await?,
            Dialect::Postgres => self.writer.begin().await?,
        };
        let now_ms = self.now(&mut transaction).await?;
        Ok(Change { transaction, now_ms })
    }

    /// The name of what a statement finds due now, without a lock: most of the time there is nothing to do.
    async fn due(&self, statement: &'static str) -> Result<Option<String>> {
        let mut connection = self.reader.acquire().await?;
        let now = self.now(&mut connection).await?;
        Ok(sqlx::query_scalar(statement).bind(now).fetch_optional(&mut *connection).await?)
    }

    /// The time by the database's clock, in milliseconds since 1970.
    async fn now(&self, connection: &mut AnyConnection) -> Result<i64> {
        let now = match self.dialect {
            Dialect::Sqlite => "SELECT CAST(unixepoch('subsec') * 1000 AS BIGINT)",
            Dialect::Postgres => "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        };
        Ok(sqlx::query_scalar(now).fetch_one(connection).await?)
    }
}

/// A change that is made whole or not at all.
struct Change {
    transaction: Transaction<'static, Any>,
    /// When it began, by the database's clock.
    now_ms: i64,
}

impl Change {
    fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    async fn keep(self) -> Result<()> {
        Ok(self.transaction.commit().await?)
    }
}

/// Brings the tables to this version. Of several that start at once one does it, while the others wait for it.
async fn migrate(dialect: Dialect, writer: &AnyPool) -> sqlx::Result<()> {
    match dialect {
        // sqlx has no lock of SQLite: within a change that writes from the beginning there is nobody else.
        Dialect::Sqlite => {
            let mut change = writer.begin_with("BEGIN IMMEDIATE").await?;
            // Not `run`: within a task the compiler takes a connection by itself for nothing that it could run on.
            MIGRATIONS.run_direct(None, &mut *change, false).await?;
            change.commit().await
        }
        Dialect::Postgres => Ok(MIGRATIONS.run(writer).await?),
    }
}

fn pool(dialect: Dialect, connections: u32) -> AnyPoolOptions {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECT_DEADLINE)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for statement in dialect.begin() {
                    sqlx::query(*statement).execute(&mut *connection).await?;
                }
                Ok(())
            })
        })
        // Where the disk is full, SQLite itself gives a change up, and cannot be told to once more: the connection would take no other.
        .after_release(|connection: &mut AnyConnection, _| {
            Box::pin(async move { Ok(!connection.is_in_transaction()) })
        })
}

/// An address without its password.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@') {
        Some((who, place)) => format!("{scheme}://{}@{place}", who.split(':').next().unwrap_or_default()),
        None => url.to_owned(),
    }
}

/// The same within a deadline: a database that is away must not keep anybody waiting.
async fn within<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(CALL_DEADLINE, call).await.unwrap_or(Err(Error::Database { source: sqlx::Error::PoolTimedOut }))
}

#[async_trait]
impl Access for SqlStore {
    async fn create_key(&self, new: &NewKey) -> Result<(ApiKey, String)> {
        within(access::create_key(self, new)).await
    }

    async fn keys(&self, tenant: &str) -> Result<Vec<ApiKey>> {
        within(access::keys(self, tenant)).await
    }

    async fn revoke_key(&self, tenant: &str, id: &Id) -> Result<ApiKey> {
        within(access::revoke_key(self, tenant, id)).await
    }

    async fn create_upload_token(&self, new: &NewUploadToken) -> Result<(UploadToken, String)> {
        within(access::create_upload_token(self, new)).await
    }

    async fn shown(&self, text: &str) -> Result<Option<Shown>> {
        within(access::shown(self, text)).await
    }

    async fn policy(&self, tenant: &str) -> Result<Policy> {
        within(access::policy(self, tenant)).await
    }

    async fn set_policy(&self, tenant: &str, policy: &Policy) -> Result<()> {
        within(access::set_policy(self, tenant, policy)).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>> {
        within(access::tenants(self)).await
    }

    async fn secret(&self, name: &str) -> Result<[u8; 32]> {
        within(access::secret(self, name)).await
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn create(&self, new: &NewJob) -> Result<Created> {
        within(jobs::create(self, new)).await
    }

    async fn job(&self, tenant: &str, id: &Id) -> Result<Job> {
        within(read::job(self, tenant, id)).await
    }

    async fn jobs(
        &self,
        tenant: &str,
        filter: &Filter,
        behind: Option<&Id>,
        limit: u32,
    ) -> Result<Page<Job>> {
        within(read::jobs(self, tenant, filter, behind, limit)).await
    }

    async fn video(&self, tenant: &str, id: &Id) -> Result<Video> {
        within(read::video(self, tenant, id)).await
    }

    async fn videos(&self, tenant: &str, behind: Option<&Id>, limit: u32) -> Result<Page<Video>> {
        within(read::videos(self, tenant, behind, limit)).await
    }

    async fn cancel(&self, tenant: &str, id: &Id) -> Result<Job> {
        within(jobs::cancel(self, tenant, id)).await
    }

    async fn retry(&self, tenant: &str, id: &Id, confines: Option<&PathPolicy>) -> Result<Job> {
        within(jobs::retry(self, tenant, id, confines)).await
    }

    async fn rows(&self, tenant: &str, id: &Id, from: i64, limit: u32) -> Result<Vec<Row>> {
        within(read::rows(self, tenant, id, from, limit)).await
    }

    async fn attempts(&self, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Attempt>> {
        within(read::attempts(self, tenant, id, limit)).await
    }

    async fn events(&self, tenant: &str, id: &Id, behind: i64, limit: u32) -> Result<Vec<Event>> {
        within(read::events(self, tenant, id, behind, limit)).await
    }

    async fn counts(&self) -> Result<Counts> {
        within(read::counts(self)).await
    }

    async fn claim(&self, dispatcher: &str, lease: Duration) -> Result<Option<Claim>> {
        within(claims::claim(self, dispatcher, lease)).await
    }

    async fn standing(&self, claim: &Claim) -> Result<Standing> {
        within(claims::standing(self, claim)).await
    }

    async fn report(&self, claim: &Claim, lease: Duration, report: &Report) -> Result<Standing> {
        within(claims::report(self, claim, lease, report)).await
    }

    async fn end(&self, claim: &Claim, report: &Report, ending: &Ending) -> Result<Job> {
        within(claims::end(self, claim, report, ending)).await
    }
}

#[async_trait]
impl Sources for SqlStore {
    async fn hold_source(&self, lease: Duration) -> Result<Option<Job>> {
        within(sources::hold(self, lease)).await
    }

    async fn settle_source(&self, job: &Job, source: &str, kept: Option<&str>) -> Result<()> {
        within(sources::settle(self, job, source, kept)).await
    }

    async fn hold_unswept(&self, since: Duration, lease: Duration) -> Result<Option<Video>> {
        within(sources::hold_unswept(self, since, lease)).await
    }

    async fn swept(&self, id: &Id, again: bool) -> Result<()> {
        within(sources::swept(self, id, again)).await
    }
}

#[async_trait]
impl Webhooks for SqlStore {
    async fn create_webhook(&self, tenant: &str, url: &str, secret: &str) -> Result<Webhook> {
        within(webhooks::create(self, tenant, url, secret)).await
    }

    async fn webhooks(&self, tenant: &str) -> Result<Vec<Webhook>> {
        within(webhooks::webhooks(self, tenant)).await
    }

    async fn disable_webhook(&self, tenant: &str, id: &Id) -> Result<Webhook> {
        within(webhooks::disable(self, tenant, id)).await
    }

    async fn deliveries(&self, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Delivery>> {
        within(webhooks::deliveries(self, tenant, id, limit)).await
    }

    async fn replay(&self, tenant: &str, id: &Id, since_ms: i64) -> Result<u64> {
        within(webhooks::replay(self, tenant, id, since_ms)).await
    }

    async fn hold_delivery(&self, lease: Duration) -> Result<Option<DeliveryHold>> {
        within(webhooks::hold(self, lease)).await
    }

    async fn end_delivery(&self, hold: &DeliveryHold, sent: &Sent) -> Result<()> {
        within(webhooks::end(self, hold, sent)).await
    }
}

#[async_trait]
impl Watches for SqlStore {
    async fn create_watch(&self, new: &NewWatch) -> Result<Watch> {
        within(watches::create(self, new)).await
    }

    async fn watches(&self, tenant: Option<&str>) -> Result<Vec<Watch>> {
        within(watches::watches(self, tenant)).await
    }

    async fn remove_watch(&self, id: &Id) -> Result<Watch> {
        within(watches::remove(self, id)).await
    }

    async fn hold_watch(&self, lease: Duration) -> Result<Option<Watch>> {
        within(watches::hold(self, lease)).await
    }

    async fn looked(&self, id: &Id, trouble: Option<&str>) -> Result<()> {
        within(watches::looked(self, id, trouble)).await
    }

    async fn used_keys(&self, tenant: &str, keys: &[String]) -> Result<Vec<String>> {
        within(watches::used_keys(self, tenant, keys)).await
    }
}

#[async_trait]
impl Uploads for SqlStore {
    async fn begin_upload(&self, new: &NewUpload, done: bool) -> Result<Upload> {
        within(uploads::begin(self, new, done)).await
    }

    async fn upload(&self, tenant: &str, id: &Id) -> Result<Upload> {
        within(uploads::upload(self, tenant, id)).await
    }

    async fn hold_upload(&self, tenant: &str, id: &Id, lease: Duration) -> Result<UploadHold> {
        within(uploads::hold(self, tenant, id, lease)).await
    }

    async fn hold_left_upload(&self, lease: Duration) -> Result<Option<UploadHold>> {
        within(uploads::hold_left(self, lease)).await
    }

    async fn renew_upload(&self, hold: &UploadHold, lease: Duration) -> Result<()> {
        within(uploads::renew(self, hold, lease)).await
    }

    async fn advance_upload(
        &self,
        hold: &UploadHold,
        received: u64,
        pieces: &[String],
        kept_for: Duration,
    ) -> Result<()> {
        within(uploads::advance(self, hold, received, pieces, kept_for)).await
    }

    async fn finish_upload(&self, hold: &UploadHold) -> Result<Upload> {
        within(uploads::finished(self, hold)).await
    }

    async fn give_up_upload(&self, hold: &UploadHold) -> Result<()> {
        within(uploads::give_up(self, hold)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_of_a_newer_version_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqlStore::open(folder.path().join("jobs.db").to_str().unwrap()).await.unwrap();
        let new = |source: &str| NewJob {
            tenant: "acme".to_owned(),
            order: crate::Request::transcode(source, "out/").into(),
            key: None,
        };
        let newer = store.create(&new("newer.mp4")).await.unwrap().job;
        let ours = store.create(&new("ours.mp4")).await.unwrap().job;
        let unknown = sqlx::query("UPDATE jobs SET request = '{\"hologram\": true}' WHERE id = $1")
            .bind(newer.id.as_str());
        unknown.execute(&store.writer).await.unwrap();
        let lease = Duration::from_secs(60);
        assert_eq!(store.claim("a", lease).await.unwrap().unwrap().job.id, ours.id);
        assert!(store.claim("a", lease).await.unwrap().is_none());
    }

    #[test]
    fn a_password_is_shown_to_nobody() {
        assert_eq!(shown("postgres://spool:p@ss:word@db/jobs"), "postgres://spool@db/jobs");
        assert_eq!(shown("postgres://db/jobs"), "postgres://db/jobs");
        assert_eq!(shown("/var/lib/spool/jobs.db"), "/var/lib/spool/jobs.db");
    }
}
