//! `WebhookStore`: webhooks and the outbox of their deliveries. A delivery is written together with its
//! event.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::{EventKind, FencingToken, Id, Result};

/// A webhook: an address that receives the events of a tenant's jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// ID in the store.
    pub id: Id,
    /// Tenant whose jobs it reports.
    pub tenant: String,
    /// Address of the receiver.
    pub url: String,
    /// Time of creation, in milliseconds since 1970.
    pub created_ms: i64,
    /// Time of disabling, in milliseconds since 1970.
    pub disabled_ms: Option<i64>,
}

/// State of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Display, EnumString, IntoStaticStr, EnumIter)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryState {
    /// Waits for its first or next attempt.
    Waiting,
    /// The receiver acknowledged it.
    Delivered,
    /// Abandoned after the last attempt.
    Failed,
}

/// A message to a webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// ID, one for all attempts.
    pub id: Id,
    /// The webhook.
    pub webhook: Id,
    /// Job that it reports.
    pub job: Id,
    /// Sequence number of the job's event.
    pub sequence: i64,
    /// Time of the event, in milliseconds since 1970.
    pub at_ms: i64,
    /// Kind of the event.
    pub kind: EventKind,
    /// Details of the event.
    pub data: Value,
    /// State.
    pub state: DeliveryState,
    /// Time of the next attempt, in milliseconds since 1970.
    pub due_ms: i64,
    /// Attempts made.
    pub tries: i64,
    /// Error of the last attempt.
    pub last_error: Option<String>,
}

/// A sender's time-limited right to a delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryLease {
    /// The delivery.
    pub delivery: Delivery,
    /// Address of the receiver.
    pub url: String,
    /// Key of the signature.
    pub secret: String,
    /// Token under which the holder writes.
    pub fencing_token: FencingToken,
}

/// Outcome of one attempt to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver acknowledged the message.
    Delivered,
    /// Another attempt follows.
    Retry {
        /// Wait before the next attempt.
        delay: Duration,
        /// Error of this attempt.
        error: String,
    },
    /// No attempt follows.
    Failed {
        /// Error of this attempt.
        error: String,
    },
    /// The receiver responded with 410 Gone: the webhook is disabled.
    Gone,
}

/// A durable store of webhooks and of the outbox.
#[async_trait]
pub trait WebhookStore: Send + Sync + 'static {
    /// Creates a webhook whose deliveries are signed with `secret`.
    ///
    /// # Errors
    /// Returns [`Error::Quota`](crate::Error::Quota) if the tenant's quota of webhooks is used up.
    async fn create_webhook(&self, tenant: &str, url: &str, secret: &str) -> Result<Webhook>;

    /// Returns a tenant's webhooks, newest first.
    async fn webhooks(&self, tenant: &str) -> Result<Vec<Webhook>>;

    /// Disables a webhook. Waiting deliveries fail.
    ///
    /// # Errors
    /// Returns [`Error::NotFound`](crate::Error::NotFound), also if another tenant owns the webhook.
    async fn disable_webhook(&self, tenant: &str, id: &Id) -> Result<Webhook>;

    /// Returns at most `limit` deliveries of a tenant's webhook, newest first.
    ///
    /// # Errors
    /// Returns [`Error::NotFound`](crate::Error::NotFound), also if another tenant owns the webhook.
    async fn deliveries(&self, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Delivery>>;

    /// Schedules the ended deliveries of events since `since_ms` again, and returns their number.
    ///
    /// # Errors
    /// Returns [`Error::NotFound`](crate::Error::NotFound) if another tenant owns the webhook, or it is
    /// disabled.
    async fn replay(&self, tenant: &str, id: &Id, since_ms: i64) -> Result<u64>;

    /// Leases a due delivery for `lease_time`.
    async fn lease_delivery(&self, lease_time: Duration) -> Result<Option<DeliveryLease>>;

    /// Records the outcome of an attempt and ends the lease.
    ///
    /// # Errors
    /// Returns [`Error::LeaseLost`](crate::Error::LeaseLost) if the delivery has a newer lease.
    async fn finish_delivery(&self, lease: &DeliveryLease, outcome: &DeliveryOutcome) -> Result<()>;
}
