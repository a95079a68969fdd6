//! What happens to a job, as it happens: a stream for browsers, pages for everybody else. A client that comes back, to this server or to
//! another, goes on where it was.

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
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};
use tracing::warn;
use utoipa::IntoParams;

use super::jobs::limit;
use crate::{
    app_state::AppState,
    auth::authenticate::Tenant,
    problem::{Problem, ProblemKind},
    routes::{
        documents::{EventShown, EventsShown},
        extract::{Asked, Named},
    },
};

/// The header by which a client says what it has seen.
///
/// Source: HTML Living Standard, server-sent events.
const LAST_SEEN: &str = "last-event-id";

/// How often the store is asked for more.
const LOOK: Duration = Duration::from_millis(250);

/// Events that are read at a time.
const PIECE: u32 = 200;

/// How long a stream stays open: a client that wants more comes back.
const OPEN_FOR: Duration = Duration::from_secs(3600);

/// What a client has seen.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    /// Number of the last event that was seen: 0 unless given.
    #[param(minimum = 0)]
    behind: Option<i64>,
    /// How many are wanted at most: 50 unless given. A stream has no limit.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// What happened to a job. With `Accept: text/event-stream` a stream that goes on until the job ends; whoever lost it comes back with
/// `Last-Event-ID`. Otherwise a page, behind the event that was seen last.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/events",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        Seen,
        ("Last-Event-ID" = Option<i64>, Header, description = "Number of the last event that was seen; goes before `behind`."),
    ),
    responses(
        (status = 200, description = "What happened, in order.", content((EventsShown = "application/json"), (String = "text/event-stream"))),
        (status = 204, description = "The stream has ended, and all of it was seen: do not come back."),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what there cannot be.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "There are too many streams.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
    Asked(seen): Asked<Seen>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = Id::from_text(id);
    let behind = behind(&headers, &seen)?;
    let limit = limit(seen.limit)?;
    let streamed = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"));
    if !streamed {
        let events: Vec<EventShown> =
            state.job_store.events(&tenant, &id, behind, limit).await?.into_iter().map(Into::into).collect();
        let job = state.job_store.job(&tenant, &id).await?;
        let more = !over(&job, events.last().map_or(behind, |event| event.sequence));
        return Ok(Json(EventsShown { events, more }).into_response());
    }
    let job = state.job_store.job(&tenant, &id).await?;
    if over(&job, behind) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let busy = |_| {
        Problem::new(
            ProblemKind::TooManyConcurrent,
            "as many streams are open as this server keeps: ask for pages, or come back",
        )
    };
    let permit = state.event_streams.clone().try_acquire_owned().map_err(busy)?;
    let follow = Follow {
        state,
        tenant,
        id,
        behind,
        waiting: VecDeque::new(),
        until: Instant::now() + OPEN_FOR,
        _permit: Arc::new(permit),
    };
    let stream = stream::unfold(follow, |mut follow| async move {
        follow.next().await.map(|event| (Ok::<_, Infallible>(event), follow))
    });
    // Proxies that collect what they pass on would make it late.
    Ok(([("x-accel-buffering", "no")], Sse::new(stream).keep_alive(KeepAlive::default())).into_response())
}

fn behind(headers: &HeaderMap, seen: &Seen) -> Result<i64, Problem> {
    let wrong = |name: &str| {
        Problem::new(ProblemKind::Malformed, format!("{name}: it must be the number of an event, or 0"))
    };
    let asked = seen.behind.unwrap_or(0);
    let last =
        headers.get(LAST_SEEN).map(|value| value.to_str().ok().and_then(|text| text.trim().parse().ok()));
    match last {
        _ if asked < 0 => Err(wrong("behind")),
        None => Ok(asked),
        Some(last) => last.filter(|last: &i64| *last >= 0).ok_or_else(|| wrong("Last-Event-ID")),
    }
}

/// Is there nothing to come behind this event?
fn over(job: &Job, behind: i64) -> bool {
    job.state.ended() && job.events <= behind
}

/// A client that follows a job.
struct Follow {
    state: AppState,
    tenant: String,
    id: Id,
    behind: i64,
    waiting: VecDeque<EventShown>,
    until: Instant,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Follow {
    /// The next event, as soon as there is one; nothing once there is none to come.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.behind = event.sequence;
                let data = serde_json::to_string(&event).ok()?;
                return Some(Event::default().id(event.sequence.to_string()).event(event.kind).data(data));
            }
            if self.state.shutdown.is_cancelled() || Instant::now() >= self.until {
                return None;
            }
            match self.look().await {
                Ok(true) => return None,
                Ok(false) => {}
                // It may come back; the client keeps its place.
                Err(error) => warn!(job = %self.id, %error, "events cannot be read"),
            }
            if self.waiting.is_empty() {
                tokio::select! {
                    () = sleep(LOOK) => {}
                    () = self.state.shutdown.cancelled() => return None,
                }
            }
        }
    }

    /// Reads on; tells whether it is over.
    async fn look(&mut self) -> spool_jobs::Result<bool> {
        // In this order: an end that is seen here has its event behind it.
        let job = self.state.job_store.job(&self.tenant, &self.id).await?;
        if over(&job, self.behind) {
            return Ok(true);
        }
        if job.events > self.behind {
            let events = self.state.job_store.events(&self.tenant, &self.id, self.behind, PIECE).await?;
            self.waiting.extend(events.into_iter().map(EventShown::from));
        }
        Ok(false)
    }
}
