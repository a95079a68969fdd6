//! Loopback protection: refuses requests that a web page in a browser on this host sends to a server without
//! authentication.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::problem::{Problem, ProblemKind};

/// Refuses requests of other web pages.
pub(crate) async fn refuse_foreign_pages(request: Request, next: Next) -> Response {
    match refusal(request.uri(), request.headers()) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

/// Returns the problem of a request that does not name loopback, or that a page of another origin sent.
///
/// A page reaches loopback by a domain of its own that resolves to 127.0.0.1 (DNS rebinding, visible in
/// `Host`), or across origins (visible in `Origin`).
fn refusal(uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host: Option<Authority> = uri.authority().cloned().or_else(|| text(header::HOST)?.parse().ok());
    let Some(host) = host.filter(|host| is_loopback(host.host())) else {
        return Some(Problem::new(
            ProblemKind::NotAllowed,
            "this server is reachable as localhost only: use 127.0.0.1 or localhost in the URL",
        ));
    };
    let origin = headers.get(header::ORIGIN)?;
    let is_own = origin.to_str().is_ok_and(|origin| origin.strip_prefix("http://") == Some(host.as_str()));
    (!is_own).then(|| {
        Problem::new(
            ProblemKind::NotAllowed,
            "requests of other pages in a browser are refused without API keys",
        )
    })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
        refusal(&Uri::from_static("/v1/jobs"), &headers).is_some()
    }

    #[test]
    fn a_request_that_names_loopback_is_admitted() {
        for host in ["127.0.0.1:8080", "localhost:8080", "localhost", "[::1]:8080", "127.9.9.9"] {
            assert!(!is_refused(host, None), "{host}");
        }
    }

    #[test]
    fn a_request_under_another_host_name_is_refused() {
        for host in ["rebound.example:8080", "192.168.1.2:8080", "localhost.example", "0.0.0.0", ""] {
            assert!(is_refused(host, None), "{host}");
        }
        assert!(refusal(&Uri::from_static("/v1/jobs"), &HeaderMap::new()).is_some(), "no Host header");
    }

    #[test]
    fn a_request_of_a_page_of_another_origin_is_refused() {
        assert!(!is_refused("localhost:8080", Some("http://localhost:8080")));
        for origin in ["http://evil.example", "http://localhost:3000", "null", "https://localhost:8080"] {
            assert!(is_refused("localhost:8080", Some(origin)), "{origin}");
        }
    }
}
