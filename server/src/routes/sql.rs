//! Query route: read-only SQL over the tenant's jobs, rows, attempts, videos, renditions and parts.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::extract::JsonBody;
use crate::{app_state::AppState, auth::principal::Tenant, problem::Problem};

/// Query over the tenant's tables.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryRequest {
    /// One SELECT statement over the tables.
    #[schema(example = "SELECT job, ordinal FROM rows WHERE frames <> expected")]
    sql: String,
}

/// Result of a query: columns and rows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueryResult {
    /// Names of the columns, in order.
    columns: Vec<String>,
    /// Rows, one object each. An object omits the columns that are NULL.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<Value>,
    /// Whether the result has more rows than the 10,000 that are returned at most.
    more: bool,
}

/// Runs a query over the tenant's tables.
///
/// The tables are `jobs`, `rows`, `attempts`, `videos`, `renditions` and `parts`; `SELECT table_name,
/// column_name, data_type FROM information_schema.columns` lists their columns. A query reads only. Queries
/// over `rows`, `attempts`, `renditions` and `parts` are fastest with a filter on one `job` or `video`. To
/// transcode, send the statement to `POST /v1/jobs`.
#[utoipa::path(
    post,
    path = "/v1/sql",
    operation_id = "query",
    tag = "jobs",
    request_body = QueryRequest,
    responses(
        (status = 200, description = "The rows of the query's result.", body = QueryResult),
        (status = 400, description = "The request cannot be parsed."),
        (status = 413, description = "The request body exceeds 1 MiB."),
        (status = 415, description = "The request body is not JSON."),
        (status = 422, description = "The query is invalid, would change data, or takes too long."),
        (status = 429, description = "Too many queries run; retry when one has ended."),
    )
)]
pub(super) async fn query(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    JsonBody(request): JsonBody<QueryRequest>,
) -> Result<Json<QueryResult>, Problem> {
    let answer = state.queries.query(&tenant, request.sql).await?;
    Ok(Json(QueryResult { columns: answer.columns, rows: answer.rows, more: answer.more }))
}
