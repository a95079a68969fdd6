//! What does the scheduler's port answer? Executors, clients, Flight SQL and KEDA by gRPC; people, probes and Prometheus by HTTP.

use std::net::SocketAddr;

use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer;
use spool_wire::{
    keda::external_scaler_server::ExternalScalerServer,
    v1::{members_server::MembersServer, statements_server::StatementsServer},
};
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::{
    gate::Gate, http, membership::Membership, scaler::Scaler, service::MESSAGE_BYTES, service::Scheduler, statements::Door,
};

/// Serves until the listener fails.
pub(crate) async fn open(listener: TcpListener, scheduler: Scheduler, membership: Membership) -> std::io::Result<()> {
    let gate = Gate { server: scheduler.server.clone(), members: scheduler.members.clone() };
    let bytes = MESSAGE_BYTES as usize;
    let grpc = Routes::new(SchedulerGrpcServer::new(gate).max_decoding_message_size(bytes).max_encoding_message_size(bytes))
        .add_service(MembersServer::new(membership))
        .add_service(StatementsServer::new(Door(scheduler.clone())))
        .add_service(crate::flight_sql::service(scheduler.clone()))
        .add_service(ExternalScalerServer::new(Scaler(scheduler.clone())))
        .into_axum_router();
    let routes = grpc.merge(http::routes(scheduler));
    // Ballista asks the request where it comes from.
    axum::serve(listener, routes.into_make_service_with_connect_info::<SocketAddr>()).await
}
