//! KEDA's external scaler: reports the number of rows that wait or run, from which KEDA computes the number
//! of executors.
//!
//! An executor drains before it is removed. The number of executors never falls below the need of running
//! rows.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use spool_wire::{
    authenticate,
    keda::{
        GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
        MetricValue, ScaledObjectRef, external_scaler_server::ExternalScaler,
    },
};
use tokio::time::interval;
use tokio_stream::{StreamExt, wrappers::IntervalStream};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::demand::DemandSource;

/// Name of the metric: rows that wait or run.
const METRIC: &str = "rows";

/// Key of a scaled object's metadata: rows per executor. The default is an executor's slots.
const ROWS_PER_EXECUTOR: &str = "rowsPerExecutor";

/// Key of a scaled object's metadata: the scheduler's token.
const TOKEN: &str = "tokenFromEnv";

/// Rows per executor if neither the scaled object nor an executor gives a number.
const DEFAULT_ROWS_PER_EXECUTOR: i64 = 1;

/// Interval at which a stream reports whether there is work.
const ACTIVE_INTERVAL: Duration = Duration::from_secs(1);

/// KEDA's external scaler.
#[derive(Clone)]
pub(crate) struct KedaScaler {
    pub(crate) demand: DemandSource,
    /// Token that a scaled object must carry, if there is one.
    pub(crate) token: Option<Arc<str>>,
}

impl KedaScaler {
    /// Checks the token of a call, which KEDA cannot send as a header: it comes as `tokenFromEnv`, whose
    /// value KEDA takes from the environment of the scaled pods.
    fn authenticate(&self, object: Option<&ScaledObjectRef>) -> Result<(), Status> {
        let given = object.and_then(|object| object.scaler_metadata.get(TOKEN)).map(String::as_str);
        let mut metadata = MetadataMap::new();
        if let Some(header) = given.and_then(|token| format!("Bearer {token}").parse().ok()) {
            metadata.insert("authorization", header);
        }
        authenticate(&metadata, self.token.as_deref())
    }

    fn rows_per_executor(&self, metadata: &HashMap<String, String>) -> Result<i64, Status> {
        match metadata.get(ROWS_PER_EXECUTOR) {
            Some(text) => match text.parse() {
                Ok(rows) if rows > 0 => Ok(rows),
                _ => Err(Status::invalid_argument(format!(
                    "{ROWS_PER_EXECUTOR} is {text:?}: give a whole number of rows, such as 4"
                ))),
            },
            None => {
                let slots = self.demand.slots_per_executor();
                Ok(slots.and_then(|slots| i64::try_from(slots).ok()).unwrap_or(DEFAULT_ROWS_PER_EXECUTOR))
            }
        }
    }
}

#[tonic::async_trait]
impl ExternalScaler for KedaScaler {
    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        self.authenticate(Some(request.get_ref()))?;
        Ok(Response::new(IsActiveResponse { result: self.demand.read().rows() > 0 }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        self.authenticate(Some(request.get_ref()))?;
        let demand = self.demand.clone();
        let ticks = IntervalStream::new(interval(ACTIVE_INTERVAL));
        Ok(Response::new(Box::pin(
            ticks.map(move |_| Ok(IsActiveResponse { result: demand.read().rows() > 0 })),
        )))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        self.authenticate(Some(request.get_ref()))?;
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
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        self.authenticate(request.get_ref().scaled_object_ref.as_ref())?;
        let rows = i64::try_from(self.demand.read().rows()).unwrap_or(i64::MAX);
        let value = MetricValue {
            metric_name: METRIC.to_owned(),
            metric_value: rows,
            metric_value_float: rows as f64,
        };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }
}
