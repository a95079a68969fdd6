//! What a failure means to the caller.

/// Classifies a failure: decides retries, HTTP statuses and exit codes.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// Credentials or permissions are missing.
    NotAllowed,
    /// The input or the request is wrong; another try gives the same answer.
    BadInput,
    /// The same call could succeed later, or on another machine.
    Transient,
    /// A cancellation was requested.
    Canceled,
    /// An invariant was violated: a defect of Spool or of an encoder.
    Bug,
}
