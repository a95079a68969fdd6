//! Who does an identity provider say it is? A JWT that it signed, with keys that it publishes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind as Fault, jwk::JwkSet};
use serde::Deserialize;
use serde_json::Value;
use spool_jobs::{Scope, check_tenant};
use tokio::{sync::Mutex, time::Instant};
use tracing::warn;

use crate::{
    auth::authenticate::unauthenticated,
    problem::{Problem, ProblemKind},
};

/// How long keys are believed, and how soon they are asked for again where one is unknown.
const FRESH: Duration = Duration::from_secs(600);
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How long the provider may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Signatures that are believed: those that the provider alone can make.
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

/// How a provider's tokens are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// The provider: what `iss` says, and where `/.well-known/openid-configuration` is.
    pub issuer: String,
    /// For whom a token has to be: what `aud` says.
    pub audience: String,
    /// The claim that names the tenant.
    pub tenant_claim: String,
}

/// A provider, and the keys that it signs with.
pub(crate) struct Provider {
    settings: Oidc,
    client: reqwest::Client,
    keys: RwLock<Keys>,
    /// One at a time asks for them.
    asking: Mutex<()>,
}

/// A key, and the algorithm that it is for, where its publisher says so.
type PublicKey = (Option<Algorithm>, DecodingKey);

#[derive(Default)]
struct Keys {
    by_name: HashMap<String, PublicKey>,
    asked: Option<Instant>,
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
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?;
        Ok(Self { settings, client, keys: RwLock::default(), asking: Mutex::default() })
    }

    /// The tenant that a token is of, and what it opens.
    pub(crate) async fn check(&self, token: &str) -> Result<(String, Vec<Scope>), Problem> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| unauthenticated())?;
        let name = header.kid.ok_or_else(|| refused("it names no key (kid)"))?;
        let (promised, key) = self
            .key(&name)
            .await?
            .ok_or_else(|| refused("it is signed with a key that the issuer does not publish"))?;
        // What a token says of itself is believed only as far as the key says the same.
        if !ALGORITHMS.contains(&header.alg) || promised.is_some_and(|promised| promised != header.alg) {
            return Err(refused("its key is for another algorithm"));
        }
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|error| {
            refused(match error.kind() {
                Fault::ExpiredSignature => "it has expired",
                Fault::ImmatureSignature => "it is not good yet",
                Fault::InvalidAudience => "it is for another audience",
                Fault::InvalidIssuer => "it is of another issuer",
                Fault::MissingRequiredClaim(_) => "it lacks exp, iss or aud",
                _ => "its signature is not the issuer's",
            })
        })?;
        self.read(claims.claims)
    }

    fn read(&self, claims: Claims) -> Result<(String, Vec<Scope>), Problem> {
        let claim = &self.settings.tenant_claim;
        let tenant = claims
            .others
            .get(claim)
            .and_then(Value::as_str)
            .ok_or_else(|| refused(&format!("it has no claim {claim}, which names the tenant")))?;
        check_tenant(tenant)
            .map_err(|_| refused(&format!("its claim {claim} names no tenant that there can be")))?;
        // What is for others is none of ours.
        let scopes =
            claims.scope.split(' ').filter_map(|word| word.strip_prefix("spool:")?.parse().ok()).collect();
        Ok((tenant.to_owned(), scopes))
    }

    /// A key by its name. One that is known and fresh waits for nobody.
    async fn key(&self, name: &str) -> Result<Option<PublicKey>, Problem> {
        if let Some(key) = self.known(name) {
            return Ok(key);
        }
        let _asking = self.asking.lock().await;
        // What the one before got may be what is wanted.
        if let Some(key) = self.known(name) {
            return Ok(key);
        }
        let fetched = self.fetch().await;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.asked = Some(Instant::now());
        match fetched {
            Ok(fresh) => keys.by_name = fresh,
            Err(error) => {
                warn!(
                    issuer = self.settings.issuer,
                    error, "the keys of the identity provider cannot be read"
                );
                if !keys.by_name.contains_key(name) {
                    return Err(Problem::new(
                        ProblemKind::Unavailable,
                        "the identity provider does not answer: try again, and see the server's log",
                    ));
                }
            }
        }
        Ok(keys.by_name.get(name).cloned())
    }

    /// What is known of a name, as far as that is fresh enough: that there is no such key as well, for a while.
    fn known(&self, name: &str) -> Option<Option<PublicKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let (age, key) = (keys.asked?.elapsed(), keys.by_name.get(name));
        let fresh = if key.is_some() { FRESH } else { ASK_AGAIN };
        (age < fresh).then(|| key.cloned())
    }

    async fn fetch(&self) -> Result<HashMap<String, PublicKey>, String> {
        let configuration =
            format!("{}/.well-known/openid-configuration", self.settings.issuer.trim_end_matches('/'));
        let configuration: Configuration = self.read_json(&configuration).await?;
        let set: JwkSet = self.read_json(&configuration.jwks_uri).await?;
        let keys = set.keys.iter().filter_map(|key| {
            let promised = key.common.key_algorithm.map(|named| named.to_string().parse::<Algorithm>());
            // A key for another purpose, such as encryption.
            let promised = promised.transpose().ok()?;
            Some((key.common.key_id.clone()?, (promised, DecodingKey::from_jwk(key).ok()?)))
        });
        Ok(keys.collect())
    }

    async fn read_json<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let said = |error: reqwest::Error| error.without_url().to_string();
        let mut response =
            self.client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(said)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(said)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(format!("{url} is longer than {MAX_ANSWER} bytes"));
            }
        }
        serde_json::from_slice(&body).map_err(|e| format!("{url}: {e}"))
    }
}

fn refused(why: &str) -> Problem {
    Problem::new(ProblemKind::Unauthenticated, format!("the token is not taken: {why}"))
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

    /// The example of RFC 8037, appendix A.
    const PRIVATE: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    /// What stands before a private key of Ed25519 in PKCS#8.
    const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

    /// An identity provider on loopback, and how often it was asked for its keys.
    async fn provider() -> (Provider, String, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let (asked, keys) = (Arc::new(AtomicUsize::new(0)), format!("{issuer}/keys"));
        let counted = asked.clone();
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(move || async move { Json(json!({ "jwks_uri": keys })) }),
            )
            .route(
                "/keys",
                get(move || async move {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let ours =
                        json!({ "kid": "one", "kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "use": "sig" });
                    let secret = json!({ "kid": "shared", "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" });
                    Json(json!({ "keys": [ours, secret] }))
                }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        let settings =
            Oidc { issuer: issuer.clone(), audience: "spool".to_owned(), tenant_claim: "org".to_owned() };
        (Provider::new(settings).unwrap(), issuer, asked)
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
        json!({ "iss": issuer, "aud": "spool", "exp": now() + 600, "org": "acme", "scope": "openid spool:read spool:write spool:all" })
    }

    #[tokio::test]
    async fn what_the_provider_signed_is_believed() {
        let (provider, issuer, asked) = provider().await;
        let (tenant, scopes) = provider.check(&token("one", &claims(&issuer))).await.unwrap();
        assert_eq!((tenant.as_str(), scopes), ("acme", vec![Scope::Read, Scope::Write]));
        provider.check(&token("one", &claims(&issuer))).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1, "its keys are kept");
    }

    #[tokio::test]
    async fn what_it_did_not_sign_for_us_is_not() {
        let (provider, issuer, asked) = provider().await;
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
        let nobodys = format!(
            "{}.{}.",
            BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"one"}"#),
            BASE64_URL_SAFE_NO_PAD.encode(claims(&issuer).to_string())
        );
        for (token, why) in [
            (with("exp", json!(now() - 600)), "expired"),
            (with("nbf", json!(now() + 600)), "not good yet"),
            (with("aud", json!("another")), "another audience"),
            (with("iss", json!("http://evil.example")), "another issuer"),
            (with("org", json!("../other")), "names no tenant"),
            (with("org", Value::Null), "no claim org"),
            (format!("{signed}.{}", "A".repeat(86)), "signature"),
            (token("two", &claims(&issuer)), "does not publish"),
            (shared, "another algorithm"),
            (nobodys, "show who you are"),
            ("spool_key_1_2".to_owned(), "show who you are"),
            (String::new(), "show who you are"),
        ] {
            let problem = provider.check(&token).await.unwrap_err();
            assert!(problem.status == 401 && problem.detail.contains(why), "{token}: {problem:?}");
        }
        assert!(
            asked.load(Ordering::SeqCst) <= 2,
            "who names keys that there are not has nobody asked each time"
        );
    }
}
