//! Server of the scheduler's port: gRPC for executors, clients, Flight SQL and KEDA; HTTP for people, probes
//! and Prometheus.

use std::{sync::Arc, time::Duration};

use spool_wire::{
    Incoming,
    keda::external_scaler_server::ExternalScalerServer,
    v1::{executor_service_server::ExecutorServiceServer, statements_server::StatementsServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};

use super::{
    flight_sql,
    grpc::StatementsService,
    http::{self, HttpState},
    keda::KedaScaler,
};
use crate::{
    demand::DemandSource, engine::MESSAGE_MAX_BYTES, executors::service::ExecutorService,
    scheduler::Scheduler,
};

/// Interval between tests of an idle connection, and time limit of the response. A peer that disappears
/// silently is detected after their sum, and its statements end.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    InProcess(Incoming),
}

/// Serves until the listener fails. Clients and executors must present `token`, if there is one.
pub(crate) async fn serve(
    listener: Listener,
    scheduler: Scheduler,
    executor_service: ExecutorService,
    token: Option<String>,
) -> std::io::Result<()> {
    let token: Option<Arc<str>> = token.map(Into::into);
    let rows = &scheduler.context.rows;
    let executors = rows.attempts.executors.clone();
    let demand = DemandSource { statements: scheduler.statements.clone(), executors: executors.clone() };
    let http = HttpState {
        demand: demand.clone(),
        executors,
        fair_queue: rows.fair_queue.clone(),
        planners: scheduler.context.planner.limit.clone(),
        statements: scheduler.statements.clone(),
        metrics: scheduler.metrics.clone(),
        token: token.clone(),
    };
    let bytes = MESSAGE_MAX_BYTES as usize;
    let grpc = Routes::new(
        ExecutorServiceServer::new(executor_service)
            .max_decoding_message_size(bytes)
            .max_encoding_message_size(bytes),
    )
    .add_service(StatementsServer::new(StatementsService {
        scheduler: scheduler.clone(),
        token: token.clone(),
    }))
    .add_service(flight_sql::service(scheduler, token))
    .add_service(ExternalScalerServer::new(KedaScaler { demand }))
    .into_axum_router();
    let routes = Routes::from(grpc.merge(http::routes(http)));
    let server = Server::builder()
        .accept_http1(true)
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_routes(routes);
    let served = match listener {
        Listener::Tcp(listener) => server.serve_with_incoming(TcpListenerStream::new(listener)).await,
        Listener::InProcess(incoming) => server.serve_with_incoming(incoming).await,
    };
    served.map_err(std::io::Error::other)
}
