//! Webhooks: who is told of jobs, what was sent, and what is sent again.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use spool_jobs::{Delivery, Id, Webhook};
use utoipa::{IntoParams, ToSchema};

use super::jobs::limit;
use crate::{
    app_state::AppState,
    auth::authenticate::Tenant,
    background::webhook_delivery,
    problem::Problem,
    routes::extract::{Asked, Body, Named},
};

/// A webhook to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookRequest {
    /// Where messages are sent.
    #[schema(example = "https://example.com/spool")]
    url: String,
}

/// A webhook.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookShown {
    #[schema(example = "webhook_019aa1b2c3d47e5f8a9b0c1d2e3f4a5b")]
    id: String,
    url: String,
    created_ms: i64,
    /// Since when nothing is sent any more.
    disabled_ms: Option<i64>,
}

impl From<Webhook> for WebhookShown {
    fn from(webhook: Webhook) -> Self {
        let Webhook { id, url, created_ms, disabled_ms, .. } = webhook;
        Self { id: id.to_string(), url, created_ms, disabled_ms }
    }
}

/// A webhook that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewWebhookShown {
    #[serde(flatten)]
    webhook: WebhookShown,
    /// What messages are signed with: it is never shown again.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: String,
}

/// A tenant's webhooks, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhooksShown {
    webhooks: Vec<WebhookShown>,
}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryShown {
    /// The same however often it is sent: what was seen before is no news.
    id: String,
    job: String,
    #[schema(example = "job.published")]
    kind: &'static str,
    at_ms: i64,
    /// `waiting`, `delivered` or `failed`.
    state: &'static str,
    /// When it is sent next, where it waits.
    due_ms: i64,
    /// How often it was sent.
    tries: i64,
    /// What was answered last, where it was not what is wanted.
    trouble: Option<String>,
}

impl From<Delivery> for DeliveryShown {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.id.to_string(),
            job: delivery.job.to_string(),
            kind: delivery.kind.word(),
            at_ms: delivery.at_ms,
            state: delivery.state.word(),
            due_ms: delivery.due_ms,
            tries: delivery.tries,
            trouble: delivery.trouble,
        }
    }
}

/// What was sent, and what is to be, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveriesShown {
    deliveries: Vec<DeliveryShown>,
}

/// How much is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// How many are wanted at most: 50 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// What is told again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayRequest {
    /// Since when, in milliseconds since 1970: all of it unless given.
    #[serde(default)]
    since_ms: i64,
}

/// How much is told again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplayShown {
    messages: u64,
}

/// Has jobs told at an address from now on: when they are made, published, failed and canceled. Messages are signed as Standard Webhooks 1.0.0
/// says, and sent again for three days until the answer is a success; an answer of 410 ends it. They may come twice, and out of order.
#[utoipa::path(
    post,
    path = "/v1/webhooks",
    tag = "webhooks",
    request_body = WebhookRequest,
    responses(
        (status = 201, description = "It, with what is shown only once.", body = NewWebhookShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It is no address that may be told.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "There are as many as there may be.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Body(wish): Body<WebhookRequest>,
) -> Result<Response, Problem> {
    let url = state.webhook_delivery.check_url(&wish.url)?;
    let secret = webhook_delivery::new_secret(spool_jobs::drawn());
    let webhook = state.webhook_store.create_webhook(&tenant, url.as_str(), &secret).await?;
    let body = NewWebhookShown { webhook: webhook.into(), secret };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Webhooks, the newest first, without their secrets.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", responses((status = 200, description = "All of them.", body = WebhooksShown)))]
pub(super) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
) -> Result<Json<WebhooksShown>, Problem> {
    let webhooks = state.webhook_store.webhooks(&tenant).await?;
    Ok(Json(WebhooksShown { webhooks: webhooks.into_iter().map(WebhookShown::from).collect() }))
}

/// Has nothing more told there. What waits is given up.
#[utoipa::path(
    delete,
    path = "/v1/webhooks/{id}",
    tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")),
    responses(
        (status = 200, description = "It is disabled.", body = WebhookShown),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn disable(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
) -> Result<Json<WebhookShown>, Problem> {
    Ok(Json(state.webhook_store.disable_webhook(&tenant, &Id::from_text(id)).await?.into()))
}

/// What was sent to a webhook, and what is to be, the newest first.
#[utoipa::path(
    get,
    path = "/v1/webhooks/{id}/deliveries",
    tag = "webhooks",
    params(("id" = String, Path, description = "The webhook"), Wanted),
    responses(
        (status = 200, description = "Some of it.", body = DeliveriesShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such webhook.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what there cannot be.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn deliveries(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<DeliveriesShown>, Problem> {
    let deliveries =
        state.webhook_store.deliveries(&tenant, &Id::from_text(id), limit(wanted.limit)?).await?;
    Ok(Json(DeliveriesShown { deliveries: deliveries.into_iter().map(DeliveryShown::from).collect() }))
}

/// Has what was told told again, for whoever lost it.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{id}/replay",
    tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")),
    request_body = ReplayRequest,
    responses(
        (status = 200, description = "It will be.", body = ReplayShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none, or nothing is sent there any more.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what there cannot be.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn replay(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
    Body(wish): Body<ReplayRequest>,
) -> Result<Json<ReplayShown>, Problem> {
    let messages = state.webhook_store.replay(&tenant, &Id::from_text(id), wish.since_ms).await?;
    Ok(Json(ReplayShown { messages }))
}
