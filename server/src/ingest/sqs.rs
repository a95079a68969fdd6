//! SQS: reads the queues of watches with long polls. Every server reads every queue; SQS hands each message
//! to one reader at a time. A message is deleted once every object that it names is ingested. A message that
//! cannot be parsed stays, and SQS moves it to the dead-letter queue after its last receive.
//!
//! Source: Amazon SQS Developer Guide, "Visibility timeout", "Dead-letter queues".

use std::{collections::HashMap, error::Error, fmt, time::Duration};

use aws_credential_types::provider::{
    ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future,
};
use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Region, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::{Message, MessageSystemAttributeName, QueueAttributeName},
};
use aws_smithy_http_client::tls;
use reqwest::Url;
use spool_jobs::Watch;
use spool_storage::{Amazon, Backoff, Stores};
use tokio::time::{interval, sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, warn};

use crate::{
    ingest::{
        s3_events,
        watcher::{IngestOutcome, Watcher},
    },
    problem::Problem,
};

/// Time that a poll waits for a message, in seconds, and number of messages that it receives: the maxima of
/// SQS.
const POLL_SECONDS: i32 = 20;
const MAX_MESSAGES: i32 = 10;

/// Visibility timeout of a received message, in seconds, and interval of its renewals while the message is
/// handled.
const VISIBILITY_SECONDS: i32 = 60;
const RENEW_INTERVAL: Duration = Duration::from_secs(20);

/// Time until a message that could not be ingested is received again: the first and the maximum. SQS refuses
/// more than 12 hours.
const RETRY_DELAY: Duration = Duration::from_secs(30);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(6 * 3600);

/// Time until a message that cannot be parsed is received again, in seconds. It is short, so that the message
/// soon reaches the dead-letter queue.
const UNREADABLE_RETRY_DELAY_SECONDS: i32 = 2;

/// Interval between queries for the watched queues, and wait after a failure of a queue or the store.
const WATCH_POLL_INTERVAL: Duration = Duration::from_secs(15);
const ERROR_DELAY: Duration = Duration::from_secs(15);

/// Time limit of a call: longer than a long poll.
const CALL_TIMEOUT: Duration = Duration::from_secs(40);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Region of a queue whose address names none, unless `AWS_REGION` is set.
const DEFAULT_REGION: &str = "us-east-1";

/// Reads the queues of all watches until `shutdown` fires.
pub(crate) async fn run(watcher: Watcher, shutdown: CancellationToken) {
    let mut readers: HashMap<String, AbortOnDropHandle<()>> = HashMap::new();
    let mut tick = interval(WATCH_POLL_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        let watches = match watcher.watch_store.watches(None).await {
            Ok(watches) => watches,
            Err(error) => {
                warn!(%error, "failed to list the watched queues");
                continue;
            }
        };
        let queues: Vec<String> = watches.into_iter().filter_map(|watch| watch.queue).collect();
        readers.retain(|queue, reader| queues.contains(queue) && !reader.is_finished());
        for queue in queues {
            readers
                .entry(queue.clone())
                .or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(run_reader(watcher.clone(), queue))));
        }
    }
}

/// Reads a queue for as long as a watch names it.
async fn run_reader(watcher: Watcher, queue: String) {
    loop {
        let watches = match watches_of(&watcher, &queue).await {
            Ok(watches) if watches.is_empty() => return,
            Ok(watches) => watches,
            Err(error) => {
                // Without its watches no message can be ingested, so none is received.
                warn!(queue, error, "failed to read the watches of a queue");
                sleep(ERROR_DELAY).await;
                continue;
            }
        };
        let polled = poll(&watcher, &queue).await;
        let error = polled.as_ref().map_or_else(|error| Some(error.as_str()), Option::as_deref);
        record_error(&watcher, &watches, error).await;
        if let Err(error) = &polled {
            warn!(queue, error, "failed to read a queue");
            sleep(ERROR_DELAY).await;
        }
    }
}

/// Returns the watches that name a queue now.
async fn watches_of(watcher: &Watcher, queue: &str) -> Result<Vec<Watch>, String> {
    let watches = watcher.watch_store.watches(None).await.map_err(|error| error.to_string())?;
    Ok(watches.into_iter().filter(|watch| watch.queue.as_deref() == Some(queue)).collect())
}

/// Records the last error of a queue in its watches, if it changed.
async fn record_error(watcher: &Watcher, watches: &[Watch], last_error: Option<&str>) {
    for watch in watches.iter().filter(|watch| watch.last_error.as_deref() != last_error) {
        if let Err(error) = watcher.watch_store.record_scan(&watch.id, last_error).await {
            warn!(watch = %watch.id, %error, "failed to record the state of a queue");
        }
    }
}

/// Receives messages and ingests the objects that they name; returns the first problem of a message.
async fn poll(watcher: &Watcher, queue: &str) -> Result<Option<String>, String> {
    let client = client(&watcher.object_stores, queue)?;
    let messages = client
        .receive_message()
        .queue_url(queue)
        .max_number_of_messages(MAX_MESSAGES)
        .wait_time_seconds(POLL_SECONDS)
        .visibility_timeout(VISIBILITY_SECONDS)
        .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
        .send()
        .await
        .map_err(|e| service_error(&e))?;
    if messages.messages().is_empty() {
        return Ok(None);
    }
    // Read after the poll, for watches that were added during it. If that fails, the messages are received
    // again.
    let watches = &watches_of(watcher, queue).await?;
    // Concurrently: each renews its visibility timeout while it is handled, so none reaches another reader
    // meanwhile.
    let handled = messages.messages().iter().map(|message| handle(watcher, &client, queue, watches, message));
    Ok(futures::future::join_all(handled).await.into_iter().flatten().next())
}

/// Returns the time until a message is received again, in seconds. It grows with every receive, so that a
/// dependency may be unavailable for hours.
fn retry_delay_seconds(message: &Message) -> i32 {
    let attributes = message.attributes();
    let received = attributes
        .and_then(|all| all.get(&MessageSystemAttributeName::ApproximateReceiveCount)?.parse::<usize>().ok());
    // 30 s reach 6 h after 10 doublings.
    let failed = received.unwrap_or(1).clamp(1, 16);
    let delay = Backoff::delay_after(RETRY_DELAY, MAX_RETRY_DELAY, failed).min(MAX_RETRY_DELAY);
    i32::try_from(delay.as_secs()).unwrap_or(i32::MAX)
}

/// Ingests the objects of one message, then deletes it or has it received again; returns its first problem.
async fn handle(
    watcher: &Watcher,
    client: &Client,
    queue: &str,
    watches: &[Watch],
    message: &Message,
) -> Option<String> {
    let (id, receipt) =
        (message.message_id().unwrap_or_default(), message.receipt_handle().unwrap_or_default());
    let change_visibility = |seconds| async move {
        let changed = client
            .change_message_visibility()
            .queue_url(queue)
            .receipt_handle(receipt)
            .visibility_timeout(seconds);
        changed.send().await.map(drop).map_err(|e| service_error(&e))
    };
    let objects = match s3_events::parse(message.body().unwrap_or_default()) {
        Ok(objects) => objects,
        Err(error) => {
            warn!(queue, message = id, %error, "failed to parse a message; it goes to the dead-letter queue");
            // If this fails, the message is received again after its visibility timeout.
            let _ = change_visibility(UNREADABLE_RETRY_DELAY_SECONDS).await;
            return Some(format!("failed to parse message {id}: {error}"));
        }
    };
    let ingest = async {
        let mut first_problem = None;
        for object in &objects {
            match watcher.ingest(watches, object).await {
                Ok(IngestOutcome::Job(_)) => {}
                Ok(IngestOutcome::Ignored(why)) => {
                    debug!(queue, message = id, why, "object ignored")
                }
                Err(problem) => first_problem = first_problem.or(Some(problem)),
            }
        }
        first_problem
    };
    let renew = async {
        let mut tick = interval(RENEW_INTERVAL);
        tick.tick().await;
        loop {
            tick.tick().await;
            if let Err(error) = change_visibility(VISIBILITY_SECONDS).await {
                debug!(queue, message = id, error, "failed to renew a visibility timeout");
            }
        }
    };
    let first_problem: Option<Problem> = tokio::select! {
        problem = ingest => problem,
        () = renew => None,
    };
    let finished = match &first_problem {
        None => {
            let deleted = client.delete_message().queue_url(queue).receipt_handle(receipt).send().await;
            deleted.map(drop).map_err(|e| service_error(&e))
        }
        Some(problem) => {
            warn!(queue, message = id, problem = problem.detail, "failed to ingest a message; it is retried");
            change_visibility(retry_delay_seconds(message)).await
        }
    };
    // If this fails, the message is received again, and its idempotency key finds the job that exists.
    if let Err(error) = finished {
        warn!(queue, message = id, error, "failed to delete or delay a message");
    }
    first_problem.map(|problem| problem.detail)
}

/// Checks that a queue exists, may be read, and has a dead-letter queue.
///
/// # Errors
/// Returns the reason and the remedy.
pub async fn check_queue(stores: &Stores, queue: &str) -> Result<(), String> {
    let client = client(stores, queue)?;
    let requested = client
        .get_queue_attributes()
        .queue_url(queue)
        .attribute_names(QueueAttributeName::RedrivePolicy)
        .send()
        .await;
    let answer = requested.map_err(|e| service_error(&e))?;
    let has_dead_letter_queue = answer
        .attributes()
        .is_some_and(|attributes| attributes.contains_key(&QueueAttributeName::RedrivePolicy));
    if has_dead_letter_queue {
        return Ok(());
    }
    Err("the queue has no dead-letter queue, so a message that cannot be parsed would be received for ever; \
         set a RedrivePolicy"
        .to_owned())
}

/// Returns SQS's error code and message, or the reason for which the call did not reach SQS.
fn service_error<E: ProvideErrorMetadata + Error + 'static, R: fmt::Debug + 'static>(
    error: &SdkError<E, R>,
) -> String {
    if let Some(code) = error.code() {
        return format!("{code}: {}", error.message().unwrap_or("no message"));
    }
    let mut last: &dyn Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    format!("failed to call SQS: {last}")
}

/// Returns a client of the service that a queue belongs to, with the credentials of the object stores.
fn client(stores: &Stores, queue: &str) -> Result<Client, String> {
    let url = Url::parse(queue)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
    let url =
        url.ok_or("the address must be one of an SQS queue: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME")?;
    let amazon = stores.amazon().map_err(|e| e.to_string())?;
    let host = url.host_str().unwrap_or_default();
    // sqs.eu-central-1.amazonaws.com
    let named = host
        .strip_prefix("sqs.")
        .and_then(|rest| rest.split_once(".amazonaws."))
        .map(|(region, _)| region.to_owned());
    let region = named.or_else(|| amazon.region.clone()).unwrap_or_else(|| DEFAULT_REGION.to_owned());
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring));
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(CALL_TIMEOUT).build();
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .endpoint_url(url.origin().ascii_serialization())
        .credentials_provider(SharedCredentialsProvider::new(StoreCredentials(amazon)))
        .timeout_config(timeouts)
        .http_client(http.build_https());
    Ok(Client::from_conf(config.build()))
}

/// Credentials of the object stores, for the SQS client.
#[derive(Debug)]
struct StoreCredentials(Amazon);

impl ProvideCredentials for StoreCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.0.keys().await.map_err(CredentialsError::provider_error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retry_delay_of_a_message_doubles_up_to_six_hours() {
        let delay = |count: &str| {
            let attribute = MessageSystemAttributeName::ApproximateReceiveCount;
            retry_delay_seconds(&Message::builder().attributes(attribute, count).build())
        };
        for (count, base) in [("1", 30), ("2", 60), ("5", 480)] {
            assert!((base..=2 * base).contains(&delay(count)), "{count}");
        }
        assert_eq!(["12", "4000000000"].map(delay), [21_600; 2]);
        assert!((30..=60).contains(&retry_delay_seconds(&Message::builder().build())));
    }
}
