//! What can go wrong with the store, and what the caller may do about it.

use spool_storage::ErrorKind;

use crate::{Id, State};

/// The result of everything that touches the store.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of this name, or it is another tenant's.
    #[error("there is no {what} {id}")]
    NotFound {
        /// A job or a video.
        what: &'static str,
        /// What was asked for.
        id: String,
    },
    /// What was asked for is wrong.
    #[error("{field}: {message}")]
    Request {
        /// The part of the request.
        field: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A key that stands for one request came with another.
    #[error(
        "idempotency key {key:?} was used for another request, which made job {job}: take a new key for a new request"
    )]
    KeyUsed {
        /// The key.
        key: String,
        /// What it stands for.
        job: Id,
    },
    /// The job is in a state in which this cannot be done.
    #[error("job {job} is {state}: {remedy}")]
    State {
        /// The job.
        job: Id,
        /// Its state.
        state: State,
        /// What can be done.
        remedy: &'static str,
    },
    /// It is not for whoever asks.
    #[error("{field}: {message}")]
    NotAllowed {
        /// The part of the request.
        field: &'static str,
        /// What is not allowed, and what is.
        message: String,
    },
    /// The tenant has as much as it may.
    #[error(
        "there are as many {what} as this tenant may have ({most}): wait for some to end, or have the limit raised"
    )]
    Quota {
        /// What there is enough of.
        what: &'static str,
        /// How much there may be.
        most: u64,
    },
    /// A token was used, or is too old.
    #[error("token {token} was good for one upload, which was begun, or too late: get another")]
    Spent {
        /// The token's name.
        token: Id,
    },
    /// Another request has it in hand.
    #[error("upload {id} is in the hand of another request: it is free a few seconds after that one ends")]
    Held {
        /// The upload.
        id: Id,
    },
    /// The lease went to somebody else, or the job ended: whoever held it has to stop, and must not write.
    #[error("{what} {id} is not held by {fence} any more")]
    Lost {
        /// A job or an upload.
        what: &'static str,
        /// Its name.
        id: Id,
        /// The number of the claim that was refused.
        fence: i64,
    },
    /// The database cannot be used as it is.
    #[error("cannot use the database {url}: {message}")]
    Open {
        /// Where it is, without its password.
        url: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The database is away, full or busy.
    #[error("the database did not answer as it should: {source}")]
    Database {
        /// What it said.
        source: sqlx::Error,
    },
    /// What is in the database was not written by this version of Spool.
    #[error("the database holds a {what} that this version of Spool does not know: {value:?}")]
    Unknown {
        /// What it is of.
        what: &'static str,
        /// What is there.
        value: String,
    },
}

impl Error {
    /// What the failure means to whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Request { .. } | Self::KeyUsed { .. } | Self::State { .. } => ErrorKind::BadInput,
            Self::Lost { .. } => ErrorKind::Canceled,
            Self::Open { .. } | Self::NotAllowed { .. } | Self::Spent { .. } => ErrorKind::NotAllowed,
            Self::Held { .. } | Self::Quota { .. } | Self::Database { .. } => ErrorKind::Transient,
            Self::Unknown { .. } => ErrorKind::Bug,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self::Database { source }
    }
}
