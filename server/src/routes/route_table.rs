//! The route table: every route of the server, beside the access that the route requires.

use std::time::Duration;

use axum::{
    Json,
    extract::{DefaultBodyLimit, Request},
    http::{Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::time::timeout;
use tower_http::cors::{Any, CorsLayer};
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

use super::{
    api_router::ApiRouter, cors, events, health, jobs, keys, metrics, multipart, page, play, s3_events, sql,
    tus, upload_tokens, uploads, videos, webhooks,
};
use crate::{
    auth::authorize::RouteAccess,
    problem::{Problem, ProblemKind},
};

const PUBLIC: RouteAccess = RouteAccess::PUBLIC;
const READ: RouteAccess = RouteAccess::READ;
const WRITE: RouteAccess = RouteAccess::WRITE;
const READ_OR_WRITE: RouteAccess = RouteAccess::READ_OR_WRITE;
const KEYS: RouteAccess = RouteAccess::KEYS;

/// Maximum body of a request that is a document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// Time limit for the start of a response. An unavailable database reports its own error earlier.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the routes that the OpenAPI document lists, with the document, which begins as `document`.
pub(super) fn api(document: OpenApi) -> ApiRouter {
    documents(document).merge(transfers()).merge(playback_by_link())
}

/// Routes of small documents, which respond soon.
fn documents(document: OpenApi) -> ApiRouter {
    ApiRouter::new(document)
        .route(READ, routes!(jobs::list))
        .route(WRITE, routes!(jobs::create))
        .route(READ, routes!(jobs::get))
        .route(WRITE, routes!(jobs::cancel))
        .route(WRITE, routes!(jobs::retry))
        .route(READ, routes!(jobs::rows))
        .route(READ, routes!(jobs::attempts))
        .route(READ, routes!(events::events))
        .route(WRITE.or_basic(), routes!(s3_events::ingest))
        .route(READ, routes!(videos::list))
        .route(READ, routes!(videos::get))
        .route(READ, routes!(videos::create_link))
        .route(READ, routes!(play::play))
        .route(READ, routes!(sql::query))
        .route(READ, routes!(webhooks::list))
        .route(WRITE, routes!(webhooks::create))
        .route(WRITE, routes!(webhooks::disable))
        .route(READ, routes!(webhooks::deliveries))
        .route(WRITE, routes!(webhooks::replay))
        .route(WRITE, routes!(upload_tokens::create))
        .route(WRITE.or_token_to_begin_upload(), routes!(multipart::create))
        .route(WRITE.or_token_of_upload(), routes!(multipart::create_links))
        .route(WRITE.or_token_of_upload(), routes!(multipart::complete))
        .route(KEYS, routes!(keys::list))
        .route(KEYS, routes!(keys::create))
        .route(KEYS, routes!(keys::revoke))
        .route(PUBLIC, routes!(health::live))
        .route(PUBLIC, routes!(health::ready))
        .route(PUBLIC, routes!(metrics::metrics))
        .layered(|router| {
            router
                .layer(DefaultBodyLimit::max(MAX_DOCUMENT_BYTES))
                .layer(middleware::from_fn(respond_in_time))
        })
}

/// Routes that carry files, without limits on their length and duration.
fn transfers() -> ApiRouter {
    ApiRouter::new(OpenApi::default())
        .route(WRITE.or_token_to_begin_upload(), routes!(uploads::create))
        .route(PUBLIC, routes!(uploads::options))
        .route(READ_OR_WRITE.or_token_of_upload(), routes!(uploads::get))
        .route(WRITE.or_token_of_upload(), routes!(uploads::patch))
        .route(WRITE.or_token_of_upload(), routes!(uploads::delete))
        .layered(|router| {
            router.layer(DefaultBodyLimit::disable()).layer(middleware::map_response(tus::add_tus_version))
        })
}

/// Playback by a signed link, which is the credential, for pages of every origin.
fn playback_by_link() -> ApiRouter {
    let any_origin = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::RANGE])
        .expose_headers(cors::EXPOSED_HEADERS)
        .max_age(cors::PREFLIGHT_MAX_AGE);
    ApiRouter::new(OpenApi::default())
        .route(PUBLIC, routes!(play::play_by_link))
        .layered(|router| router.layer(any_origin))
}

/// Returns the routes that the OpenAPI document does not list: the web page, and the document itself.
pub(super) fn unlisted(document: OpenApi) -> ApiRouter {
    ApiRouter::new(OpenApi::default())
        .unlisted(PUBLIC, "/", get(page::index))
        .unlisted(PUBLIC, "/page/{name}", get(page::asset))
        .unlisted(PUBLIC, "/openapi.json", get(|| async move { Json(document) }))
}

/// Returns a problem if the response does not begin in time.
async fn respond_in_time(request: Request, next: Next) -> Response {
    let timed_out = || {
        let detail = format!("no response within {} s; retry later", RESPONSE_TIMEOUT.as_secs());
        Problem::new(ProblemKind::Unavailable, detail).into_response()
    };
    timeout(RESPONSE_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| timed_out())
}
