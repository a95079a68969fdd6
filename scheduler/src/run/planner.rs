//! Planner: sessions, logical plans of statements, and physical plans of their rows, with a concurrency
//! limit.

use std::sync::Arc;

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    error::DataFusionError,
    logical_expr::LogicalPlan,
    physical_plan::{ExecutionPlan, ExecutionPlanProperties},
    prelude::{SQLOptions, SessionConfig, SessionContext},
};
use spool_jobs::check_statement;
use spool_media::plan::segments::Segment;
use spool_storage::ConcurrencyLimit;
use spool_udfs::{options::SpoolOptions, tenant_guard};

use super::plan_rewrite::Encode;
use crate::{
    engine::Engine,
    error::{Error, Result},
};

/// Plans statements.
pub(crate) struct Planner {
    pub(crate) engine: Engine,
    /// The settings of a session before a statement's own.
    pub(crate) session_config: SessionConfig,
    /// Limit of concurrent planning.
    pub(crate) limit: ConcurrencyLimit,
}

/// The planned rows of a projection.
pub(crate) struct PlannedRows {
    /// The segment of each row; `None` for a value that is no segment, which is refused when the row runs.
    pub(crate) segments: Vec<Option<Segment>>,
    /// A plan with one partition per row.
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// The columns of the plan.
    pub(crate) schema: SchemaRef,
}

impl Planner {
    /// Opens a session with these settings, such as `("spool.threads", "2")`.
    pub(crate) async fn session(&self, settings: &[(&str, &str)]) -> Result<Arc<SessionContext>> {
        let mut config = self.session_config.clone();
        for (name, value) in settings {
            // The setter without a result panics on an unknown setting.
            config.options_mut().set(name, value).map_err(|e| Error::Sql { message: e.strip_backtrace() })?;
        }
        let id = format!("spool-{}", ballista_core::ids::new_instance_id());
        self.engine
            .state
            .session_manager
            .create_or_update_session(&id, &config)
            .await
            .map_err(|e| Error::from_engine(&e.to_string()))
    }

    /// Plans a statement.
    pub(crate) async fn logical_plan(&self, session: &SessionContext, sql: &str) -> Result<LogicalPlan> {
        check_statement(sql).map_err(|e| Error::Sql { message: e.to_string() })?;
        let _permit = self.limit.acquire().await;
        let planning = async {
            // A statement that creates or changes a table would run immediately, outside of slots and
            // cancellation, and the table would be lost with the session. A session with a path policy may
            // not change its settings.
            let restricted = SpoolOptions::path_policy(session.state().config().options()).is_some();
            let options = SQLOptions::new()
                .with_allow_ddl(false)
                .with_allow_dml(false)
                .with_allow_statements(!restricted);
            let plan = session.sql_with_options(sql, options).await?.into_optimized_plan()?;
            if restricted {
                tenant_guard::check_joins(&plan)?;
            }
            Ok(plan)
        };
        planning.await.map_err(|e| Error::from_planner(&e))
    }

    /// Plans the rows that a projection encodes: runs its input plan, and makes each row a partition.
    pub(crate) async fn plan_rows(&self, session: &SessionContext, encode: &Encode) -> Result<PlannedRows> {
        let planning = async {
            let _permit = self.limit.acquire().await;
            let input =
                session.execute_logical_plan(encode.input().clone()).await?.collect_partitioned().await?;
            let rows: Vec<RecordBatch> =
                input.into_iter().flatten().flat_map(|batch| split_rows(&batch)).collect();
            let state = session.state();
            let segment = state.create_physical_expr(encode.segment.clone(), encode.input().schema())?;
            let segments = rows.iter().map(|row| {
                let array = segment.evaluate(row).and_then(|value| value.into_array(1)).ok()?;
                spool_udfs::value::values::<Segment>(&array).ok()?.pop().flatten()
            });
            let segments: Vec<Option<Segment>> = segments.collect();
            let plan = state.create_physical_plan(&encode.over(rows)?).await?;
            Ok::<_, DataFusionError>((segments, plan))
        };
        let (segments, plan) = planning.await.map_err(|e| Error::from_engine(&e.to_string()))?;
        let (rows, partitions) = (segments.len(), plan.output_partitioning().partition_count());
        if rows > 0 && partitions != rows {
            return Err(Error::Engine { message: format!("{rows} rows were planned as {partitions}") });
        }
        Ok(PlannedRows { segments, plan, schema: Arc::new(encode.schema().as_arrow().clone()) })
    }

    /// Plans the rest of a statement after its rows are encoded.
    pub(crate) async fn physical_plan(
        &self,
        session: &SessionContext,
        plan: &LogicalPlan,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let _permit = self.limit.acquire().await;
        session.state().create_physical_plan(plan).await.map_err(|e| Error::from_engine(&e.to_string()))
    }
}

fn split_rows(batch: &RecordBatch) -> Vec<RecordBatch> {
    (0..batch.num_rows()).map(|row| batch.slice(row, 1)).collect()
}
