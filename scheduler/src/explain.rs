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
    cost::{Prediction, Work},
    samples::{self, Changes},
    segments::{Segment, SegmentTrack},
    titles,
};
use spool_udfs::{functions::transcode::ladder_at, guard, options::SpoolOptions, value};

use crate::{
    error::{Error, Result},
    phases::{self, Encode},
    service::Scheduler,
};

/// How long it is waited for an executor: that of the same process joins while a statement is planned.
const JOINED: Duration = Duration::from_secs(3);

/// Titles of a statement that samples are encoded of: some seconds each.
const SAMPLED_TITLES: usize = 8;

/// What the prediction is called among the plans.
const PLAN_TYPE: &str = "prediction";

impl Scheduler {
    /// A row for what `EXPLAIN` gives: what the rows of a plan will take. `None` for a plan that encodes nothing.
    pub(crate) async fn predict(&self, session: &Arc<SessionContext>, plan: &LogicalPlan) -> Result<Option<RecordBatch>> {
        let engine = |e: datafusion::error::DataFusionError| Error::from_engine(&e.to_string());
        let encodes = phases::find_encodes(plan).map_err(engine)?;
        if encodes.is_empty() {
            return Ok(None);
        }
        let (mut work, mut unknown) = (Vec::new(), "");
        for encode in &encodes {
            // Rows that follow from what others give are only known when those are encoded.
            if guard::count_effects(encode.input()).map_err(engine)? > 0 {
                unknown = "; what follows from encoded rows is not known";
                continue;
            }
            work.extend(self.work(session, encode).await?);
        }
        self.members.somebody(JOINED).await;
        let threads = session.state().config().options().extensions.get::<SpoolOptions>().map_or(1, |options| options.threads);
        let prediction = Prediction::of(&self.machine.costs(), &work, self.members.count().slots, threads);
        let text = format!("{} rows: {prediction}{unknown}", work.len());
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
            for (ladder, batch) in encode.ladders.iter().flat_map(|ladder| input.iter().map(move |batch| (ladder, batch))) {
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
        let failed = |e: spool_media::Error| Error::from_engine(&spool_udfs::error::engine_error(e).to_string());
        let mut work = Vec::with_capacity(rows.len());
        // Of each source how much of its pictures changes; the others are taken to be like the first.
        let mut looked_at: HashMap<(String, String), Option<Changes>> = HashMap::new();
        for (segment, ladder) in rows {
            let title = titles::open_planned(&self.machine, &segment).await.map_err(failed)?;
            let source = (segment.source.clone(), segment.etag.clone());
            if segment.track == SegmentTrack::Video && looked_at.len() < SAMPLED_TITLES && !looked_at.contains_key(&source) {
                looked_at.insert(source.clone(), samples::changes(&self.machine, &title, &ladder).await);
            }
            let changes = looked_at.get(&source).cloned().unwrap_or_else(|| {
                let found: Vec<Changes> = looked_at.values().flatten().cloned().collect();
                Changes::mean(&found)
            });
            work.push(Work::of(&title, &segment, &ladder, changes.as_ref()).map_err(failed)?);
        }
        Ok(work)
    }
}
