//! Videos: what jobs made, and where it plays.

use axum::{Json, extract::State};
use serde::Deserialize;
use spool_jobs::Id;
use utoipa::IntoParams;

use super::{House, jobs::limit};
use crate::{
    body::{Asked, Named},
    guard::Tenant,
    problem::Problem,
    shown::{VideoShown, VideosShown},
};

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
    State(house): State<House>,
    Tenant(tenant): Tenant,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<VideosShown>, Problem> {
    let behind = wanted.cursor.map(Id::from_text);
    Ok(Json(house.store.videos(&tenant, behind.as_ref(), limit(wanted.limit)?).await?.into()))
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
    State(house): State<House>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
) -> Result<Json<VideoShown>, Problem> {
    Ok(Json(house.store.video(&tenant, &Id::from_text(id)).await?.into()))
}
