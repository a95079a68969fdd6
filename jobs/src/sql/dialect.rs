//! `Dialect`: the few statements that differ between SQLite and PostgreSQL.

/// SQL dialect of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Returns the statements that prepare a new connection.
    pub(super) fn prepare(self) -> &'static [&'static str] {
        match self {
            // FULL: an acknowledged write is on the disk, even if the host loses power.
            Self::Sqlite => &[
                "PRAGMA busy_timeout = 10000",
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
            ],
            Self::Postgres => &[
                "SET lock_timeout = '10s'",
                "SET statement_timeout = '15s'",
                // A frozen process holds its locks no longer than this.
                "SET idle_in_transaction_session_timeout = '15s'",
            ],
        }
    }

    /// Returns the query for the database's clock, in milliseconds since 1970.
    pub(super) fn now(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT CAST(unixepoch('subsec') * 1000 AS BIGINT)",
            Self::Postgres => "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }
}
