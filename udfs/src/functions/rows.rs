//! Tables of table functions: the rows are fetched when the query is planned.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::{Session, TableProvider},
    datasource::memory::MemorySourceConfig,
    error::Result,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};
use futures::future::BoxFuture;

/// Fetches the rows of one call, one batch per partition.
pub(crate) type Fetch = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<RecordBatch>>> + Send + Sync>;

/// A table whose rows are fetched by the process that plans the query.
pub(crate) struct Rows {
    pub(crate) schema: SchemaRef,
    pub(crate) fetch: Fetch,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Rows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut partitions: Vec<_> = (self.fetch)().await?.into_iter().map(|batch| vec![batch]).collect();
        if partitions.is_empty() {
            partitions.push(Vec::new());
        }
        Ok(MemorySourceConfig::try_new_exec(&partitions, self.schema.clone(), projection.cloned())?)
    }
}

/// Splits a batch into one per row, so that a task, which gets one partition, gets one row.
pub(crate) fn split_rows(batch: &RecordBatch) -> Vec<RecordBatch> {
    (0..batch.num_rows()).map(|row| batch.slice(row, 1)).collect()
}
