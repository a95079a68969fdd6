//! What is known of a job: what was asked, how far it is, and how it ended.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spool_storage::{ErrorKind, path_policy::PathPolicy};

use crate::{Error, Id, Request};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for its turn, or to be tried again.
    Pending,
    /// A dispatcher has it in hand.
    Processing,
    /// It is done.
    Published,
    /// It failed, and nobody tries it again by itself.
    Failed,
    /// Somebody asked to stop it.
    Canceled,
}

impl State {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Processing, Self::Published, Self::Failed, Self::Canceled];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Published => "published",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Has it ended?
    pub fn ended(self) -> bool {
        matches!(self, Self::Published | Self::Failed | Self::Canceled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl std::str::FromStr for State {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Unknown { what: "state", value: text.to_owned() };
        Self::ALL.into_iter().find(|state| state.word() == text).ok_or_else(unknown)
    }
}

/// What is done with a job right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing: it waits.
    Waiting,
    /// Its source is opened and cut.
    Planning,
    /// Its rows are encoded.
    Encoding,
    /// What its rows gave is merged and published.
    Publishing,
    /// Nothing any more.
    Ended,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Waiting, Self::Planning, Self::Encoding, Self::Publishing, Self::Ended];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Planning => "planning",
            Self::Encoding => "encoding",
            Self::Publishing => "publishing",
            Self::Ended => "ended",
        }
    }
}

impl std::str::FromStr for Phase {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Unknown { what: "phase", value: text.to_owned() };
        Self::ALL.into_iter().find(|phase| phase.word() == text).ok_or_else(unknown)
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// Its name.
    pub id: Id,
    /// Whose it is.
    pub tenant: String,
    /// The video that it makes, if it makes one.
    pub video: Option<Id>,
    /// What was asked for.
    pub request: Request,
    /// Higher ones of a tenant go first.
    pub priority: i64,
    /// The places that it may touch; any unless given.
    pub confines: Option<PathPolicy>,
    /// Where it stands.
    pub state: State,
    /// What is done with it.
    pub phase: Phase,
    /// When it was asked for, in milliseconds since 1970.
    pub created_ms: i64,
    /// It is not begun before, in milliseconds since 1970: later than it was asked for where it is to be tried again.
    pub due_ms: i64,
    /// When it was begun first, in milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// How often it was begun since somebody asked for it.
    pub tries: i64,
    /// Who has it in hand, or had it last.
    pub dispatcher: Option<String>,
    /// Has somebody asked to stop it?
    pub cancel_requested: bool,
    /// Its rows, as far as they are planned.
    pub rows: i64,
    /// Rows that are done.
    pub rows_done: i64,
    /// Milliseconds of media in its rows.
    pub media_ms: i64,
    /// Milliseconds of media that are done.
    pub media_done_ms: i64,
    /// What publishing returned.
    pub result: Option<Value>,
    /// Why it failed, or why it is tried again.
    pub error: Option<Ended>,
    /// Number of its last event.
    pub events: i64,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What it means.
    pub kind: ErrorKind,
    /// What happened, and what to do.
    pub message: String,
}

impl Job {
    /// The settings that its statement runs with.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        // Texts always serialise.
        let confines =
            self.confines.as_ref().map(|confines| serde_json::to_string(confines).unwrap_or_default());
        self.request
            .settings()
            .into_iter()
            .chain(confines.map(|confines| ("spool.path_policy", confines)))
            .collect()
    }

    /// How far it is, in hundredths of its media: sound and pictures by their length.
    pub fn percent(&self) -> i64 {
        percent(self.state, self.media_done_ms, self.media_ms)
    }
}

/// How far a job is. Whole only once it is published.
pub(crate) fn percent(state: State, done_ms: i64, media_ms: i64) -> i64 {
    match state {
        State::Published => 100,
        _ if media_ms <= 0 => 0,
        _ => (done_ms.clamp(0, media_ms).saturating_mul(100) / media_ms).min(99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        assert!(State::ALL.iter().all(|state| state.word().parse::<State>().unwrap() == *state));
        assert!(Phase::ALL.iter().all(|phase| phase.word().parse::<Phase>().unwrap() == *phase));
        assert!("done".parse::<State>().unwrap_err().to_string().contains("\"done\""));
    }

    #[test]
    fn only_what_is_published_is_whole() {
        assert_eq!(percent(State::Processing, 0, 0), 0);
        assert_eq!(percent(State::Processing, 10_000, 10_000), 99);
        assert_eq!(percent(State::Failed, 5_000, 10_000), 50);
        assert_eq!(percent(State::Published, 0, 0), 100);
    }
}
