//! Webhook delivery: signs messages about jobs, sends them, and retries each until it arrives or its retries
//! are used up.
//!
//! Source: Standard Webhooks 1.0.0.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat};
use reqwest::{StatusCode, Url, redirect::Policy};
use serde_json::{Value, json};
use spool_jobs::{Delivery, DeliveryLease, DeliveryOutcome, WebhookStore};
use spool_storage::net;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::lease_loop::{LeaseLoop, run_leased};
use crate::problem::{Problem, ProblemKind};

/// Prefix of a signing secret; base64 of its bytes follows.
const SECRET_PREFIX: &str = "whsec_";

/// Time limit of a webhook's response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Lease on a message: longer than the time limit of a response.
const LEASE: Duration = Duration::from_secs(30);

/// Interval between queries for messages when none is due.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Messages that are sent at a time: a webhook that does not respond delays few others.
const MAX_CONCURRENT: usize = 16;

/// Wait after each attempt, in seconds: more than three days in all. After the last attempt a message has
/// failed.
const RETRY_DELAYS_SECONDS: [u64; 9] = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// Maximum length of a webhook's URL, in characters.
const MAX_URL: usize = 2000;

/// Addresses that messages may be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookTargets {
    /// Every address, for tenants that can reach this network in any case.
    Any,
    /// Public addresses only.
    Public,
}

/// Sends messages to webhooks.
#[derive(Clone)]
pub(crate) struct WebhookDelivery {
    webhook_store: Arc<dyn WebhookStore>,
    client: reqwest::Client,
    targets: WebhookTargets,
}

impl WebhookDelivery {
    pub(crate) fn new(
        webhook_store: Arc<dyn WebhookStore>,
        targets: WebhookTargets,
    ) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().user_agent(concat!("spool/", env!("CARGO_PKG_VERSION")));
        let client = match targets {
            WebhookTargets::Any => client,
            WebhookTargets::Public => net::public_only(client),
        };
        // No redirects: they could lead to an address that was not checked.
        let client = client.redirect(Policy::none()).timeout(RESPONSE_TIMEOUT).build()?;
        Ok(Self { webhook_store, client, targets })
    }

    /// Parses the URL of a webhook. Returns an error if messages may not be sent to it.
    pub(crate) fn check_url(&self, url: &str) -> Result<Url, Problem> {
        let invalid = |why: String| Problem::new(ProblemKind::Invalid, format!("url: {why}"));
        let url = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.as_str().len() <= MAX_URL);
        let url = url.ok_or_else(|| {
            invalid(format!("must be an http or https address of at most {MAX_URL} characters"))
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(
                "must not hold a user name or a password; messages are signed instead".to_owned(),
            ));
        }
        let checked = if self.targets == WebhookTargets::Public { net::check_url(&url) } else { Ok(()) };
        checked.map_err(|private| invalid(private.to_string()))?;
        Ok(url)
    }

    /// Sends messages that are due until `shutdown` fires.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let pace = LeaseLoop {
            name: "webhook delivery",
            poll_interval: POLL_INTERVAL,
            concurrency: MAX_CONCURRENT,
            max_per_poll: usize::MAX,
        };
        let work = |lease| {
            let delivery = self.clone();
            async move { delivery.deliver(&lease).await }
        };
        run_leased(pace, shutdown, || self.webhook_store.lease_delivery(LEASE), work).await;
    }

    async fn deliver(&self, lease: &DeliveryLease) {
        let sent = self.send(lease).await;
        let message = &lease.delivery;
        match &sent {
            DeliveryOutcome::Delivered => debug!(message = %message.id, "webhook message delivered"),
            DeliveryOutcome::Retry { error, .. } | DeliveryOutcome::Failed { error } => warn!(
                message = %message.id,
                webhook = %message.webhook,
                error,
                tries = message.tries,
                "webhook message not delivered"
            ),
            DeliveryOutcome::Gone => {
                warn!(webhook = %message.webhook, "webhook answered 410 Gone; it is disabled")
            }
        }
        // If this fails, the message is sent once more: its receiver recognizes it by its ID.
        if let Err(error) = self.webhook_store.finish_delivery(lease, &sent).await {
            warn!(message = %message.id, %error, "failed to record a webhook delivery");
        }
    }

    async fn send(&self, lease: &DeliveryLease) -> DeliveryOutcome {
        let Ok(url) = self.check_url(&lease.url) else {
            return DeliveryOutcome::Failed { error: "messages may not be sent to this address".to_owned() };
        };
        let (body, now) = (body(&lease.delivery), chrono::Utc::now().timestamp());
        let id = lease.delivery.id.as_str();
        let webhook = Webhook::new(&lease.secret);
        let signature = webhook.and_then(|webhook| webhook.sign(id, now, body.as_bytes()));
        let Ok(signature) = signature else {
            return DeliveryOutcome::Failed {
                error: "the signing secret is malformed; create another webhook".to_owned(),
            };
        };
        let request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header(HEADER_WEBHOOK_ID, id)
            .header(HEADER_WEBHOOK_TIMESTAMP, now.to_string())
            .header(HEADER_WEBHOOK_SIGNATURE, signature)
            .body(body);
        let error = match request.send().await {
            Ok(response) if response.status().is_success() => return DeliveryOutcome::Delivered,
            Ok(response) if response.status() == StatusCode::GONE => return DeliveryOutcome::Gone,
            Ok(response) => format!("the webhook answered {}", response.status()),
            Err(error) => error_reason(&error),
        };
        let retries = usize::try_from(lease.delivery.tries).unwrap_or(usize::MAX).saturating_sub(1);
        match RETRY_DELAYS_SECONDS.get(retries) {
            Some(seconds) => DeliveryOutcome::Retry { delay: Duration::from_secs(*seconds), error },
            None => DeliveryOutcome::Failed { error },
        }
    }
}

/// Returns the last error of the chain: the errors before it contain the URL, which may contain a secret.
fn error_reason(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    if error.is_timeout() {
        format!("no answer within {} s", RESPONSE_TIMEOUT.as_secs())
    } else {
        last.to_string()
    }
}

/// Returns a message's body, with the same bytes at every attempt.
fn body(delivery: &Delivery) -> String {
    let at = DateTime::from_timestamp_millis(delivery.at_ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut data = json!({ "job": delivery.job, "sequence": delivery.sequence });
    if let (Some(data), Value::Object(more)) = (data.as_object_mut(), &delivery.data) {
        data.extend(more.clone());
    }
    json!({ "type": delivery.kind, "timestamp": at, "data": data }).to_string()
}

/// Encodes random bytes as a signing secret.
pub(crate) fn new_secret(random: [u8; 32]) -> String {
    format!("{SECRET_PREFIX}{}", BASE64_STANDARD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example of the specification's own libraries.
    #[test]
    fn a_signature_equals_the_one_in_the_specification() {
        let webhook = Webhook::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            webhook.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_new_secret_signs() {
        Webhook::new(&new_secret([255; 32])).unwrap().sign("msg_1", 0, b"{}").unwrap();
    }

    struct EmptyStore;

    #[async_trait::async_trait]
    impl WebhookStore for EmptyStore {
        async fn create_webhook(&self, _: &str, _: &str, _: &str) -> spool_jobs::Result<spool_jobs::Webhook> {
            unreachable!()
        }

        async fn webhooks(&self, _: &str) -> spool_jobs::Result<Vec<spool_jobs::Webhook>> {
            unreachable!()
        }

        async fn disable_webhook(
            &self,
            _: &str,
            _: &spool_jobs::Id,
        ) -> spool_jobs::Result<spool_jobs::Webhook> {
            unreachable!()
        }

        async fn deliveries(&self, _: &str, _: &spool_jobs::Id, _: u32) -> spool_jobs::Result<Vec<Delivery>> {
            unreachable!()
        }

        async fn replay(&self, _: &str, _: &spool_jobs::Id, _: i64) -> spool_jobs::Result<u64> {
            unreachable!()
        }

        async fn lease_delivery(&self, _: Duration) -> spool_jobs::Result<Option<DeliveryLease>> {
            Ok(None)
        }

        async fn finish_delivery(&self, _: &DeliveryLease, _: &DeliveryOutcome) -> spool_jobs::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn private_addresses_are_refused_unless_every_target_is_allowed() {
        let delivery = |targets| WebhookDelivery::new(Arc::new(EmptyStore), targets).unwrap();
        delivery(WebhookTargets::Any).check_url("http://127.0.0.1:9/hook").unwrap();
        delivery(WebhookTargets::Public).check_url("https://example.com/hook?x=1").unwrap();
        for url in [
            "http://127.0.0.1:9/hook",
            "http://2130706433/",
            "http://[::1]/",
            "http://169.254.169.254/latest/meta-data/",
        ] {
            assert!(
                delivery(WebhookTargets::Public)
                    .check_url(url)
                    .unwrap_err()
                    .detail
                    .contains("not a public address"),
                "{url}"
            );
        }
        for url in ["", "ftp://example.com", "https://user:password@example.com/", "/hook"] {
            assert_eq!(delivery(WebhookTargets::Any).check_url(url).unwrap_err().status, 422, "{url}");
        }
    }
}
