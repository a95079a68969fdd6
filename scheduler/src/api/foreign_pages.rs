//! Foreign pages: refuses what web pages in a browser send to a scheduler that the browser reaches.
//!
//! A page can send a POST with a content type of forms or plain text to any address without asking first, and
//! reaches loopback by a domain of its own that resolves to 127.0.0.1 (DNS rebinding).

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Where the port is reachable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard {
    pub(crate) loopback: bool,
}

/// Refuses a request that a web page sent, or that names another host than loopback on a port of loopback.
pub(crate) async fn refuse_foreign_pages(
    State(guard): State<Guard>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(guard, request.uri(), request.headers()) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    }
}

/// Refuses a call that is not gRPC: of another content type, or by HTTP/1.
pub(crate) async fn require_grpc(request: Request, next: Next) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc && request.version() == Version::HTTP_2 {
        next.run(request).await
    } else {
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "this is a gRPC service: call it with a gRPC client\n")
            .into_response()
    }
}

fn refusal(guard: Guard, uri: &Uri, headers: &HeaderMap) -> Option<&'static str> {
    // No client of a scheduler is a page.
    if headers.contains_key(header::ORIGIN) {
        return Some("requests of web pages are refused\n");
    }
    let named = || headers.get(header::HOST)?.to_str().ok()?.parse().ok();
    let host: Option<Authority> = uri.authority().cloned().or_else(named);
    (guard.loopback && !host.is_some_and(|host| is_loopback(host.host())))
        .then_some("this scheduler is reachable as localhost only: use 127.0.0.1 or localhost\n")
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(loopback: bool, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
        refusal(Guard { loopback }, &Uri::from_static("/executors"), &headers).is_some()
    }

    #[test]
    fn pages_and_rebound_names_are_refused() {
        for host in ["127.0.0.1:50050", "localhost:50050", "[::1]:50050"] {
            assert!(!is_refused(true, host, None), "{host}");
            assert!(
                is_refused(true, host, Some("http://localhost:50050")),
                "a page of this port: there is none"
            );
        }
        for host in ["rebound.example:50050", "10.0.0.1:50050", ""] {
            assert!(is_refused(true, host, None), "{host}");
        }
        assert!(!is_refused(false, "scheduler.cluster:50050", None));
        assert!(is_refused(false, "scheduler.cluster:50050", Some("null")));
    }
}
