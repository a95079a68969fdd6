//! Conversions between events of rows and their messages.

use spool_media::encode::events::{RowEvent as Event, RowEventKind};

use crate::v1::{Finished, Planned, Progress, Retrying, RowEvent, Started, row_event::Kind};

/// A message that is no event: its sender is of another version.
#[derive(Debug)]
pub struct InvalidEvent;

impl From<&Event> for RowEvent {
    fn from(event: &Event) -> Self {
        let what = match &event.kind {
            RowEventKind::Planned => Kind::Planned(Planned {}),
            RowEventKind::Started { rungs } => Kind::Started(Started { rungs: rungs.clone() }),
            RowEventKind::Progress { done_ms } => Kind::Progress(Progress { done_ms: *done_ms }),
            RowEventKind::Finished { encoded, reused, timing } => Kind::Finished(Finished {
                encoded: *encoded as u64,
                reused: *reused as u64,
                timing: serde_json::to_string(timing).unwrap_or_default(),
            }),
            RowEventKind::Retrying { reason } => Kind::Retrying(Retrying { reason: reason.clone() }),
        };
        // Numbers and texts always serialise.
        let segment = serde_json::to_string(&event.segment).unwrap_or_default();
        Self { job: event.job.clone(), segment, kind: Some(what) }
    }
}

impl TryFrom<RowEvent> for Event {
    type Error = InvalidEvent;

    fn try_from(event: RowEvent) -> Result<Self, InvalidEvent> {
        let count = |n: u64| usize::try_from(n).map_err(|_| InvalidEvent);
        let what = match event.kind.ok_or(InvalidEvent)? {
            Kind::Planned(Planned {}) => RowEventKind::Planned,
            Kind::Started(Started { rungs }) => RowEventKind::Started { rungs },
            Kind::Progress(Progress { done_ms }) => RowEventKind::Progress { done_ms },
            Kind::Finished(Finished { encoded, reused, timing }) => RowEventKind::Finished {
                encoded: count(encoded)?,
                reused: count(reused)?,
                // Of another version: the row is done all the same.
                timing: serde_json::from_str(&timing).unwrap_or_default(),
            },
            Kind::Retrying(Retrying { reason }) => RowEventKind::Retrying { reason },
        };
        let segment = serde_json::from_str(&event.segment).map_err(|_| InvalidEvent)?;
        Ok(Self { job: event.job, segment, kind: what })
    }
}
