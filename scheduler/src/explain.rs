//! What will a statement take? `EXPLAIN` says it, beside the plan.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    },
    logical_expr::LogicalPlan,
    prelude::SessionContext,
};
use spool_media::{
    cost::{Prediction, Work},
    segments::Segment,
    titles,
};
use spool_udfs::{functions::transcode::ladder_at, options::SpoolOptions, value};

use crate::{
    error::{Error, Result},
    phases::{self, Encode},
    service::Scheduler,
};

/// What the prediction is called among the plans.
const PLAN_TYPE: &str = "prediction";

impl Scheduler {
    /// A row for what `EXPLAIN` gives: what the rows of a plan will take. `None` for a plan that encodes nothing.
    pub(crate) async fn predict(&self, session: &Arc<SessionContext>, plan: &LogicalPlan) -> Result<Option<RecordBatch>> {
        let encodes = phases::find_encodes(plan).map_err(|e| Error::from_engine(&e.to_string()))?;
        if encodes.is_empty() {
            return Ok(None);
        }
        let mut work = Vec::new();
        for encode in &encodes {
            work.extend(self.work(session, encode).await?);
        }
        let threads = session.state().config().options().extensions.get::<SpoolOptions>().map_or(1, |options| options.threads);
        let prediction = Prediction::of(&self.machine.costs(), &work, self.members.count().slots, threads);
        let text = format!("{} rows: {prediction}", work.len());
        let field = |name| Field::new(name, DataType::Utf8, false);
        let columns = [PLAN_TYPE, text.as_str()].map(|text| Arc::new(StringArray::from(vec![text])) as _);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field("plan_type"), field("plan")])), columns.to_vec());
        batch.map(Some).map_err(|e| Error::Engine { message: e.to_string() })
    }

    /// What the rows of a projection are to do: they are planned for that, and not encoded.
    async fn work(&self, session: &Arc<SessionContext>, encode: &Encode) -> Result<Vec<Work>> {
        let planning = async {
            let _planner = self.planners.acquire().await;
            let input = session.execute_logical_plan(encode.input().clone()).await?.collect().await?;
            let state = session.state();
            let segment = state.create_physical_expr(encode.segment.clone(), encode.input().schema())?;
            let mut rows = Vec::new();
            let Some(ladder) = encode.ladder.clone() else { return Ok(rows) };
            let ladder = state.create_physical_expr(ladder, encode.input().schema())?;
            for batch in &input {
                let segments = segment.evaluate(batch)?.into_array(batch.num_rows())?;
                let ladders = ladder.evaluate(batch)?.into_array(batch.num_rows())?;
                for (row, segment) in value::values::<Segment>(&segments)?.into_iter().enumerate() {
                    if let Some(segment) = segment {
                        rows.push((segment, ladder_at(&ladders, row)?));
                    }
                }
            }
            Ok::<_, datafusion::error::DataFusionError>(rows)
        };
        let rows = planning.await.map_err(|e| Error::from_planner(&e))?;
        let failed = |e: spool_media::Error| Error::from_engine(&spool_udfs::error::engine_error(e).to_string());
        let mut work = Vec::with_capacity(rows.len());
        for (segment, ladder) in rows {
            let title = titles::open_planned(&self.machine, &segment).await.map_err(failed)?;
            work.push(Work::of(&title, &segment, &ladder).map_err(failed)?);
        }
        Ok(work)
    }
}
