//! Errors of TLS, each with the file that it is about.

use std::{io, path::PathBuf};

/// A result with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure to read, to use or to make a certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read as PEM.
    #[error("failed to read {path}: {detail}; it must be a PEM file with {expected}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file must hold.
        expected: &'static str,
        /// The cause.
        detail: String,
    },
    /// A certificate and its key do not belong together, or are of a kind that TLS does not take.
    #[error("cannot use the certificate {cert} with the key {key}: {source}")]
    Identity {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// An authority's certificate cannot be used.
    #[error("cannot use the authority's certificate {path}: {detail}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// The cause.
        detail: String,
    },
    /// A key is readable for other users of the machine.
    #[error("other users can read the key {path}: chmod 600 {path}")]
    OpenKey {
        /// The file.
        path: PathBuf,
    },
    /// The system has no certificates of authorities.
    #[error("this system trusts no certificate authority; name one with --tls-ca")]
    NoRoots,
    /// A certificate cannot be made.
    #[error("failed to make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A file cannot be written.
    #[error("failed to write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
