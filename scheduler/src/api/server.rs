//! Server of the scheduler's port: gRPC for executors, clients, Flight SQL and KEDA; HTTP for people, probes
//! and Prometheus.

use std::{sync::Arc, time::Duration};

use axum::middleware;
use spool_wire::{
    keda::external_scaler_server::ExternalScalerServer,
    v1::{executor_service_server::ExecutorServiceServer, statements_server::StatementsServer},
};
use tokio::net::TcpListener;
use tonic::{service::Routes, transport::Server};

use super::{
    connections::{self, Listener},
    flight_sql, foreign_pages,
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

/// The scheduler's port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) listener: Listener,
    /// Whether only this machine reaches it, and so the web pages in a browser here.
    pub(crate) loopback: bool,
    /// Token that clients and executors must present, if there is one.
    pub(crate) token: Option<String>,
}

/// Serves until a listener fails. `probes` answers probes and Prometheus without a token.
pub(crate) async fn serve(
    port: Port,
    probes: Option<TcpListener>,
    scheduler: Scheduler,
    executor_service: ExecutorService,
) -> std::io::Result<()> {
    let token: Option<Arc<str>> = port.token.map(Into::into);
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
    let unprotected = http.clone();
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
    .add_service(flight_sql::service(scheduler, token.clone()))
    .add_service(ExternalScalerServer::new(KedaScaler { demand, token }))
    .into_axum_router()
    .route_layer(middleware::from_fn(foreign_pages::require_grpc));
    let guard = foreign_pages::Guard { loopback: port.loopback };
    let routes = grpc
        .merge(http::routes(http))
        .layer(middleware::from_fn_with_state(guard, foreign_pages::refuse_foreign_pages));
    let server = Server::builder()
        .accept_http1(true)
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_routes(Routes::from(routes));
    let served = async {
        let served = match port.listener {
            Listener::Tcp(listener, tls) => {
                server.serve_with_incoming(connections::accept(listener, tls)).await
            }
            Listener::InProcess(incoming) => server.serve_with_incoming(incoming).await,
        };
        served.map_err(std::io::Error::other)
    };
    let probed = async {
        match probes {
            Some(listener) => axum::serve(listener, http::probes(unprotected)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = served => ended,
        ended = probed => ended,
    }
}
