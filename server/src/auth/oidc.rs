//! OpenID Connect: verifies JWTs of an identity provider with the keys that the provider publishes.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind as JwtErrorKind, jwk::JwkSet};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use spool_jobs::{Scope, check_tenant_name};
use tokio::{sync::Mutex, time::Instant};
use tracing::warn;

use crate::{
    auth::principal::unauthenticated,
    problem::{Problem, ProblemKind},
};

/// Time for which fetched keys are used, and time after which they are fetched again for an unknown key id.
const KEYS_TTL: Duration = Duration::from_secs(600);
const UNKNOWN_KEY_TTL: Duration = Duration::from_secs(10);

/// Time limit of one request to the provider.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum length of a response, in bytes.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// Accepted signature algorithms: asymmetric ones, so that only the holder of the private key can sign.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// An identity provider, and the claims that its tokens must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// The issuer: required as `iss`, and the prefix of `/.well-known/openid-configuration`.
    pub issuer: String,
    /// The audience: required in `aud`.
    pub audience: String,
    /// Name of the claim that holds the tenant.
    pub tenant_claim: String,
}

/// An identity provider with its cached public keys.
pub(crate) struct Provider {
    settings: Oidc,
    client: reqwest::Client,
    keys: RwLock<CachedKeys>,
    /// Held while keys are fetched, so that one request at a time fetches them.
    fetching: Mutex<()>,
}

/// A key, and the algorithm that its publisher restricts the key to.
type PublicKey = (Option<Algorithm>, DecodingKey);

#[derive(Default)]
struct CachedKeys {
    by_id: HashMap<String, PublicKey>,
    fetched_at: Option<Instant>,
}

#[derive(Deserialize)]
struct Configuration {
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    scope: String,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Provider {
    pub(crate) fn new(settings: Oidc) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { settings, client, keys: RwLock::default(), fetching: Mutex::default() })
    }

    /// Verifies a token, and returns its tenant and scopes.
    pub(crate) async fn verify(&self, token: &str) -> Result<(String, Vec<Scope>), Problem> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| unauthenticated())?;
        let id = header.kid.ok_or_else(|| rejected("the header names no key (kid)"))?;
        let (algorithm, key) = self
            .key(&id)
            .await?
            .ok_or_else(|| rejected("the issuer does not publish the key that signed the token"))?;
        // The header's algorithm counts only if the published key agrees, otherwise a forger could choose it.
        if !ALGORITHMS.contains(&header.alg) || algorithm.is_some_and(|algorithm| algorithm != header.alg) {
            return Err(rejected("the key is for another algorithm"));
        }
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|error| {
            rejected(match error.kind() {
                JwtErrorKind::ExpiredSignature => "the token has expired",
                JwtErrorKind::ImmatureSignature => "the token is not valid yet (nbf)",
                JwtErrorKind::InvalidAudience => "the token is for another audience (aud)",
                JwtErrorKind::InvalidIssuer => "the token is of another issuer (iss)",
                JwtErrorKind::MissingRequiredClaim(_) => "the token lacks exp, iss or aud",
                _ => "the signature is invalid",
            })
        })?;
        self.tenant_and_scopes(claims.claims)
    }

    fn tenant_and_scopes(&self, claims: Claims) -> Result<(String, Vec<Scope>), Problem> {
        let claim = &self.settings.tenant_claim;
        let tenant = claims
            .others
            .get(claim)
            .and_then(Value::as_str)
            .ok_or_else(|| rejected(&format!("the claim {claim}, which names the tenant, is missing")))?;
        check_tenant_name(tenant)
            .map_err(|_| rejected(&format!("the claim {claim} is not a valid tenant name")))?;
        // Scopes of other services are ignored.
        let scopes =
            claims.scope.split(' ').filter_map(|word| word.strip_prefix("spool:")?.parse().ok()).collect();
        Ok((tenant.to_owned(), scopes))
    }

    /// Returns the key with this id. A cached key does not wait for a fetch.
    async fn key(&self, id: &str) -> Result<Option<PublicKey>, Problem> {
        if let Some(key) = self.cached(id) {
            return Ok(key);
        }
        let _fetching = self.fetching.lock().await;
        // The previous fetch may have returned the key.
        if let Some(key) = self.cached(id) {
            return Ok(key);
        }
        let fetched = self.fetch().await;
        let mut keys = self.keys.write();
        keys.fetched_at = Some(Instant::now());
        match fetched {
            Ok(fresh) => keys.by_id = fresh,
            Err(error) => {
                warn!(issuer = self.settings.issuer, error, "failed to fetch the identity provider's keys");
                if !keys.by_id.contains_key(id) {
                    return Err(Problem::new(
                        ProblemKind::Unavailable,
                        "the identity provider does not respond; retry, and see the server's log",
                    ));
                }
            }
        }
        Ok(keys.by_id.get(id).cloned())
    }

    /// Returns the cached key of an id, unless the cache has expired. The absence of a key is cached too, for
    /// a shorter time.
    fn cached(&self, id: &str) -> Option<Option<PublicKey>> {
        let keys = self.keys.read();
        let (age, key) = (keys.fetched_at?.elapsed(), keys.by_id.get(id));
        let ttl = if key.is_some() { KEYS_TTL } else { UNKNOWN_KEY_TTL };
        (age < ttl).then(|| key.cloned())
    }

    async fn fetch(&self) -> Result<HashMap<String, PublicKey>, String> {
        let configuration =
            format!("{}/.well-known/openid-configuration", self.settings.issuer.trim_end_matches('/'));
        let configuration: Configuration = self.fetch_json(&configuration).await?;
        let set: JwkSet = self.fetch_json(&configuration.jwks_uri).await?;
        let keys = set.keys.iter().filter_map(|key| {
            let algorithm = key.common.key_algorithm.map(|named| named.to_string().parse::<Algorithm>());
            // Skips keys for other purposes, such as encryption.
            let algorithm = algorithm.transpose().ok()?;
            Some((key.common.key_id.clone()?, (algorithm, DecodingKey::from_jwk(key).ok()?)))
        });
        Ok(keys.collect())
    }

    async fn fetch_json<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let text = |error: reqwest::Error| error.without_url().to_string();
        let mut response =
            self.client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(text)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_RESPONSE_BYTES {
                return Err(format!("{url} is longer than {MAX_RESPONSE_BYTES} bytes"));
            }
        }
        serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
    }
}

fn rejected(reason: &str) -> Problem {
    Problem::new(ProblemKind::Unauthenticated, format!("the token was rejected: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{Json, Router, routing::get};
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;

    /// Example of RFC 8037, appendix A.
    const PRIVATE: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    /// DER prefix of an Ed25519 private key in PKCS#8 (RFC 8410).
    const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

    /// Starts an identity provider on loopback; the counter counts the fetches of its keys.
    async fn provider() -> (Provider, String, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let (fetches, keys) = (Arc::new(AtomicUsize::new(0)), format!("{issuer}/keys"));
        let counted = fetches.clone();
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(move || async move { Json(json!({ "jwks_uri": keys })) }),
            )
            .route(
                "/keys",
                get(move || async move {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let public =
                        json!({ "kid": "one", "kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "use": "sig" });
                    let secret = json!({ "kid": "shared", "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" });
                    Json(json!({ "keys": [public, secret] }))
                }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        let settings =
            Oidc { issuer: issuer.clone(), audience: "spool".to_owned(), tenant_claim: "org".to_owned() };
        (Provider::new(settings).unwrap(), issuer, fetches)
    }

    fn now() -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
    }

    fn token(kid: &str, claims: &Value) -> String {
        let key = [&PKCS8[..], &BASE64_URL_SAFE_NO_PAD.decode(PRIVATE).unwrap()].concat();
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&key)).unwrap()
    }

    fn claims(issuer: &str) -> Value {
        let scope = "openid spool:read spool:write spool:all";
        json!({ "iss": issuer, "aud": "spool", "exp": now() + 600, "org": "acme", "scope": scope })
    }

    #[tokio::test]
    async fn a_token_that_the_provider_signed_is_accepted() {
        let (provider, issuer, fetches) = provider().await;
        let (tenant, scopes) = provider.verify(&token("one", &claims(&issuer))).await.unwrap();
        assert_eq!((tenant.as_str(), scopes), ("acme", vec![Scope::Read, Scope::Write]));
        provider.verify(&token("one", &claims(&issuer))).await.unwrap();
        assert_eq!(fetches.load(Ordering::SeqCst), 1, "the keys are cached");
    }

    #[tokio::test]
    async fn a_token_with_a_wrong_claim_or_signature_is_rejected() {
        let (provider, issuer, fetches) = provider().await;
        let with = |name: &str, value: Value| {
            let mut claims = claims(&issuer);
            claims[name] = value;
            token("one", &claims)
        };
        let good = token("one", &claims(&issuer));
        let (signed, _) = good.rsplit_once('.').unwrap();
        let shared = Header { kid: Some("shared".to_owned()), ..Header::new(Algorithm::HS256) };
        let shared =
            jsonwebtoken::encode(&shared, &claims(&issuer), &EncodingKey::from_secret(b"secret")).unwrap();
        let unsigned = format!(
            "{}.{}.",
            BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"one"}"#),
            BASE64_URL_SAFE_NO_PAD.encode(claims(&issuer).to_string())
        );
        for (token, reason) in [
            (with("exp", json!(now() - 600)), "expired"),
            (with("nbf", json!(now() + 600)), "not valid yet"),
            (with("aud", json!("another")), "another audience"),
            (with("iss", json!("http://evil.example")), "another issuer"),
            (with("org", json!("../other")), "valid tenant name"),
            (with("org", Value::Null), "org, which names the tenant, is missing"),
            (format!("{signed}.{}", "A".repeat(86)), "signature"),
            (token("two", &claims(&issuer)), "does not publish"),
            (shared, "another algorithm"),
            (unsigned, "valid credential"),
            ("spool_key_1_2".to_owned(), "valid credential"),
            (String::new(), "valid credential"),
        ] {
            let problem = provider.verify(&token).await.unwrap_err();
            assert!(problem.status == 401 && problem.detail.contains(reason), "{token}: {problem:?}");
        }
        assert!(fetches.load(Ordering::SeqCst) <= 2, "unknown key ids are cached too");
    }
}
