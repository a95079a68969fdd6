//! How many executors are wanted? What is waiting and running, for KEDA and for whatever else scales.
//!
//! Whichever executor is told to end when fewer are wanted drains first. The number asked for never falls below what the rows that run need.

use std::{collections::HashMap, pin::Pin, time::Duration};

use futures::Stream;
use serde::Serialize;
use spool_wire::keda::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef, external_scaler_server::ExternalScaler,
};
use tokio::time::interval;
use tokio_stream::{StreamExt, wrappers::IntervalStream};
use tonic::{Request, Response, Status};

use crate::service::Scheduler;

/// Name of the metric: rows that wait or run.
const METRIC: &str = "rows";

/// Key of a scaled object's metadata: rows that one executor should have, its slots unless told otherwise.
const ROWS_PER_EXECUTOR: &str = "rowsPerExecutor";

/// Rows per executor where neither the scaled object nor an executor tells.
const DEFAULT_ROWS_PER_EXECUTOR: i64 = 1;

/// How often a stream tells whether there is work.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What there is to do, and who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Demand {
    /// Statements that run.
    pub(crate) statements: usize,
    /// Rows that wait for a slot.
    pub(crate) rows_waiting: usize,
    /// Rows that run.
    pub(crate) rows_running: usize,
    /// Seconds of media in rows that are not done.
    pub(crate) media_seconds_left: i64,
    /// Executors that are there.
    pub(crate) executors: usize,
    /// Executors that have nothing in hand.
    pub(crate) executors_idle: usize,
    /// Rows that they run at a time.
    pub(crate) slots: usize,
}

impl Demand {
    pub(crate) fn of(scheduler: &Scheduler) -> Self {
        let (work, count) = (scheduler.statements.work(), scheduler.executors.count());
        let executors = scheduler.executors.snapshot();
        let rows_running: usize = executors.iter().map(|(_, executor)| executor.placed_rows()).sum();
        let left = work.rows.saturating_sub(work.rows_done);
        Self {
            statements: scheduler.statements.all().len(),
            rows_waiting: left.saturating_sub(rows_running),
            rows_running: rows_running.min(left.max(rows_running)),
            media_seconds_left: (work.media_ms - work.media_done_ms) / 1000,
            executors: count.executors,
            executors_idle: executors.iter().filter(|(_, executor)| executor.placed_rows() == 0).count(),
            slots: count.slots,
        }
    }

    /// Rows that wait or run. A statement that is still being planned counts as one, so that a cluster of none wakes up.
    fn rows(self) -> usize {
        (self.rows_waiting + self.rows_running).max(self.statements)
    }
}

/// KEDA's scaler.
#[derive(Clone)]
pub(crate) struct Scaler(pub(crate) Scheduler);

impl Scaler {
    fn rows_per_executor(&self, metadata: &HashMap<String, String>) -> Result<i64, Status> {
        match metadata.get(ROWS_PER_EXECUTOR) {
            Some(text) => match text.parse() {
                Ok(rows) if rows > 0 => Ok(rows),
                _ => Err(Status::invalid_argument(format!(
                    "{ROWS_PER_EXECUTOR} is {text:?}: give a whole number of rows, such as 4"
                ))),
            },
            None => {
                let slots = self.0.executors.snapshot().into_iter().map(|(_, executor)| executor.slots).max();
                Ok(slots.and_then(|slots| i64::try_from(slots).ok()).unwrap_or(DEFAULT_ROWS_PER_EXECUTOR))
            }
        }
    }
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

    async fn is_active(&self, _: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        Ok(Response::new(IsActiveResponse { result: Demand::of(&self.0).rows() > 0 }))
    }

    async fn stream_is_active(
        &self,
        _: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let scheduler = self.0.clone();
        let ticks = IntervalStream::new(interval(TELL_EVERY));
        Ok(Response::new(Box::pin(
            ticks.map(move |_| Ok(IsActiveResponse { result: Demand::of(&scheduler).rows() > 0 })),
        )))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let target = self.rows_per_executor(&request.get_ref().scaler_metadata)?;
        let spec = MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: target,
            target_size_float: target as f64,
        };
        Ok(Response::new(GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    async fn get_metrics(
        &self,
        _: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let rows = i64::try_from(Demand::of(&self.0).rows()).unwrap_or(i64::MAX);
        let value = MetricValue {
            metric_name: METRIC.to_owned(),
            metric_value: rows,
            metric_value_float: rows as f64,
        };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }
}
