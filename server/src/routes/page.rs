//! The web page: uploads files, shows jobs and plays videos. Its files are embedded in the binary.

use axum::{
    body::Body,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::problem::{Problem, ProblemKind};

/// Content security policy: the page loads resources of this server only, and runs scripts from files only.
///
/// Source: W3C Content Security Policy Level 3.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; \
                                       connect-src 'self'; img-src 'self' data:; style-src 'self'; \
                                       script-src 'self'; object-src 'none'; base-uri 'none'; \
                                       form-action 'none'; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "page"]
struct Files;

/// Returns the page.
pub(super) async fn index(headers: HeaderMap) -> Response {
    file("index.html", &headers)
}

/// Returns a file of the page.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&name, &headers)
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some(EmbeddedFile { data, metadata }) = Files::get(name) else {
        return Problem::new(ProblemKind::NotFound, format!("the page has no file {name}")).into_response();
    };
    let tag = format!("\"{}\"", blake3::Hash::from_bytes(metadata.sha256_hash()).to_hex());
    let shared = [
        (header::ETAG, tag.clone()),
        // Revalidated at each use: the next version of Spool has other files of these names.
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY.to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    let is_unchanged = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
    if is_unchanged {
        return (StatusCode::NOT_MODIFIED, shared).into_response();
    }
    (shared, [(header::CONTENT_TYPE, media_type(name))], Body::from(data.into_owned())).into_response()
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}
