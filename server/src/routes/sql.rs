//! Queries over jobs, rows, attempts, videos, renditions and parts.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{app_state::AppState, auth::authenticate::Tenant, problem::Problem, routes::extract::Body};

/// A query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryRequest {
    /// One SELECT.
    #[schema(example = "SELECT job, number FROM rows WHERE frames <> expected")]
    sql: String,
}

/// What a query gives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueryShown {
    /// The columns' names, in order.
    columns: Vec<String>,
    /// An object each; a column that is NULL is left out.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<Value>,
    /// Were there more rows than are given, which are at most 10,000?
    more: bool,
}

/// Answers a query over what the tables `jobs`, `rows`, `attempts`, `videos`, `renditions` and `parts` hold of the tenant that asks; what is in
/// them `SELECT table_name, column_name, data_type FROM information_schema.columns` tells. It reads, and changes nothing. `rows`, `attempts`,
/// `renditions` and `parts` are read fastest of one `job` or `video`. To transcode, send the statement to `POST /v1/jobs`.
#[utoipa::path(
    post,
    path = "/v1/sql",
    tag = "jobs",
    request_body = QueryRequest,
    responses(
        (status = 200, description = "The answer.", body = QueryShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "It is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It is wrong, would change something, or takes too long.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many queries run.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn query(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Body(asked): Body<QueryRequest>,
) -> Result<Json<QueryShown>, Problem> {
    let answer = state.queries.query(&tenant, asked.sql).await?;
    Ok(Json(QueryShown { columns: answer.columns, rows: answer.rows, more: answer.more }))
}
