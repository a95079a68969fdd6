//! Videos: what jobs made, and where it plays.

use axum::{Json, extract::State};
use serde::Deserialize;
use spool_jobs::Id;
use utoipa::{IntoParams, ToSchema};

use super::jobs::limit;
use crate::{
    app_state::AppState,
    auth::{authenticate::Tenant, signed_links::Link},
    problem::{Problem, ProblemKind},
    routes::{
        documents::{LinkShown, VideoShown, VideosShown},
        extract::{Asked, Body, Named},
    },
};

/// How long a link is good, in seconds, unless asked otherwise and at most.
const LINK_SECONDS: u64 = 3600;
const MAX_LINK_SECONDS: u64 = 7 * 24 * 3600;

/// A link to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkRequest {
    /// How long it is good for: an hour unless given.
    #[schema(minimum = 1, maximum = 604800)]
    expires_seconds: Option<u64>,
}

/// Which videos are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The `next` of the page before.
    cursor: Option<String>,
    /// How many are wanted at most: 50 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Videos, the newest first.
#[utoipa::path(
    get,
    path = "/v1/videos",
    tag = "videos",
    params(Wanted),
    responses(
        (status = 200, description = "Some of them.", body = VideosShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what there cannot be.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<VideosShown>, Problem> {
    let behind = wanted.cursor.map(Id::from_text);
    Ok(Json(state.job_store.videos(&tenant, behind.as_ref(), limit(wanted.limit)?).await?.into()))
}

/// A video.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}",
    tag = "videos",
    params(("id" = String, Path, description = "The video")),
    responses(
        (status = 200, description = "It.", body = VideoShown),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
) -> Result<Json<VideoShown>, Problem> {
    Ok(Json(state.job_store.video(&tenant, &Id::from_text(id)).await?.into()))
}

/// Makes a link that plays a video for whoever has it, for a while: for players, which show no keys.
#[utoipa::path(
    post,
    path = "/v1/videos/{id}/links",
    tag = "videos",
    params(("id" = String, Path, description = "The video")),
    request_body = LinkRequest,
    responses(
        (status = 200, description = "It.", body = LinkShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such video.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what cannot be done.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn link(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
    Body(wish): Body<LinkRequest>,
) -> Result<Json<LinkShown>, Problem> {
    let seconds = wish.expires_seconds.unwrap_or(LINK_SECONDS);
    if !(1..=MAX_LINK_SECONDS).contains(&seconds) {
        let detail = format!("expires_seconds: it is {seconds}: it must be from 1 to {MAX_LINK_SECONDS}");
        return Err(Problem::new(ProblemKind::Invalid, detail));
    }
    let video = state.job_store.video(&tenant, &Id::from_text(id)).await?;
    let link = Link::new(tenant, video.id.to_string(), seconds);
    let signed = state.signed_links.sign(&link).await?;
    Ok(Json(LinkShown { play: format!("/v1/play/{signed}/master.m3u8"), expires_ms: link.expires_ms }))
}
