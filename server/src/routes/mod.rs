//! What can be asked? The routes, and the document that lists them.

pub(crate) mod documents;
mod events;
pub(crate) mod extract;
mod health;
mod jobs;
mod keys;
mod multipart;
mod page;
mod play;
mod s3_events;
mod sql;
mod uploads;
mod videos;
mod webhooks;

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::{HeaderName, Method, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::time::timeout;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, Any, CorsLayer},
};
use tracing::{debug, info};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, Ref, ResponseBuilder,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app_state::AppState,
    auth::{
        authenticate::{self, AuthMode},
        rate_limit,
    },
    problem::{Problem, ProblemKind},
};

/// The largest body of a request that is a document.
const MAX_BODY: usize = 1 << 20;

/// How long an answer may take to begin: a store that is away says so before.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What pages of other origins read of answers.
const READ: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ETAG,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
];

/// How long a browser believes what it was told of other origins.
const PREFLIGHT: Duration = Duration::from_secs(600);

#[derive(OpenApi)]
#[openapi(
    info(title = "Spool", description = "Transcodes videos into HLS ladders."),
    tags(
        (name = "jobs", description = "What is to be done, how far it is, and what came of it"),
        (name = "uploads", description = "Files that come here, at once or in pieces"),
        (name = "videos", description = "What was published"),
        (name = "webhooks", description = "Who is told"),
        (name = "keys", description = "Who may ask"),
        (name = "health", description = "For probes"),
    ),
    // A path of several segments has another name in the router.
    paths(play::play, play::play_link),
    modifiers(&Secured)
)]
struct Document;

/// Says how a client shows who it is.
struct Secured;

impl Modify for Secured {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key, unless the server is on loopback"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
        document.security =
            Some(vec![SecurityRequirement::new("key", Vec::<String>::new()), SecurityRequirement::default()]);
    }
}

/// Routes that answer soon, of documents that are small.
fn documents() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(jobs::list, jobs::create))
        .routes(routes!(jobs::get))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::rows))
        .routes(routes!(jobs::attempts))
        .routes(routes!(events::events))
        .routes(routes!(s3_events::s3))
        .routes(routes!(videos::list))
        .routes(routes!(videos::get))
        .routes(routes!(videos::link))
        .routes(routes!(sql::query))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::disable))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(webhooks::replay))
        .routes(routes!(uploads::create_token))
        .routes(routes!(multipart::create))
        .routes(routes!(multipart::links))
        .routes(routes!(multipart::complete))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .route("/v1/videos/{id}/play/{*path}", get(play::play))
        .routes(routes!(health::live))
        .routes(routes!(health::metrics))
        .routes(routes!(health::ready))
}

/// Routes that files come by, which takes as long as it takes.
fn files() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(uploads::create, uploads::options)).routes(routes!(
        uploads::get,
        uploads::patch,
        uploads::delete
    ))
}

/// The OpenAPI document, as JSON.
///
/// Source: OpenAPI Specification 3.1.
pub fn openapi() -> String {
    let (_, document) = documents().merge(files()).split_for_parts();
    // It is made of texts.
    complete(document).to_pretty_json().unwrap_or_default() + "\n"
}

/// How whoever asks may be refused, whatever is asked for.
const REFUSALS: [(&str, &str); 4] = [
    ("401", "It is not known who asks."),
    ("403", "Whoever asks may not."),
    ("429", "Requests come too often, or there is too much under way."),
    ("503", "Something that is needed is away: try again."),
];

/// Says of each route how it may be refused, beside what it says itself.
fn complete(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let operations = document.paths.paths.values_mut().flat_map(|item| {
        [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete, &mut item.options]
            .into_iter()
            .flatten()
    });
    for operation in operations {
        for (status, says) in REFUSALS {
            let response = ResponseBuilder::new()
                .description(says)
                .content("application/problem+json", problem.clone())
                .build();
            operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.into());
        }
    }
    document
}

/// By links, for pages of any origin.
fn links() -> Router<AppState> {
    let reads = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::RANGE])
        .expose_headers(READ)
        .max_age(PREFLIGHT);
    Router::new().route("/v1/play/{link}/{*path}", get(play::play_link)).layer(reads)
}

/// Pages of any origin may ask where they have to show a key: nothing is known of whoever asks but what is shown.
fn across_origins() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(uploads::ANSWERED.into_iter().chain(rate_limit::TOLD).chain(READ).collect::<Vec<_>>())
        .max_age(PREFLIGHT)
}

pub(crate) fn router(state: AppState) -> Router {
    let auth = state.auth.clone();
    let soon = |router: OpenApiRouter<AppState>| {
        router.layer(DefaultBodyLimit::max(MAX_BODY)).layer(middleware::from_fn(in_time))
    };
    let (router, document) = soon(documents())
        .merge(
            files().layer(DefaultBodyLimit::disable()).layer(middleware::map_response(uploads::speaks_tus)),
        )
        .split_for_parts();
    let (keys, document) = (auth.mode() == AuthMode::Keys, complete(document));
    let router = router
        .merge(links())
        .route("/", get(page::index))
        .route("/page/{name}", get(page::part))
        .route("/openapi.json", get(|| async move { Json(document) }))
        .fallback(|uri: Uri| async move {
            Problem::new(ProblemKind::NotFound, format!("there is nothing at {}", uri.path()))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            Problem::new(
                ProblemKind::MethodNotAllowed,
                format!("{} is not for {}", request.uri().path(), request.method()),
            )
        })
        .layer(CatchPanicLayer::custom(|_| {
            Problem::new(ProblemKind::Internal, "a request broke off: see the server's log").into_response()
        }))
        .layer(middleware::from_fn_with_state(auth, authenticate::authenticate));
    // Outside of the auth, so that its refusals can be read as well.
    let router = if keys { router.layer(across_origins()) } else { router };
    router.layer(middleware::from_fn(note)).with_state(state)
}

async fn in_time(request: Request, next: Next) -> Response {
    let late = || {
        Problem::new(
            ProblemKind::Unavailable,
            format!("there was no answer within {} s: try again", ANSWER_WITHIN.as_secs()),
        )
        .into_response()
    };
    timeout(ANSWER_WITHIN, next.run(request)).await.unwrap_or_else(|_| late())
}

/// A line for each request, without what stands behind the question mark.
async fn note(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| request.uri().path().to_owned(), |path| path.as_str().to_owned());
    let started = std::time::Instant::now();
    let response = next.run(request).await;
    let (status, ms) = (response.status(), started.elapsed().as_millis() as u64);
    if method.is_safe() && !status.is_server_error() {
        debug!(%method, path, status = status.as_u16(), ms, "answered");
    } else {
        info!(%method, path, status = status.as_u16(), ms, "answered");
    }
    response
}
