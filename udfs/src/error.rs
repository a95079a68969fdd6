//! Failures of functions, which carry their kind through the engine, inside of their message.
//!
//! The engine returns a text inside the Debug output of other errors. So the failure is embedded in its own
//! message, in an encoding that quoting cannot change.

use datafusion::error::DataFusionError;
use spool_storage::ErrorKind;

/// A function's failure, as the client receives it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// The failure's class.
    pub kind: ErrorKind,
    /// What failed, with which input, why, and the remedy.
    pub message: String,
}

/// Returns an error's message with those of its causes that it does not contain already.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

const OPEN: &str = "[spool:";
const CLOSE: char = ']';

impl Failure {
    /// Converts an error of the video domain.
    pub fn from_media(error: &spool_media::Error) -> Self {
        Self { kind: error.kind(), message: with_causes(error) }
    }

    /// Finds the failure in a text of the engine, which may have been quoted several times.
    pub fn find(text: &str) -> Option<Self> {
        let start = text.find(OPEN)? + OPEN.len();
        let end = start + text[start..].find(CLOSE)?;
        let bytes = decode(&text[start..end])?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Returns the engine's error for a failure of the video domain.
///
/// Never an I/O error, the one kind that Ballista retries: at once, four times within milliseconds, on the
/// same executor. The scheduler (`scheduler::run`) finds the failure, and decides when and where to retry.
pub fn engine_error(error: impl Into<spool_media::Error>) -> DataFusionError {
    DataFusionError::Execution(embed(&Failure::from_media(&error.into())))
}

/// Returns the engine's error for a statement that is refused while it is planned.
pub(crate) fn refusal(message: impl Into<String>) -> DataFusionError {
    DataFusionError::Execution(embed(&Failure { kind: ErrorKind::BadInput, message: message.into() }))
}

fn embed(failure: &Failure) -> String {
    let json = serde_json::to_vec(failure).unwrap_or_default();
    format!("{} {OPEN}{}{CLOSE}", failure.message, encode(&json))
}

/// Encodes bytes in hexadecimal, which survives any quoting.
fn encode(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().filter_map(|[high, low]| u8::try_from(high * 16 + low).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_being_quoted_twice() {
        let failure =
            Failure { kind: ErrorKind::NotFound, message: "no \"talk.mp4\"\nlook \\ there".to_owned() };
        let text = format!("{:?}", format!("{:?}", DataFusionError::Execution(embed(&failure))));
        assert_eq!(Failure::find(&text), Some(failure));
        assert_eq!(Failure::find("Execution error: plain [spool:zz] text"), None);
    }
}
