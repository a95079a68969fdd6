//! Cross-origin access: the requests that pages of other origins may send, and the response headers that they
//! may read.

use std::time::Duration;

use axum::http::{HeaderName, Method, header};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};

use super::tus;
use crate::auth::rate_limit;

/// Response headers of every route that pages of other origins may read.
pub(super) const EXPOSED_HEADERS: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ETAG,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
];

/// Time for which a browser caches the response to a preflight request.
pub(super) const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Allows requests of every origin, which is safe if they need a credential: a browser sends no credential by
/// itself.
pub(super) fn any_origin() -> CorsLayer {
    let exposed =
        tus::TUS_RESPONSE_HEADERS.into_iter().chain(rate_limit::RATE_HEADERS).chain(EXPOSED_HEADERS);
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed.collect::<Vec<_>>())
        .max_age(PREFLIGHT_MAX_AGE)
}
