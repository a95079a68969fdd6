//! API key routes: create, list and revoke keys of the tenant.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use spool_jobs::{Id, NewApiKey, Scope};

use super::extract::{JsonBody, PathParams};
use crate::{
    app_state::AppState,
    auth::principal::{Principal, Tenant},
    documents::credential::{ApiKey, ApiKeyList, ApiKeyRequest, CreatedApiKey},
    problem::{Problem, ProblemKind},
};

/// Maximum lifetime of a key in seconds: ten years.
const MAX_KEY_SECONDS: u64 = 3650 * 24 * 3600;

/// Creates an API key.
///
/// The key grants no scope that the credential of the request lacks.
#[utoipa::path(
    post,
    path = "/v1/keys",
    operation_id = "create_api_key",
    tag = "keys",
    request_body = ApiKeyRequest,
    responses(
        (status = 201, description = "The key with the secret, shown only here.", body = CreatedApiKey),
        (status = 400, description = "The request cannot be parsed."),
        (status = 403, description = "The credential lacks the scope `keys`, or one of the scopes to grant."),
        (status = 415, description = "The request body is not JSON."),
        (status = 422, description = "A field of the request has an invalid value."),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    principal: Principal,
    JsonBody(request): JsonBody<ApiKeyRequest>,
) -> Result<Response, Problem> {
    let scopes: Vec<Scope> = request.scopes.iter().map(|scope| scope.parse()).collect::<Result<_, _>>()?;
    if let Some((_, scope)) =
        scopes.iter().zip(&request.scopes).find(|(scope, _)| !principal.scopes.contains(scope))
    {
        let detail = format!("scopes: the credential lacks {scope}, so that a new key cannot grant it");
        return Err(Problem::new(ProblemKind::NotAllowed, detail));
    }
    if let Some(seconds) = request.expires_seconds
        && !(1..=MAX_KEY_SECONDS).contains(&seconds)
    {
        let detail = format!("expires_seconds: must be from 1 to {MAX_KEY_SECONDS}, not {seconds}");
        return Err(Problem::new(ProblemKind::Invalid, detail));
    }
    let new = NewApiKey {
        tenant: principal.tenant,
        name: request.name,
        scopes,
        valid_for: request.expires_seconds.map(Duration::from_secs),
    };
    let (key, token) = state.credentials.create_key(&new).await?;
    let body = CreatedApiKey { key: key.into(), token };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Lists the tenant's API keys, the newest first, without their secrets.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_api_keys",
    tag = "keys",
    responses((status = 200, description = "All API keys of the tenant.", body = ApiKeyList))
)]
pub(super) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
) -> Result<Json<ApiKeyList>, Problem> {
    let keys = state.credentials.keys(&tenant).await?;
    Ok(Json(ApiKeyList { keys: keys.into_iter().map(ApiKey::from).collect() }))
}

/// Revokes an API key.
///
/// Requests with the key are refused from now on. A repeated request changes nothing.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    operation_id = "revoke_api_key",
    tag = "keys",
    params(("id" = String, Path, description = "Id of the API key, `key_…`.")),
    responses(
        (status = 200, description = "The revoked key with its time of revocation.", body = ApiKey),
        (status = 404, description = "The tenant has no API key with this id."),
    )
)]
pub(super) async fn revoke(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
) -> Result<Json<ApiKey>, Problem> {
    Ok(Json(state.credentials.revoke_key(&tenant, &Id::from_text(id)).await?.into()))
}
