//! `PathPolicy`: the prefixes of paths and URIs that a job may read, write and delete. Pure: nothing is
//! opened.

use serde::{Deserialize, Serialize};

use crate::{ErrorKind, is_within, redact};

/// Prefixes that a job is confined to, whatever its statement contains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathPolicy {
    /// Prefixes that may be read: `s3://uploads/acme/`, a folder, `https://cdn.example.com/`, or `https://`
    /// for all of the web.
    pub read: Vec<String>,
    /// Prefixes that may be published under.
    pub write: Vec<String>,
    /// Prefixes that belong to the tenant, and may be deleted.
    #[serde(default)]
    pub delete: Vec<String>,
}

/// Error: the policy forbids an operation on a path or URI.
#[derive(Debug, thiserror::Error)]
#[error("this job may not {verb} {uri}; allowed prefixes: {allowed}")]
pub struct Error {
    uri: String,
    verb: &'static str,
    allowed: String,
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::NotAllowed
    }
}

impl PathPolicy {
    /// Checks that a URI may be read.
    ///
    /// # Errors
    /// Returns an error if it lies under no allowed prefix.
    pub fn check_source(&self, uri: &str) -> Result<(), Error> {
        check(&self.read, uri, "read")
    }

    /// Checks that a URI may be deleted. Permission to read does not imply it.
    ///
    /// # Errors
    /// Returns an error if it lies under no allowed prefix.
    pub fn check_delete(&self, uri: &str) -> Result<(), Error> {
        check(&self.delete, uri, "delete")
    }

    /// Checks that all files that a pattern can match may be read.
    ///
    /// # Errors
    /// Returns an error if it can match a file outside of the allowed prefixes.
    pub fn check_pattern(&self, pattern: &str) -> Result<(), Error> {
        let fixed = pattern.split(['*', '?', '[', '{']).next().unwrap_or_default();
        let folder =
            if fixed == pattern { fixed } else { fixed.rsplit_once('/').map_or("", |(folder, _)| folder) };
        let leaves = pattern.split('/').any(|segment| segment == "..");
        if leaves { Err(refused(&self.read, pattern, "read")) } else { check(&self.read, folder, "read") }
    }

    /// Checks that a URI may be published to.
    ///
    /// # Errors
    /// Returns an error if it lies under no allowed prefix.
    pub fn check_write(&self, uri: &str) -> Result<(), Error> {
        check(&self.write, uri, "publish to")
    }
}

fn check(prefixes: &[String], uri: &str, verb: &'static str) -> Result<(), Error> {
    if prefixes.iter().any(|prefix| is_within(uri, prefix)) {
        Ok(())
    } else {
        Err(refused(prefixes, uri, verb))
    }
}

fn refused(prefixes: &[String], uri: &str, verb: &'static str) -> Error {
    let allowed = if prefixes.is_empty() { "none".to_owned() } else { prefixes.join(", ") };
    Error { uri: redact(uri), verb, allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(sources: &[&str]) -> PathPolicy {
        PathPolicy {
            read: sources.iter().map(ToString::to_string).collect(),
            write: vec!["s3://media/acme/".to_owned()],
            delete: vec!["s3://in/acme/uploads/".to_owned()],
        }
    }

    #[test]
    fn what_lies_in_a_place_may_be_read() {
        let some = policy(&["s3://in/acme", "/data/in/", "https://cdn.example.com/videos/"]);
        for uri in [
            "s3://in/acme/talk.mp4",
            "s3://in/acme/2026/talk.mp4",
            "/data/in/talk.mp4",
            "file:///data/in/talk.mp4",
            "https://cdn.example.com/videos/a.mp4?X-Amz-Signature=abc",
            "HTTPS://CDN.example.com:443/videos/a.mp4",
        ] {
            some.check_source(uri).unwrap();
        }
        some.check_pattern("s3://in/acme/**/*.mp4").unwrap();
        some.check_pattern("/data/in/*.mp4").unwrap();
        some.check_write("s3://media/acme/talk/").unwrap();
        some.check_delete("s3://in/acme/uploads/talk.mp4").unwrap();
        assert!(
            some.check_delete("s3://in/acme/talk.mp4").is_err(),
            "what may be read may not be deleted for that"
        );
        policy(&["https://"]).check_source("https://anywhere.example/a.mp4").unwrap();
        policy(&["s3://in"]).check_source("s3://in/a.mp4").unwrap();
    }

    #[test]
    fn what_only_looks_like_it_may_not() {
        let some = policy(&["s3://in/acme", "/data/in/", "https://cdn.example.com/videos/"]);
        for uri in [
            "s3://in/acme-secret/talk.mp4",
            "s3://in/other/talk.mp4",
            "s3://in-acme/talk.mp4",
            "gs://in/acme/talk.mp4",
            "/data/in/../../etc/passwd",
            "/data/other.mp4",
            "file:///data/in/%2e%2e/x.mp4",
            "https://cdn.example.com/videos/../private/a.mp4",
            "https://cdn.example.com/videos/%2e%2e/private/a.mp4",
            "https://cdn.example.com@evil.example/videos/a.mp4",
            "https://cdn.example.com.evil.example/videos/a.mp4",
            "https://cdn.example.com:8443/videos/a.mp4",
            "http://cdn.example.com/videos/a.mp4",
            "ftp://x",
            "",
        ] {
            assert!(some.check_source(uri).is_err(), "{uri}");
        }
        for pattern in
            ["s3://in/*", "s3://in/acme*/x", "/data/in/*/../../etc/*", "/data/i*/x", "*", "s3://*/acme/x"]
        {
            assert!(some.check_pattern(pattern).is_err(), "{pattern}");
        }
        let error = some.check_write("s3://media/other/").unwrap_err();
        assert!(
            error.kind() == ErrorKind::NotAllowed
                && error.to_string().contains("allowed prefixes: s3://media/acme/"),
            "{error}"
        );
        let error =
            PathPolicy::default().check_source("https://host/a.mp4?sig=secret").unwrap_err().to_string();
        assert!(!error.contains("secret") && error.contains("none"), "{error}");
    }
}
