//! Uploads whose parts go straight to the store, by links.
//!
//! Source: Amazon S3 User Guide, "Uploading and copying objects using multipart upload".

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use spool_jobs::{Id, UploadState};
use spool_storage::part_bytes;
use utoipa::ToSchema;

use super::uploads;
use crate::{
    app_state::AppState,
    auth::authenticate::{Principal, Tenant},
    problem::Problem,
    routes::{
        documents::UploadShown,
        extract::{Body, Named},
    },
    uploads::{
        multipart::{self, LINK_LIFETIME, Part},
        service::UploadSpec,
    },
};

/// Links that are made unless more or fewer are asked for.
const LINKS: u64 = 100;

/// An upload whose parts go straight to the store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MultipartRequest {
    /// The file's name.
    #[schema(example = "talk.mp4")]
    #[serde(default)]
    name: String,
    /// Its length.
    #[schema(minimum = 1, example = 1_073_741_824)]
    bytes: u64,
    /// What to make of it once all of it is there, as for `POST /v1/jobs` but without a source. Nothing unless given.
    #[schema(value_type = Option<Object>)]
    job: Option<serde_json::Value>,
}

/// An upload in parts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MultipartShown {
    upload: UploadShown,
    /// Length of every part but the last.
    part_bytes: u64,
    /// How many there are.
    parts: u64,
}

/// Which parts are to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LinksRequest {
    /// The first part's number: 1 unless given.
    #[schema(minimum = 1)]
    from: Option<u64>,
    /// How many: 100 unless given.
    #[schema(minimum = 1, maximum = 1000)]
    count: Option<u64>,
}

/// Where parts are sent to, each by `PUT`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LinksShown {
    links: Vec<PartLinkShown>,
    /// How long they are good for.
    expires_seconds: u64,
}

/// Where a part is sent to. Whoever has it can send the part.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartLinkShown {
    /// The part's number.
    part: u64,
    /// Its length.
    bytes: u64,
    url: String,
}

/// What the store answered to each part.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CompleteRequest {
    /// The `ETag` of each answer, by the numbers of the parts.
    etags: Vec<String>,
}

/// Begins an upload whose parts the client sends straight to the bucket, by links that it asks for next.
#[utoipa::path(
    post,
    path = "/v1/uploads/multipart",
    tag = "uploads",
    request_body = MultipartRequest,
    responses(
        (status = 201, description = "It is begun; `Location` says where.", body = MultipartShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "It is too long.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what cannot be done, or uploads are kept in no bucket.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant keeps as many bytes as it may.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    principal: Principal,
    Body(asked): Body<MultipartRequest>,
) -> Result<Response, Problem> {
    let job = asked.job.map(|job| job.to_string());
    let job = uploads::wanted(&principal, job.as_deref(), asked.bytes)?;
    let confines = state.auth.path_policy(&principal).await?;
    let spec = UploadSpec::new(&principal, &asked.name, BTreeMap::new(), asked.bytes);
    state.uploads.check_multipart(&spec)?;
    let upload = state.uploads.create(spec, |source| uploads::order(&state, job, confines, source)).await?;
    let place = format!("/v1/uploads/{}", upload.id);
    let (part_bytes, parts) = (part_bytes(upload.bytes), multipart::part_count(upload.bytes));
    let shown = MultipartShown { upload: upload.into(), part_bytes, parts };
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], Json(shown)).into_response())
}

/// Makes links for parts of an upload: each is sent by `PUT`, in any order, and again if it broke off; the `ETag` of its answer is kept for the
/// end.
#[utoipa::path(
    post,
    path = "/v1/uploads/{id}/links",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload")),
    request_body = LinksRequest,
    responses(
        (status = 200, description = "They.", body = LinksShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such upload.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It takes no more parts.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It has no such parts.", body = Problem, content_type = "application/problem+json"),
        (status = 423, description = "Another request has it in hand: try again.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn links(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
    Body(asked): Body<LinksRequest>,
) -> Result<Response, Problem> {
    let id = Id::from_text(id);
    multipart::check_accepts_parts(&state.uploads.get(&tenant, &id).await?)?;
    let hold = state.uploads.lease(&tenant, &id).await?;
    let parts =
        state.uploads.part_links(&hold, asked.from.unwrap_or(1), asked.count.unwrap_or(LINKS)).await?;
    let links = parts
        .into_iter()
        .map(|Part { number, bytes, url }| PartLinkShown { part: number, bytes, url })
        .collect();
    let shown = LinksShown { links, expires_seconds: LINK_LIFETIME.as_secs() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(shown)).into_response())
}

/// Makes the file of its parts, and the job that was asked for.
#[utoipa::path(
    post,
    path = "/v1/uploads/{id}/complete",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload")),
    request_body = CompleteRequest,
    responses(
        (status = 200, description = "It is there.", body = UploadShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such upload, or the store has not all of its parts.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Its parts are not what was announced.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "These are not its parts.", body = Problem, content_type = "application/problem+json"),
        (status = 423, description = "Another request has it in hand: try again.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn complete(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
    Body(asked): Body<CompleteRequest>,
) -> Result<Json<UploadShown>, Problem> {
    let id = Id::from_text(id);
    let upload = state.uploads.get(&tenant, &id).await?;
    if upload.state == UploadState::Finished {
        return Ok(Json(upload.into()));
    }
    let hold = state.uploads.lease(&tenant, &id).await?;
    Ok(Json(state.uploads.complete_multipart(hold, asked.etags).await?.into()))
}
