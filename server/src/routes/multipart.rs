//! Multipart upload routes: the client sends parts straight to the object store, by presigned links.
//!
//! Source: Amazon S3 User Guide, "Uploading and copying objects using multipart upload".

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use spool_jobs::{Id, UploadState};
use spool_storage::part_bytes;

use super::{
    extract::{JsonBody, PathParams},
    upload_job::{job_of_upload, job_spec},
};
use crate::{
    app_state::AppState,
    auth::principal::{Principal, Tenant},
    documents::upload::{
        CompleteUploadRequest, MultipartUpload, MultipartUploadRequest, PartLink, PartLinkList,
        PartLinksRequest, Upload,
    },
    problem::Problem,
    uploads::{
        multipart::{self, LINK_LIFETIME, Part},
        service::UploadSpec,
    },
};

/// Links of a response, unless the request asks for another number.
const DEFAULT_LINKS: u64 = 100;

/// Begins an upload whose parts go straight to the object store.
///
/// The client requests links next, and sends one part to each.
#[utoipa::path(
    post,
    path = "/v1/uploads/multipart",
    operation_id = "create_multipart_upload",
    tag = "uploads",
    request_body = MultipartUploadRequest,
    responses(
        (status = 201, description = "Begun; `Location` holds the path.", body = MultipartUpload),
        (status = 400, description = "The request cannot be parsed."),
        (status = 413, description = "The file exceeds the length limit of uploads, or of the upload token."),
        (status = 415, description = "The request body is not JSON."),
        (status = 422, description = "A field has an invalid value, or uploads are not stored in a bucket."),
        (status = 429, description = "The tenant's quota of upload bytes is exceeded."),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    principal: Principal,
    JsonBody(request): JsonBody<MultipartUploadRequest>,
) -> Result<Response, Problem> {
    let job = request.job.map(|job| job.to_string());
    let job = job_of_upload(&principal, job.as_deref(), request.bytes)?;
    let path_policy = state.path_policies.of_principal(&principal).await?;
    let spec = UploadSpec::new(&principal, &request.name, BTreeMap::new(), request.bytes);
    state.uploads.check_multipart(&spec)?;
    let upload = state.uploads.create(spec, |source| job_spec(&state, job, path_policy, source)).await?;
    let location = format!("/v1/uploads/{}", upload.id);
    let (part_bytes, parts) = (part_bytes(upload.bytes), multipart::part_count(upload.bytes));
    let body = MultipartUpload { upload: upload.into(), part_bytes, parts };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}

/// Creates links to send parts of an upload to.
///
/// Each part is sent by `PUT`, in any order, and again after a failure. The client keeps the `ETag` of each
/// response for completion.
#[utoipa::path(
    post,
    path = "/v1/uploads/{id}/links",
    operation_id = "create_part_links",
    tag = "uploads",
    params(("id" = String, Path, description = "Id of the upload, `upload_…`.")),
    request_body = PartLinksRequest,
    responses(
        (status = 200, description = "The links, in the order of the parts.", body = PartLinkList),
        (status = 400, description = "The request cannot be parsed."),
        (status = 404, description = "The tenant has no upload with this id."),
        (status = 409, description = "The upload is not open for parts."),
        (status = 415, description = "The request body is not JSON."),
        (status = 422, description = "The upload has no such parts."),
        (status = 423, description = "The upload is locked by another request; retry in a few seconds."),
    )
)]
pub(super) async fn create_links(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
    JsonBody(request): JsonBody<PartLinksRequest>,
) -> Result<Response, Problem> {
    let id = Id::from_text(id);
    multipart::check_accepts_parts(&state.uploads.get(&tenant, &id).await?)?;
    let lease = state.uploads.lease(&tenant, &id).await?;
    let (from, count) = (request.from.unwrap_or(1), request.count.unwrap_or(DEFAULT_LINKS));
    let parts = state.uploads.part_links(&lease, from, count).await?;
    let links =
        parts.into_iter().map(|Part { number, bytes, url }| PartLink { part: number, bytes, url }).collect();
    let body = PartLinkList { links, expires_seconds: LINK_LIFETIME.as_secs() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Completes an upload whose parts are at the object store, and creates its job.
#[utoipa::path(
    post,
    path = "/v1/uploads/{id}/complete",
    operation_id = "complete_multipart_upload",
    tag = "uploads",
    params(("id" = String, Path, description = "Id of the upload, `upload_…`.")),
    request_body = CompleteUploadRequest,
    responses(
        (status = 200, description = "The finished upload, with the id of its job.", body = Upload),
        (status = 400, description = "The request cannot be parsed."),
        (status = 404, description = "The tenant has no upload with this id, or a part is missing."),
        (status = 409, description = "The length of the parts differs from the declared length."),
        (status = 415, description = "The request body is not JSON."),
        (status = 422, description = "The ETags differ from the ETags of the upload's parts."),
        (status = 423, description = "The upload is locked by another request; retry in a few seconds."),
    )
)]
pub(super) async fn complete(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
    JsonBody(request): JsonBody<CompleteUploadRequest>,
) -> Result<Json<Upload>, Problem> {
    let id = Id::from_text(id);
    let upload = state.uploads.get(&tenant, &id).await?;
    if upload.state == UploadState::Finished {
        return Ok(Json(upload.into()));
    }
    let lease = state.uploads.lease(&tenant, &id).await?;
    Ok(Json(state.uploads.complete_multipart(lease, request.etags).await?.into()))
}
