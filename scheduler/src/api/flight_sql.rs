//! Arrow Flight SQL: statements of database clients (ADBC, JDBC). A handle is the statement itself, so the
//! server keeps no state of it.

use std::{pin::Pin, sync::Arc};

use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse,
    Ticket,
    encode::FlightDataEncoderBuilder,
    flight_service_server::{FlightService, FlightServiceServer},
    sql::{
        ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
        ActionCreatePreparedStatementResult, Any, CommandGetSqlInfo, CommandPreparedStatementQuery,
        CommandStatementQuery, ProstMessageExt, SqlInfo, TicketStatementQuery,
        metadata::{SqlInfoData, SqlInfoDataBuilder},
        server::{FlightSqlService, PeekableFlightDataStream},
    },
};
use datafusion::arrow::{datatypes::Schema, ipc::writer::IpcWriteOptions};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use spool_wire::authenticate;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataMap};

use crate::{engine::MESSAGE_MAX_BYTES, error::Error, scheduler::Scheduler};

type Data = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// Returns the Flight SQL service of a scheduler. Clients must present `token`, if there is one.
pub(crate) fn service(scheduler: Scheduler, token: Option<Arc<str>>) -> FlightServiceServer<FlightSql> {
    let bytes = MESSAGE_MAX_BYTES as usize;
    FlightServiceServer::new(FlightSql { scheduler, token })
        .max_decoding_message_size(bytes)
        .max_encoding_message_size(bytes)
}

#[derive(Clone)]
pub(crate) struct FlightSql {
    scheduler: Scheduler,
    token: Option<Arc<str>>,
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = Self;

    /// A handshake needs no name and no password: every call carries a token.
    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        self.authorize(request.metadata())?;
        let answer = HandshakeResponse { protocol_version: 0, payload: bytes::Bytes::new() };
        Ok(Response::new(Box::pin(stream::iter([Ok(answer)]))))
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authorize(request.metadata())?;
        let ticket = TicketStatementQuery { statement_handle: query.query.clone().into() };
        self.info(&query.query, &ticket, request.into_inner()).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authorize(request.metadata())?;
        let sql = text(&query.prepared_statement_handle)?;
        self.info(&sql, &query, request.into_inner()).await
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authorize(request.metadata())?;
        let known = sql_info()?;
        let ticket = Ticket::new(query.as_any().encode_to_vec());
        let schema = query.into_builder(&known).schema();
        Ok(Response::new(flight_info(&schema, ticket, request.into_inner())?))
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        self.authorize(request.metadata())?;
        self.run(text(&ticket.statement_handle)?)
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        self.authorize(request.metadata())?;
        self.run(text(&query.prepared_statement_handle)?)
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        self.authorize(request.metadata())?;
        let known = sql_info()?;
        let builder = query.into_builder(&known);
        let (schema, batch) =
            (builder.schema(), builder.build().map_err(|e| Status::internal(e.to_string()))?);
        let data = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .build(stream::iter([Ok(batch)]))
            .map_err(Status::from);
        Ok(Response::new(data.boxed()))
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        self.authorize(request.metadata())?;
        let schema = self.scheduler.schema(&query.query, &[]).await.map_err(|e| status(&e))?;
        let message = arrow_flight::SchemaAsIpc::new(&schema, &IpcWriteOptions::default())
            .try_into()
            .map_err(|e: datafusion::arrow::error::ArrowError| Status::internal(e.to_string()))?;
        let arrow_flight::IpcMessage(dataset_schema) = message;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: query.query.into(),
            dataset_schema,
            parameter_schema: bytes::Bytes::new(),
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.authorize(request.metadata())
    }

    async fn do_put_fallback(
        &self,
        _: Request<PeekableFlightDataStream>,
        _: Any,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        Err(Status::unimplemented("data cannot be put: statements read sources by URI"))
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

impl FlightSql {
    fn authorize(&self, metadata: &MetadataMap) -> Result<(), Status> {
        authenticate(metadata, self.token.as_deref())
    }

    async fn info(
        &self,
        sql: &str,
        ticket: &impl ProstMessageExt,
        descriptor: FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = self.scheduler.schema(sql, &[]).await.map_err(|e| status(&e))?;
        Ok(Response::new(flight_info(&schema, Ticket::new(ticket.as_any().encode_to_vec()), descriptor)?))
    }

    /// Returns a stream that runs the statement when it is read, and cancels it when dropped.
    fn run(&self, sql: String) -> Result<Response<Data>, Status> {
        let scheduler = self.scheduler.clone();
        let rows = async move {
            let cancel = CancellationToken::new();
            let result = scheduler.run(&sql, &[], &cancel, &|_| {}).await.map_err(|e| status(&e))?;
            let batches = stream::iter(result.batches.into_iter().map(Ok));
            Ok::<_, Status>(
                FlightDataEncoderBuilder::new()
                    .with_schema(result.schema)
                    .build(batches)
                    .map_err(Status::from),
            )
        };
        Ok(Response::new(stream::once(rows).try_flatten().boxed()))
    }
}

fn flight_info(schema: &Schema, ticket: Ticket, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let info = FlightInfo::new().try_with_schema(schema).map_err(|e| Status::internal(e.to_string()))?;
    Ok(info.with_endpoint(FlightEndpoint::new().with_ticket(ticket)).with_descriptor(descriptor))
}

fn text(handle: &[u8]) -> Result<String, Status> {
    String::from_utf8(handle.to_vec()).map_err(|_| {
        Status::invalid_argument("the handle is not one that this server gave: prepare the statement again")
    })
}

fn sql_info() -> Result<Arc<SqlInfoData>, Status> {
    let mut builder = SqlInfoDataBuilder::new();
    builder.append(SqlInfo::FlightSqlServerName, "Spool");
    builder.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    builder.append(SqlInfo::FlightSqlServerReadOnly, true);
    builder.build().map(Arc::new).map_err(|e| Status::internal(e.to_string()))
}

/// Returns the gRPC status of a failure.
fn status(error: &Error) -> Status {
    Status::new(Code::from_i32(error.kind().grpc_code()), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_grpc_code_of_its_kind() {
        let sql = Error::Sql { message: "no table t".to_owned() };
        assert_eq!((status(&sql).code(), status(&sql).message()), (Code::InvalidArgument, "no table t"));
        let lost = Error::Lost { executor: "a".to_owned() };
        assert_eq!(status(&lost).code(), Code::Unavailable);
        assert_eq!(status(&Error::Canceled).code(), Code::Cancelled);
        assert_eq!(status(&Error::Engine { message: String::new() }).code(), Code::Internal);
    }
}
