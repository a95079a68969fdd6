//! Webhooks and their deliveries.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Request to create a webhook.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookRequest {
    /// URL that events are sent to, with `POST`.
    #[schema(example = "https://example.com/spool")]
    pub(crate) url: String,
}

/// Webhook: a URL that events of the tenant's jobs are sent to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Webhook {
    #[schema(example = "webhook_019aa1b2c3d47e5f8a9b0c1d2e3f4a5b")]
    id: String,
    url: String,
    /// Time of creation, in milliseconds since the Unix epoch.
    created_ms: i64,
    /// Time of disabling, in milliseconds since the Unix epoch; null while events are sent.
    disabled_ms: Option<i64>,
}

impl From<spool_jobs::Webhook> for Webhook {
    fn from(webhook: spool_jobs::Webhook) -> Self {
        let spool_jobs::Webhook { id, url, created_ms, disabled_ms, .. } = webhook;
        Self { id: id.to_string(), url, created_ms, disabled_ms }
    }
}

/// Webhook that was just created, with its signing secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedWebhook {
    #[serde(flatten)]
    pub(crate) webhook: Webhook,
    /// Secret that messages are signed with. No other response contains the secret.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub(crate) secret: String,
}

/// Webhooks of a tenant, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookList {
    pub(crate) webhooks: Vec<Webhook>,
}

/// Delivery: one message to one webhook, with its retries.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Delivery {
    /// Id of the message, equal in all retries: a receiver can discard duplicates.
    id: String,
    /// Id of the job that the event belongs to.
    job: String,
    /// Kind of the event, such as `job.published`.
    #[schema(value_type = String, example = "job.published")]
    kind: spool_jobs::EventKind,
    /// Time of the event, in milliseconds since the Unix epoch.
    at_ms: i64,
    /// State of the delivery: `waiting`, `delivered` or `failed`.
    #[schema(value_type = String)]
    state: spool_jobs::DeliveryState,
    /// Time of the next try while waiting, in milliseconds since the Unix epoch.
    due_ms: i64,
    /// Number of times that the message was sent.
    tries: i64,
    /// Cause of the last failed try.
    last_error: Option<String>,
}

impl From<spool_jobs::Delivery> for Delivery {
    fn from(delivery: spool_jobs::Delivery) -> Self {
        Self {
            id: delivery.id.to_string(),
            job: delivery.job.to_string(),
            kind: delivery.kind,
            at_ms: delivery.at_ms,
            state: delivery.state,
            due_ms: delivery.due_ms,
            tries: delivery.tries,
            last_error: delivery.last_error,
        }
    }
}

/// Latest deliveries of a webhook, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryList {
    pub(crate) deliveries: Vec<Delivery>,
}

/// Request to send past events to a webhook once more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayRequest {
    /// Time of the first event to send, in milliseconds since the Unix epoch. Default: all events.
    #[serde(default)]
    pub(crate) since_ms: i64,
}

/// Number of messages that a replay sends.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Replay {
    pub(crate) messages: u64,
}
