//! `SqlStore`, its connections, its transactions, and the deadline of each call.

use std::{
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use sqlx::{
    Any, AnyConnection, AnyPool, Connection, Transaction, any::AnyPoolOptions, migrate::Migrator,
    pool::PoolOptions,
};
use tokio::time::timeout;

use super::dialect::Dialect;
use crate::{Error, Result};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Connections per process. Transactions are short, so a few serve many calls.
const CONNECTIONS: u32 = 16;

/// Time limit of a whole call.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Time limit of the wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A store in a SQL database.
#[derive(Debug, Clone)]
pub struct SqlStore {
    /// Pool for writes. SQLite allows one writer at a time: writers queue in this pool instead of polling for
    /// the lock.
    writer: AnyPool,
    pub(super) reader: AnyPool,
    dialect: Dialect,
}

/// Creates a database's file if it is missing, and closes it to other users: it holds the secret that signs
/// links. SQLite gives the files beside it the same permissions.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        // A file of another user stays as it is: its owner shares it.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(mode & 0o700));
    }
    Ok(())
}

impl SqlStore {
    /// Opens a database and migrates its tables to this version. `url` is `postgres://…`, `sqlite:PATH`, or a
    /// path; a missing SQLite file is created.
    ///
    /// # Errors
    /// Returns [`Error::Open`], with the remedy, if the database cannot be used.
    pub async fn open(url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let fault = |message: String| Error::Open { url: without_password(url), message };
        let failed = |error: sqlx::Error| fault(error.to_string());
        let (dialect, url) = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            (Dialect::Postgres, url.to_owned())
        } else {
            let path = url.strip_prefix("sqlite:").unwrap_or(url);
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.contains("://") || path.is_empty() {
                return Err(fault("use the path of a file, or postgres://USER@HOST/DATABASE".to_owned()));
            }
            if let Some(folder) = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(folder)
                    .map_err(|e| fault(format!("failed to create its folder: {e}")))?;
            }
            make_private(Path::new(path)).map_err(|e| fault(format!("failed to create it: {e}")))?;
            let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            (Dialect::Sqlite, format!("sqlite:{path}?mode=rwc"))
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

    /// Closes the connections, after the calls that use them.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<WriteTransaction> {
        let mut transaction = match self.dialect {
            // A SQLite transaction that starts with a read may fail immediately at its first write.
            Dialect::Sqlite => self.writer.begin_with("BEGIN IMMEDIATE").await?,
            Dialect::Postgres => self.writer.begin().await?,
        };
        let now_ms = self.now(&mut transaction).await?;
        Ok(WriteTransaction { transaction, now_ms })
    }

    /// Returns the time of the database's clock, in milliseconds since 1970.
    pub(super) async fn now(&self, connection: &mut AnyConnection) -> Result<i64> {
        Ok(sqlx::query_scalar(self.dialect.now()).fetch_one(connection).await?)
    }
}

/// A transaction that writes. Dropping it rolls back.
pub(super) struct WriteTransaction {
    transaction: Transaction<'static, Any>,
    /// Time at which it began, by the database's clock.
    pub(super) now_ms: i64,
}

impl WriteTransaction {
    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    pub(super) async fn commit(self) -> Result<()> {
        Ok(self.transaction.commit().await?)
    }
}

/// Limits a call to [`CALL_TIMEOUT`]: an unreachable database must not block the caller.
pub(super) async fn with_deadline<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(Error::Database { source: sqlx::Error::PoolTimedOut }))
}

/// Migrates the tables to this version. Of several processes that start at once, one migrates while the
/// others wait.
async fn migrate(dialect: Dialect, writer: &AnyPool) -> sqlx::Result<()> {
    match dialect {
        // sqlx has no migration lock for SQLite; a transaction that writes from its first statement excludes
        // all others.
        Dialect::Sqlite => {
            let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
            // Not `run`: the compiler does not accept a bare connection as its executor inside a task.
            MIGRATIONS.run_direct(None, &mut *transaction, false).await?;
            transaction.commit().await
        }
        Dialect::Postgres => Ok(MIGRATIONS.run(writer).await?),
    }
}

fn pool(dialect: Dialect, connections: u32) -> AnyPoolOptions {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for statement in dialect.prepare() {
                    sqlx::query(*statement).execute(&mut *connection).await?;
                }
                Ok(())
            })
        })
        // On a full disk SQLite rolls back by itself and refuses a second rollback: the connection could
        // start no other transaction.
        .after_release(|connection: &mut AnyConnection, _| {
            Box::pin(async move { Ok(!connection.is_in_transaction()) })
        })
}

/// Returns an address without its password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}", user.split(':').next().unwrap_or_default()),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(without_password("postgres://spool:p@ss:word@db/jobs"), "postgres://spool@db/jobs");
        assert_eq!(without_password("postgres://db/jobs"), "postgres://db/jobs");
        assert_eq!(without_password("/var/lib/spool/jobs.db"), "/var/lib/spool/jobs.db");
    }
}
