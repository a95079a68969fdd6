//! Queues of Amazon's that tell what has arrived: read with long polls, by every server, each message by one at a time. A message is deleted once
//! all that it tells is taken; one that cannot be read stays, and goes to the queue's dead letters when it has come often enough.
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
use spool_storage::{Amazon, Stores};
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

/// How long a poll waits for a message, in seconds, and how many it brings at most: as many as there may be.
const POLL_SECONDS: i32 = 20;
const MAX_MESSAGES: i32 = 10;

/// How long a message is nobody else's, in seconds, and how often that is made longer while it is in hand.
const VISIBILITY_SECONDS: i32 = 60;
const RENEW: Duration = Duration::from_secs(20);

/// How soon a message comes again that could not be taken, in seconds, at first and at most: what was away may be back.
const RETRY_DELAY_SECONDS: i32 = 30;
const MAX_RETRY_DELAY_SECONDS: i32 = 6 * 3600;

/// How soon a message comes again that cannot be read, in seconds: it never will be, and is the sooner among the dead letters.
const UNREADABLE_RETRY_DELAY_SECONDS: i32 = 2;

/// How often it is looked which queues there are, and how long one that cannot be read is left alone.
const WATCH_POLL_INTERVAL: Duration = Duration::from_secs(15);
const ERROR_DELAY: Duration = Duration::from_secs(15);

/// How long a call may take: longer than a poll.
const CALL_TIMEOUT: Duration = Duration::from_secs(40);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The region of a queue whose address tells none, where none is set.
const DEFAULT_REGION: &str = "us-east-1";

/// Reads every queue that is watched, until the server leaves.
pub(crate) async fn run(watcher: Watcher, leave: CancellationToken) {
    let mut readers: HashMap<String, AbortOnDropHandle<()>> = HashMap::new();
    let mut look = interval(WATCH_POLL_INTERVAL);
    loop {
        tokio::select! {
            () = leave.cancelled() => return,
            _ = look.tick() => {}
        }
        let watches = match watcher.watches.watches(None).await {
            Ok(watches) => watches,
            Err(error) => {
                warn!(%error, "it cannot be read which queues are watched");
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

/// Reads a queue for as long as somebody watches it.
async fn run_reader(watcher: Watcher, queue: String) {
    loop {
        let watches = match watches_of(&watcher, &queue).await {
            Ok(watches) if watches.is_empty() => return,
            Ok(watches) => watches,
            Err(trouble) => {
                // What cannot be written down is not fetched.
                warn!(queue, trouble, "it cannot be read who watches a queue");
                sleep(ERROR_DELAY).await;
                continue;
            }
        };
        let polled = poll(&watcher, &queue).await;
        let trouble = polled.as_ref().map_or_else(|trouble| Some(trouble.as_str()), Option::as_deref);
        record_error(&watcher, &watches, trouble).await;
        if let Err(trouble) = &polled {
            warn!(queue, trouble, "a queue cannot be read");
            sleep(ERROR_DELAY).await;
        }
    }
}

/// Who watches a queue now.
async fn watches_of(watcher: &Watcher, queue: &str) -> Result<Vec<Watch>, String> {
    let watches = watcher.watches.watches(None).await.map_err(|error| error.to_string())?;
    Ok(watches.into_iter().filter(|watch| watch.queue.as_deref() == Some(queue)).collect())
}

/// Writes down what keeps from taking what a queue tells, where that has changed.
async fn record_error(watcher: &Watcher, watches: &[Watch], trouble: Option<&str>) {
    for watch in watches.iter().filter(|watch| watch.trouble.as_deref() != trouble) {
        if let Err(error) = watcher.watches.looked(&watch.id, trouble).await {
            warn!(watch = %watch.id, %error, "it cannot be written down how a queue stands");
        }
    }
}

/// Takes what a queue tells; gives what is wrong with one of its messages.
async fn poll(watcher: &Watcher, queue: &str) -> Result<Option<String>, String> {
    let client = client(&watcher.stores, queue)?;
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
    // Whoever watches since the poll began is to be told as well. Where that cannot be read, the messages come again.
    let watches = &watches_of(watcher, queue).await?;
    // At the same time: while one is taken, none of the others comes back to somebody else.
    let handled = messages.messages().iter().map(|message| handle(watcher, &client, queue, watches, message));
    Ok(futures::future::join_all(handled).await.into_iter().flatten().next())
}

/// How soon a message comes again, in seconds: the later, the more often it came, so that what is away for hours has time.
fn retry_delay_seconds(message: &Message) -> i32 {
    let attributes = message.attributes();
    let came = attributes
        .and_then(|all| all.get(&MessageSystemAttributeName::ApproximateReceiveCount)?.parse::<u32>().ok());
    let doublings = came.unwrap_or(1).saturating_sub(1).min(16);
    RETRY_DELAY_SECONDS.saturating_mul(1 << doublings).min(MAX_RETRY_DELAY_SECONDS)
}

/// Takes a message; gives what is wrong with it.
async fn handle(
    watcher: &Watcher,
    client: &Client,
    queue: &str,
    watches: &[Watch],
    message: &Message,
) -> Option<String> {
    let (id, receipt) =
        (message.message_id().unwrap_or_default(), message.receipt_handle().unwrap_or_default());
    let change = |seconds| async move {
        let changed = client
            .change_message_visibility()
            .queue_url(queue)
            .receipt_handle(receipt)
            .visibility_timeout(seconds);
        changed.send().await.map(drop).map_err(|e| service_error(&e))
    };
    let arrived = match s3_events::parse(message.body().unwrap_or_default()) {
        Ok(arrived) => arrived,
        Err(error) => {
            warn!(queue, message = id, %error, "a message cannot be read: once it has come often enough, it goes to the dead letters");
            // Where that fails, it comes again a little later.
            let _ = change(UNREADABLE_RETRY_DELAY_SECONDS).await;
            return Some(format!("message {id} cannot be read: {error}"));
        }
    };
    let take = async {
        let mut wrong = None;
        for arrived in &arrived {
            match watcher.ingest(watches, arrived).await {
                Ok(IngestOutcome::Job(_)) => {}
                Ok(IngestOutcome::Ignored(why)) => {
                    debug!(queue, message = id, why, "what is told is passed over")
                }
                Err(problem) => wrong = wrong.or(Some(problem)),
            }
        }
        wrong
    };
    let renew = async {
        let mut tick = interval(RENEW);
        tick.tick().await;
        loop {
            tick.tick().await;
            if let Err(trouble) = change(VISIBILITY_SECONDS).await {
                debug!(queue, message = id, trouble, "a message cannot be kept in hand");
            }
        }
    };
    let wrong: Option<Problem> = tokio::select! {
        wrong = take => wrong,
        () = renew => None,
    };
    let settled = match &wrong {
        None => {
            let deleted = client.delete_message().queue_url(queue).receipt_handle(receipt).send().await;
            deleted.map(drop).map_err(|e| service_error(&e))
        }
        Some(problem) => {
            warn!(
                queue,
                message = id,
                problem = problem.detail,
                "what is told cannot be taken now: it comes again"
            );
            change(retry_delay_seconds(message)).await
        }
    };
    // It comes again by itself then, and makes no second job.
    if let Err(trouble) = settled {
        warn!(queue, message = id, trouble, "a message cannot be settled");
    }
    wrong.map(|problem| problem.detail)
}

/// Says what is wrong with a queue: it is not there, may not be read, or keeps what cannot be read for ever.
///
/// # Errors
/// What is wrong, and what to do.
pub async fn check_queue(stores: &Stores, queue: &str) -> Result<(), String> {
    let client = client(stores, queue)?;
    let asked = client
        .get_queue_attributes()
        .queue_url(queue)
        .attribute_names(QueueAttributeName::RedrivePolicy)
        .send()
        .await;
    let answer = asked.map_err(|e| service_error(&e))?;
    let dead = answer
        .attributes()
        .is_some_and(|attributes| attributes.contains_key(&QueueAttributeName::RedrivePolicy));
    if dead {
        return Ok(());
    }
    Err("it has no dead-letter queue, and a message that cannot be read would come back for ever: give it a RedrivePolicy"
        .to_owned())
}

/// What a queue's service says, or what kept from asking it.
fn service_error<E: ProvideErrorMetadata + Error + 'static, R: fmt::Debug + 'static>(
    error: &SdkError<E, R>,
) -> String {
    if let Some(code) = error.code() {
        return format!("{code}: {}", error.message().unwrap_or("it says no more"));
    }
    let mut last: &dyn Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    format!("it cannot be asked: {last}")
}

/// Calls a queue's service with the keys that stores are read with.
fn client(stores: &Stores, queue: &str) -> Result<Client, String> {
    let url = Url::parse(queue)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
    let url =
        url.ok_or("it is no address of a queue: https://sqs.DEFAULT_REGION.amazonaws.com/ACCOUNT/NAME")?;
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

/// The keys of the stores, as the queue's client asks for them.
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
    fn what_cannot_be_taken_comes_again_ever_later() {
        let came = |count: &str| {
            let attribute = MessageSystemAttributeName::ApproximateReceiveCount;
            retry_delay_seconds(&Message::builder().attributes(attribute, count).build())
        };
        assert_eq!(["1", "2", "5", "12", "4000000000"].map(came), [30, 60, 480, 21_600, 21_600]);
        assert_eq!(retry_delay_seconds(&Message::builder().build()), 30);
    }
}
