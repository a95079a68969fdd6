//! Upload token route: creates credentials for clients without an API key, such as browsers.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use spool_jobs::NewUploadToken;

use super::{
    extract::JsonBody,
    upload_job::{job_spec, parse_job},
};
use crate::{
    app_state::AppState,
    auth::principal::Principal,
    documents::credential::{CreatedUploadToken, UploadTokenRequest},
    problem::{Problem, ProblemKind},
    uploads::service::MAX_BYTES,
};

/// Lifetime of a token in seconds: the default, and the maximum.
const DEFAULT_TOKEN_SECONDS: u64 = 3600;
const MAX_TOKEN_SECONDS: u64 = 7 * 24 * 3600;

/// Length limit of the upload in bytes, unless the request sets one.
const DEFAULT_MAX_BYTES: u64 = 10 << 30;

/// Source that stands for the upload while the job is checked, in which every path is allowed.
const EXAMPLE_SOURCE: &str = "upload";

/// Creates an upload token.
///
/// The token is a credential for one upload, in one request or by tus, and for no other operation. The job of
/// the upload is fixed here.
#[utoipa::path(
    post,
    path = "/v1/uploads/tokens",
    operation_id = "create_upload_token",
    tag = "uploads",
    request_body = UploadTokenRequest,
    responses(
        (status = 201, description = "The token, shown only here.", body = CreatedUploadToken),
        (status = 400, description = "The request cannot be parsed."),
        (status = 415, description = "The request body is not JSON."),
        (status = 422, description = "A field of the request has an invalid value."),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    principal: Principal,
    JsonBody(request): JsonBody<UploadTokenRequest>,
) -> Result<Response, Problem> {
    let invalid = |detail: String| Problem::new(ProblemKind::Invalid, detail);
    let seconds = request.expires_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS);
    if !(1..=MAX_TOKEN_SECONDS).contains(&seconds) {
        return Err(invalid(format!(
            "expires_seconds: must be from 1 to {MAX_TOKEN_SECONDS}, not {seconds}"
        )));
    }
    let max_bytes = request.max_bytes.unwrap_or(DEFAULT_MAX_BYTES);
    if !(1..=MAX_BYTES).contains(&max_bytes) {
        return Err(invalid(format!("max_bytes: must be from 1 to {MAX_BYTES}, not {max_bytes}")));
    }
    let job = request.job.unwrap_or_else(|| serde_json::json!({})).to_string();
    // Checks the job now: the uploading client could not correct it.
    let path_policy = state.path_policies.of_principal(&principal).await?;
    let example =
        path_policy.as_ref().and_then(|policy| policy.read.last()).map_or(EXAMPLE_SOURCE, String::as_str);
    if let Some(spec) = job_spec(&state, Some(parse_job(&job)?), path_policy.clone(), example)? {
        spec.check()?;
    }
    let new = NewUploadToken {
        tenant: principal.tenant,
        max_bytes,
        job: Some(job),
        valid_for: Duration::from_secs(seconds),
    };
    let (token, secret) = state.credentials.create_upload_token(&new).await?;
    let body = CreatedUploadToken { token: secret, max_bytes: token.max_bytes, expires_ms: token.expires_ms };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}
