//! Events: the ordered history of a job.

use serde::Serialize;
use serde_json::Value;
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::Id;

/// One event of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// The job.
    pub job: Id,
    /// Number of the event within its job: 1, 2, 3, … without a gap.
    pub sequence: i64,
    /// Time of the event, in milliseconds since 1970.
    pub at_ms: i64,
    /// Kind of the event.
    pub kind: EventKind,
    /// Details, whose fields depend on the kind.
    pub data: Value,
}

/// Kind of an event.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Display, EnumString, IntoStaticStr, EnumIter,
)]
#[serde(into = "&'static str")]
pub enum EventKind {
    /// The job was created.
    #[strum(serialize = "job.created")]
    Created,
    /// A dispatcher leased the job and began a try.
    #[strum(serialize = "job.started")]
    Started,
    /// The rows of the job are planned.
    #[strum(serialize = "job.planned")]
    Planned,
    /// The phase or the percentage of the job changed.
    #[strum(serialize = "job.progress")]
    Progress,
    /// A row is done.
    #[strum(serialize = "row.finished")]
    RowFinished,
    /// An attempt at a row failed; the row runs again.
    #[strum(serialize = "row.retried")]
    RowRetried,
    /// The job went back to pending: it is tried again later, or by another dispatcher.
    #[strum(serialize = "job.retry_scheduled")]
    RetryScheduled,
    /// A client requested cancellation.
    #[strum(serialize = "job.cancel_requested")]
    CancelRequested,
    /// The job has published its video.
    #[strum(serialize = "job.published")]
    Published,
    /// The job failed.
    #[strum(serialize = "job.failed")]
    Failed,
    /// The job was canceled.
    #[strum(serialize = "job.canceled")]
    Canceled,
    /// A client requested that the ended job be tried again.
    #[strum(serialize = "job.retried")]
    Retried,
    /// The source of the published job was deleted, as requested.
    #[strum(serialize = "source.deleted")]
    SourceDeleted,
    /// The source of the published job was kept, although deletion was requested.
    #[strum(serialize = "source.kept")]
    SourceKept,
}

impl EventKind {
    /// Returns whether webhooks receive events of this kind.
    pub(crate) fn is_delivered(self) -> bool {
        matches!(self, Self::Created | Self::Published | Self::Failed | Self::Canceled)
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn a_kind_has_one_name_in_json_and_in_the_database() {
        for kind in EventKind::iter() {
            let name: &str = kind.into();
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
            assert_eq!((name.parse::<EventKind>().unwrap(), kind.to_string().as_str()), (kind, name));
        }
    }
}
