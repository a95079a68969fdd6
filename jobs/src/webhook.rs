//! Webhooks: what is told to others when a job ends, from an outbox that forgets nothing.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use crate::{Error, Id, Kind, Result};

/// Whom a tenant wants to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its name in the store.
    pub id: Id,
    /// Whose jobs it is told of.
    pub tenant: String,
    /// Where it is told.
    pub url: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// Since when nothing is sent any more.
    pub disabled_ms: Option<i64>,
}

/// How a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It is to be sent, or sent again.
    Waiting,
    /// It arrived.
    Delivered,
    /// It was given up.
    Failed,
}

impl DeliveryState {
    const ALL: [Self; 3] = [Self::Waiting, Self::Delivered, Self::Failed];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for DeliveryState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::Unknown { what: "state of a message", value: text.to_owned() };
        Self::ALL.into_iter().find(|state| state.word() == text).ok_or_else(unknown)
    }
}

/// A message to a webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its name, which stays the same however often it is sent.
    pub id: Id,
    /// The webhook.
    pub webhook: Id,
    /// The job that it tells of.
    pub job: Id,
    /// The number of the job's event.
    pub sequence: i64,
    /// When that happened, in milliseconds since 1970.
    pub at_ms: i64,
    /// What happened.
    pub kind: Kind,
    /// What there is to say of it.
    pub data: Value,
    /// How it stands.
    pub state: DeliveryState,
    /// When it is sent next.
    pub due_ms: i64,
    /// How often it was sent.
    pub tries: i64,
    /// What was answered last, where it was not what is wanted.
    pub trouble: Option<String>,
}

/// A message in a sender's hand.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryHold {
    /// The message.
    pub delivery: Delivery,
    /// Where it goes.
    pub url: String,
    /// What it is signed with.
    pub secret: String,
    /// The hold's number.
    pub fence: i64,
}

/// How a try to send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It arrived.
    Delivered,
    /// It is sent again.
    Again {
        /// When.
        after: Duration,
        /// What was answered.
        trouble: String,
    },
    /// It is given up.
    Failed {
        /// What was answered.
        trouble: String,
    },
    /// Nobody wants to be told there any more.
    Gone,
}

/// A durable outbox.
#[async_trait]
pub trait Webhooks: Send + Sync + 'static {
    /// Has a tenant's jobs told at an address from now on, signed with a secret.
    async fn create_webhook(&self, tenant: &str, url: &str, secret: &str) -> Result<Webhook>;

    /// A tenant's webhooks, the newest first.
    async fn webhooks(&self, tenant: &str) -> Result<Vec<Webhook>>;

    /// Has nothing more told there. What waits is given up.
    ///
    /// # Errors
    /// [`Error::NotFound`] also where it is another tenant's.
    async fn disable_webhook(&self, tenant: &str, id: &Id) -> Result<Webhook>;

    /// What was sent to a tenant's webhook, and what is to be, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::NotFound`] also where it is another tenant's.
    async fn deliveries(&self, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Delivery>>;

    /// Has what was told since a time told again; tells how much that is.
    ///
    /// # Errors
    /// [`Error::NotFound`] where it is another tenant's, or nothing is sent there any more.
    async fn replay(&self, tenant: &str, id: &Id, since_ms: i64) -> Result<u64>;

    /// Takes a message that is due in hand, for the time of a lease.
    async fn hold_delivery(&self, lease: Duration) -> Result<Option<DeliveryHold>>;

    /// Writes down how sending it ended.
    ///
    /// # Errors
    /// [`Error::Lost`] where somebody else has it in hand.
    async fn end_delivery(&self, hold: &DeliveryHold, sent: &Sent) -> Result<()>;
}
