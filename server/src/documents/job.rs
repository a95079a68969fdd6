//! Jobs, their rows and their failed attempts, as responses show them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Job: what a client asked for, and its progress.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Job {
    #[schema(example = "job_019aa1b2c3d47e5f8a9b0c1d2e3f4a5b")]
    id: String,
    /// State: `pending`, `processing`, `published`, `failed` or `canceled`.
    #[schema(value_type = String)]
    state: spool_jobs::JobState,
    /// Phase of the work: `waiting`, `planning`, `encoding`, `publishing` or `ended`.
    #[schema(value_type = String)]
    phase: spool_jobs::Phase,
    /// Progress by duration of the media in percent; 100 only once the video is published.
    #[schema(minimum = 0, maximum = 100)]
    percent: i64,
    /// Id of the video that the job publishes.
    video: Option<String>,
    /// The request that created the job, without secrets.
    #[schema(value_type = Object)]
    request: Value,
    priority: i64,
    /// Number of times that the job was started since the last request to run or retry.
    tries: i64,
    /// Whether cancellation of the job was requested.
    cancel_requested: bool,
    /// Number of rows that are planned.
    rows: i64,
    /// Number of rows that are done.
    rows_done: i64,
    /// Time of creation, in milliseconds since the Unix epoch.
    created_ms: i64,
    /// Earliest time of the next start, in milliseconds since the Unix epoch.
    due_ms: i64,
    /// Time of the last start, in milliseconds since the Unix epoch.
    started_ms: Option<i64>,
    /// Time of the end, in milliseconds since the Unix epoch.
    ended_ms: Option<i64>,
    /// Result of publishing; for a statement, the rows of its result.
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    /// Cause of the failure, or of the last retry.
    error: Option<JobError>,
    /// Sequence number of the job's last event.
    events: i64,
}

/// Cause of a job's failure.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobError {
    /// Kind of error: `not_found`, `not_allowed`, `bad_input`, `transient`, `canceled` or `bug`.
    #[schema(value_type = String)]
    kind: spool_storage::ErrorKind,
    /// Explanation of the failure, and the remedy.
    message: String,
}

impl From<spool_jobs::Job> for Job {
    fn from(job: spool_jobs::Job) -> Self {
        Self {
            percent: job.percent(),
            id: job.id.to_string(),
            state: job.state,
            phase: job.phase,
            video: job.video.map(|video| video.to_string()),
            // Serialization of texts and numbers does not fail.
            request: serde_json::to_value(job.request.without_secrets()).unwrap_or_default(),
            priority: job.priority,
            tries: job.tries,
            cancel_requested: job.cancel_requested,
            rows: job.rows,
            rows_done: job.rows_done,
            created_ms: job.created_ms,
            due_ms: job.due_ms,
            started_ms: job.started_ms,
            ended_ms: job.ended_ms,
            result: job.result,
            error: job.error.map(|error| JobError { kind: error.kind, message: error.message }),
            events: job.events,
        }
    }
}

/// Page of jobs, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobList {
    jobs: Vec<Job>,
    /// Cursor of the next page; null on the last page.
    next: Option<String>,
}

impl From<spool_jobs::Page<spool_jobs::Job>> for JobList {
    fn from(page: spool_jobs::Page<spool_jobs::Job>) -> Self {
        Self {
            jobs: page.items.into_iter().map(Job::from).collect(),
            next: page.next.map(|id| id.to_string()),
        }
    }
}

/// Row of a job: one segment, encoded by one FFmpeg run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Row {
    /// Number of the row from 0, in the order of planning.
    pub(crate) ordinal: i64,
    /// Kind of the track: `video` or `audio`.
    #[schema(value_type = String)]
    track: spool_media::plan::segments::SegmentTrack,
    /// Number of the segment within the video, or of the audio track within the source.
    track_index: i64,
    first_frame: i64,
    frames: i64,
    start_ms: i64,
    duration_ms: i64,
    /// State of the row: `waiting`, `running` or `done`.
    #[schema(value_type = String)]
    state: spool_jobs::RowState,
    /// Encoded duration of the media, in milliseconds.
    done_ms: i64,
    /// Number of attempts that were started.
    attempts: i64,
    /// Number of rungs that were encoded for the row.
    encoded: i64,
    /// Number of rungs whose parts existed before.
    reused: i64,
}

impl From<spool_jobs::Row> for Row {
    fn from(row: spool_jobs::Row) -> Self {
        Self {
            ordinal: row.ordinal,
            track: row.track,
            track_index: row.track_index,
            first_frame: row.first_frame,
            frames: row.frames,
            start_ms: row.start_ms,
            duration_ms: row.duration_ms,
            state: row.state,
            done_ms: row.done_ms,
            attempts: row.attempts,
            encoded: row.encoded,
            reused: row.reused,
        }
    }
}

/// Page of a job's rows, by ordinal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RowList {
    pub(crate) rows: Vec<Row>,
    /// Ordinal of the first row of the next page; null on the last page.
    pub(crate) next: Option<i64>,
}

/// Failed attempt at a row.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attempt {
    /// Ordinal of the row that was attempted.
    ordinal: i64,
    /// Number of the attempt, from 1, within one run of the job.
    attempt: i64,
    /// Time of the failure, in milliseconds since the Unix epoch.
    at_ms: i64,
    /// Cause of the failure, with FFmpeg's last lines where FFmpeg failed.
    reason: String,
}

impl From<spool_jobs::Attempt> for Attempt {
    fn from(attempt: spool_jobs::Attempt) -> Self {
        let spool_jobs::Attempt { ordinal, attempt, at_ms, reason, .. } = attempt;
        Self { ordinal, attempt, at_ms, reason }
    }
}

/// Latest failed attempts at a job's rows, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttemptList {
    pub(crate) attempts: Vec<Attempt>,
}
