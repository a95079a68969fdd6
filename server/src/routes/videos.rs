//! Video routes: list videos, and create signed links that play them.

use axum::{Json, extract::State};
use spool_jobs::Id;

use super::{
    extract::{JsonBody, PathParams, QueryParams},
    pagination::{PageQuery, page_items},
};
use crate::{
    app_state::AppState,
    auth::{principal::Tenant, signed_links::SignedLink},
    documents::video::{PlaybackLink, PlaybackLinkRequest, Video, VideoList},
    problem::{Problem, ProblemKind},
};

/// Lifetime of a link in seconds: the default, and the maximum.
const DEFAULT_LINK_SECONDS: u64 = 3600;
const MAX_LINK_SECONDS: u64 = 7 * 24 * 3600;

/// Lists videos, the newest first.
#[utoipa::path(
    get,
    path = "/v1/videos",
    operation_id = "list_videos",
    tag = "videos",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of the tenant's videos.", body = VideoList),
        (status = 400, description = "The query cannot be parsed."),
        (status = 422, description = "A query parameter has an invalid value."),
    )
)]
pub(super) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<VideoList>, Problem> {
    let cursor = query.cursor.map(Id::from_text);
    Ok(Json(state.job_store.videos(&tenant, cursor.as_ref(), page_items(query.limit)?).await?.into()))
}

/// Returns a video.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}",
    operation_id = "get_video",
    tag = "videos",
    params(("id" = String, Path, description = "Id of the video, `video_…`.")),
    responses(
        (status = 200, description = "The video, and the path that plays the video.", body = Video),
        (status = 404, description = "The tenant has no video with this id."),
    )
)]
pub(super) async fn get(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
) -> Result<Json<Video>, Problem> {
    Ok(Json(state.job_store.video(&tenant, &Id::from_text(id)).await?.into()))
}

/// Creates a signed link that plays a video.
///
/// The link is a credential of its own, for players, which send no API key. The link plays one video until
/// the link expires.
#[utoipa::path(
    post,
    path = "/v1/videos/{id}/links",
    operation_id = "create_playback_link",
    tag = "videos",
    params(("id" = String, Path, description = "Id of the video, `video_…`.")),
    request_body = PlaybackLinkRequest,
    responses(
        (status = 200, description = "The signed link and its time of expiry.", body = PlaybackLink),
        (status = 400, description = "The request cannot be parsed."),
        (status = 404, description = "The tenant has no video with this id."),
        (status = 415, description = "The request body is not JSON."),
        (status = 422, description = "The lifetime of the link is out of range."),
    )
)]
pub(super) async fn create_link(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
    JsonBody(request): JsonBody<PlaybackLinkRequest>,
) -> Result<Json<PlaybackLink>, Problem> {
    let seconds = request.expires_seconds.unwrap_or(DEFAULT_LINK_SECONDS);
    if !(1..=MAX_LINK_SECONDS).contains(&seconds) {
        let detail = format!("expires_seconds: must be from 1 to {MAX_LINK_SECONDS}, not {seconds}");
        return Err(Problem::new(ProblemKind::Invalid, detail));
    }
    let video = state.job_store.video(&tenant, &Id::from_text(id)).await?;
    let link = SignedLink::new(tenant, video.id.to_string(), seconds);
    let signed = state.link_signer.sign(&link).await?;
    Ok(Json(PlaybackLink { play: format!("/v1/play/{signed}/master.m3u8"), expires_ms: link.expires_ms }))
}
