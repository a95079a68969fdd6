//! Leases in SQL, written once for jobs, uploads, deliveries, watches and cleanup work.
//!
//! A lease is a time in a column of the leased row: until then no other process takes the row. It is taken in
//! two steps. [`LeaseTable::next`] finds a due row without a lock, since most of the time nothing is due.
//! [`LeaseTable::take`] then leases that row in a transaction, if it is still due. Where the holder writes
//! results, the row also has a fencing token, which grows with every lease, and every write of the holder is
//! conditional on it.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe,
    any::{AnyQueryResult, AnyRow},
};

use super::{
    columns::{after, milliseconds},
    pool::{SqlStore, WriteTransaction},
};
use crate::{Error, FencingToken, Id, Result};

/// A table whose rows are leased. In each SQL text `$1` is the time now.
pub(super) struct LeaseTable {
    /// The table.
    pub(super) table: &'static str,
    /// Queries for the ID of the row to lease next. The first that finds a row is used.
    pub(super) next: &'static [&'static str],
    /// Column of the time at which the lease ends.
    pub(super) until: &'static str,
    /// Condition of a row that can be leased. `$4` and beyond are the caller's values.
    pub(super) due: &'static str,
    /// Assignments of a new lease, beside its end: `, column = value`.
    pub(super) set: &'static str,
}

impl LeaseTable {
    /// Returns the ID of the row that is due next.
    pub(super) async fn next(&self, store: &SqlStore) -> Result<Option<Id>> {
        self.next_since(store, Duration::ZERO).await
    }

    /// Leases a row for `lease_time` and returns it; `None` if it is not due any more.
    pub(super) async fn take(
        &self,
        tx: &mut WriteTransaction,
        id: &Id,
        lease_time: Duration,
        values: &[&str],
    ) -> Result<Option<AnyRow>> {
        self.take_since(tx, Duration::ZERO, id, lease_time, values).await
    }

    /// Leases the row that is due next. The lease is valid once the transaction is committed.
    pub(super) async fn lease(
        &self,
        store: &SqlStore,
        lease_time: Duration,
    ) -> Result<Option<(WriteTransaction, AnyRow)>> {
        self.lease_since(store, Duration::ZERO, lease_time).await
    }

    /// Leases the next row that has been due for at least `grace`.
    pub(super) async fn lease_since(
        &self,
        store: &SqlStore,
        grace: Duration,
        lease_time: Duration,
    ) -> Result<Option<(WriteTransaction, AnyRow)>> {
        let Some(id) = self.next_since(store, grace).await? else { return Ok(None) };
        let mut tx = store.begin().await?;
        let row = self.take_since(&mut tx, grace, &id, lease_time, &[]).await?;
        Ok(row.map(|row| (tx, row)))
    }

    async fn next_since(&self, store: &SqlStore, grace: Duration) -> Result<Option<Id>> {
        let mut connection = store.reader.acquire().await?;
        let now = store.now(&mut connection).await?.saturating_sub(milliseconds(grace));
        for query in self.next {
            let found: Option<String> =
                sqlx::query_scalar(*query).bind(now).fetch_optional(&mut *connection).await?;
            if found.is_some() {
                return Ok(found.map(Id::from_text));
            }
        }
        Ok(None)
    }

    async fn take_since(
        &self,
        tx: &mut WriteTransaction,
        grace: Duration,
        id: &Id,
        lease_time: Duration,
        values: &[&str],
    ) -> Result<Option<AnyRow>> {
        let now = tx.now_ms.saturating_sub(milliseconds(grace));
        let Self { table, until, due, set, .. } = self;
        let statement = format!("UPDATE {table} SET {until} = $2{set} WHERE id = $3 AND {due} RETURNING *");
        let taken = sqlx::query(AssertSqlSafe(statement))
            .bind(now)
            .bind(after(now, lease_time))
            .bind(id.as_str().to_owned());
        let taken = values.iter().fold(taken, |taken, value| taken.bind((*value).to_owned()));
        Ok(taken.fetch_optional(tx.connection()).await?)
    }
}

/// Commits a write that was conditional on a lease, if a row met the condition.
///
/// # Errors
/// Returns [`Error::LeaseLost`] if no row met the condition.
pub(super) async fn commit_if_leased(
    tx: WriteTransaction,
    written: &AnyQueryResult,
    what: &'static str,
    id: &Id,
    fencing_token: FencingToken,
) -> Result<()> {
    require_lease(written, what, id, fencing_token)?;
    tx.commit().await
}

/// Returns an error if no row met the condition of a write on a lease.
pub(super) fn require_lease(
    written: &AnyQueryResult,
    what: &'static str,
    id: &Id,
    fencing_token: FencingToken,
) -> Result<()> {
    if written.rows_affected() > 0 { Ok(()) } else { Err(lease_lost(what, id, fencing_token)) }
}

/// Returns the error of a lost lease.
pub(super) fn lease_lost(what: &'static str, id: &Id, fencing_token: FencingToken) -> Error {
    Error::LeaseLost { what, id: id.clone(), fencing_token }
}
