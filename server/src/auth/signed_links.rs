//! Links that play a video for a while: what they say is signed, so that any server knows what another has given out.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use spool_jobs::Access;
use tokio::sync::OnceCell;

use crate::problem::{Problem, ProblemKind};

/// The secret's name in the store.
const SECRET: &str = "links";

/// What a link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) tenant: String,
    pub(crate) video: String,
    pub(crate) expires_ms: i64,
}

impl Link {
    pub(crate) fn new(tenant: String, video: String, seconds: u64) -> Self {
        Self {
            tenant,
            video,
            expires_ms: now_ms()
                .saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)),
        }
    }

    /// Names hold no line ends.
    fn text(&self) -> String {
        format!("{}\n{}\n{}", self.tenant, self.video, self.expires_ms)
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let (tenant, video) = (lines.next()?.to_owned(), lines.next()?.to_owned());
        Some(Self { tenant, video, expires_ms: lines.next()?.parse().ok()? })
    }
}

/// Signs links, and knows them again.
#[derive(Clone)]
pub(crate) struct Links {
    access: Arc<dyn Access>,
    secret: Arc<OnceCell<[u8; 32]>>,
}

impl Links {
    pub(crate) fn new(access: Arc<dyn Access>) -> Self {
        Self { access, secret: Arc::default() }
    }

    /// A link as a part of a path.
    pub(crate) async fn sign(&self, link: &Link) -> Result<String, Problem> {
        Ok(signed(self.secret().await?, link))
    }

    /// What a link says, where it was signed here and is good now.
    pub(crate) async fn check(&self, signed: &str) -> Result<Link, Problem> {
        let bad =
            || Problem::new(ProblemKind::NotAllowed, "the link is none that was given out here: get another");
        let link = checked(self.secret().await?, signed).ok_or_else(bad)?;
        if link.expires_ms <= now_ms() {
            return Err(Problem::new(
                ProblemKind::NotAllowed,
                "the link was good for a while, which is over: get another",
            ));
        }
        Ok(link)
    }

    async fn secret(&self) -> Result<&[u8; 32], Problem> {
        Ok(self.secret.get_or_try_init(|| self.access.secret(SECRET)).await?)
    }
}

fn signed(secret: &[u8; 32], link: &Link) -> String {
    let text = link.text();
    format!(
        "{}.{}",
        BASE64_URL_SAFE_NO_PAD.encode(&text),
        blake3::keyed_hash(secret, text.as_bytes()).to_hex()
    )
}

fn checked(secret: &[u8; 32], signed: &str) -> Option<Link> {
    let (text, signature) = signed.split_once('.')?;
    let text = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let signature = blake3::Hash::from_hex(signature).ok()?;
    // Hashes compare in constant time.
    if blake3::keyed_hash(secret, &text) == signature {
        Link::read(std::str::from_utf8(&text).ok()?)
    } else {
        None
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_what_it_was_signed_for_and_nothing_else() {
        let link = Link::new("acme".to_owned(), "video_1".to_owned(), 60);
        let text = signed(&[7; 32], &link);
        assert_eq!(checked(&[7; 32], &text), Some(link.clone()));
        assert!(!text.contains(['/', '+', '=', '\n']), "{text}");
        assert_eq!(checked(&[8; 32], &text), None, "another's signature");
        let (said, signature) = text.split_once('.').unwrap();
        let other = signed(&[7; 32], &Link { video: "video_2".to_owned(), ..link });
        for forged in [
            format!("{}.{signature}", other.split_once('.').unwrap().0),
            format!("{said}."),
            said.to_owned(),
            String::new(),
        ] {
            assert_eq!(checked(&[7; 32], &forged), None, "{forged}");
        }
    }
}
