//! Who may ask? On loopback whoever is on this machine, and no page of the web in their browser; elsewhere whoever brings a key of a
//! tenant, a token of an identity provider, or a token for one upload.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header, request::Parts, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use spool_jobs::{Access, Id, Scope, Shown, UploadToken, Watch};
use spool_storage::path_policy::PathPolicy;

use crate::{
    auth::{oidc::Provider, rate_limit::Rates},
    problem::{Problem, ProblemKind},
};

/// Whose jobs are meant where nobody has to say who they are.
const ONLY: &str = "default";

/// Where stores tell what has arrived.
const EVENTS: &str = "/v1/events/s3";

/// Who has to show what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Whoever is on this machine may ask for anything; nobody else can reach it.
    None,
    /// Whoever brings a key may ask for what it opens.
    Keys,
}

/// Whoever asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Principal {
    pub(crate) tenant: String,
    pub(crate) scopes: Vec<Scope>,
    /// The token for one upload that was shown, where it was no key.
    pub(crate) upload_token: Option<UploadToken>,
    /// Is it a stranger, who may touch only what is the tenant's?
    confined: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Where nobody let it in, nobody knows who it is.
        parts.extensions.get().cloned().ok_or_else(unauthenticated)
    }
}

/// Whose jobs a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenant(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(Principal::from_request_parts(parts, state).await?.tenant))
    }
}

/// Lets in who may come in.
#[derive(Clone)]
pub(crate) struct Authenticator {
    mode: AuthMode,
    access: Arc<dyn Access>,
    provider: Option<Arc<Provider>>,
    rates: Arc<Rates>,
    /// Where uploads are kept, and where videos go that come without a destination.
    uploads: Arc<str>,
    media: Option<Arc<str>>,
}

impl Authenticator {
    pub(crate) fn new(
        mode: AuthMode,
        access: Arc<dyn Access>,
        provider: Option<Provider>,
        uploads: &str,
        media: Option<&str>,
    ) -> Self {
        let provider = provider.map(Arc::new);
        Self {
            mode,
            access,
            provider,
            rates: Arc::default(),
            uploads: Arc::from(uploads),
            media: media.map(Arc::from),
        }
    }

    pub(crate) fn mode(&self) -> AuthMode {
        self.mode
    }

    /// The places that jobs of this principal may touch: its own uploads, what its policy says, and a folder of the video's own.
    pub(crate) async fn path_policy(&self, principal: &Principal) -> Result<Option<PathPolicy>, Problem> {
        if !principal.confined {
            return Ok(None);
        }
        Ok(Some(self.tenant_path_policy(&principal.tenant).await?))
    }

    /// The same for jobs of what arrives in a place that was given to a tenant: that place as well.
    pub(crate) async fn watch_path_policy(&self, watch: &Watch) -> Result<Option<PathPolicy>, Problem> {
        if self.mode == AuthMode::None {
            return Ok(None);
        }
        let mut places = self.tenant_path_policy(&watch.tenant).await?;
        places.sources.push(watch.prefix.clone());
        places.own.push(watch.prefix.clone());
        Ok(Some(places))
    }

    async fn tenant_path_policy(&self, tenant: &str) -> Result<PathPolicy, Problem> {
        let policy = self.access.policy(tenant).await?;
        let own = format!("{}/{tenant}/", self.uploads.trim_end_matches('/'));
        let kept = self
            .media
            .as_deref()
            .map(|media| format!("{}/{}/", media.trim_end_matches('/'), spool_jobs::VIDEO));
        Ok(PathPolicy {
            sources: policy.sources.into_iter().chain([own.clone()]).collect(),
            destinations: policy.destinations.into_iter().chain(kept).collect(),
            own: vec![own],
        })
    }

    async fn principal(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Principal, Problem> {
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|shown| shown.to_str().ok())
            .ok_or_else(unauthenticated)?;
        let token = &token(shown, path).ok_or_else(unauthenticated)?;
        let principal = match (self.access.shown(token).await?, &self.provider) {
            (Some(Shown::Key(key)), _) => {
                Principal { tenant: key.tenant, scopes: key.scopes, upload_token: None, confined: true }
            }
            (Some(Shown::Token(token)), _) => {
                check_upload_token(&token, method, path)?;
                Principal {
                    tenant: token.tenant.clone(),
                    scopes: vec![Scope::Write],
                    upload_token: Some(token),
                    confined: true,
                }
            }
            (None, Some(provider)) => {
                let (tenant, scopes) = provider.check(token).await?;
                Principal { tenant, scopes, upload_token: None, confined: true }
            }
            (None, None) => return Err(unauthenticated()),
        };
        let needed = needed(method, path);
        if needed.iter().any(|scope| principal.scopes.contains(scope)) {
            return Ok(principal);
        }
        let words: Vec<&str> = needed.iter().map(|scope| scope.word()).collect();
        Err(Problem::new(
            ProblemKind::NotAllowed,
            format!("this needs a key with the scope {}", words.join(" or ")),
        ))
    }
}

/// Lets requests in, or refuses them.
pub(crate) async fn authenticate(
    State(auth): State<Authenticator>,
    mut request: Request,
    next: Next,
) -> Response {
    if auth.mode == AuthMode::None {
        if let Some(problem) = refusal(request.uri(), request.headers()) {
            return problem.into_response();
        }
        request.extensions_mut().insert(Principal {
            tenant: ONLY.to_owned(),
            scopes: Scope::ALL.to_vec(),
            upload_token: None,
            confined: false,
        });
        return next.run(request).await;
    }
    if is_open(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let principal = match auth.principal(request.method(), request.uri().path(), request.headers()).await {
        Ok(principal) => principal,
        Err(problem) => return with_challenge(problem),
    };
    let policy = match auth.access.policy(&principal.tenant).await {
        Ok(policy) => policy,
        Err(error) => return Problem::from(error).into_response(),
    };
    // Whoever has a token for one upload is somebody else, and takes nothing of what the tenant may ask.
    let rate = match &principal.upload_token {
        Some(token) => auth.rates.take(token.id.as_str(), None),
        None => auth.rates.take(&principal.tenant, policy.requests_per_minute),
    };
    let mut response = if rate.allowed() {
        request.extensions_mut().insert(principal);
        next.run(request).await
    } else {
        Problem::new(
            ProblemKind::Rate,
            format!("more than {} requests a minute came: go on in {} s", rate.limit, rate.reset),
        )
        .into_response()
    };
    rate.tell(response.headers_mut());
    response
}

/// What everybody may see: is it alive, and how are things called? A link to a video says itself who may follow it.
fn is_open(method: &Method, path: &str) -> bool {
    method == Method::OPTIONS
        || matches!(path, "/" | "/livez" | "/readyz" | "/metrics" | "/openapi.json")
        || path.starts_with("/page/")
        || path.starts_with("/v1/play/")
}

/// What is shown: `Bearer KEY`, or, of a store that can be told no more than an address, `https://any:KEY@…`.
fn token(shown: &str, path: &str) -> Option<String> {
    let (scheme, token) = shown.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(token.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") || path != EVENTS {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(token.trim()).ok()?).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

/// The scopes of which one is needed.
fn needed(method: &Method, path: &str) -> &'static [Scope] {
    let uploads = path == "/v1/uploads" || path.starts_with("/v1/uploads/");
    // These ask, and change nothing.
    let asks = path == "/v1/sql" || (path.starts_with("/v1/videos/") && path.ends_with("/links"));
    match method {
        _ if path == "/v1/keys" || path.starts_with("/v1/keys/") => &[Scope::Keys],
        // Whoever sends must see how far it is.
        &Method::GET | &Method::HEAD if uploads => &[Scope::Read, Scope::Write],
        &Method::GET | &Method::HEAD => &[Scope::Read],
        _ if asks => &[Scope::Read],
        _ => &[Scope::Write],
    }
}

/// A token for one upload begins one, and goes on with it.
fn check_upload_token(token: &UploadToken, method: &Method, path: &str) -> Result<(), Problem> {
    let allowed = match (path.strip_prefix("/v1/uploads"), &token.upload) {
        (Some("" | "/multipart"), None) => method == Method::POST,
        (Some(rest), Some(upload)) => {
            let own = rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(upload.as_str()));
            own.is_some_and(|rest| matches!(rest, "" | "/links" | "/complete"))
        }
        _ => false,
    };
    if allowed {
        Ok(())
    } else {
        Err(Problem::new(ProblemKind::NotAllowed, "this token is good for one upload and nothing else"))
    }
}

impl Principal {
    /// The token that an upload is begun with.
    pub(crate) fn upload_token_id(&self) -> Option<Id> {
        self.upload_token.as_ref().map(|token| token.id.clone())
    }
}

pub(crate) fn unauthenticated() -> Problem {
    Problem::new(
        ProblemKind::Unauthenticated,
        "show who you are: Authorization: Bearer KEY, with a key that is good now (`spool keys create` makes one)",
    )
}

fn with_challenge(problem: Problem) -> Response {
    let unknown = problem.status == 401;
    let mut response = problem.into_response();
    if unknown {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"spool\""));
    }
    response
}

/// A page of the web can have a browser send requests to loopback: under a name of its own that leads here, which shows in `Host`; or across
/// origins, which shows in `Origin`.
fn refusal(uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host: Option<Authority> = uri.authority().cloned().or_else(|| text(header::HOST)?.parse().ok());
    let Some(host) = host.filter(|host| is_loopback(host.host())) else {
        return Some(Problem::new(
            ProblemKind::NotAllowed,
            "this server answers to localhost alone: call it by 127.0.0.1 or localhost",
        ));
    };
    let origin = headers.get(header::ORIGIN)?;
    let same = origin.to_str().is_ok_and(|origin| origin.strip_prefix("http://") == Some(host.as_str()));
    (!same).then(|| {
        Problem::new(ProblemKind::NotAllowed, "this server takes no requests of other pages in a browser")
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

    fn refused(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
        refusal(&Uri::from_static("/v1/jobs"), &headers).is_some()
    }

    #[test]
    fn only_this_machine_is_let_in() {
        assert!(
            ["127.0.0.1:8080", "localhost:8080", "localhost", "[::1]:8080", "127.9.9.9"]
                .iter()
                .all(|host| !refused(host, None))
        );
        assert!(
            ["rebound.example:8080", "192.168.1.2:8080", "localhost.example", "0.0.0.0", ""]
                .iter()
                .all(|host| refused(host, None))
        );
        assert!(!refused("localhost:8080", Some("http://localhost:8080")));
        assert!(
            ["http://evil.example", "http://localhost:3000", "null", "https://localhost:8080"]
                .iter()
                .all(|origin| refused("localhost:8080", Some(origin)))
        );
        assert!(
            refusal(&Uri::from_static("/v1/jobs"), &HeaderMap::new()).is_some(),
            "who names nobody means nobody"
        );
    }

    #[test]
    fn what_changes_something_needs_more_than_to_read() {
        assert_eq!(needed(&Method::GET, "/v1/jobs"), [Scope::Read]);
        assert_eq!(needed(&Method::POST, "/v1/jobs"), [Scope::Write]);
        assert_eq!(needed(&Method::POST, "/v1/sql"), [Scope::Read]);
        assert_eq!(needed(&Method::POST, "/v1/videos/video_1/links"), [Scope::Read]);
        assert_eq!(needed(&Method::HEAD, "/v1/uploads/upload_1"), [Scope::Read, Scope::Write]);
        assert_eq!(needed(&Method::PATCH, "/v1/uploads/upload_1"), [Scope::Write]);
        assert_eq!(needed(&Method::GET, "/v1/keys"), [Scope::Keys]);
        assert_eq!(needed(&Method::POST, EVENTS), [Scope::Write]);
        assert!(
            !is_open(&Method::POST, EVENTS)
                && !is_open(&Method::GET, "/v1/jobs")
                && !is_open(&Method::GET, "/v1/player")
                && is_open(&Method::GET, "/livez")
        );
    }

    #[test]
    fn a_store_shows_its_key_in_its_address() {
        let basic = format!("Basic {}", BASE64_STANDARD.encode("any:spool_key_1_abc"));
        assert_eq!(token(&basic, EVENTS).as_deref(), Some("spool_key_1_abc"));
        assert_eq!(
            token(&basic, "/v1/jobs"),
            None,
            "a browser keeps such passwords, and sends them for whichever page"
        );
        assert_eq!(token("bearer  abc ", "/v1/jobs").as_deref(), Some("abc"));
        assert!(
            ["", "Basic", "Basic ?", "Basic YQ==", "Digest a:b"]
                .iter()
                .all(|shown| token(shown, EVENTS).is_none())
        );
    }

    #[test]
    fn a_token_for_one_upload_opens_nothing_else() {
        let id = Id::upload();
        let mut token = UploadToken {
            id: Id::token(),
            tenant: "acme".into(),
            most_bytes: 1,
            job: None,
            expires_ms: 0,
            upload: None,
        };
        let may = |token: &UploadToken, method: Method, path: &str| {
            check_upload_token(token, &method, path).is_ok()
        };
        assert!(may(&token, Method::POST, "/v1/uploads/multipart"));
        assert!(may(&token, Method::POST, "/v1/uploads") && !may(&token, Method::GET, "/v1/uploads"));
        assert!(
            !may(&token, Method::PATCH, &format!("/v1/uploads/{id}"))
                && !may(&token, Method::POST, "/v1/uploads/tokens")
        );
        token.upload = Some(id.clone());
        assert!(
            may(&token, Method::PATCH, &format!("/v1/uploads/{id}"))
                && !may(&token, Method::POST, "/v1/uploads")
        );
        assert!(
            may(&token, Method::POST, &format!("/v1/uploads/{id}/complete"))
                && !may(&token, Method::GET, &format!("/v1/uploads/{id}/x"))
        );
        assert!(
            !may(&token, Method::PATCH, "/v1/uploads/upload_other") && !may(&token, Method::GET, "/v1/jobs")
        );
    }
}
