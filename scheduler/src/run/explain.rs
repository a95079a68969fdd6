//! `EXPLAIN`: the plan of a statement, and a prediction of the cost of its rows.

use std::{collections::HashMap, sync::Arc, time::Duration};

use datafusion::{
    arrow::{
        array::{RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    },
    error::DataFusionError,
    logical_expr::LogicalPlan,
    prelude::SessionContext,
};
use spool_media::{
    encode::worker::Worker,
    plan::segments::{Segment, SegmentTrack},
    predict::{complexity::Complexity, cost_model::Prediction, features::EncodeFeatures},
};
use spool_udfs::{functions::transcode::ladder_at, guard, options::SpoolOptions, value};

use super::{
    plan_rewrite::{self, Encode},
    planner::Planner,
};
use crate::{
    error::{Error, Result},
    executors::registry::ExecutorRegistry,
};

/// Time for which an executor is awaited: that of the scheduler's own process connects while a statement is
/// planned.
const EXECUTOR_TIMEOUT: Duration = Duration::from_secs(3);

/// Most sources of a statement whose complexity is measured, by encoding some seconds of each.
const MEASURED_SOURCES_MAX: usize = 8;

/// Type of the row with the prediction, among the types of plans.
const PLAN_TYPE: &str = "prediction";

/// Parts of a scheduler that `EXPLAIN` uses.
pub(crate) struct Explainer<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) planner: &'a Planner,
    pub(crate) executors: &'a ExecutorRegistry,
}

impl Explainer<'_> {
    /// Returns the rows of `EXPLAIN`: the plans that the session's own `explain` returns, and the prediction
    /// if `plan` encodes.
    pub(crate) async fn explain(
        &self,
        session: &SessionContext,
        explain: &LogicalPlan,
        plan: &LogicalPlan,
    ) -> Result<Vec<RecordBatch>> {
        let failed = |e: DataFusionError| Error::from_engine(&e.to_string());
        let plan = &plan_rewrite::unnest(plan.clone()).map_err(failed)?;
        let encodes = plan_rewrite::find_encodes(plan).map_err(failed)?;
        let depends = |encode: &Encode| guard::count_effects(encode.input()).map(|effects| effects > 0);
        let mut nested = false;
        for encode in &encodes {
            nested |= depends(encode).map_err(failed)?;
        }
        let mut batches = if nested {
            // Encoding depends on encoded rows: there is no physical plan of the whole, since the engine
            // would call one function from within the other.
            vec![row("logical_plan", &plan.display_indent().to_string())?]
        } else {
            let frame =
                session.execute_logical_plan(explain.clone()).await.map_err(|e| Error::from_planner(&e))?;
            frame.collect().await.map_err(|e| Error::from_planner(&e))?
        };
        if !encodes.is_empty() {
            batches.push(self.predict(session, &encodes).await?);
        }
        Ok(batches)
    }

    /// Predicts the cost of the rows of these projections.
    async fn predict(&self, session: &SessionContext, encodes: &[Encode]) -> Result<RecordBatch> {
        let failed = |e: DataFusionError| Error::from_engine(&e.to_string());
        let (mut work, mut unknown) = (Vec::new(), "");
        for encode in encodes {
            // Rows that depend on encoded rows are known only after encoding.
            if guard::count_effects(encode.input()).map_err(failed)? > 0 {
                unknown = "; rows that depend on encoded rows are not known";
                continue;
            }
            work.extend(self.work(session, encode).await?);
        }
        self.executors.wait_for_slots(EXECUTOR_TIMEOUT).await;
        let threads = session
            .state()
            .config()
            .options()
            .extensions
            .get::<SpoolOptions>()
            .map_or(1, |options| options.threads);
        let prediction =
            Prediction::of(&self.worker.cost_model(), &work, self.executors.count().slots, threads);
        let text = format!("{} rows: {prediction}{unknown}", work.len());
        row(PLAN_TYPE, &text)
    }

    /// Returns the features of a projection's rows, which are planned but not encoded.
    async fn work(&self, session: &SessionContext, encode: &Encode) -> Result<Vec<EncodeFeatures>> {
        let planning = async {
            let _permit = self.planner.limit.acquire().await;
            let input = session.execute_logical_plan(encode.input().clone()).await?.collect().await?;
            let state = session.state();
            let segment = state.create_physical_expr(encode.segment.clone(), encode.input().schema())?;
            let mut rows = Vec::new();
            for (ladder, batch) in
                encode.ladders.iter().flat_map(|ladder| input.iter().map(move |batch| (ladder, batch)))
            {
                let ladder = state.create_physical_expr(ladder.clone(), encode.input().schema())?;
                let segments = segment.evaluate(batch)?.into_array(batch.num_rows())?;
                let ladders = ladder.evaluate(batch)?.into_array(batch.num_rows())?;
                for (row, segment) in value::values::<Segment>(&segments)?.into_iter().enumerate() {
                    if let Some(segment) = segment {
                        rows.push((segment, ladder_at(&ladders, row)?));
                    }
                }
            }
            Ok::<_, DataFusionError>(rows)
        };
        let rows = planning.await.map_err(|e| Error::from_planner(&e))?;
        let media_failed =
            |e: spool_media::Error| Error::from_engine(&spool_udfs::error::engine_error(e).to_string());
        let mut work = Vec::with_capacity(rows.len());
        // The mean complexity of the first sources is used for the others.
        let mut measured: HashMap<(String, String), Option<Complexity>> = HashMap::new();
        // A row's segment is a value of the statement, which may name any source.
        let policy = SpoolOptions::path_policy(session.state().config().options());
        for (segment, ladder) in rows {
            if let Some(policy) = &policy {
                let refused = |e| Error::from_engine(&spool_udfs::error::engine_error(e).to_string());
                policy.check_source(&segment.source).map_err(refused)?;
            }
            let opened = self.worker.open_planned(&segment).await.map_err(media_failed)?;
            let source = (segment.source.clone(), segment.etag.clone());
            if segment.track == SegmentTrack::Video
                && measured.len() < MEASURED_SOURCES_MAX
                && !measured.contains_key(&source)
            {
                measured.insert(source.clone(), self.worker.complexity(&opened, &ladder).await);
            }
            let samples = measured.get(&source).cloned().unwrap_or_else(|| {
                let found: Vec<Complexity> = measured.values().flatten().cloned().collect();
                Complexity::mean(&found)
            });
            work.push(
                EncodeFeatures::of(&opened, &segment, &ladder, samples.as_ref()).map_err(media_failed)?,
            );
        }
        Ok(work)
    }
}

/// Returns one row of `EXPLAIN`.
fn row(plan_type: &str, plan: &str) -> Result<RecordBatch> {
    let field = |name| Field::new(name, DataType::Utf8, false);
    let columns = [plan_type, plan].map(|text| Arc::new(StringArray::from(vec![text])) as _);
    let batch = RecordBatch::try_new(
        Arc::new(Schema::new(vec![field("plan_type"), field("plan")])),
        columns.to_vec(),
    );
    batch.map_err(|e| Error::Engine { message: e.to_string() })
}
