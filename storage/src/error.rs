//! `Error`: failures of a store. Messages name the object and the remedy, and never contain a secret.

use std::{error::Error as _, io, path::PathBuf};

use object_store::client::{HttpError, HttpErrorKind};

use super::wire::{Answer, NoCredentials};
use crate::{ErrorKind, net};

/// Longest text from a server in a message, in characters: a hostile server must not fill a log.
const DETAIL_MAX_CHARS: usize = 200;

/// Failure of a store. Every `uri` is redacted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URI cannot name an object.
    #[error("{uri} is not an address: {problem}")]
    BadAddress {
        /// The URI, redacted.
        uri: String,
        /// Description of the problem.
        problem: AddressProblem,
    },
    /// The scheme is not supported.
    #[error(
        "cannot use {scheme}:// addresses; supported are paths, file://, s3://, gs://, az://, abfs://, http:// and https:// (to read)"
    )]
    UnknownScheme {
        /// The part before `://`.
        scheme: String,
    },
    /// The options of a store (environment, AWS profile) are invalid.
    #[error("cannot set up the store of {uri}: {detail}")]
    Configuration {
        /// The bucket.
        uri: String,
        /// Description of the missing or wrong option.
        detail: String,
    },
    /// The object does not exist.
    #[error("{uri} does not exist")]
    NotFound {
        /// The object.
        uri: String,
    },
    /// The whole bucket is missing.
    #[error("the bucket {bucket} does not exist: create it, or correct its name or the endpoint")]
    NoBucket {
        /// Scheme and bucket.
        bucket: String,
    },
    /// The store or the file system denied access.
    #[error("not allowed to use {uri}: {cause}; {}", cause.remedy())]
    NotAllowed {
        /// The object.
        uri: String,
        /// Reason.
        cause: Denial,
    },
    /// The source has changed since it was opened.
    #[error("{uri} changed while it was read: start again once it stays as it is")]
    SourceChanged {
        /// The source.
        uri: String,
    },
    /// The file system of the destination is full, or a quota is exceeded.
    #[error("no space left for {uri}: free some or choose another destination")]
    DiskFull {
        /// The object.
        uri: String,
    },
    /// There was no response: connection refused, name unknown, or timeout.
    #[error("cannot reach the store of {uri}: {detail}; check the network and the endpoint")]
    Unreachable {
        /// The object.
        uri: String,
        /// The network error.
        detail: String,
    },
    /// The store responded with server errors to every attempt.
    #[error("the store of {uri} is failing: {detail}; try again later")]
    Unavailable {
        /// The object.
        uri: String,
        /// The last response.
        detail: String,
    },
    /// The store rejected the request.
    #[error("the store refused the request for {uri}: {answer}")]
    Refused {
        /// The object.
        uri: String,
        /// The response.
        answer: Answer,
    },
    /// The object is larger than what may be held in memory, or than what can be uploaded.
    #[error("{uri} has {bytes} bytes, more than the {limit} allowed here")]
    TooLarge {
        /// The object.
        uri: String,
        /// Its length in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A range does not lie in the source: the index is wrong, or the source is truncated.
    #[error("bytes {start} to {end} do not lie in {uri}, which has {bytes}: it is truncated or damaged")]
    OutOfRange {
        /// The source.
        uri: String,
        /// First byte.
        start: u64,
        /// End of the range, exclusive.
        end: u64,
        /// Length of the source in bytes.
        bytes: u64,
    },
    /// The server supports no range requests, or nothing to pin them by: see
    /// [`super::SourceReader::must_download`].
    #[error(
        "{uri} can only be read as a whole: its server gives no ranges, or no ETag and no date to pin them by"
    )]
    NoRanges {
        /// The source.
        uri: String,
    },
    /// Writing, listing or deleting in a read-only store.
    #[error("{uri} can only be read: write to a path, s3://, gs:// or az://")]
    ReadOnly {
        /// The object.
        uri: String,
    },
    /// The path is a directory, a pipe or a device.
    #[error("{uri} is not a file")]
    NotAFile {
        /// The path.
        uri: String,
    },
    /// Any other error of a location's file system.
    #[error("cannot use {uri}: {source}")]
    Io {
        /// The location.
        uri: String,
        /// The system's error.
        source: io::Error,
    },
    /// A local file failed: the source of an upload, or the target of a download.
    #[error("cannot use the local file {path}: {source}", path = path.display())]
    LocalFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Problem of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressProblem {
    /// The address is empty.
    #[error("it is empty")]
    Empty,
    /// `s3:///key`.
    #[error("it names no bucket")]
    NoBucket,
    /// `s3://user:secret@bucket/…`.
    #[error("credentials belong in the environment, not in an address")]
    Credentials,
    /// `a//b`, `..`, a control character.
    #[error("its key has an empty or relative segment, or a control character")]
    Key,
    /// `file://host/…`, or a relative one.
    #[error("a file:// address is file:/// and an absolute path")]
    FileHost,
    /// Not a URL of the web.
    #[error("{0}")]
    Url(url::ParseError),
    /// A relative path, and the working directory is gone.
    #[error("the working directory cannot be read")]
    NoWorkingDirectory,
}

/// Reason for a denial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The store responded with 401 or 403.
    #[error("{0}")]
    Answer(Answer),
    /// There are no credentials to sign with.
    #[error("no credentials were found")]
    NoCredentials,
    /// The file system denied access.
    #[error("{0}")]
    System(io::ErrorKind),
    /// Spool's policy: the host is not public.
    #[error("{0}")]
    Private(net::Private),
}

impl Denial {
    /// Returns the remedy.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Answer(answer) => match answer.code.as_deref() {
                Some("SignatureDoesNotMatch") => "check AWS_SECRET_ACCESS_KEY",
                Some("InvalidAccessKeyId") => "check AWS_ACCESS_KEY_ID",
                Some("ExpiredToken" | "TokenRefreshRequired" | "InvalidToken") => "renew AWS_SESSION_TOKEN",
                Some("RequestTimeTooSkewed") => "set this machine's clock",
                _ => {
                    "check the credentials and what they permit (without permission to list, S3 says this of a missing object too); \
                     a presigned link may have expired"
                }
            },
            Self::NoCredentials => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE, AWS_SKIP_SIGNATURE=true for a public bucket), \
                 GOOGLE_SERVICE_ACCOUNT, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
            }
            Self::System(_) => "check the permissions of the file and its directories",
            Self::Private(_) => "upload the video, or put it where everybody can reach it",
        }
    }
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoBucket { .. } => ErrorKind::NotFound,
            Self::NotAllowed { .. } => ErrorKind::NotAllowed,
            Self::DiskFull { .. } | Self::Unreachable { .. } | Self::Unavailable { .. } => {
                ErrorKind::Transient
            }
            Self::NoRanges { .. } => ErrorKind::Bug,
            Self::Io { source, .. } | Self::LocalFile { source, .. } => io_kind(source),
            Self::BadAddress { .. }
            | Self::UnknownScheme { .. }
            | Self::Configuration { .. }
            | Self::SourceChanged { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::OutOfRange { .. }
            | Self::ReadOnly { .. }
            | Self::NotAFile { .. } => ErrorKind::BadInput,
        }
    }

    /// Returns the error for a failure of a location's file system.
    pub(crate) fn system(uri: &str, source: io::Error) -> Self {
        let uri = uri.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { uri },
            kind @ (io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                Self::NotAllowed { uri, cause: Denial::System(kind) }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { uri },
            io::ErrorKind::IsADirectory => Self::NotAFile { uri },
            _ => Self::Io { uri, source },
        }
    }

    /// Returns the error for a failure of a local file.
    pub(crate) fn file(path: &std::path::Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { uri: path.display().to_string() }
            }
            _ => Self::LocalFile { path: path.to_owned(), source },
        }
    }

    /// Returns the error for a failure of a remote store; `bucket` is its scheme and bucket.
    pub(crate) fn remote(uri: &str, bucket: &str, error: &object_store::Error) -> Self {
        let uri = uri.to_owned();
        if let Some(answer) = find::<Answer>(error) {
            let answer = answer.clone();
            return match answer.status {
                _ if answer.says_no_bucket() => Self::NoBucket { bucket: bucket.to_owned() },
                401 | 403 => Self::NotAllowed { uri, cause: Denial::Answer(answer) },
                408 | 429 | 500.. => Self::Unavailable { uri, detail: answer.to_string() },
                _ => Self::Refused { uri, answer },
            };
        }
        if find::<NoCredentials>(error).is_some() {
            return Self::NotAllowed { uri, cause: Denial::NoCredentials };
        }
        if let Some(private) = find::<net::Private>(error) {
            return Self::NotAllowed { uri, cause: Denial::Private(private.clone()) };
        }
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound { uri },
            object_store::Error::Precondition { .. } => Self::SourceChanged { uri },
            _ if find::<HttpError>(error).is_some() => Self::Unreachable { uri, detail: innermost(error) },
            _ => Self::Unavailable { uri, detail: innermost(error) },
        }
    }
}

/// Returns whether a write may have reached the store although there was no response.
pub(crate) fn may_have_arrived(error: &object_store::Error) -> bool {
    let lost = |e: &HttpError| !matches!(e.kind(), HttpErrorKind::Connect | HttpErrorKind::Request);
    find::<Answer>(error).is_none()
        && find::<NoCredentials>(error).is_none()
        && find::<HttpError>(error).is_some_and(lost)
}

/// Returns whether the store lacks conditional writes, by its configuration or by its response.
pub(crate) fn lacks_conditions(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotImplemented { .. })
        || find::<Answer>(error).is_some_and(|a| a.status == 501)
}

/// Returns whether the server responded that it has no such range, or supports no ranges at all.
pub(crate) fn lacks_ranges(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotSupported { .. })
        || find::<Answer>(error).is_some_and(|a| a.status == 416)
}

/// Returns the innermost error's text: the outer ones repeat it, some of them with the whole URL.
pub(crate) fn innermost(error: &object_store::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string().chars().take(DETAIL_MAX_CHARS).collect()
}

fn find<E: std::error::Error + 'static>(error: &object_store::Error) -> Option<&E> {
    let mut link = error.source();
    while let Some(e) = link {
        if let Some(found) = e.downcast_ref() {
            return Some(found);
        }
        link = e.source();
    }
    None
}

fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::NotAllowed,
        io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::Unsupported => ErrorKind::BadInput,
        _ => ErrorKind::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_full_quota_have_errors_of_their_own() {
        for errno in [nix::errno::Errno::ENOSPC, nix::errno::Errno::EDQUOT] {
            let error = Error::system("file:///out/a.m4s", io::Error::from_raw_os_error(errno as i32));
            assert!(matches!(&error, Error::DiskFull { uri } if uri == "file:///out/a.m4s"), "{error}");
            assert_eq!(error.kind(), ErrorKind::Transient);
        }
        let error =
            Error::system("file:///out/a.m4s", io::Error::from_raw_os_error(nix::errno::Errno::EROFS as i32));
        assert_eq!(error.kind(), ErrorKind::NotAllowed);
        let error = Error::system(
            "file:///out/a.m4s",
            io::Error::from_raw_os_error(nix::errno::Errno::ENAMETOOLONG as i32),
        );
        assert_eq!(error.kind(), ErrorKind::BadInput);
    }
}
