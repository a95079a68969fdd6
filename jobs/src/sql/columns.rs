//! Conversions between Rust values and columns: every number is a BIGINT, everything else a TEXT.

use std::{str::FromStr, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, any::AnyRow};

use crate::{Error, FencingToken, Id, Result};

/// Returns the name of an enum's value in the database.
pub(super) fn name(value: impl Into<&'static str>) -> &'static str {
    value.into()
}

/// Reads an enum's value by its name.
pub(super) fn named<T: FromStr>(what: &'static str, row: &AnyRow, column: &str) -> Result<T> {
    let name = text(row, column)?;
    name.parse().map_err(|_| Error::UnknownValue { what, value: name })
}

/// Reads a text.
pub(super) fn text(row: &AnyRow, column: &str) -> Result<String> {
    Ok(row.try_get(column)?)
}

/// Reads an ID.
pub(super) fn id(row: &AnyRow, column: &str) -> Result<Id> {
    text(row, column).map(Id::from_text)
}

/// Reads an ID or NULL.
pub(super) fn optional_id(row: &AnyRow, column: &str) -> Result<Option<Id>> {
    Ok(row.try_get::<Option<String>, _>(column)?.map(Id::from_text))
}

/// Reads a flag, which is 0 or 1.
pub(super) fn flag(row: &AnyRow, column: &str) -> Result<bool> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

/// Reads a number of bytes.
pub(super) fn bytes(row: &AnyRow, column: &str) -> Result<u64> {
    Ok(row.try_get::<i64, _>(column)?.unsigned_abs())
}

/// Reads the fencing token of a lease.
pub(super) fn fencing_token(row: &AnyRow) -> Result<FencingToken> {
    Ok(FencingToken::new(row.try_get("fencing_token")?))
}

/// Parses a JSON text.
pub(super) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| Error::UnknownValue { what, value: text.to_owned() })
}

/// Reads a column of JSON.
pub(super) fn json<T: DeserializeOwned>(row: &AnyRow, column: &'static str) -> Result<T> {
    from_json(column, &text(row, column)?)
}

/// Reads a column of JSON or NULL.
pub(super) fn optional_json<T: DeserializeOwned>(row: &AnyRow, column: &'static str) -> Result<Option<T>> {
    row.try_get::<Option<String>, _>(column)?.map(|text| from_json(column, &text)).transpose()
}

/// Returns a value as JSON. Texts and numbers always serialize.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Returns the JSON string of a name, by which serde reads an enum.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// Returns a duration in milliseconds.
pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the time `duration` after `time_ms`.
pub(super) fn after(time_ms: i64, duration: Duration) -> i64 {
    time_ms.saturating_add(milliseconds(duration))
}

/// Returns a number of bytes as the database stores it.
pub(super) fn byte_count(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
