//! Errors of the store, and the class of each.

use spool_storage::ErrorKind;

use crate::{FencingToken, Id, JobState};

/// Result of a store's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// Reason why a store refused or failed a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such object exists, or another tenant owns it.
    #[error("no {what} {id} exists")]
    NotFound {
        /// Type of the object: `job`, `video`, `upload`, …
        what: &'static str,
        /// ID from the call.
        id: String,
    },
    /// A field of the request is wrong.
    #[error("{field}: {message}")]
    Request {
        /// Name of the field.
        field: &'static str,
        /// Message with the fault and the accepted values.
        message: String,
    },
    /// An idempotency key was used for another request before.
    #[error("idempotency key {key:?} belongs to the request that created job {job}; use another key")]
    KeyUsed {
        /// The idempotency key.
        key: String,
        /// Job that the earlier request created.
        job: Id,
    },
    /// The job's state does not allow the call.
    #[error("job {job} is {state}; {remedy}")]
    InvalidState {
        /// The job.
        job: Id,
        /// Its state.
        state: JobState,
        /// What the client can do instead.
        remedy: &'static str,
    },
    /// The path policy forbids a path.
    #[error("{field}: {message}")]
    NotAllowed {
        /// Name of the request's field.
        field: &'static str,
        /// Message with the forbidden path and the allowed prefixes.
        message: String,
    },
    /// The tenant has reached a limit.
    #[error("quota exceeded: at most {max} {what} per tenant; wait until some end, or have the limit raised")]
    Quota {
        /// The limited quantity.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// An upload token was redeemed before, or has expired.
    #[error("upload token {token} has created its one upload or has expired; request another token")]
    TokenUsed {
        /// ID of the token.
        token: Id,
    },
    /// Another request holds the upload's lease.
    #[error("upload {id} is locked by another request; retry in a few seconds")]
    Locked {
        /// The upload.
        id: Id,
    },
    /// A newer lease exists, or the leased object has ended: the caller must stop, and its write was refused.
    #[error("lease {fencing_token} of {what} {id} is lost: a newer lease exists, or the {what} has ended")]
    LeaseLost {
        /// Type of the leased object: `job`, `upload` or `delivery`.
        what: &'static str,
        /// ID of the leased object.
        id: Id,
        /// Token of the refused lease.
        fencing_token: FencingToken,
    },
    /// The database cannot be opened.
    #[error("failed to open the database {url}: {message}")]
    Open {
        /// Address without password.
        url: String,
        /// Message with the fault and the remedy.
        message: String,
    },
    /// The database is unreachable, full or overloaded.
    #[error("the database call failed: {source}")]
    Database {
        /// Error of the driver.
        source: sqlx::Error,
    },
    /// A value in the database is unknown to this version of Spool.
    #[error(
        "the database holds an unknown {what}: {value:?}; use the Spool version that wrote it or a newer one"
    )]
    UnknownValue {
        /// Meaning of the value.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// The operating system gave no random bytes for a secret.
    #[error("failed to generate a secret: {source}")]
    Random {
        /// Error of the operating system.
        source: getrandom::Error,
    },
}

impl Error {
    /// Returns the error's class, which decides retries and status codes.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Request { .. } | Self::KeyUsed { .. } | Self::InvalidState { .. } => ErrorKind::BadInput,
            Self::LeaseLost { .. } => ErrorKind::Canceled,
            Self::Open { .. } | Self::NotAllowed { .. } | Self::TokenUsed { .. } => ErrorKind::NotAllowed,
            Self::Locked { .. } | Self::Quota { .. } | Self::Database { .. } | Self::Random { .. } => {
                ErrorKind::Transient
            }
            Self::UnknownValue { .. } => ErrorKind::Bug,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self::Database { source }
    }
}
