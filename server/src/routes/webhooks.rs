//! Webhook routes: create, list and disable webhooks, list deliveries, and replay events.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use spool_jobs::Id;

use super::{
    extract::{JsonBody, PathParams, QueryParams},
    pagination::{LimitQuery, page_items},
};
use crate::{
    app_state::AppState,
    auth::principal::Tenant,
    background::webhook_delivery,
    documents::webhook::{
        CreatedWebhook, Delivery, DeliveryList, Replay, ReplayRequest, Webhook, WebhookList, WebhookRequest,
    },
    problem::Problem,
};

/// Creates a webhook.
///
/// Events are sent when jobs are created, published, failed and canceled. Messages are signed by Standard
/// Webhooks 1.0.0, and retried for three days until the response is a success; a response of 410 disables the
/// webhook. A message may arrive twice, and out of order.
#[utoipa::path(
    post,
    path = "/v1/webhooks",
    operation_id = "create_webhook",
    tag = "webhooks",
    request_body = WebhookRequest,
    responses(
        (status = 201, description = "The webhook with the secret, shown only here.", body = CreatedWebhook),
        (status = 400, description = "The request cannot be parsed."),
        (status = 415, description = "The request body is not JSON."),
        (status = 422, description = "The URL is invalid, or not an allowed target."),
        (status = 429, description = "The tenant's number of webhooks is exceeded."),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    JsonBody(request): JsonBody<WebhookRequest>,
) -> Result<Response, Problem> {
    let url = state.webhook_delivery.check_url(&request.url)?;
    let secret = webhook_delivery::new_secret(spool_jobs::random_secret()?);
    let webhook = state.webhook_store.create_webhook(&tenant, url.as_str(), &secret).await?;
    let body = CreatedWebhook { webhook: webhook.into(), secret };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Lists webhooks, the newest first, without their secrets.
#[utoipa::path(
    get,
    path = "/v1/webhooks",
    operation_id = "list_webhooks",
    tag = "webhooks",
    responses((status = 200, description = "All webhooks of the tenant.", body = WebhookList))
)]
pub(super) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
) -> Result<Json<WebhookList>, Problem> {
    let webhooks = state.webhook_store.webhooks(&tenant).await?;
    Ok(Json(WebhookList { webhooks: webhooks.into_iter().map(Webhook::from).collect() }))
}

/// Disables a webhook.
///
/// Waiting deliveries fail, and no more events are sent.
#[utoipa::path(
    delete,
    path = "/v1/webhooks/{id}",
    operation_id = "disable_webhook",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook, `webhook_…`.")),
    responses(
        (status = 200, description = "The webhook with its time of disabling.", body = Webhook),
        (status = 404, description = "The tenant has no webhook with this id."),
    )
)]
pub(super) async fn disable(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
) -> Result<Json<Webhook>, Problem> {
    Ok(Json(state.webhook_store.disable_webhook(&tenant, &Id::from_text(id)).await?.into()))
}

/// Lists the latest deliveries of a webhook, the newest first.
#[utoipa::path(
    get,
    path = "/v1/webhooks/{id}/deliveries",
    operation_id = "list_deliveries",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook, `webhook_…`."), LimitQuery),
    responses(
        (status = 200, description = "The latest deliveries, sent and waiting.", body = DeliveryList),
        (status = 400, description = "The query cannot be parsed."),
        (status = 404, description = "The tenant has no webhook with this id."),
        (status = 422, description = "A query parameter has an invalid value."),
    )
)]
pub(super) async fn deliveries(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<LimitQuery>,
) -> Result<Json<DeliveryList>, Problem> {
    let limit = page_items(query.limit)?;
    let deliveries = state.webhook_store.deliveries(&tenant, &Id::from_text(id), limit).await?;
    Ok(Json(DeliveryList { deliveries: deliveries.into_iter().map(Delivery::from).collect() }))
}

/// Sends past events to a webhook once more.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{id}/replay",
    operation_id = "replay_webhook",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook, `webhook_…`.")),
    request_body = ReplayRequest,
    responses(
        (status = 200, description = "The number of messages that will be sent.", body = Replay),
        (status = 400, description = "The request cannot be parsed."),
        (status = 404, description = "The tenant has no enabled webhook with this id."),
        (status = 415, description = "The request body is not JSON."),
        (status = 422, description = "A field of the request has an invalid value."),
    )
)]
pub(super) async fn replay(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
    JsonBody(request): JsonBody<ReplayRequest>,
) -> Result<Json<Replay>, Problem> {
    let messages = state.webhook_store.replay(&tenant, &Id::from_text(id), request.since_ms).await?;
    Ok(Json(Replay { messages }))
}
