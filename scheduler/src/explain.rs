//! What will a statement take? `EXPLAIN` says it, beside the plan.

use std::{collections::HashMap, sync::Arc, time::Duration};

use datafusion::{
    arrow::{
        array::{RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    },
    logical_expr::LogicalPlan,
    prelude::SessionContext,
};
use spool_media::{
    plan::segments::{Segment, SegmentTrack},
    predict::{complexity::Complexity, cost_model::Prediction, features::EncodeFeatures},
};
use spool_udfs::{functions::transcode::ladder_at, guard, options::SpoolOptions, value};

use crate::{
    error::{Error, Result},
    phases::{self, Encode},
    service::Scheduler,
};

/// How long it is waited for an executor: that of the same process joins while a statement is planned.
const JOINED: Duration = Duration::from_secs(3);

/// SourceCache of a statement that samples are encoded of: some seconds each.
const SAMPLED_TITLES: usize = 8;

/// What the prediction is called among the plans.
const PLAN_TYPE: &str = "prediction";

impl Scheduler {
    /// What `EXPLAIN` gives: the plans that the session's own `explain` has of `plan`, and what its rows will take if it encodes.
    pub(crate) async fn explain(
        &self,
        session: &Arc<SessionContext>,
        explain: &LogicalPlan,
        plan: &LogicalPlan,
    ) -> Result<Vec<RecordBatch>> {
        let engine = |e: datafusion::error::DataFusionError| Error::from_engine(&e.to_string());
        let plan = &phases::unnest(plan.clone()).map_err(engine)?;
        let encodes = phases::find_encodes(plan).map_err(engine)?;
        let depends = |encode: &Encode| guard::count_effects(encode.input()).map(|effects| effects > 0);
        let mut nested = false;
        for encode in &encodes {
            nested |= depends(encode).map_err(engine)?;
        }
        let mut batches = if nested {
            // It runs in phases and has no physical plan as a whole: the engine would call one function from within the other.
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

    /// What the rows of these will take.
    async fn predict(&self, session: &Arc<SessionContext>, encodes: &[Encode]) -> Result<RecordBatch> {
        let engine = |e: datafusion::error::DataFusionError| Error::from_engine(&e.to_string());
        let (mut work, mut unknown) = (Vec::new(), "");
        for encode in encodes {
            // Rows that follow from what others give are only known when those are encoded.
            if guard::count_effects(encode.input()).map_err(engine)? > 0 {
                unknown = "; what follows from encoded rows is not known";
                continue;
            }
            work.extend(self.work(session, encode).await?);
        }
        self.executors.wait_for_slots(JOINED).await;
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

    /// What the rows of a projection are to do: they are planned for that, and not encoded.
    async fn work(&self, session: &Arc<SessionContext>, encode: &Encode) -> Result<Vec<EncodeFeatures>> {
        let planning = async {
            let _planner = self.planners.acquire().await;
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
            Ok::<_, datafusion::error::DataFusionError>(rows)
        };
        let rows = planning.await.map_err(|e| Error::from_planner(&e))?;
        let failed =
            |e: spool_media::Error| Error::from_engine(&spool_udfs::error::engine_error(e).to_string());
        let mut work = Vec::with_capacity(rows.len());
        // The first sources tell of the others.
        let mut looked_at: HashMap<(String, String), Option<Complexity>> = HashMap::new();
        for (segment, ladder) in rows {
            let title = self.worker.open_planned(&segment).await.map_err(failed)?;
            let source = (segment.source.clone(), segment.etag.clone());
            if segment.track == SegmentTrack::Video
                && looked_at.len() < SAMPLED_TITLES
                && !looked_at.contains_key(&source)
            {
                looked_at.insert(source.clone(), self.worker.complexity(&title, &ladder).await);
            }
            let samples = looked_at.get(&source).cloned().unwrap_or_else(|| {
                let found: Vec<Complexity> = looked_at.values().flatten().cloned().collect();
                Complexity::mean(&found)
            });
            work.push(EncodeFeatures::of(&title, &segment, &ladder, samples.as_ref()).map_err(failed)?);
        }
        Ok(work)
    }
}

/// A row of what `EXPLAIN` gives.
fn row(plan_type: &str, plan: &str) -> Result<RecordBatch> {
    let field = |name| Field::new(name, DataType::Utf8, false);
    let columns = [plan_type, plan].map(|text| Arc::new(StringArray::from(vec![text])) as _);
    let batch = RecordBatch::try_new(
        Arc::new(Schema::new(vec![field("plan_type"), field("plan")])),
        columns.to_vec(),
    );
    batch.map_err(|e| Error::Engine { message: e.to_string() })
}
