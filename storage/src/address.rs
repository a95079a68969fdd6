//! Addresses: parses paths and URIs. Pure: no file is touched, and no host is contacted.

use std::path::{Component, Path, PathBuf};

use url::Url;

use super::error::{AddressProblem, Error};

/// Address of an object, by kind of store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// An absolute path on this host.
    Local(PathBuf),
    /// A key in a bucket.
    Bucket {
        /// The service.
        service: Service,
        /// `s3://bucket`, `abfs://container@account.dfs.core.windows.net`.
        root: String,
        /// The part of `root` after `//`.
        authority: String,
        /// The key, verbatim: `%`, `#`, `?` and blanks are part of it, as in the services' own tools.
        key: object_store::path::Path,
    },
    /// An HTTP or HTTPS URL.
    Web(Url),
}

/// Service that stores buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    S3,
    Gcs,
    Azure,
}

impl Address {
    /// Parses a path or a URI.
    ///
    /// A plain path is literal (`%` and `#` are characters of file names; `~` is expanded by shells only) and
    /// is made absolute; `file://` is percent-decoded (RFC 8089); keys of buckets are literal.
    pub(crate) fn parse(uri: &str) -> Result<Self, Error> {
        let bad = |problem| Error::BadAddress { uri: redact(uri), problem };
        if uri.is_empty() {
            return Err(bad(AddressProblem::Empty));
        }
        let Some((scheme, rest)) = split_scheme(uri) else {
            let path = std::path::absolute(uri).map_err(|_| bad(AddressProblem::NoWorkingDirectory))?;
            return Ok(Self::Local(path));
        };
        let bucket = |service| Self::bucket(service, &scheme, rest).map_err(bad);
        match scheme.as_str() {
            "file" => {
                let url = Url::parse(uri).map_err(|e| bad(AddressProblem::Url(e)))?;
                let path = url.to_file_path().map_err(|()| bad(AddressProblem::FileHost))?;
                Ok(Self::Local(path))
            }
            "s3" => bucket(Service::S3),
            "gs" => bucket(Service::Gcs),
            "az" | "abfs" | "abfss" => bucket(Service::Azure),
            "http" | "https" => Ok(Self::Web(Url::parse(uri).map_err(|e| bad(AddressProblem::Url(e)))?)),
            _ => Err(Error::UnknownScheme { scheme }),
        }
    }

    fn bucket(service: Service, scheme: &str, rest: &str) -> Result<Self, AddressProblem> {
        let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(AddressProblem::NoBucket);
        }
        // In abfs the container stands before the `@`, without a password.
        if authority.contains(':') || (authority.contains('@') && service != Service::Azure) {
            return Err(AddressProblem::Credentials);
        }
        let key = object_store::path::Path::parse(key).map_err(|_| AddressProblem::Key)?;
        Ok(Self::Bucket {
            service,
            root: format!("{scheme}://{authority}"),
            authority: authority.to_owned(),
            key,
        })
    }

    /// Returns the URI of the address.
    pub(crate) fn uri(&self) -> String {
        match self {
            Self::Local(path) => file_uri(path),
            Self::Bucket { root, key, .. } => key_uri(root, key),
            Self::Web(url) => url.to_string(),
        }
    }
}

/// Returns whether a path or URI lies in the folder, bucket or site that a prefix names. `https://` names all
/// of the web. Equivalent spellings of an address are equal; a path with `..` lies in no prefix.
pub fn is_within(uri: &str, prefix: &str) -> bool {
    let (address, folder) = (Address::parse(uri), Address::parse(prefix));
    match (address, folder) {
        (Ok(Address::Web(url)), _) if prefix.ends_with("://") => {
            prefix.strip_suffix("://") == Some(url.scheme())
        }
        (Ok(Address::Local(path)), Ok(Address::Local(folder))) => {
            path.starts_with(folder) && !path.components().any(|part| part == Component::ParentDir)
        }
        (Ok(Address::Bucket { root, key, .. }), Ok(Address::Bucket { root: bucket, key: folder, .. })) => {
            root == bucket && key.prefix_matches(&folder)
        }
        (Ok(Address::Web(url)), Ok(Address::Web(site))) => {
            let below = url.path().strip_prefix(site.path().trim_end_matches('/'));
            url.origin() == site.origin()
                && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        _ => false,
    }
}

/// Returns `file:///…`, percent-encoded.
pub(crate) fn file_uri(path: &Path) -> String {
    // Only a relative path has no URL, and paths are absolute here.
    Url::from_file_path(path).map_or_else(|()| path.display().to_string(), String::from)
}

/// Returns `s3://bucket/key`, verbatim.
pub(crate) fn key_uri(root: &str, key: &object_store::path::Path) -> String {
    if key.is_root() { root.to_owned() } else { format!("{root}/{key}") }
}

/// Returns the last segment of a path or a URI, decoded: the file's name. Empty for a whole bucket and for an
/// invalid address.
pub fn name(uri: &str) -> String {
    match Address::parse(uri) {
        Ok(Address::Local(path)) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        Ok(Address::Bucket { key, .. }) => key.filename().unwrap_or_default().to_owned(),
        Ok(Address::Web(url)) => {
            let last = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
            let decoded = Url::parse("file:///").ok().and_then(|mut file| {
                file.set_path(last);
                file.to_file_path().ok()
            });
            decoded
                .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()))
                .unwrap_or_else(|| last.to_owned())
        }
        Err(_) => String::new(),
    }
}

/// Returns a URI for display, without presigned queries and without credentials.
pub fn redact(uri: &str) -> String {
    let Some((scheme, rest)) = split_scheme(uri) else {
        return uri.to_owned();
    };
    let web = matches!(scheme.as_str(), "http" | "https");
    let rest = if web { rest.split(['?', '#']).next().unwrap_or_default() } else { rest };
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let host = match authority.rsplit_once('@') {
        Some((user, host)) if web || user.contains(':') => host,
        _ => authority,
    };
    format!("{scheme}://{host}{path}")
}

/// Returns a text, such as a statement, for display, with every URI in it redacted.
pub fn redact_in(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "'\"`$();,".contains(c);
    let pieces = text.split_inclusive(ends).map(|piece| {
        let (word, end) = piece.strip_suffix(ends).map_or((piece, ""), |word| (word, &piece[word.len()..]));
        if word.contains("://") { format!("{}{end}", redact(word)) } else { piece.to_owned() }
    });
    pieces.collect()
}

/// Returns the scheme in lower case, and the part after `://`; `None` for a plain path.
fn split_scheme(uri: &str) -> Option<(String, &str)> {
    let (scheme, rest) = uri.split_once("://")?;
    let mut chars = scheme.chars();
    let is_scheme = chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    is_scheme.then(|| (scheme.to_ascii_lowercase(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn file_names_keep_their_odd_characters() {
        for name in ["a b.mp4", "100%.mp4", "take#1.mp4", "what?.mp4", "dép%20art.mp4", "x#12"] {
            let path = format!("/videos/{name}");
            let address = Address::parse(&path).unwrap();
            assert_eq!(address, Address::Local(PathBuf::from(&path)));
            assert_eq!(Address::parse(&address.uri()).unwrap(), address, "{}", address.uri());
        }
        assert_eq!(Address::parse("file:///a%20b%23c").unwrap(), Address::Local("/a b#c".into()));
    }

    #[test]
    fn relative_paths_become_absolute_and_a_tilde_is_a_name() {
        let Address::Local(path) = Address::parse("~/x.mp4").unwrap() else { panic!("not local") };
        assert_eq!(path, std::env::current_dir().unwrap().join("~/x.mp4"));
    }

    #[test]
    fn keys_are_literal() {
        let address = Address::parse("S3://bucket/a b/100%25#1?x.mp4").unwrap();
        assert_eq!(address.uri(), "s3://bucket/a b/100%25#1?x.mp4");
        assert_eq!(Address::parse("s3://bucket/dir/").unwrap().uri(), "s3://bucket/dir");
        assert_eq!(Address::parse("s3://bucket").unwrap().uri(), "s3://bucket");
        assert!(Address::parse("abfs://c@acc.dfs.core.windows.net/k").is_ok());
    }

    #[test]
    fn errors_leave_out_the_secret() {
        let problem = |uri: &str| match Address::parse(uri) {
            Err(Error::BadAddress { problem, .. }) => problem,
            other => panic!("{uri}: {other:?}"),
        };
        assert_eq!(problem(""), AddressProblem::Empty);
        assert_eq!(problem("s3:///key"), AddressProblem::NoBucket);
        assert_eq!(problem("s3://bucket/a//b"), AddressProblem::Key);
        assert_eq!(problem("s3://bucket/../b"), AddressProblem::Key);
        assert_eq!(problem("file://host/a"), AddressProblem::FileHost);
        let error = Address::parse("s3://AKIA:hunter2@bucket/key").unwrap_err().to_string();
        assert!(
            error.contains("environment") && error.contains("bucket") && !error.contains("hunter2"),
            "{error}"
        );
        let error = Address::parse("ftp://me:hunter2@host/x").unwrap_err().to_string();
        assert!(error.contains("ftp://") && error.contains("s3://") && !error.contains("hunter2"), "{error}");
        assert_eq!(redact("https://u:p@host/a.mp4?X-Amz-Signature=abc#t"), "https://host/a.mp4");
        assert_eq!(redact("https://host?sig=abc"), "https://host");
    }

    #[test]
    fn a_secret_in_a_statement_is_redacted() {
        let shown = redact_in(
            "SELECT * FROM segments('https://host/talk.mp4?X-Amz-Signature=secret', 30) WHERE track = 'video'",
        );
        assert!(!shown.contains("secret") && shown.contains("https://host/talk.mp4"), "{shown}");
        assert!(
            shown.starts_with("SELECT * FROM segments('") && shown.ends_with(", 30) WHERE track = 'video'"),
            "{shown}"
        );
        let commented = redact_in(
            "-- what's new\nSELECT * FROM segments($$https://host/talk.mp4?X-Amz-Signature=secret$$)",
        );
        assert!(!commented.contains("secret") && commented.contains("what's new\nSELECT"), "{commented}");
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(uri in "\\PC*") {
            if let Ok(address) = Address::parse(&uri) {
                prop_assert_eq!(Address::parse(&address.uri()).unwrap(), address);
            }
            let _ = redact(&uri);
        }
    }
}
