//! Job requests: the document that creates a job, from a source or from a SQL statement.

use std::ops::RangeInclusive;

use serde::Deserialize;
use spool_jobs::{Cut, JobState, Request, VIDEO_PLACEHOLDER};
use spool_media::plan::deinterlace::Deinterlace;
use strum::IntoEnumIterator;
use utoipa::ToSchema;

use crate::{
    documents::json_object::JsonObject,
    problem::{Problem, ProblemKind},
};

/// Priorities that a request may have.
const PRIORITIES: RangeInclusive<i64> = -100..=100;

/// Request to create a job: a `source` with its options, or a `sql` statement.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JobRequest {
    /// Path or URI of the source video.
    #[schema(example = "s3://uploads/talk.mp4")]
    source: Option<String>,
    /// Folder or URI prefix to publish to; `{video}` stands for the video's id. Default: a folder per video
    /// below the server's media prefix.
    #[schema(example = "s3://media/{video}/")]
    destination: Option<String>,
    /// Name of a preset, or rungs in their short form. Default: `web`.
    #[schema(example = "1080p,720p:2M,480p")]
    ladder: Option<String>,
    /// Approximate length of a segment in seconds: one row, one FFmpeg run.
    #[schema(minimum = 0.1, maximum = 3600)]
    segment_seconds: Option<f64>,
    /// Length of an HLS media segment in seconds. Default: 4.
    #[schema(minimum = 0.1, maximum = 60)]
    media_segment_seconds: Option<f64>,
    /// Deinterlacing of interlaced frames: one picture per frame (`frame`), or one per field at twice the
    /// rate (`field`). Default: `frame`.
    #[schema(value_type = Option<String>)]
    deinterlace: Option<Deinterlace>,
    /// Threads of each encode. Default: 1.
    #[schema(minimum = 1, maximum = 64)]
    threads: Option<u32>,
    /// Whether a damaged or truncated source fails the job. Default: false, which encodes what can be
    /// decoded.
    strict: bool,
    /// Whether `early.m3u8` at the destination plays the media segments that are done while the rest is
    /// encoded.
    early_playback: bool,
    /// Whether the source is deleted once the video is published, unless the source has changed meanwhile.
    delete_source: bool,
    /// SQL statement to run instead of transcoding a source.
    #[schema(example = "SELECT * FROM media('s3://uploads/**')")]
    sql: Option<String>,
    /// Priority among the tenant's jobs: higher ones run first. Default: 0.
    #[schema(minimum = -100, maximum = 100)]
    priority: i64,
}

impl JobRequest {
    /// Parses the document of a job that is embedded in another request.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let parsed: Result<JsonObject<Self>, _> = serde_json::from_str(text);
        parsed.map(|JsonObject(job)| job).map_err(|error| invalid(format!("job: {error}")))
    }

    /// Returns the request for a source that is given by other means.
    pub(crate) fn with_source(self, source: &str) -> Result<Self, Problem> {
        if self.source.is_some() || self.sql.is_some() {
            return Err(invalid("job: source and sql are not allowed here; the source is the upload"));
        }
        Ok(Self { source: Some(source.to_owned()), ..self })
    }

    /// Returns the job store's request and its priority. Without a destination the video is published below
    /// `media_root`.
    pub(crate) fn into_request(self, media_root: Option<&str>) -> Result<(Request, i64), Problem> {
        let priority = self.priority;
        if !PRIORITIES.contains(&priority) {
            let (min, max) = PRIORITIES.into_inner();
            return Err(invalid(format!("priority: must be from {min} to {max}, not {priority}")));
        }
        let request = match (&self.source, &self.sql) {
            (Some(_), None) => self.into_transcode(media_root)?,
            (None, Some(_)) => self.into_sql()?,
            (Some(_), Some(_)) => return Err(invalid("sql: give either source or sql, not both")),
            (None, None) => return Err(invalid("source: is required, unless sql is given")),
        };
        Ok((request, priority))
    }

    fn into_transcode(self, media_root: Option<&str>) -> Result<Request, Problem> {
        let below_media_root = || {
            media_root.map(|media_root| format!("{}/{VIDEO_PLACEHOLDER}/", media_root.trim_end_matches('/')))
        };
        let destination = self.destination.or_else(below_media_root).ok_or_else(|| {
            invalid("destination: is required, because this server has no media prefix (--media)")
        })?;
        let Request::Transcode { ladder, cut, .. } = Request::transcode("", "") else {
            return Err(invalid("source: cannot be transcoded"));
        };
        Ok(Request::Transcode {
            source: self.source.unwrap_or_default(),
            destination,
            ladder: self.ladder.unwrap_or(ladder),
            cut: Cut {
                segment_seconds: self.segment_seconds,
                media_segment_seconds: self.media_segment_seconds.unwrap_or(cut.media_segment_seconds),
                deinterlace: self.deinterlace.unwrap_or_default(),
            },
            threads: self.threads.unwrap_or(1),
            strict: self.strict,
            early_playback: self.early_playback,
            delete_source: self.delete_source,
        })
    }

    fn into_sql(self) -> Result<Request, Problem> {
        let has_options = self.destination.is_some()
            || self.ladder.is_some()
            || self.segment_seconds.is_some()
            || self.media_segment_seconds.is_some()
            || self.deinterlace.is_some()
            || self.strict
            || self.early_playback
            || self.delete_source;
        if has_options {
            return Err(invalid("sql: only threads and priority are allowed beside a statement"));
        }
        Ok(Request::Sql { sql: self.sql.unwrap_or_default(), threads: self.threads.unwrap_or(1) })
    }
}

/// Parses a job state.
pub(crate) fn parse_state(text: &str) -> Result<JobState, Problem> {
    let states: Vec<String> = JobState::iter().map(|state| state.to_string()).collect();
    text.parse().map_err(|_| invalid(format!("state: {text:?} is not one of {}", states.join(", "))))
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Invalid, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<(Request, i64), Problem> {
        serde_json::from_str::<JobRequest>(text).unwrap().into_request(Some("s3://media"))
    }

    #[test]
    fn a_source_alone_is_a_complete_request() {
        let (request, priority) = request(r#"{"source": "s3://uploads/talk.mp4"}"#).unwrap();
        assert_eq!(
            (request, priority),
            (Request::transcode("s3://uploads/talk.mp4", "s3://media/{video}/"), 0)
        );
    }

    #[test]
    fn contradictory_fields_are_refused() {
        let detail = |text: &str| request(text).unwrap_err().detail;
        assert!(detail("{}").starts_with("source: is required"));
        assert!(detail(r#"{"source": "a", "sql": "SELECT 1"}"#).starts_with("sql: "));
        assert!(detail(r#"{"sql": "SELECT 1", "early_playback": true}"#).starts_with("sql: "));
        assert!(detail(r#"{"source": "a", "priority": 101}"#).contains("from -100 to 100"));
    }

    #[test]
    fn a_destination_is_required_without_a_media_prefix() {
        let request = serde_json::from_str::<JobRequest>(r#"{"source": "a"}"#).unwrap();
        assert!(request.into_request(None).unwrap_err().detail.starts_with("destination: "));
    }

    #[test]
    fn unknown_fields_and_arrays_are_refused() {
        assert!(JobRequest::parse(r#"{"source": "a", "speed": 2}"#).is_err());
        assert!(JobRequest::parse(r#"["a"]"#).is_err());
    }

    #[test]
    fn an_unknown_state_is_refused_with_the_states_that_exist() {
        assert!(parse_state("done").unwrap_err().detail.contains("pending, processing"));
    }
}
