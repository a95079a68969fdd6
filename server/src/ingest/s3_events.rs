//! S3 events: parses the created objects from a message. Pure: no object is opened.
//!
//! Events of S3 arrive plain, in the envelope of an SNS topic, or in the shape of EventBridge; those of MinIO
//! and Ceph's gateway have the shape of S3's. They arrive late, more than once and in any order: an event
//! only prompts Spool to look at the object.
//!
//! Source: Amazon S3 User Guide, "Event message structure" and "Using EventBridge"; Amazon SNS Developer
//! Guide, "Parsing message formats"; MinIO, "Bucket Notifications"; Ceph Object Gateway, "Bucket
//! Notifications".

use serde::Deserialize;

/// Maximum number of events in one message: stores send one or a few.
const MAX_EVENTS: usize = 1000;

/// Creation of an object, as an event reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectCreated {
    /// Bucket of the object.
    pub(crate) bucket: String,
    /// Readings of the key, the likelier first: some stores form-encode keys, some do not, and the event does
    /// not state which.
    pub(crate) keys: Vec<String>,
}

impl ObjectCreated {
    /// Returns the URIs that the object may have.
    pub(crate) fn uris(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| format!("s3://{}/{key}", self.bucket))
    }
}

/// Reason for which a message cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to parse the message as JSON: {0}")]
    Json(String),
    #[error("the message is not an event of S3, MinIO, Ceph or EventBridge")]
    UnknownFormat,
    #[error("the message holds {0} events; at most {MAX_EVENTS} are accepted")]
    TooMany(usize),
}

#[derive(Debug, Deserialize)]
struct Records {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
struct Record {
    #[serde(rename = "eventSource", default)]
    source: String,
    #[serde(rename = "eventName")]
    name: String,
    s3: Entity,
}

#[derive(Debug, Deserialize)]
struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Debug, Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Object {
    key: String,
}

/// Message that S3 sends when notifications are configured.
#[derive(Debug, Deserialize)]
struct TestEvent {
    #[serde(rename = "Event")]
    event: String,
}

/// Envelope of an SNS topic.
#[derive(Debug, Deserialize)]
struct SnsEnvelope {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Message")]
    message: String,
}

#[derive(Debug, Deserialize)]
struct EventBridgeEvent {
    source: String,
    #[serde(rename = "detail-type")]
    kind: String,
    detail: Entity,
}

/// Returns the created objects of a message: none for deletions, test events and SNS confirmations.
pub(crate) fn parse(message: &str) -> Result<Vec<ObjectCreated>, Error> {
    let value: serde_json::Value = serde_json::from_str(message).map_err(|e| Error::Json(e.to_string()))?;
    if value.is_object()
        && let Ok(SnsEnvelope { kind, message }) = SnsEnvelope::deserialize(&value)
    {
        // Envelopes do not nest.
        return if kind == "Notification" {
            parse_event(&serde_json::from_str(&message).map_err(|e| Error::Json(e.to_string()))?)
        } else {
            Ok(Vec::new())
        };
    }
    parse_event(&value)
}

fn parse_event(value: &serde_json::Value) -> Result<Vec<ObjectCreated>, Error> {
    // serde would accept an array as a struct, by the order of its items.
    if !value.is_object() {
        return Err(Error::UnknownFormat);
    }
    if let Ok(Records { records }) = Records::deserialize(value) {
        if records.len() > MAX_EVENTS {
            return Err(Error::TooMany(records.len()));
        }
        return Ok(records
            .into_iter()
            .filter(|record| is_creation(&record.name))
            .map(object_created)
            .collect());
    }
    if let Ok(EventBridgeEvent { source, kind, detail: Entity { bucket, object } }) =
        EventBridgeEvent::deserialize(value)
        && source == "aws.s3"
    {
        // EventBridge does not encode keys.
        let object = ObjectCreated { bucket: bucket.name, keys: vec![object.key] };
        return Ok(if kind == "Object Created" { vec![object] } else { Vec::new() });
    }
    match TestEvent::deserialize(value) {
        Ok(TestEvent { event }) if event == "s3:TestEvent" => Ok(Vec::new()),
        _ => Err(Error::UnknownFormat),
    }
}

/// Returns whether an event is a creation. Amazon and newer Ceph omit the prefix `s3:` of event names.
fn is_creation(name: &str) -> bool {
    name.strip_prefix("s3:").unwrap_or(name).starts_with("ObjectCreated:")
}

fn object_created(record: Record) -> ObjectCreated {
    let Record { source, s3: Entity { bucket, object: Object { key } }, .. } = record;
    let decoded = form_decoded(&key);
    let mut keys = if source == "ceph:s3" { vec![key, decoded] } else { vec![decoded, key] };
    keys.dedup();
    ObjectCreated { bucket: bucket.name, keys }
}

/// Decodes a form-encoded key; a key that does not decode to valid UTF-8 is returned unchanged.
fn form_decoded(key: &str) -> String {
    let spaced = key.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8()
        .map_or_else(|_| key.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(source: &str, name: &str, key: &str) -> Value {
        json!({
            "eventVersion": "2.1", "eventSource": source, "awsRegion": "us-east-1",
            "eventTime": "2026-11-26T10:00:00.000Z", "eventName": name,
            "userIdentity": { "principalId": "AWS:1" },
            "s3": {
                "s3SchemaVersion": "1.0", "configurationId": "spool",
                "bucket": { "name": "in", "ownerIdentity": { "principalId": "1" }, "arn": "arn:aws:s3:::in" },
                "object": {
                    "key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                    "sequencer": "0A1B2C3D4E5F678901",
                },
            },
        })
    }

    fn uris(message: &Value) -> Vec<String> {
        parse(&message.to_string()).unwrap().iter().flat_map(ObjectCreated::uris).collect()
    }

    #[test]
    fn creations_are_parsed_in_the_shape_of_every_store() {
        let amazon = json!({ "Records": [record("aws:s3", "ObjectCreated:Put", "talks/Caf%C3%A9+1.mp4")] });
        assert_eq!(uris(&amazon)[0], "s3://in/talks/Café 1.mp4");
        let minio = json!({
            "EventName": "s3:ObjectCreated:CompleteMultipartUpload", "Key": "in/talks/a b.mp4",
            "Records": [record("minio:s3", "s3:ObjectCreated:CompleteMultipartUpload", "talks%2Fa+b.mp4")],
        });
        assert_eq!(uris(&minio)[0], "s3://in/talks/a b.mp4");
        for name in ["ObjectCreated:Put", "s3:ObjectCreated:Put"] {
            let ceph = json!({ "Records": [record("ceph:s3", name, "100% of+it.mp4")] });
            assert_eq!(uris(&ceph)[0], "s3://in/100% of+it.mp4");
        }
        let topic = json!({
            "Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:us-east-1:1:in",
            "Message": amazon.to_string(),
        });
        assert_eq!(uris(&topic), uris(&amazon));
        let bridge = json!({
            "version": "0", "id": "1", "detail-type": "Object Created", "source": "aws.s3",
            "region": "us-east-1",
            "detail": {
                "version": "0", "bucket": { "name": "in" }, "object": { "key": "a+b%20c.mp4", "size": 1 },
                "reason": "PutObject",
            },
        });
        assert_eq!(uris(&bridge), ["s3://in/a+b%20c.mp4"]);
    }

    #[test]
    fn a_key_with_one_reading_gives_one_uri() {
        assert_eq!(
            uris(&json!({ "Records": [record("aws:s3", "ObjectCreated:Put", "a.mp4")] })),
            ["s3://in/a.mp4"]
        );
        let torn = json!({ "Records": [record("aws:s3", "ObjectCreated:Put", "a%FF%.mp4")] });
        assert_eq!(uris(&torn), ["s3://in/a%FF%.mp4"]);
    }

    #[test]
    fn messages_that_create_nothing_give_no_objects() {
        let test_event = json!({
            "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "in",
            "Time": "2026-11-26T10:00:00.000Z",
        });
        let removed = json!({
            "Records": [
                record("aws:s3", "ObjectRemoved:Delete", "a.mp4"),
                record("ceph:s3", "s3:ObjectRemoved:Delete", "b"),
            ],
        });
        let bridge = json!({
            "detail-type": "Object Deleted", "source": "aws.s3",
            "detail": { "bucket": { "name": "in" }, "object": { "key": "a.mp4" } },
        });
        let confirmation = json!({
            "Type": "SubscriptionConfirmation", "Message": "You have chosen to subscribe", "Token": "x",
        });
        for message in [test_event, removed, bridge, confirmation, json!({ "Records": [] })] {
            assert!(uris(&message).is_empty(), "{message}");
        }
    }

    #[test]
    fn other_messages_are_refused() {
        for message in [
            "",
            "{",
            "[]",
            "[[]]",
            r#"["Notification", "{}"]"#,
            "{}",
            "null",
            "\"Records\"",
            r#"{"Records": [{}]}"#,
            r#"{"Event": "s3:Other"}"#,
        ] {
            assert!(parse(message).is_err(), "{message}");
        }
        let many = json!({ "Records": vec![record("aws:s3", "ObjectCreated:Put", "a"); 1001] });
        assert_eq!(parse(&many.to_string()), Err(Error::TooMany(1001)));
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(parse(&deep).is_err(), "deep nesting must not overflow the stack");
    }
}
