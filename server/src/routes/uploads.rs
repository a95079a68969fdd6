//! Upload routes: a file in one request, or in several by tus, which may go to different servers.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use futures::StreamExt;
use serde::Deserialize;
use spool_jobs::{Id, UploadState};
use tokio::time::timeout;
use utoipa::IntoParams;

use super::{
    extract::{PathParams, QueryParams},
    tus,
    upload_job::{job_of_upload, job_spec},
};
use crate::{
    app_state::AppState,
    auth::principal::{Principal, Tenant},
    documents::{job_request::JobRequest, upload::Upload},
    problem::{Problem, ProblemKind},
    uploads::service::UploadSpec,
};

/// Maximum length of a file that is kept in memory and stored with one write, in bytes.
const MAX_SMALL_BYTES: u64 = 5 << 20;

/// Time in which a small file must arrive.
const SMALL_UPLOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Value of `job` that requests no job.
const NO_JOB: &str = "none";

/// Query of an upload in one request.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadQuery {
    /// Name of the file, without its folder.
    name: Option<String>,
    /// Job to create from the file, as for `POST /v1/jobs` but without a source; `none` for no job. Default:
    /// a job with default options.
    job: Option<String>,
}

/// Uploads a file, or begins an upload by tus.
///
/// A request with `Tus-Resumable` begins an upload by tus. `Upload-Metadata` may hold `filename`, and `job`:
/// the job to create once the upload is finished, as for `POST /v1/jobs` but without a source. An empty `job`
/// stands for default options.
#[utoipa::path(
    post,
    path = "/v1/uploads",
    operation_id = "create_upload",
    tag = "uploads",
    params(
        UploadQuery,
        ("Tus-Resumable" = Option<String>, Header, description = "Version of tus: `1.0.0`."),
        ("Upload-Length" = Option<u64>, Header, description = "By tus: length of the file in bytes."),
        (
            "Upload-Metadata" = Option<String>, Header,
            description = "By tus: comma-separated pairs of a name and a base64 text."
        ),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "Finished, or begun; `Location` holds the path.", body = Upload),
        (status = 400, description = "The request cannot be parsed."),
        (status = 408, description = "The request body took too long to arrive."),
        (status = 411, description = "Content-Length is required."),
        (status = 412, description = "The version of tus is not supported."),
        (status = 413, description = "The file exceeds the length limit of uploads, or of the upload token."),
        (status = 415, description = "The media type is not supported."),
        (status = 422, description = "A field of the request has an invalid value."),
        (status = 429, description = "Too many uploads run on this server; retry later."),
        (status = 460, description = "The checksum of the bytes does not match."),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    principal: Principal,
    QueryParams(query): QueryParams<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    // Boxed futures: a request that waits for a permit does not reserve the memory of the later futures.
    let upload = if tus::is_tus(&headers) {
        Box::pin(begin_tus(&state, &principal, &headers, body)).await?
    } else {
        upload_in_one_request(&state, &principal, query, &headers, body).await?
    };
    let location = [(header::LOCATION, format!("/v1/uploads/{}", upload.id))];
    let document = Json(Upload::from(upload.clone()));
    Ok((StatusCode::CREATED, location, tus::progress_headers(&upload), document).into_response())
}

async fn begin_tus(
    state: &AppState,
    principal: &Principal,
    headers: &HeaderMap,
    body: Body,
) -> Result<spool_jobs::Upload, Problem> {
    tus::check_version(headers)?;
    let bytes = tus::byte_count(headers, &tus::LENGTH)?.ok_or_else(|| {
        Problem::new(
            ProblemKind::Malformed,
            "Upload-Length: is required; uploads of unknown length are refused",
        )
    })?;
    let metadata = tus::parse_metadata(headers)?;
    let name = ["filename", "name"].iter().find_map(|key| metadata.get(*key)).cloned().unwrap_or_default();
    let job = job_of_upload(principal, metadata.get("job").map(String::as_str), bytes)?;
    let path_policy = state.path_policies.of_principal(principal).await?;
    let spec = UploadSpec::new(principal, &name, metadata, bytes);
    let has_bytes = headers.contains_key(header::CONTENT_TYPE);
    if has_bytes {
        tus::check_media_type(headers)?;
    }
    let upload = state.uploads.create(spec, |source| job_spec(state, job, path_policy, source)).await?;
    if !has_bytes || upload.state != UploadState::Open {
        return Ok(upload);
    }
    let checksum = tus::parse_checksum(headers)?;
    let lease = state.uploads.lease(&principal.tenant, &upload.id).await?;
    state.uploads.append(lease, body.into_data_stream(), checksum).await
}

async fn upload_in_one_request(
    state: &AppState,
    principal: &Principal,
    query: UploadQuery,
    headers: &HeaderMap,
    body: Body,
) -> Result<spool_jobs::Upload, Problem> {
    let bytes = tus::byte_count(headers, &header::CONTENT_LENGTH)?.ok_or_else(|| {
        Problem::new(ProblemKind::LengthRequired, "Content-Length is required; send a file, or use tus")
    })?;
    let declared_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let spec = UploadSpec::new(principal, &query.name.unwrap_or_default(), BTreeMap::new(), bytes)
        .with_declared_type(declared_type);
    let requested = query.job.as_deref().or(Some("")).filter(|job| *job != NO_JOB);
    let job = job_of_upload(principal, requested, bytes)?;
    if bytes > MAX_SMALL_BYTES {
        return Box::pin(upload_large(state, principal, spec, job, body)).await;
    }
    let _permit = state.uploads.small_upload_permit().await?;
    Box::pin(upload_small(state, principal, spec, job, body)).await
}

/// Stores a file in parts while it arrives.
async fn upload_large(
    state: &AppState,
    principal: &Principal,
    spec: UploadSpec,
    job: Option<JobRequest>,
    body: Body,
) -> Result<spool_jobs::Upload, Problem> {
    let path_policy = state.path_policies.of_principal(principal).await?;
    let upload = state.uploads.create(spec, |source| job_spec(state, job, path_policy, source)).await?;
    let lease = state.uploads.lease(&principal.tenant, &upload.id).await?;
    let appended = state.uploads.append(lease.clone(), body.into_data_stream(), None).await;
    if appended.is_err() {
        // A client without tus cannot resume. An upload that another request has finished stays finished.
        let _ = state.uploads.abort(&lease).await;
    }
    appended
}

/// Stores a file with one write, once all of it has arrived.
async fn upload_small(
    state: &AppState,
    principal: &Principal,
    spec: UploadSpec,
    job: Option<JobRequest>,
    body: Body,
) -> Result<spool_jobs::Upload, Problem> {
    let path_policy = state.path_policies.of_principal(principal).await?;
    let mut received = BytesMut::with_capacity(usize::try_from(spec.bytes()).unwrap_or_default());
    let mut stream = body.into_data_stream();
    let receive = async {
        while let Some(chunk) = stream.next().await {
            // The HTTP server ends the body at Content-Length, so that this does not grow beyond it.
            received.extend_from_slice(&chunk.map_err(|_| {
                Problem::new(ProblemKind::Malformed, "the request body ended before Content-Length")
            })?);
        }
        Ok::<_, Problem>(())
    };
    let timed_out = || {
        let detail = format!("the request body did not arrive within {} s", SMALL_UPLOAD_TIMEOUT.as_secs());
        Problem::new(ProblemKind::RequestTimeout, detail)
    };
    timeout(SMALL_UPLOAD_TIMEOUT, receive).await.map_err(|_| timed_out())??;
    state
        .uploads
        .create_finished(spec, received.freeze(), |source| job_spec(state, job, path_policy, source))
        .await
}

/// Describes the server's support of tus, in headers.
#[utoipa::path(
    options,
    path = "/v1/uploads",
    operation_id = "describe_tus",
    tag = "uploads",
    responses(
        (status = 204, description = "Headers with the version, extensions and length limit of tus."),
        (status = 200, description = "Headers for requests of pages of other origins (CORS)."),
    )
)]
pub(super) async fn options() -> Response {
    (StatusCode::NO_CONTENT, tus::capabilities()).into_response()
}

/// Returns an upload.
///
/// By tus, with `HEAD`: `Upload-Offset` holds the number of bytes after which to continue.
#[utoipa::path(
    get,
    path = "/v1/uploads/{id}",
    operation_id = "get_upload",
    tag = "uploads",
    params(("id" = String, Path, description = "Id of the upload, `upload_…`.")),
    responses(
        (status = 200, description = "The upload with its progress.", body = Upload),
        (status = 404, description = "The tenant has no upload with this id."),
    )
)]
pub(super) async fn get(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
    method: Method,
) -> Result<Response, Problem> {
    let upload = state.uploads.get(&tenant, &Id::from_text(id)).await?;
    if method == Method::HEAD && upload.state == UploadState::Gone {
        return Err(aborted(&upload));
    }
    let length = [(tus::LENGTH, upload.bytes.to_string()), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((length, tus::progress_headers(&upload), Json(Upload::from(upload))).into_response())
}

/// Appends bytes to an upload, by tus.
#[utoipa::path(
    patch,
    path = "/v1/uploads/{id}",
    operation_id = "append_to_upload",
    tag = "uploads",
    params(
        ("id" = String, Path, description = "Id of the upload, `upload_…`."),
        ("Tus-Resumable" = String, Header, description = "Version of tus: `1.0.0`."),
        ("Upload-Offset" = u64, Header, description = "Number of bytes that the upload has already."),
        (
            "Upload-Checksum" = Option<String>, Header,
            description = "Checksum of this request's bytes: `sha1`, `sha256` or `md5`, a blank, and base64."
        ),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses(
        (status = 204, description = "The bytes are stored; `Upload-Offset` holds the new number of bytes."),
        (status = 400, description = "The request cannot be parsed."),
        (status = 404, description = "The tenant has no open upload with this id."),
        (status = 408, description = "The request body took too long to arrive."),
        (status = 409, description = "`Upload-Offset` is not the number of bytes that the upload has."),
        (status = 412, description = "The version of tus is not supported."),
        (status = 413, description = "The bytes exceed the declared length of the upload."),
        (status = 415, description = "The media type is not supported."),
        (status = 423, description = "The upload is locked by another request; retry in a few seconds."),
        (status = 429, description = "Too many uploads run on this server; retry later."),
        (status = 460, description = "The checksum of the bytes does not match."),
    )
)]
pub(super) async fn patch(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    tus::check_version(&headers)?;
    tus::check_media_type(&headers)?;
    let offset = tus::byte_count(&headers, &tus::OFFSET)?
        .ok_or_else(|| Problem::new(ProblemKind::Malformed, "Upload-Offset: is required"))?;
    let checksum = tus::parse_checksum(&headers)?;
    let id = Id::from_text(id);
    let mut upload = state.uploads.get(&tenant, &id).await?;
    // Before the lease: a request with a wrong offset does not take the lease from the request that makes
    // progress.
    check_offset(&upload, offset)?;
    if upload.state == UploadState::Open {
        let lease = state.uploads.lease(&tenant, &id).await?;
        check_offset(&lease.upload, offset)?;
        upload = if lease.upload.received == lease.upload.bytes {
            state.uploads.finish(&lease).await?
        } else {
            state.uploads.append(lease, body.into_data_stream(), checksum).await?
        };
    }
    Ok((StatusCode::NO_CONTENT, tus::progress_headers(&upload)).into_response())
}

fn aborted(upload: &spool_jobs::Upload) -> Problem {
    let detail = format!("upload {} was aborted; begin a new one", upload.id);
    Problem::new(ProblemKind::NotFound, detail)
}

fn check_offset(upload: &spool_jobs::Upload, offset: u64) -> Result<(), Problem> {
    if upload.state == UploadState::Gone {
        return Err(aborted(upload));
    }
    if upload.received == offset {
        return Ok(());
    }
    let detail =
        format!("Upload-Offset: must be {}, the number of stored bytes, not {offset}", upload.received);
    Err(Problem::new(ProblemKind::Conflict, detail))
}

/// Aborts an upload and deletes its bytes, by tus.
#[utoipa::path(
    delete,
    path = "/v1/uploads/{id}",
    operation_id = "abort_upload",
    tag = "uploads",
    params(
        ("id" = String, Path, description = "Id of the upload, `upload_…`."),
        ("Tus-Resumable" = String, Header, description = "Version of tus: `1.0.0`."),
    ),
    responses(
        (status = 204, description = "The upload is aborted and its bytes are deleted."),
        (status = 404, description = "The tenant has no open upload with this id."),
        (status = 412, description = "The version of tus is not supported."),
        (status = 423, description = "The upload is locked by another request; retry in a few seconds."),
    )
)]
pub(super) async fn delete(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    tus::check_version(&headers)?;
    let lease = state.uploads.lease(&tenant, &Id::from_text(id)).await?;
    state.uploads.abort(&lease).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
