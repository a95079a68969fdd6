//! Keys of the tenant that asks: made, listed, revoked.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use spool_jobs::{Id, NewKey, Scope};
use utoipa::ToSchema;

use crate::{
    app_state::AppState,
    auth::authenticate::{Principal, Tenant},
    problem::{Problem, ProblemKind},
    routes::{
        documents::{KeyShown, KeysShown, NewKeyShown},
        extract::{Body, Named},
    },
};

/// The longest time that a key is good, in seconds: ten years.
const MAX_SECONDS: u64 = 3650 * 24 * 3600;

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyRequest {
    /// Its name for people.
    #[serde(default)]
    name: String,
    /// What it opens: `read`, `write`, `keys`.
    #[schema(example = json!(["read", "write"]))]
    scopes: Vec<String>,
    /// How long it is good for: until it is revoked unless given.
    #[schema(minimum = 1, maximum = 315360000)]
    expires_seconds: Option<u64>,
}

/// Makes a key, which opens no more than the one that makes it.
#[utoipa::path(
    post,
    path = "/v1/keys",
    tag = "keys",
    request_body = KeyRequest,
    responses(
        (status = 201, description = "It, with what is shown only once.", body = NewKeyShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "It would open more than yours.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what there cannot be.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    principal: Principal,
    Body(wish): Body<KeyRequest>,
) -> Result<Response, Problem> {
    let scopes: Vec<Scope> = wish.scopes.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    if let Some(scope) = scopes.iter().find(|scope| !principal.scopes.contains(scope)) {
        let detail =
            format!("scopes: yours does not open {}: a key makes none that opens more", scope.word());
        return Err(Problem::new(ProblemKind::NotAllowed, detail));
    }
    if let Some(seconds) = wish.expires_seconds
        && !(1..=MAX_SECONDS).contains(&seconds)
    {
        let detail = format!("expires_seconds: it is {seconds}: it must be from 1 to {MAX_SECONDS}");
        return Err(Problem::new(ProblemKind::Invalid, detail));
    }
    let new = NewKey {
        tenant: principal.tenant,
        name: wish.name,
        scopes,
        valid_for: wish.expires_seconds.map(Duration::from_secs),
    };
    let (key, token) = state.credentials.create_key(&new).await?;
    let body = NewKeyShown { key: key.into(), token };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// The tenant's keys, the newest first, without what opens.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", responses((status = 200, description = "All of them.", body = KeysShown)))]
pub(super) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
) -> Result<Json<KeysShown>, Problem> {
    let keys = state.credentials.keys(&tenant).await?;
    Ok(Json(KeysShown { keys: keys.into_iter().map(KeyShown::from).collect() }))
}

/// Has a key open nothing from now on. Revoked twice is revoked once.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    tag = "keys",
    params(("id" = String, Path, description = "The key")),
    responses(
        (status = 200, description = "It is revoked.", body = KeyShown),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn revoke(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
) -> Result<Json<KeyShown>, Problem> {
    Ok(Json(state.credentials.revoke_key(&tenant, &Id::from_text(id)).await?.into()))
}
