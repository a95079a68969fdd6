//! Conversions between events of rows and their messages.

use spool_media::encode::events::{AttemptEvent, RowEvent, RowEventKind};

use crate::v1::{self, Finished, Planned, Progress, Retrying, Started, row_event::Kind};

/// Error for a message that is no event: its sender has another version.
#[derive(Debug)]
pub struct InvalidEvent;

impl From<&AttemptEvent> for v1::RowEvent {
    fn from(event: &AttemptEvent) -> Self {
        Self { job: event.job.clone(), ordinal: 0, kind: Some(kind_to_message(&event.kind)) }
    }
}

impl TryFrom<v1::RowEvent> for AttemptEvent {
    type Error = InvalidEvent;

    fn try_from(event: v1::RowEvent) -> Result<Self, InvalidEvent> {
        Ok(Self { job: event.job, kind: kind_of_message(event.kind)? })
    }
}

impl From<&RowEvent> for v1::RowEvent {
    fn from(event: &RowEvent) -> Self {
        Self { job: String::new(), ordinal: event.ordinal, kind: Some(kind_to_message(&event.kind)) }
    }
}

impl TryFrom<v1::RowEvent> for RowEvent {
    type Error = InvalidEvent;

    fn try_from(event: v1::RowEvent) -> Result<Self, InvalidEvent> {
        Ok(Self { ordinal: event.ordinal, kind: kind_of_message(event.kind)? })
    }
}

fn kind_to_message(kind: &RowEventKind) -> Kind {
    // Numbers and strings always serialize.
    match kind {
        RowEventKind::Planned { segment } => {
            Kind::Planned(Planned { segment: serde_json::to_string(segment).unwrap_or_default() })
        }
        RowEventKind::Started { rungs } => Kind::Started(Started { rungs: rungs.clone() }),
        RowEventKind::Progress { done_ms } => Kind::Progress(Progress { done_ms: *done_ms }),
        RowEventKind::Finished { encoded, reused, timing } => Kind::Finished(Finished {
            encoded: *encoded as u64,
            reused: *reused as u64,
            timing: serde_json::to_string(timing).unwrap_or_default(),
        }),
        RowEventKind::Retrying { reason } => Kind::Retrying(Retrying { reason: reason.clone() }),
    }
}

fn kind_of_message(kind: Option<Kind>) -> Result<RowEventKind, InvalidEvent> {
    let count = |n: u64| usize::try_from(n).map_err(|_| InvalidEvent);
    Ok(match kind.ok_or(InvalidEvent)? {
        Kind::Planned(Planned { segment }) => {
            RowEventKind::Planned { segment: serde_json::from_str(&segment).map_err(|_| InvalidEvent)? }
        }
        Kind::Started(Started { rungs }) => RowEventKind::Started { rungs },
        Kind::Progress(Progress { done_ms }) => RowEventKind::Progress { done_ms },
        Kind::Finished(Finished { encoded, reused, timing }) => RowEventKind::Finished {
            encoded: count(encoded)?,
            reused: count(reused)?,
            // A timing of another version is dropped; the row is done nevertheless.
            timing: serde_json::from_str(&timing).unwrap_or_default(),
        },
        Kind::Retrying(Retrying { reason }) => RowEventKind::Retrying { reason },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executors_event_keeps_its_job_and_a_statements_event_its_ordinal() {
        let kind = RowEventKind::Progress { done_ms: 40 };
        let event = AttemptEvent { job: "a1".to_owned(), kind: kind.clone() };
        assert_eq!(AttemptEvent::try_from(v1::RowEvent::from(&event)).unwrap(), event);
        let event = RowEvent { ordinal: 7, kind };
        assert_eq!(RowEvent::try_from(v1::RowEvent::from(&event)).unwrap(), event);
    }

    #[test]
    fn a_message_without_a_kind_is_no_event() {
        assert!(RowEvent::try_from(v1::RowEvent::default()).is_err());
        let planned = Kind::Planned(Planned { segment: "{".to_owned() });
        assert!(kind_of_message(Some(planned)).is_err());
    }
}
