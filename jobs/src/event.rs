//! What happened to a job, in order.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Id};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// The job.
    pub job: Id,
    /// 1, 2, 3, … of the job, without a gap.
    pub sequence: i64,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// What.
    pub kind: Kind,
    /// What there is to say of it.
    pub data: Value,
}

/// What happens to jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// It was asked for.
    #[serde(rename = "job.created")]
    Created,
    /// A dispatcher took it in hand.
    #[serde(rename = "job.started")]
    Started,
    /// Its rows are known.
    #[serde(rename = "job.planned")]
    Planned,
    /// It is further along.
    #[serde(rename = "job.progress")]
    Progress,
    /// A row is done.
    #[serde(rename = "row.finished")]
    RowFinished,
    /// A row is run again.
    #[serde(rename = "row.again")]
    RowAgain,
    /// It is tried again, later or elsewhere.
    #[serde(rename = "job.again")]
    Again,
    /// Somebody asked to stop it.
    #[serde(rename = "job.cancel_requested")]
    CancelRequested,
    /// It is done.
    #[serde(rename = "job.published")]
    Published,
    /// It failed.
    #[serde(rename = "job.failed")]
    Failed,
    /// It was stopped.
    #[serde(rename = "job.canceled")]
    Canceled,
    /// Somebody asked to try it again.
    #[serde(rename = "job.retried")]
    Retried,
    /// Its source is deleted, as was asked for.
    #[serde(rename = "source.deleted")]
    SourceDeleted,
    /// Its source was to be deleted, and is kept.
    #[serde(rename = "source.kept")]
    SourceKept,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::Created,
        Self::Started,
        Self::Planned,
        Self::Progress,
        Self::RowFinished,
        Self::RowAgain,
        Self::Again,
        Self::CancelRequested,
        Self::Published,
        Self::Failed,
        Self::Canceled,
        Self::Retried,
        Self::SourceDeleted,
        Self::SourceKept,
    ];

    /// Is it told to webhooks?
    pub(crate) fn is_told(self) -> bool {
        matches!(self, Self::Created | Self::Published | Self::Failed | Self::Canceled)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "job.created",
            Self::Started => "job.started",
            Self::Planned => "job.planned",
            Self::Progress => "job.progress",
            Self::RowFinished => "row.finished",
            Self::RowAgain => "row.again",
            Self::Again => "job.again",
            Self::CancelRequested => "job.cancel_requested",
            Self::Published => "job.published",
            Self::Failed => "job.failed",
            Self::Canceled => "job.canceled",
            Self::Retried => "job.retried",
            Self::SourceDeleted => "source.deleted",
            Self::SourceKept => "source.kept",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Unknown { what: "kind of event", value: text.to_owned() };
        Self::ALL.into_iter().find(|kind| kind.word() == text).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_everywhere() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
            assert_eq!(kind.word().parse::<Kind>().unwrap(), kind);
        }
    }
}
