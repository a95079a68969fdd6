//! How does a failure of the video domain travel through the engine and come out whole?
//!
//! The engine hands its client a text inside the Debug output of other errors. So the failure rides inside its own message, in an
//! encoding that quoting cannot change.

use datafusion::error::DataFusionError;
use spool_storage::ErrorKind;

/// What the client is told of a failed statement.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// What the failure means to whoever asked.
    pub kind: ErrorKind,
    /// What was wrong, with which input, and what to do.
    pub message: String,
}

/// An error with its causes, as far as it does not tell them itself.
pub fn told(error: &dyn std::error::Error) -> String {
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
    /// The failure of the video domain that `error` is.
    pub fn of(error: &spool_media::Error) -> Self {
        Self { kind: error.kind(), message: told(error) }
    }

    /// Finds the failure that a text of the engine carries, however often it was quoted on the way.
    pub fn find(text: &str) -> Option<Self> {
        let start = text.find(OPEN)? + OPEN.len();
        let end = start + text[start..].find(CLOSE)?;
        let bytes = decode(&text[start..end])?;
        serde_json::from_slice(&bytes).ok()
    }

    /// What `text` says to a person: without the part that is for [`Failure::find`].
    pub fn strip(text: &str) -> String {
        match text.find(OPEN) {
            Some(start) => match text[start..].find(CLOSE) {
                Some(length) => format!("{}{}", text[..start].trim_end(), &text[start + length + 1..]),
                None => text.to_owned(),
            },
            None => text.to_owned(),
        }
    }
}

/// The engine's error for a failure of the video domain.
///
/// Never an I/O error, the one kind that Ballista tries again: at once, four times within milliseconds, on the same executor. Whoever
/// runs the statement (`scheduler::run`) finds the failure and knows better when and where.
pub fn engine_error(error: impl Into<spool_media::Error>) -> DataFusionError {
    DataFusionError::Execution(marked(&Failure::of(&error.into())))
}

/// A refusal of a statement: found while planning, so it needs no carrying.
pub(crate) fn refusal(message: impl Into<String>) -> DataFusionError {
    DataFusionError::Execution(marked(&Failure { kind: ErrorKind::BadInput, message: message.into() }))
}

fn marked(failure: &Failure) -> String {
    let json = serde_json::to_vec(failure).unwrap_or_default();
    format!("{} {OPEN}{}{CLOSE}", failure.message, encode(&json))
}

/// Hexadecimal: it survives any quoting.
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
        let text = format!("{:?}", format!("{:?}", DataFusionError::Execution(marked(&failure))));
        assert_eq!(Failure::find(&text), Some(failure));
        assert_eq!(Failure::find("Execution error: plain [spool:zz] text"), None);
        assert_eq!(Failure::strip("gone [spool:00aa]"), "gone");
    }
}
