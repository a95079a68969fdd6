//! The router: the routes with the layers around all of them.

use axum::{
    Extension, Router,
    extract::{MatchedPath, Request},
    handler::Handler,
    http::{Method, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{debug, info};

use super::{cors, openapi, route_table};
use crate::{
    app_state::AppState,
    auth::{
        authenticate::{AuthMode, authenticate},
        authorize::RouteAccess,
        loopback::refuse_foreign_pages,
    },
    problem::{Problem, ProblemKind},
};

/// Returns the router of a server.
pub(crate) fn router(state: AppState) -> Router {
    let auth = state.auth.clone();
    let (api, document) = openapi::api();
    let (unlisted, _) = route_table::unlisted(document).into_parts();
    // Without a valid credential the server does not reveal which paths exist.
    let authenticated = middleware::from_fn_with_state(RouteAccess::ANY_SCOPE, authenticate);
    let router = api
        .merge(unlisted)
        .fallback(not_found.layer(authenticated.clone()))
        .method_not_allowed_fallback(method_not_allowed.layer(authenticated))
        .layer(Extension(auth.clone()))
        .layer(CatchPanicLayer::custom(|_| {
            Problem::new(ProblemKind::Internal, "the request handler panicked; see the server's log")
                .into_response()
        }));
    let router = match auth.mode() {
        AuthMode::None => router.layer(middleware::from_fn(refuse_foreign_pages)),
        AuthMode::Keys => router.layer(cors::any_origin()),
    };
    router.layer(middleware::from_fn(log_request)).with_state(state)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("the path {} does not exist", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, format!("{} does not support {method}", uri.path()))
}

/// Logs a line for each request, without the query string, which may contain secrets.
async fn log_request(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| request.uri().path().to_owned(), |path| path.as_str().to_owned());
    let started = std::time::Instant::now();
    let response = next.run(request).await;
    let (status, ms) = (response.status(), started.elapsed().as_millis() as u64);
    if method.is_safe() && !status.is_server_error() {
        debug!(%method, path, status = status.as_u16(), ms, "request answered");
    } else {
        info!(%method, path, status = status.as_u16(), ms, "request answered");
    }
    response
}
