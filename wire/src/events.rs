//! How does what happens to a row travel?

use spool_media::encode::events::{RowEvent as Event, RowEventKind};

use crate::v1::{Advanced, Again, Finished, Planned, RowEvent, Started, row_event};

/// An event that makes no sense: whoever sent it is of another version.
#[derive(Debug)]
pub struct BadEvent;

impl From<&Event> for RowEvent {
    fn from(event: &Event) -> Self {
        let what = match &event.kind {
            RowEventKind::Planned => row_event::What::Planned(Planned {}),
            RowEventKind::Started { rungs } => row_event::What::Started(Started { rungs: rungs.clone() }),
            RowEventKind::Progress { done_ms } => row_event::What::Advanced(Advanced { done_ms: *done_ms }),
            RowEventKind::Finished { encoded, reused, timing } => row_event::What::Finished(Finished {
                encoded: *encoded as u64,
                reused: *reused as u64,
                timing: serde_json::to_string(timing).unwrap_or_default(),
            }),
            RowEventKind::Retrying { reason } => row_event::What::Again(Again { reason: reason.clone() }),
        };
        // Numbers and texts always serialise.
        let segment = serde_json::to_string(&event.segment).unwrap_or_default();
        Self { job: event.job.clone(), segment, what: Some(what) }
    }
}

impl TryFrom<RowEvent> for Event {
    type Error = BadEvent;

    fn try_from(event: RowEvent) -> Result<Self, BadEvent> {
        let count = |n: u64| usize::try_from(n).map_err(|_| BadEvent);
        let what = match event.what.ok_or(BadEvent)? {
            row_event::What::Planned(Planned {}) => RowEventKind::Planned,
            row_event::What::Started(Started { rungs }) => RowEventKind::Started { rungs },
            row_event::What::Advanced(Advanced { done_ms }) => RowEventKind::Progress { done_ms },
            row_event::What::Finished(Finished { encoded, reused, timing }) => RowEventKind::Finished {
                encoded: count(encoded)?,
                reused: count(reused)?,
                // Of another version: the row is done all the same.
                timing: serde_json::from_str(&timing).unwrap_or_default(),
            },
            row_event::What::Again(Again { reason }) => RowEventKind::Retrying { reason },
        };
        let segment = serde_json::from_str(&event.segment).map_err(|_| BadEvent)?;
        Ok(Self { job: event.job, segment, kind: what })
    }
}
