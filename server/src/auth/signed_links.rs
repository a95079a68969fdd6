//! Signed links: URLs that play one video until they expire. The signature covers tenant, video and expiry,
//! so that every server accepts the links of every other server.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use spool_jobs::CredentialStore;
use tokio::sync::OnceCell;

use crate::problem::{Problem, ProblemKind};

/// Name of the signing secret in the credential store.
const SECRET_NAME: &str = "links";

/// Claims of a signed link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedLink {
    pub(crate) tenant: String,
    pub(crate) video: String,
    pub(crate) expires_ms: i64,
}

impl SignedLink {
    /// Returns a link that is valid for `seconds` from now.
    pub(crate) fn new(tenant: String, video: String, seconds: u64) -> Self {
        let valid_ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
        Self { tenant, video, expires_ms: now_ms().saturating_add(valid_ms) }
    }

    /// Returns the signed text, a line per claim: names of tenants and videos contain no line breaks.
    fn to_text(&self) -> String {
        format!("{}\n{}\n{}", self.tenant, self.video, self.expires_ms)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let (tenant, video) = (lines.next()?.to_owned(), lines.next()?.to_owned());
        Some(Self { tenant, video, expires_ms: lines.next()?.parse().ok()? })
    }
}

/// Signs links, and verifies them.
#[derive(Clone)]
pub(crate) struct LinkSigner {
    credentials: Arc<dyn CredentialStore>,
    secret: Arc<OnceCell<[u8; 32]>>,
}

impl LinkSigner {
    pub(crate) fn new(credentials: Arc<dyn CredentialStore>) -> Self {
        Self { credentials, secret: Arc::default() }
    }

    /// Returns the link as a segment of a path.
    pub(crate) async fn sign(&self, link: &SignedLink) -> Result<String, Problem> {
        Ok(sign(self.secret().await?, link))
    }

    /// Returns the claims of a link that this deployment signed and that has not expired.
    pub(crate) async fn verify(&self, signed: &str) -> Result<SignedLink, Problem> {
        let invalid = || Problem::new(ProblemKind::NotAllowed, "the link is invalid; request a new one");
        let link = verify(self.secret().await?, signed).ok_or_else(invalid)?;
        if link.expires_ms <= now_ms() {
            return Err(Problem::new(ProblemKind::NotAllowed, "the link has expired; request a new one"));
        }
        Ok(link)
    }

    async fn secret(&self) -> Result<&[u8; 32], Problem> {
        Ok(self.secret.get_or_try_init(|| self.credentials.signing_key(SECRET_NAME)).await?)
    }
}

fn sign(secret: &[u8; 32], link: &SignedLink) -> String {
    let text = link.to_text();
    let signature = blake3::keyed_hash(secret, text.as_bytes()).to_hex();
    format!("{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(&text))
}

fn verify(secret: &[u8; 32], signed: &str) -> Option<SignedLink> {
    let (text, signature) = signed.split_once('.')?;
    let text = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let signature = blake3::Hash::from_hex(signature).ok()?;
    // Comparing two `blake3::Hash` takes constant time.
    if blake3::keyed_hash(secret, &text) != signature {
        return None;
    }
    SignedLink::from_text(std::str::from_utf8(&text).ok()?)
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_link_gives_its_claims() {
        let link = SignedLink::new("acme".to_owned(), "video_1".to_owned(), 60);
        let signed = sign(&[7; 32], &link);
        assert_eq!(verify(&[7; 32], &signed), Some(link));
        assert!(!signed.contains(['/', '+', '=', '\n']), "{signed}");
    }

    #[test]
    fn a_forged_link_is_rejected() {
        let link = SignedLink::new("acme".to_owned(), "video_1".to_owned(), 60);
        let signed = sign(&[7; 32], &link);
        assert_eq!(verify(&[8; 32], &signed), None, "another secret");
        let (text, signature) = signed.split_once('.').unwrap();
        let other = sign(&[7; 32], &SignedLink { video: "video_2".to_owned(), ..link });
        let (other_text, _) = other.split_once('.').unwrap();
        for forged in
            [format!("{other_text}.{signature}"), format!("{text}."), text.to_owned(), String::new()]
        {
            assert_eq!(verify(&[7; 32], &forged), None, "{forged}");
        }
    }
}
