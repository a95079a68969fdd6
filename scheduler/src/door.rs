//! What does the scheduler's port answer? Executors, clients, Flight SQL and KEDA by gRPC; people, probes and Prometheus by HTTP.

use std::time::Duration;

use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer;
use spool_wire::{
    keda::external_scaler_server::ExternalScalerServer,
    v1::{executor_service_server::ExecutorServiceServer, statements_server::StatementsServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};

use crate::{
    executors::service::ExecutorService,
    gate::Gate,
    http,
    scaler::Scaler,
    service::{MESSAGE_BYTES, Scheduler},
    statements::Door,
};

/// How often a connection is tested, and how long the answer may take: who is gone without a word shows in their sum, and what was run for
/// it ends.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Serves until the listener fails.
pub(crate) async fn open(
    listener: TcpListener,
    scheduler: Scheduler,
    membership: ExecutorService,
) -> std::io::Result<()> {
    let (executors, turnstile) = (scheduler.executors.clone(), scheduler.turnstile.clone());
    let gate = Gate { server: scheduler.server.clone(), executors, turnstile };
    let bytes = MESSAGE_BYTES as usize;
    let grpc = Routes::new(
        SchedulerGrpcServer::new(gate).max_decoding_message_size(bytes).max_encoding_message_size(bytes),
    )
    .add_service(ExecutorServiceServer::new(membership))
    .add_service(StatementsServer::new(Door(scheduler.clone())))
    .add_service(crate::flight_sql::service(scheduler.clone()))
    .add_service(ExternalScalerServer::new(Scaler(scheduler.clone())))
    .into_axum_router();
    let routes = Routes::from(grpc.merge(http::routes(scheduler)));
    let server = Server::builder()
        .accept_http1(true)
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER))
        .add_routes(routes);
    server.serve_with_incoming(TcpListenerStream::new(listener)).await.map_err(std::io::Error::other)
}
