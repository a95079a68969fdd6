//! Arrow values of the structs of the video domain, by serde and arrow-json, without conversion code.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch, StructArray},
        datatypes::{Fields, Schema, SchemaRef},
    },
    error::{DataFusionError, Result},
};
use serde::{Serialize, de::DeserializeOwned};

/// Returns the schema with these columns.
pub(crate) fn schema(fields: &Fields) -> SchemaRef {
    Arc::new(Schema::new(fields.clone()))
}

/// Returns one record batch with one row per value.
pub(crate) fn batch<T: Serialize>(fields: &Fields, values: &[T]) -> Result<RecordBatch> {
    let schema = schema(fields);
    if values.is_empty() {
        return Ok(RecordBatch::new_empty(schema));
    }
    let mut decoder =
        arrow_json::ReaderBuilder::new(schema.clone()).with_batch_size(values.len()).build_decoder()?;
    decoder.serialize(values)?;
    decoder
        .flush()?
        .ok_or_else(|| DataFusionError::Internal("arrow-json gave no batch for its rows".to_owned()))
}

/// Returns one struct array with one element per value.
pub(crate) fn structs<T: Serialize>(fields: &Fields, values: &[T]) -> Result<ArrayRef> {
    Ok(Arc::new(StructArray::from(batch(fields, values)?)))
}

/// Reads the values of a struct array by field name; a NULL element is `None`.
///
/// # Errors
/// Returns an error if the array holds no structs, or structs without the fields of `T`.
pub fn values<T: DeserializeOwned>(array: &dyn Array) -> Result<Vec<Option<T>>> {
    let Some(structs) = array.as_struct_opt() else {
        return Err(DataFusionError::Plan(format!("expected a struct, not {}", array.data_type())));
    };
    (0..structs.len())
        .map(|row| if structs.is_null(row) { Ok(None) } else { read_value(structs, row).map(Some) })
        .collect()
}

fn read_value<T: DeserializeOwned>(structs: &StructArray, row: usize) -> Result<T> {
    let one = structs.slice(row, 1);
    let schema = Arc::new(Schema::new(one.fields().clone()));
    let batch = RecordBatch::try_new(schema, one.columns().to_vec())?;
    let mut json = Vec::new();
    let mut writer = arrow_json::LineDelimitedWriter::new(&mut json);
    writer.write(&batch)?;
    writer.finish()?;
    serde_json::from_slice(&json)
        .map_err(|e| DataFusionError::Plan(format!("the struct does not have the expected fields: {e}")))
}
