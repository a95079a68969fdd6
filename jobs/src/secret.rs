//! Secrets of API keys and upload tokens: generation, the text that a client presents, and verification.

use blake3::Hash;
use subtle::ConstantTimeEq;

use crate::{Error, Id, Result};

/// Prefix of every secret text, by which secret scanners find leaked ones in files and logs.
const PREFIX: &str = "spool_";

/// Returns 32 bytes from the operating system's random number generator.
///
/// # Errors
/// Returns [`Error::Random`] if the operating system fails.
pub fn random_secret() -> Result<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|source| Error::Random { source })?;
    Ok(secret)
}

/// A new secret: the text for its owner, which is stored nowhere, and the hash for the database.
pub(crate) struct Generated {
    /// `spool_`, the ID, `_`, and 64 hexadecimal digits.
    pub(crate) text: String,
    /// Hash of the hexadecimal digits.
    pub(crate) hash: String,
}

/// Generates the secret of the credential with this ID.
pub(crate) fn generate(id: &Id) -> Result<Generated> {
    let secret = Hash::from_bytes(random_secret()?).to_hex();
    Ok(Generated { text: format!("{PREFIX}{id}_{secret}"), hash: hash(&secret).to_hex().to_string() })
}

/// Splits a presented text into the credential's ID and its secret. `None`: the text has another shape.
pub(crate) fn parse(text: &str) -> Option<(Id, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.rsplit_once('_')?;
    Some((Id::from_text(id), secret))
}

/// Returns whether a secret has this stored hash, in constant time: the time does not depend on the
/// difference.
pub(crate) fn verify(secret: &str, stored_hash: &str) -> bool {
    Hash::from_hex(stored_hash).is_ok_and(|stored| hash(secret).as_bytes().ct_eq(stored.as_bytes()).into())
}

/// Returns the hash of a secret. A fast hash is enough: a secret has 256 random bits, so dictionary attacks
/// are impossible.
fn hash(secret: &str) -> Hash {
    blake3::hash(secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_generated_secret_is_verified() {
        let id = Id::api_key();
        let Generated { text, hash } = generate(&id).unwrap();
        let (parsed_id, secret) = parse(&text).unwrap();
        assert!(parsed_id == id && verify(secret, &hash) && text.starts_with("spool_key_"), "{text}");
        assert!(!hash.contains(secret) && secret.len() == 64);
        assert!(!verify(&secret[1..], &hash) && !verify("", &hash) && !verify(secret, ""));
        assert!(
            ["", "spool_", "spool_key", "Bearer spool_key_1_2", "key_1_2"]
                .iter()
                .all(|text| parse(text).is_none_or(|(id, _)| !id.as_str().starts_with("key_")))
        );
        assert_ne!(generate(&id).unwrap().text, text);
    }
}
