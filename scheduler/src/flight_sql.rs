//! How do database clients (ADBC, JDBC) run statements? By Arrow Flight SQL. A handle is the statement itself, so nothing is kept.

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
use spool_storage::ErrorKind;
use spool_wire::authenticate;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use crate::{
    error::Error,
    service::{MESSAGE_BYTES, Scheduler},
};

type Data = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// Flight SQL over a scheduler.
pub(crate) fn service(scheduler: Scheduler) -> FlightServiceServer<FlightSql> {
    let bytes = MESSAGE_BYTES as usize;
    FlightServiceServer::new(FlightSql { scheduler })
        .max_decoding_message_size(bytes)
        .max_encoding_message_size(bytes)
}

#[derive(Clone)]
pub(crate) struct FlightSql {
    scheduler: Scheduler,
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = Self;

    /// A name and a password are not asked for; a token is shown with every call.
    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        self.allowed(request.metadata())?;
        let answer = HandshakeResponse { protocol_version: 0, payload: bytes::Bytes::new() };
        Ok(Response::new(Box::pin(stream::iter([Ok(answer)]))))
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.allowed(request.metadata())?;
        let ticket = TicketStatementQuery { statement_handle: query.query.clone().into() };
        self.info(&query.query, &ticket, request.into_inner()).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.allowed(request.metadata())?;
        let sql = text(&query.prepared_statement_handle)?;
        self.info(&sql, &query, request.into_inner()).await
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.allowed(request.metadata())?;
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
        self.allowed(request.metadata())?;
        self.run(text(&ticket.statement_handle)?)
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        self.allowed(request.metadata())?;
        self.run(text(&query.prepared_statement_handle)?)
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        self.allowed(request.metadata())?;
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
        self.allowed(request.metadata())?;
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
        self.allowed(request.metadata())
    }

    async fn do_put_fallback(
        &self,
        _: Request<PeekableFlightDataStream>,
        _: Any,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        Err(Status::unimplemented("statements return rows; there is nothing to put"))
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

impl FlightSql {
    fn allowed(&self, metadata: &MetadataMap) -> Result<(), Status> {
        authenticate(metadata, self.scheduler.settings.token.as_deref())
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

    /// Runs a statement when its rows are asked for, for as long as they are.
    fn run(&self, sql: String) -> Result<Response<Data>, Status> {
        let scheduler = self.scheduler.clone();
        let rows = async move {
            let cancel = CancellationToken::new();
            let outcome = scheduler.run(&sql, &[], &cancel, &|_| {}).await.map_err(|e| status(&e))?;
            let batches = stream::iter(outcome.batches.into_iter().map(Ok));
            Ok::<_, Status>(
                FlightDataEncoderBuilder::new()
                    .with_schema(outcome.schema)
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
    String::from_utf8(handle.to_vec())
        .map_err(|_| Status::invalid_argument("the handle is none of this server's"))
}

fn sql_info() -> Result<Arc<SqlInfoData>, Status> {
    let mut builder = SqlInfoDataBuilder::new();
    builder.append(SqlInfo::FlightSqlServerName, "Spool");
    builder.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    builder.append(SqlInfo::FlightSqlServerReadOnly, true);
    builder.build().map(Arc::new).map_err(|e| Status::internal(e.to_string()))
}

/// What a failure is in gRPC's words.
fn status(error: &Error) -> Status {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::NotFound => Status::not_found(message),
        ErrorKind::NotAllowed => Status::permission_denied(message),
        ErrorKind::BadInput => Status::invalid_argument(message),
        ErrorKind::Transient => Status::unavailable(message),
        ErrorKind::Canceled => Status::cancelled(message),
        ErrorKind::Bug => Status::internal(message),
    }
}
