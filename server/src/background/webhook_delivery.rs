//! What others want to be told is told: signed, again and again until it arrives, and by whichever server has a hand free.
//!
//! Source: Standard Webhooks 1.0.0.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{StatusCode, Url, redirect::Policy};
use serde_json::{Value, json};
use sha2::Sha256;
use spool_jobs::{Delivery, DeliveryHold, Sent, Webhooks};
use spool_storage::net;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::problem::{Problem, ProblemKind};

/// What a secret begins with, and the bytes that it stands for.
const SECRET_PREFIX: &str = "whsec_";

/// How long a webhook may take to answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a message is nobody else's: as long as its answer may take, and some.
const LEASE: Duration = Duration::from_secs(30);

/// How often it is looked for what is to be told, where there is nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Messages that are sent at a time: one that does not answer keeps few others waiting.
const MAX_CONCURRENT: usize = 16;

/// How long is waited after each try, in seconds; after the last a message is given up. Three days and more in all.
const RETRY_DELAYS_SECONDS: [u64; 9] = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// The longest address.
const MAX_URL: usize = 2000;

/// Whom messages are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookTargets {
    /// Anybody: where those who ask are at home here anyway.
    Any,
    /// Only whom everybody can targets.
    Public,
}

/// Sends messages.
#[derive(Clone)]
pub(crate) struct WebhookDelivery {
    webhooks: Arc<dyn Webhooks>,
    client: reqwest::Client,
    targets: WebhookTargets,
}

impl WebhookDelivery {
    pub(crate) fn new(webhooks: Arc<dyn Webhooks>, targets: WebhookTargets) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().user_agent(concat!("spool/", env!("CARGO_PKG_VERSION")));
        let client = match targets {
            WebhookTargets::Any => client,
            WebhookTargets::Public => net::public_only(client),
        };
        // An address that leads elsewhere is not the one that was given.
        let client = client.redirect(Policy::none()).timeout(RESPONSE_TIMEOUT).build()?;
        Ok(Self { webhooks, client, targets })
    }

    /// An address that can be told.
    pub(crate) fn check_url(&self, url: &str) -> Result<Url, Problem> {
        let wrong = |why: String| Problem::new(ProblemKind::Invalid, format!("url: {why}"));
        let url = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.as_str().len() <= MAX_URL);
        let url = url.ok_or_else(|| {
            wrong(format!("it must be an http or https address of at most {MAX_URL} characters"))
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds a password: what is sent is signed, and needs none".to_owned()));
        }
        let checked = if self.targets == WebhookTargets::Public { net::check_url(&url) } else { Ok(()) };
        checked.map_err(|private| wrong(private.to_string()))?;
        Ok(url)
    }

    /// Sends what is to be sent, until the server leaves.
    pub(crate) async fn run(self, leave: CancellationToken) {
        let hands = Arc::new(Semaphore::new(MAX_CONCURRENT));
        loop {
            let hand = tokio::select! {
                () = leave.cancelled() => return,
                hand = hands.clone().acquire_owned() => hand,
            };
            match self.webhooks.hold_delivery(LEASE).await {
                Ok(Some(hold)) => {
                    let delivery = self.clone();
                    tokio::spawn(async move {
                        delivery.deliver(&hold).await;
                        drop(hand);
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) => warn!(%error, "what is to be told cannot be read"),
            }
            drop(hand);
            tokio::select! {
                () = leave.cancelled() => return,
                () = sleep(POLL_INTERVAL) => {}
            }
        }
    }

    async fn deliver(&self, hold: &DeliveryHold) {
        let sent = self.send(hold).await;
        match &sent {
            Sent::Delivered => debug!(message = %hold.delivery.id, "told"),
            Sent::Again { trouble, .. } | Sent::Failed { trouble } => {
                warn!(message = %hold.delivery.id, webhook = %hold.delivery.webhook, trouble, tries = hold.delivery.tries, "not told");
            }
            Sent::Gone => warn!(webhook = %hold.delivery.webhook, "nobody wants to be told there any more"),
        }
        // Where it cannot be written down, it is sent once more: whoever is told knows it by its name.
        if let Err(error) = self.webhooks.end_delivery(hold, &sent).await {
            warn!(message = %hold.delivery.id, %error, "what was told cannot be written down");
        }
    }

    async fn send(&self, hold: &DeliveryHold) -> Sent {
        let Ok(url) = self.check_url(&hold.url) else {
            return Sent::Failed { trouble: "it is none of the addresses that may be told here".to_owned() };
        };
        let (body, now) = (body(&hold.delivery), chrono::Utc::now().timestamp());
        let id = hold.delivery.id.as_str();
        let Some(signature) = signature(&hold.secret, id, now, &body) else {
            return Sent::Failed { trouble: "its secret cannot be read: make another webhook".to_owned() };
        };
        let request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now.to_string())
            .header("webhook-signature", signature)
            .body(body);
        let trouble = match request.send().await {
            Ok(response) if response.status().is_success() => return Sent::Delivered,
            Ok(response) if response.status() == StatusCode::GONE => return Sent::Gone,
            Ok(response) => format!("it answers {}", response.status()),
            Err(error) => error_reason(&error),
        };
        let tried = usize::try_from(hold.delivery.tries).unwrap_or(usize::MAX).saturating_sub(1);
        match RETRY_DELAYS_SECONDS.get(tried) {
            Some(seconds) => Sent::Again { after: Duration::from_secs(*seconds), trouble },
            None => Sent::Failed { trouble },
        }
    }
}

/// The last link of the chain: the ones before hold the address.
fn error_reason(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    if error.is_timeout() {
        format!("it did not answer within {} s", RESPONSE_TIMEOUT.as_secs())
    } else {
        last.to_string()
    }
}

/// The same bytes however often it is sent.
fn body(delivery: &Delivery) -> String {
    let at = DateTime::from_timestamp_millis(delivery.at_ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut data = json!({ "job": delivery.job, "sequence": delivery.sequence });
    if let (Some(data), Value::Object(more)) = (data.as_object_mut(), &delivery.data) {
        data.extend(more.clone());
    }
    json!({ "type": delivery.kind.word(), "timestamp": at, "data": data }).to_string()
}

/// A secret that was just random.
pub(crate) fn new_secret(random: [u8; 32]) -> String {
    format!("{SECRET_PREFIX}{}", BASE64_STANDARD.encode(random))
}

fn signature(secret: &str, id: &str, timestamp: i64, body: &str) -> Option<String> {
    let key = BASE64_STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    Some(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn a_signature_is_what_everybody_computes() {
        let signature = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    struct EmptyStore;

    #[async_trait::async_trait]
    impl Webhooks for EmptyStore {
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

        async fn hold_delivery(&self, _: Duration) -> spool_jobs::Result<Option<DeliveryHold>> {
            Ok(None)
        }

        async fn end_delivery(&self, _: &DeliveryHold, _: &Sent) -> spool_jobs::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn addresses_of_this_network_are_told_only_where_that_is_wanted() {
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
