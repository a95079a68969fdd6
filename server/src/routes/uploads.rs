//! Uploads: a file at once with curl, or in pieces with tus, which any of several servers goes on with.
//!
//! Source: tus resumable upload protocol 1.0.0, with creation, creation-with-upload, expiration, checksum and termination.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::StreamExt;
use serde::Deserialize;
use spool_jobs::{Id, NewUploadToken, Order, Upload, UploadState};
use spool_storage::path_policy::PathPolicy;
use utoipa::{IntoParams, ToSchema};

use crate::{
    app_state::AppState,
    auth::authenticate::{Principal, Tenant},
    problem::{Problem, ProblemKind},
    routes::{
        documents::{JobRequest, TokenShown, UploadShown, parse_job_request},
        extract::{Asked, Body as BodyOf, Named},
    },
    uploads::{
        checksum::{self, Checksum},
        service::{MAX_BYTES, UploadSpec},
    },
};

const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const VERSION: HeaderName = HeaderName::from_static("tus-version");
const EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const CHECKSUMS: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");

/// What pages of other origins have to read of an answer.
pub(super) const ANSWERED: [HeaderName; 8] =
    [RESUMABLE, VERSION, EXTENSION, MAX_SIZE, CHECKSUMS, OFFSET, LENGTH, EXPIRES];

/// The version that is spoken.
const TUS: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,expiration,checksum,termination";
const PIECES: &str = "application/offset+octet-stream";

/// What is kept at once where it came at once, in bytes.
const SMALL: u64 = 5 << 20;

/// The longest metadata, in bytes.
const MAX_METADATA: usize = 16 << 10;

/// How long a token for one upload is good, in seconds, and how long the upload may be, in bytes, where nobody says otherwise.
const TOKEN_SECONDS: u64 = 3600;
const MAX_TOKEN_SECONDS: u64 = 7 * 24 * 3600;
const TOKEN_BYTES: u64 = 10 << 30;

/// How long a small upload may take in all.
const SMALL_WITHIN: Duration = Duration::from_secs(120);

/// What is said of a file that comes at once.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Plain {
    /// The file's name.
    name: Option<String>,
    /// What to make of it, as for `POST /v1/jobs` but without a source; `none` for nothing. Unless given, a job with every choice left to
    /// Spool.
    job: Option<String>,
}

/// Sends a file at once, or, with `Tus-Resumable`, begins an upload by tus, whose `Upload-Metadata` may hold `filename` and, for a job once all
/// of it is there, `job`: a document as for `POST /v1/jobs` but without a source, or nothing for one with every choice left to Spool.
#[utoipa::path(
    post,
    path = "/v1/uploads",
    tag = "uploads",
    params(
        Plain,
        ("Tus-Resumable" = Option<String>, Header, description = "`1.0.0`, for an upload by tus"),
        ("Upload-Length" = Option<u64>, Header, description = "Length of what will come, by tus"),
        ("Upload-Metadata" = Option<String>, Header, description = "By tus: names and base64, with commas between"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "It is kept, or begun; `Location` says where.", body = UploadShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "Nothing came for too long.", body = Problem, content_type = "application/problem+json"),
        (status = 411, description = "Its length is not said.", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Another version of tus is spoken.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "It is too long.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is of a type that is not taken.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what cannot be done.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "There are too many uploads under way.", body = Problem, content_type = "application/problem+json"),
        (status = 460, description = "It is not what its checksum says.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    principal: Principal,
    Asked(plain): Asked<Plain>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    // In boxes: what waits for its turn holds no room for what comes after.
    let upload = if headers.contains_key(RESUMABLE) {
        Box::pin(begin(&state, &principal, &headers, body)).await?
    } else {
        at_once(&state, &principal, plain, &headers, body).await?
    };
    let place = [(header::LOCATION, format!("/v1/uploads/{}", upload.id))];
    let shown = Json(UploadShown::from(upload.clone()));
    Ok((StatusCode::CREATED, place, tus_headers(&upload), shown).into_response())
}

async fn begin(
    state: &AppState,
    principal: &Principal,
    headers: &HeaderMap,
    body: Body,
) -> Result<Upload, Problem> {
    spoken(headers)?;
    let bytes = number(headers, &LENGTH)?.ok_or_else(|| {
        Problem::new(
            ProblemKind::Malformed,
            "Upload-Length: it is missing, and an upload whose length is not known is not taken",
        )
    })?;
    let metadata = metadata(headers)?;
    let name = ["filename", "name"].iter().find_map(|key| metadata.get(*key)).cloned().unwrap_or_default();
    let job = wanted(principal, metadata.get("job").map(String::as_str), bytes)?;
    let confines = state.auth.path_policy(principal).await?;
    let spec = UploadSpec::new(principal, &name, metadata, bytes);
    let with_bytes = headers.contains_key(header::CONTENT_TYPE);
    if with_bytes {
        of_pieces(headers)?;
    }
    let upload = state.uploads.create(spec, |source| order(state, job, confines, source)).await?;
    if !with_bytes || upload.state != UploadState::Open {
        return Ok(upload);
    }
    let checksum = checksum(headers)?;
    let hold = state.uploads.lease(&principal.tenant, &upload.id).await?;
    state.uploads.append(hold, body.into_data_stream(), checksum).await
}

async fn at_once(
    state: &AppState,
    principal: &Principal,
    plain: Plain,
    headers: &HeaderMap,
    body: Body,
) -> Result<Upload, Problem> {
    let missing = || {
        Problem::new(ProblemKind::LengthRequired, "Content-Length: it is missing: send a file, or use tus")
    };
    let bytes = number(headers, &header::CONTENT_LENGTH)?.ok_or_else(missing)?;
    let _turn = if bytes > SMALL { None } else { Some(state.uploads.small_upload_permit().await?) };
    let declared_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    Box::pin(take_at_once(state, principal, plain, bytes, declared_type, body)).await
}

async fn take_at_once(
    state: &AppState,
    principal: &Principal,
    plain: Plain,
    bytes: u64,
    declared_type: Option<&str>,
    body: Body,
) -> Result<Upload, Problem> {
    let job = wanted(principal, plain.job.as_deref().or(Some("")).filter(|job| *job != "none"), bytes)?;
    let confines = state.auth.path_policy(principal).await?;
    let spec = UploadSpec::new(principal, &plain.name.unwrap_or_default(), BTreeMap::new(), bytes)
        .with_declared_type(declared_type);
    if bytes > SMALL {
        let upload = state.uploads.create(spec, |source| order(state, job, confines, source)).await?;
        let hold = state.uploads.lease(&principal.tenant, &upload.id).await?;
        let taken = state.uploads.append(hold.clone(), body.into_data_stream(), None).await;
        if taken.is_err() {
            // Nobody comes back for what came without tus. What somebody else finished meanwhile is finished.
            let _ = state.uploads.abort(&hold).await;
        }
        return taken;
    }
    let mut kept = bytes::BytesMut::with_capacity(usize::try_from(bytes).unwrap_or_default());
    let mut stream = body.into_data_stream();
    let all = async {
        while let Some(chunk) = stream.next().await {
            // The length is that of the header: what is longer is cut off before it gets here.
            kept.extend_from_slice(
                &chunk
                    .map_err(|_| Problem::new(ProblemKind::Malformed, "the request ended before its end"))?,
            );
        }
        Ok::<_, Problem>(())
    };
    let late = || {
        Problem::new(
            ProblemKind::RequestTimeout,
            format!("it did not come within {} s", SMALL_WITHIN.as_secs()),
        )
    };
    tokio::time::timeout(SMALL_WITHIN, all).await.map_err(|_| late())??;
    state.uploads.create_finished(spec, kept.freeze(), |source| order(state, job, confines, source)).await
}

/// What tus can do here.
#[utoipa::path(options, path = "/v1/uploads", tag = "uploads", responses(
    (status = 204, description = "The headers say."),
    (status = 200, description = "What pages of other origins may send."),
))]
pub(super) async fn options() -> Response {
    let headers = [
        (EXTENSION, EXTENSIONS.to_owned()),
        (MAX_SIZE, MAX_BYTES.to_string()),
        (CHECKSUMS, checksum::KNOWN.to_owned()),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// An upload. With `HEAD` and tus: where to go on.
#[utoipa::path(
    get,
    path = "/v1/uploads/{id}",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload")),
    responses(
        (status = 200, description = "It.", body = UploadShown),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
    method: Method,
) -> Result<Response, Problem> {
    let upload = state.uploads.get(&tenant, &Id::from_text(id)).await?;
    if method == Method::HEAD && upload.state == UploadState::Gone {
        return Err(given_up(&upload));
    }
    let length = [(LENGTH, upload.bytes.to_string()), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((length, tus_headers(&upload), Json(UploadShown::from(upload))).into_response())
}

/// Sends more of an upload, by tus.
#[utoipa::path(
    patch,
    path = "/v1/uploads/{id}",
    tag = "uploads",
    params(
        ("id" = String, Path, description = "The upload"),
        ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
        ("Upload-Offset" = u64, Header, description = "Where it goes on"),
        ("Upload-Checksum" = Option<String>, Header, description = "What the bytes of this request come to: `sha1`, `sha256` or `md5`, and base64"),
    ),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses(
        (status = 204, description = "It is kept; `Upload-Offset` says how much there is."),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such upload.", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "Nothing came for too long.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It goes on elsewhere.", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Another version of tus is spoken.", body = Problem, content_type = "application/problem+json"),
        (status = 423, description = "Another request has it in hand: try again.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "More comes than was announced.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is of a type that is not taken.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "There are too many uploads under way.", body = Problem, content_type = "application/problem+json"),
        (status = 460, description = "It is not what its checksum says.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn patch(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    spoken(&headers)?;
    of_pieces(&headers)?;
    let offset = number(&headers, &OFFSET)?
        .ok_or_else(|| Problem::new(ProblemKind::Malformed, "Upload-Offset: it is missing"))?;
    let checksum = checksum(&headers)?;
    let id = Id::from_text(id);
    let mut upload = state.uploads.get(&tenant, &id).await?;
    // Before it is taken in hand: what is sent for another place takes it from nobody.
    at(&upload, offset)?;
    if upload.state == UploadState::Open {
        let hold = state.uploads.lease(&tenant, &id).await?;
        at(&hold.upload, offset)?;
        upload = if hold.upload.received == hold.upload.bytes {
            state.uploads.finish(&hold).await?
        } else {
            state.uploads.append(hold, body.into_data_stream(), checksum).await?
        };
    }
    Ok((StatusCode::NO_CONTENT, tus_headers(&upload)).into_response())
}

fn given_up(upload: &Upload) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("upload {} was given up: begin another", upload.id))
}

fn at(upload: &Upload, offset: u64) -> Result<(), Problem> {
    if upload.state == UploadState::Gone {
        return Err(given_up(upload));
    }
    if upload.received == offset {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::Conflict,
        format!("Upload-Offset: it is {offset}, and {} bytes are there: go on behind those", upload.received),
    ))
}

/// Gives an upload up, by tus.
#[utoipa::path(
    delete,
    path = "/v1/uploads/{id}",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload"), ("Tus-Resumable" = String, Header, description = "`1.0.0`")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "There is none that is open.", body = Problem, content_type = "application/problem+json"),
        (status = 423, description = "Another request has it in hand: try again.", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Another version of tus is spoken.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    spoken(&headers)?;
    let hold = state.uploads.lease(&tenant, &Id::from_text(id)).await?;
    state.uploads.abort(&hold).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Says in every answer, of a refusal too, which version of tus is spoken.
pub(super) async fn speaks_tus(mut response: Response) -> Response {
    let headers = [RESUMABLE, VERSION].map(|name| (name, HeaderValue::from_static(TUS)));
    response.headers_mut().extend(headers);
    response
}

/// What a client asks to be made of an upload.
fn asked(text: &str) -> Result<JobRequest, Problem> {
    parse_job_request(if text.trim().is_empty() { "{}" } else { text })
}

/// The job that is made of an upload: a client's own wish, or what its token for one upload says.
pub(super) fn wanted(
    principal: &Principal,
    wish: Option<&str>,
    bytes: u64,
) -> Result<Option<JobRequest>, Problem> {
    let Some(token) = &principal.upload_token else { return wish.map(asked).transpose() };
    if bytes > token.most_bytes {
        let detail = format!("it is {bytes} bytes long: this token is good for at most {}", token.most_bytes);
        return Err(Problem::new(ProblemKind::TooLarge, detail));
    }
    token.job.as_deref().map(asked).transpose()
}

pub(super) fn order(
    state: &AppState,
    job: Option<JobRequest>,
    confines: Option<PathPolicy>,
    source: &str,
) -> Result<Option<Order>, Problem> {
    let Some(job) = job else { return Ok(None) };
    let (request, priority) = job.with_source(source)?.read(state.media_root.as_deref())?;
    Ok(Some(Order { request, priority, confines }))
}

/// A token for one upload.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRequest {
    /// How long the upload may be: 10 GiB unless given.
    #[schema(minimum = 1, example = 1073741824)]
    most_bytes: Option<u64>,
    /// The job that is made of it, as for `POST /v1/jobs` but without a source: one with every choice left to Spool unless given.
    #[schema(value_type = Option<Object>)]
    job: Option<serde_json::Value>,
    /// How long it is good for: an hour unless given.
    #[schema(minimum = 1, maximum = 604800)]
    expires_seconds: Option<u64>,
}

/// Makes a token for somebody who has no key, such as a browser: it is good for one upload, by tus or at once, and for nothing else. What is
/// made of the upload is settled here.
#[utoipa::path(
    post,
    path = "/v1/uploads/tokens",
    tag = "uploads",
    request_body = TokenRequest,
    responses(
        (status = 201, description = "It, which is shown only once.", body = TokenShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what cannot be done.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create_token(
    State(state): State<AppState>,
    principal: Principal,
    BodyOf(wish): BodyOf<TokenRequest>,
) -> Result<Response, Problem> {
    let wrong = |detail: String| Problem::new(ProblemKind::Invalid, detail);
    let seconds = wish.expires_seconds.unwrap_or(TOKEN_SECONDS);
    if !(1..=MAX_TOKEN_SECONDS).contains(&seconds) {
        return Err(wrong(format!(
            "expires_seconds: it is {seconds}: it must be from 1 to {MAX_TOKEN_SECONDS}"
        )));
    }
    let most_bytes = wish.most_bytes.unwrap_or(TOKEN_BYTES);
    if !(1..=MAX_BYTES).contains(&most_bytes) {
        return Err(wrong(format!("most_bytes: it is {most_bytes}: it must be from 1 to {MAX_BYTES}")));
    }
    let job = wish.job.unwrap_or_else(|| serde_json::json!({})).to_string();
    // What could not be made of an upload is said now, and not to whoever uploads.
    let confines = state.auth.path_policy(&principal).await?;
    let example =
        confines.as_ref().and_then(|confines| confines.sources.last()).map_or("upload", String::as_str);
    if let Some(order) = order(&state, Some(asked(&job)?), confines.clone(), example)? {
        order.check()?;
    }
    let new = NewUploadToken {
        tenant: principal.tenant,
        most_bytes,
        job: Some(job),
        valid_for: Duration::from_secs(seconds),
    };
    let (token, shown) = state.credentials.create_upload_token(&new).await?;
    let body = TokenShown { token: shown, most_bytes: token.most_bytes, expires_ms: token.expires_ms };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Refuses who speaks another version.
fn spoken(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(RESUMABLE).is_some_and(|version| version == TUS) {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::Version, format!("Tus-Resumable: it must be {TUS}")))
}

fn of_pieces(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == PIECES) {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::UnsupportedMediaType, format!("Content-Type: it must be {PIECES}")))
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| Problem::new(ProblemKind::Malformed, format!("{name}: it must be a number of bytes")))
}

fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Problem> {
    headers.get(CHECKSUM).map(|value| Checksum::parse(value.to_str().unwrap_or_default())).transpose()
}

/// Reads names and base64, with commas between.
fn metadata(headers: &HeaderMap) -> Result<BTreeMap<String, String>, Problem> {
    let wrong = || {
        Problem::new(
            ProblemKind::Malformed,
            "Upload-Metadata: it must be names, each with a blank and base64 of text, with commas between",
        )
    };
    let text =
        headers.get(METADATA).map(HeaderValue::to_str).transpose().map_err(|_| wrong())?.unwrap_or_default();
    if text.len() > MAX_METADATA {
        return Err(Problem::new(
            ProblemKind::TooLarge,
            format!("Upload-Metadata: it is longer than {MAX_METADATA} bytes"),
        ));
    }
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = BASE64_STANDARD.decode(value.trim()).ok().and_then(|value| String::from_utf8(value).ok());
        value.filter(|value| !value.contains('\0')).map(|value| (name.to_owned(), value)).ok_or_else(wrong)
    });
    pairs.collect()
}

/// What tus wants to know of an upload.
fn tus_headers(upload: &Upload) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(OFFSET, upload.received.into());
    if upload.state == UploadState::Open {
        let expires = SystemTime::UNIX_EPOCH + Duration::from_millis(upload.expires_ms.unsigned_abs());
        headers.extend(httpdate::fmt_http_date(expires).parse().ok().map(|date| (EXPIRES, date)));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn metadata_is_names_and_base64() {
        let read = |text: &str| metadata(&with(METADATA, text));
        let found = read("filename dGFsay5tcDQ=, job,empty ").unwrap();
        let expected = [("filename", "talk.mp4"), ("job", ""), ("empty", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
        assert!(metadata(&HeaderMap::new()).unwrap().is_empty());
        assert!(["filename !", "filename /w==", "a AAA="].iter().all(|text| read(text).is_err()));
    }

    #[test]
    fn numbers_are_numbers() {
        assert_eq!(number(&with(OFFSET, "12"), &OFFSET).unwrap(), Some(12));
        assert!(
            ["-1", "+1", "1.5", "0x1", "", "99999999999999999999"].iter().all(|text| number(
                &with(OFFSET, text),
                &OFFSET
            )
            .is_err())
        );
    }
}
