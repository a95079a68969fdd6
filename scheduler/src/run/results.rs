//! Result of a statement: columns, rows and timing.

use std::time::Duration;

use datafusion::arrow::{array::RecordBatch, datatypes::SchemaRef};

use crate::error::{Error, Result};

/// The result of a statement.
#[derive(Debug, Clone)]
pub struct StatementResult {
    /// The columns, also if there are no rows.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Timing of the statement.
    pub timing: StatementTiming,
}

/// Timing of a statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatementTiming {
    /// Planning, which opens and cuts sources.
    pub planning: Duration,
    /// Encoding rows.
    pub rows: Duration,
    /// The work after the rows: the merge and the publishing.
    pub merging: Duration,
}

impl StatementResult {
    /// Reads the structs of one column, without NULLs.
    ///
    /// # Errors
    /// Returns [`Error::Engine`] if there is no such column, or if its fields are not those of `T`.
    pub fn structs<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<Vec<T>> {
        let mut values = Vec::new();
        for batch in &self.batches {
            let array = batch
                .column_by_name(column)
                .ok_or_else(|| Error::Engine { message: format!("the result has no column {column}") })?;
            let structs = spool_udfs::value::values(array).map_err(|e| Error::from_engine(&e.to_string()))?;
            values.extend(structs.into_iter().flatten());
        }
        Ok(values)
    }
}
