//! `Request`: a client's request, as a document or as a SQL statement. A document is translated into a
//! statement.

use serde::{Deserialize, Serialize};
use spool_media::plan::{
    deinterlace::Deinterlace,
    ladder::Ladder,
    segments::{DEFAULT_MEDIA_SEGMENT_SECONDS, Lengths},
};
use spool_storage::path_policy::PathPolicy;

use crate::{Error, Id, Result, statement_limits::check_statement};

/// Ladder of a request without one.
const DEFAULT_LADDER: &str = "web";

/// Placeholder of the video's ID in a destination.
pub const VIDEO_PLACEHOLDER: &str = "{video}";

/// Largest source, destination or statement, in bytes.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// Allowed numbers of threads per encode.
const THREADS: std::ops::RangeInclusive<u32> = 1..=64;

/// A client's request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Request {
    /// Encodes a video at the rungs of a ladder and publishes it.
    Transcode {
        /// Path or URI of the source.
        source: String,
        /// Folder or URI prefix to publish under; [`VIDEO_PLACEHOLDER`] in it stands for the video's ID.
        destination: String,
        /// Name of a preset, or rungs in the short form.
        #[serde(default = "default_ladder")]
        ladder: String,
        /// Division into segments and media segments.
        #[serde(default)]
        cut: Cut,
        /// Threads of each encode.
        #[serde(default = "one")]
        threads: u32,
        /// Whether a damaged or truncated source fails the job.
        #[serde(default)]
        strict: bool,
        /// Whether early playback is on: playlists of the encoded part are published while the rest is
        /// encoded.
        #[serde(default)]
        early_playback: bool,
        /// Whether the source is deleted after the publication.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        delete_source: bool,
    },
    /// Runs a SQL statement.
    Sql {
        /// The statement.
        sql: String,
        /// Threads of each encode.
        #[serde(default = "one")]
        threads: u32,
    },
}

/// Specification of a job: the request, its priority and its path policy.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// The request.
    pub request: Request,
    /// Rank among the tenant's jobs: the highest goes first.
    pub priority: i64,
    /// Path policy of the job; unrestricted if absent. [`VIDEO_PLACEHOLDER`] in a destination stands for the
    /// video's ID.
    pub path_policy: Option<PathPolicy>,
}

impl From<Request> for JobSpec {
    fn from(request: Request) -> Self {
        Self { request, priority: 0, path_policy: None }
    }
}

impl JobSpec {
    /// Validates the specification as far as possible without opening the source.
    ///
    /// # Errors
    /// Returns [`Error::Request`], which names the field; [`Error::NotAllowed`] if the path policy forbids a
    /// path.
    pub fn check(&self) -> Result<()> {
        self.request.check()?;
        let (Some(policy), Request::Transcode { source, destination, delete_source, .. }) =
            (&self.path_policy, &self.request)
        else {
            return Ok(());
        };
        let refused = |field| {
            move |e: spool_storage::path_policy::Error| Error::NotAllowed { field, message: e.to_string() }
        };
        policy.check_source(source).map_err(refused("source"))?;
        if *delete_source {
            policy.check_delete(source).map_err(refused("delete_source"))?;
        }
        policy.check_write(destination).map_err(refused("destination"))
    }

    /// Returns the specification with the placeholder replaced by the video's ID.
    #[must_use]
    pub(crate) fn for_video(&self, id: &Id) -> Self {
        let mut spec = self.clone();
        if let Request::Transcode { destination, .. } = &mut spec.request {
            *destination = destination.replace(VIDEO_PLACEHOLDER, id.as_str());
        }
        if let Some(policy) = &mut spec.path_policy {
            policy
                .write
                .iter_mut()
                .for_each(|prefix| *prefix = prefix.replace(VIDEO_PLACEHOLDER, id.as_str()));
        }
        spec
    }
}

/// Division of a video into segments and media segments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cut {
    /// Approximate duration of a segment in seconds: one row, one FFmpeg run. If absent, 30, or a quarter of
    /// the video if that is shorter.
    pub segment_seconds: Option<f64>,
    /// Duration of a media segment in seconds.
    pub media_segment_seconds: f64,
    /// Deinterlacing: one grid frame per frame, or one per field.
    pub deinterlace: Deinterlace,
}

impl Default for Cut {
    fn default() -> Self {
        Self {
            segment_seconds: None,
            media_segment_seconds: DEFAULT_MEDIA_SEGMENT_SECONDS,
            deinterlace: Deinterlace::default(),
        }
    }
}

impl Cut {
    /// Returns the call of the table function `segments`. With early playback a segment is as short as a
    /// media segment unless set, so that playback can start as early as possible.
    pub fn segments(&self, source: &str, early_playback: bool) -> String {
        let segment = self.segment_seconds.or(early_playback.then_some(self.media_segment_seconds));
        let segment = segment.map_or_else(|| "NULL".to_owned(), |seconds| seconds.to_string());
        let deinterlace = match self.deinterlace {
            Deinterlace::Frame => "frame",
            Deinterlace::Field => "field",
        };
        format!("segments({}, {segment}, {}, '{deinterlace}')", quoted(source), self.media_segment_seconds)
    }
}

impl Request {
    /// Returns a request to transcode with default options.
    pub fn transcode(source: impl Into<String>, destination: impl Into<String>) -> Self {
        Self::Transcode {
            source: source.into(),
            destination: destination.into(),
            ladder: default_ladder(),
            cut: Cut::default(),
            threads: 1,
            strict: false,
            early_playback: false,
            delete_source: false,
        }
    }

    /// Validates the request as far as possible without opening the source.
    ///
    /// # Errors
    /// Returns [`Error::Request`], which names the field.
    pub fn check(&self) -> Result<()> {
        let invalid = |field, message: String| Err(Error::Request { field, message });
        let texts: &[(&'static str, &str)] = match self {
            Self::Transcode { source, destination, .. } => {
                &[("source", source), ("destination", destination)]
            }
            Self::Sql { sql, .. } => &[("sql", sql)],
        };
        for (field, text) in texts {
            if text.trim().is_empty() {
                return invalid(field, "must not be empty".to_owned());
            }
            if text.len() > MAX_TEXT_BYTES {
                let message = format!("{} bytes are too long; use at most {MAX_TEXT_BYTES}", text.len());
                return invalid(field, message);
            }
            // PostgreSQL stores no text with a NUL, and no file name has one.
            if text.contains('\0') {
                return invalid(field, "must not contain a NUL character".to_owned());
            }
        }
        if let Self::Sql { sql, .. } = self
            && let Err(too_large) = check_statement(sql)
        {
            return invalid("sql", too_large.to_string());
        }
        let (Self::Transcode { threads, .. } | Self::Sql { threads, .. }) = self;
        if !THREADS.contains(threads) {
            let message = format!("{threads} is out of range; use {} to {}", THREADS.start(), THREADS.end());
            return invalid("threads", message);
        }
        if let Self::Transcode { source, ladder, cut, delete_source, .. } = self {
            let is_http = ["http:", "https:"]
                .iter()
                .any(|scheme| source.trim_start().to_ascii_lowercase().starts_with(scheme));
            if *delete_source && is_http {
                return invalid(
                    "delete_source",
                    "an HTTP source cannot be deleted; omit the field".to_owned(),
                );
            }
            Ladder::parse(ladder).map(drop).or_else(|e| invalid("ladder", e.to_string()))?;
            Lengths::new(cut.segment_seconds, cut.media_segment_seconds)
                .map(drop)
                .or_else(|e| invalid("cut", e.to_string()))?;
        }
        Ok(())
    }

    /// Returns the statement of the request.
    pub fn statement(&self) -> String {
        match self {
            Self::Sql { sql, .. } => sql.clone(),
            Self::Transcode { source, destination, ladder, cut, early_playback, .. } => format!(
                "SELECT publish(hls_ladder(part)) AS published \
                 FROM (SELECT transcode(segment, {}, {}) AS part FROM {})",
                quoted(ladder),
                quoted(destination),
                cut.segments(source, *early_playback),
            ),
        }
    }

    /// Returns the session settings of the statement.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let (threads, strict, early_playback) = match self {
            Self::Transcode { threads, strict, early_playback, .. } => (threads, *strict, *early_playback),
            Self::Sql { threads, .. } => (threads, false, false),
        };
        vec![
            ("spool.threads", threads.to_string()),
            ("spool.strict", strict.to_string()),
            ("spool.early_playback", early_playback.to_string()),
        ]
    }

    /// Returns the request for display, without the secrets of presigned URLs.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let mut redacted = self.clone();
        match &mut redacted {
            Self::Transcode { source, .. } => *source = spool_storage::redact(source),
            Self::Sql { sql, .. } => *sql = spool_storage::redact_in(sql),
        }
        redacted
    }

    /// Returns a hash over all fields, which is stored with an idempotency key to compare requests.
    pub(crate) fn hash(&self) -> String {
        // Strings and numbers always serialize.
        let text = serde_json::to_string(self).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn default_ladder() -> String {
    DEFAULT_LADDER.to_owned()
}

fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::result::Result<Request, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_document_becomes_a_statement() {
        let request =
            parse(r#"{"source": "s3://uploads/it's.mp4", "destination": "s3://media/it/"}"#).unwrap();
        request.check().unwrap();
        assert_eq!(
            request.statement(),
            "SELECT publish(hls_ladder(part)) AS published \
             FROM (SELECT transcode(segment, 'web', 's3://media/it/') AS part \
             FROM segments('s3://uploads/it''s.mp4', NULL, 4, 'frame'))"
        );
        let http =
            parse(r#"{"source": "HTTPS://host/a.mp4", "destination": "b", "delete_source": true}"#).unwrap();
        assert!(http.check().unwrap_err().to_string().starts_with("delete_source: "));
        let early = r#"{"source": "a", "destination": "b", "early_playback": true,
            "cut": {"media_segment_seconds": 2}}"#;
        let early = parse(early).unwrap();
        assert!(
            early.statement().contains("segments('a', 2, 2, 'frame')")
                && early.settings().contains(&("spool.early_playback", "true".into()))
        );
    }

    #[test]
    fn a_job_spec_is_checked_against_its_path_policy() {
        let policy = PathPolicy {
            read: vec!["s3://in/".into()],
            write: vec!["s3://media/{video}/".into()],
            delete: Vec::new(),
        };
        let spec = |source: &str, destination: &str| JobSpec {
            path_policy: Some(policy.clone()),
            ..Request::transcode(source, destination).into()
        };
        spec("s3://in/a.mp4", "s3://media/{video}/").check().unwrap();
        let id = Id::video();
        let named = spec("s3://in/a.mp4", "s3://media/{video}/").for_video(&id);
        named.check().unwrap();
        assert_eq!(named.path_policy.unwrap().write, [format!("s3://media/{id}/")]);
        let error = |spec: JobSpec| spec.check().unwrap_err().to_string();
        assert!(
            error(spec("s3://other/a.mp4", "s3://media/{video}/"))
                .starts_with("source: this job may not read s3://other/a.mp4")
        );
        assert!(error(spec("s3://in/a.mp4", "s3://media/another/")).starts_with("destination: "));
    }

    #[test]
    fn a_stored_request_equals_the_requested_one() {
        for request in
            [Request::transcode("a.mp4", "out/"), parse(r#"{"sql": "SELECT 1", "threads": 2}"#).unwrap()]
        {
            let stored = serde_json::to_string(&request).unwrap();
            assert_eq!(parse(&stored).unwrap(), request);
            assert_eq!(parse(&stored).unwrap().hash(), request.hash());
        }
        assert_ne!(Request::transcode("a.mp4", "out/").hash(), Request::transcode("a.mp4", "other/").hash());
    }

    #[test]
    fn an_invalid_field_is_named() {
        let error = |text: &str| parse(text).unwrap().check().unwrap_err().to_string();
        assert!(error(r#"{"source": " ", "destination": "b"}"#).starts_with("source: "));
        assert!(error(r#"{"source": "a", "destination": "b", "ladder": "8000x"}"#).starts_with("ladder: "));
        assert!(
            error(r#"{"source": "a", "destination": "b", "cut": {"media_segment_seconds": 0}}"#)
                .starts_with("cut: ")
        );
        assert!(error(r#"{"sql": "SELECT 1", "threads": 0}"#).contains("use 1 to 64"));
        assert!(error(r#"{"sql": "SELECT '\u0000'"}"#).starts_with("sql: "));
        assert!(
            parse(r#"{"source": "a", "destination": "b", "ladders": "web"}"#).is_err(),
            "a misspelt field is refused"
        );
    }
}
