//! Who may ask? On loopback whoever is on this machine; and no page of the web in their browser.

use std::net::IpAddr;

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, Uri, header, request::Parts, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::problem::{Kind, Problem};

/// Whose jobs are meant where nobody has to say who they are.
const ONLY: &str = "default";

/// Whose jobs a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenant(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(ONLY.to_owned()))
    }
}

/// Lets pass what was sent to this machine by this machine. A page of the web can have a browser send requests to loopback: under a name
/// of its own that leads here, which shows in `Host`; or across origins, which shows in `Origin`.
pub(crate) async fn loopback_only(request: Request, next: Next) -> Response {
    match refusal(request.uri(), request.headers()) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host: Option<Authority> = uri.authority().cloned().or_else(|| text(header::HOST)?.parse().ok());
    let Some(host) = host.filter(|host| is_loopback(host.host())) else {
        return Some(Problem::new(Kind::NotAllowed, "this server answers to localhost alone: call it by 127.0.0.1 or localhost"));
    };
    let origin = headers.get(header::ORIGIN)?;
    let same = origin.to_str().is_ok_and(|origin| origin.strip_prefix("http://") == Some(host.as_str()));
    (!same).then(|| Problem::new(Kind::NotAllowed, "this server takes no requests of other pages in a browser"))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
        refusal(&Uri::from_static("/v1/jobs"), &headers).is_some()
    }

    #[test]
    fn only_this_machine_is_let_in() {
        assert!(
            ["127.0.0.1:8080", "localhost:8080", "localhost", "[::1]:8080", "127.9.9.9"].iter().all(|host| !refused(host, None))
        );
        assert!(
            ["rebound.example:8080", "192.168.1.2:8080", "localhost.example", "0.0.0.0", ""].iter().all(|host| refused(host, None))
        );
        assert!(!refused("localhost:8080", Some("http://localhost:8080")));
        assert!(
            ["http://evil.example", "http://localhost:3000", "null", "https://localhost:8080"]
                .iter()
                .all(|origin| refused("localhost:8080", Some(origin)))
        );
        assert!(refusal(&Uri::from_static("/v1/jobs"), &HeaderMap::new()).is_some(), "who names nobody means nobody");
    }
}
