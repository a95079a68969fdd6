//! Event route: a job's events as a stream for browsers, and as pages for other clients. A client that
//! reconnects, to this server or to another, continues after the last event that it received.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use serde::Deserialize;
use spool_jobs::{Id, Job};
use spool_storage::ConcurrencyPermit;
use tokio::time::{Instant, sleep};
use tracing::warn;
use utoipa::IntoParams;

use super::{
    extract::{PathParams, QueryParams},
    pagination::page_items,
};
use crate::{
    app_state::AppState,
    auth::principal::Tenant,
    documents::event::{JobEvent, JobEventList},
    problem::{Problem, ProblemKind},
};

/// Header in which a reconnecting client names the last event that it received.
///
/// Source: HTML Living Standard, server-sent events.
const LAST_EVENT_ID: &str = "last-event-id";

/// Interval at which a stream polls the job store.
const EVENT_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Events that a stream reads at a time.
const EVENTS_PER_READ: u32 = 200;

/// Time for which a stream stays open. A client that needs further events reconnects.
const MAX_STREAM_DURATION: Duration = Duration::from_secs(3600);

/// Query of the event listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventQuery {
    /// Sequence number of the last event that the client received. Default: 0.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Number of items per page. Default: 50. A stream has no limit.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists or streams a job's events.
///
/// With `Accept: text/event-stream` the response is a stream that continues until the job ends; a client that
/// lost the stream reconnects with `Last-Event-ID`. Otherwise the response is a page of the events after the
/// given one.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/events",
    operation_id = "list_events",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "Id of the job: `job_…`, as listed."),
        EventQuery,
        (
            "Last-Event-ID" = Option<i64>, Header,
            description = "Sequence number of the last event that the client received; overrides `after`."
        ),
    ),
    responses(
        (
            status = 200, description = "The events after the given one, in order.",
            content((JobEventList = "application/json"), (String = "text/event-stream"))
        ),
        (status = 204, description = "The job has ended and the client has received all events."),
        (status = 400, description = "The query or a header cannot be parsed."),
        (status = 404, description = "The tenant has no job with this id."),
        (status = 422, description = "A query parameter has an invalid value."),
        (status = 429, description = "The server's number of open streams is exhausted."),
    )
)]
pub(super) async fn events(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<EventQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = Id::from_text(id);
    let after = after(&headers, &query)?;
    let limit = page_items(query.limit)?;
    let wants_stream = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"));
    if wants_stream {
        stream_events(state, tenant, id, after).await
    } else {
        page(&state, &tenant, &id, after, limit).await
    }
}

async fn page(state: &AppState, tenant: &str, id: &Id, after: i64, limit: u32) -> Result<Response, Problem> {
    let events = state.job_store.events(tenant, id, after, limit).await?;
    let events: Vec<JobEvent> = events.into_iter().map(Into::into).collect();
    let job = state.job_store.job(tenant, id).await?;
    let more = !is_complete(&job, events.last().map_or(after, |event| event.sequence));
    Ok(Json(JobEventList { events, more }).into_response())
}

async fn stream_events(state: AppState, tenant: String, id: Id, after: i64) -> Result<Response, Problem> {
    let job = state.job_store.job(&tenant, &id).await?;
    if is_complete(&job, after) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let permit = state.event_streams.try_acquire().ok_or_else(|| {
        Problem::new(
            ProblemKind::TooManyConcurrent,
            format!(
                "{} event streams are open; request pages, or retry later",
                state.event_streams.permits()
            ),
        )
    })?;
    let events = EventStream {
        state,
        tenant,
        id,
        after,
        pending: VecDeque::new(),
        closes_at: Instant::now() + MAX_STREAM_DURATION,
        _permit: Arc::new(permit),
    };
    let events = stream::unfold(events, |mut events| async move {
        events.next().await.map(|event| (Ok::<_, Infallible>(event), events))
    });
    // Asks reverse proxies not to buffer the stream, which would delay events.
    Ok(([("x-accel-buffering", "no")], Sse::new(events).keep_alive(KeepAlive::default())).into_response())
}

/// Returns the sequence number after which events are returned.
fn after(headers: &HeaderMap, query: &EventQuery) -> Result<i64, Problem> {
    let malformed = |name: &str| {
        Problem::new(ProblemKind::Malformed, format!("{name}: must be the sequence number of an event, or 0"))
    };
    let after = query.after.unwrap_or(0);
    let last =
        headers.get(LAST_EVENT_ID).map(|value| value.to_str().ok().and_then(|text| text.trim().parse().ok()));
    match last {
        _ if after < 0 => Err(malformed("after")),
        None => Ok(after),
        Some(last) => last.filter(|last: &i64| *last >= 0).ok_or_else(|| malformed("Last-Event-ID")),
    }
}

/// Returns whether no event follows the one with this sequence number, now or later.
fn is_complete(job: &Job, sequence: i64) -> bool {
    job.state.ended() && job.events <= sequence
}

/// Events of one job, read from the job store while a client follows it.
struct EventStream {
    state: AppState,
    tenant: String,
    id: Id,
    /// Sequence number of the last event that was sent.
    after: i64,
    pending: VecDeque<JobEvent>,
    closes_at: Instant,
    _permit: Arc<ConcurrencyPermit>,
}

impl EventStream {
    /// Waits for the next event; `None` once the stream ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.after = event.sequence;
                let data = serde_json::to_string(&event).ok()?;
                return Some(Event::default().id(event.sequence.to_string()).event(event.kind).data(data));
            }
            if self.state.shutdown.is_cancelled() || Instant::now() >= self.closes_at {
                return None;
            }
            match self.poll().await {
                Ok(true) => return None,
                Ok(false) => {}
                // The database may respond at the next poll, and the client keeps its position.
                Err(error) => warn!(job = %self.id, %error, "failed to read events"),
            }
            if self.pending.is_empty() {
                tokio::select! {
                    () = sleep(EVENT_POLL_INTERVAL) => {}
                    () = self.state.shutdown.cancelled() => return None,
                }
            }
        }
    }

    /// Reads the added events, and returns whether the stream is complete.
    async fn poll(&mut self) -> spool_jobs::Result<bool> {
        // The job is read before its events: if it has ended, its last event is in the store.
        let job = self.state.job_store.job(&self.tenant, &self.id).await?;
        if is_complete(&job, self.after) {
            return Ok(true);
        }
        if job.events > self.after {
            let events =
                self.state.job_store.events(&self.tenant, &self.id, self.after, EVENTS_PER_READ).await?;
            self.pending.extend(events.into_iter().map(JobEvent::from));
        }
        Ok(false)
    }
}
