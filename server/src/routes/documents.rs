//! What is shown of jobs and videos? Their public shape, without secrets.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spool_jobs::{ApiKey, Attempt, Cut, Event, Job, Page, Request, Row, Scope, State, Upload, VIDEO, Video};
use spool_media::plan::deinterlace::Deinterlace;
use utoipa::ToSchema;

use crate::{
    problem::{Problem, ProblemKind},
    routes::extract::Object,
};

/// Priorities that are taken.
const PRIORITIES: std::ops::RangeInclusive<i64> = -100..=100;

/// What is asked for: a `source`, or `sql`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JobRequest {
    /// Path or URI of a video.
    #[schema(example = "s3://uploads/talk.mp4")]
    source: Option<String>,
    /// Folder or URI prefix that is published to; `{video}` in it stands for the video's id. Unless given, a folder of the video's own
    /// where the server keeps what it publishes.
    #[schema(example = "s3://media/{video}/")]
    destination: Option<String>,
    /// A preset, or rungs in their short form. `web` unless given.
    #[schema(example = "1080p,720p:2M,480p")]
    ladder: Option<String>,
    /// About how long a segment is: one row, one FFmpeg run.
    #[schema(minimum = 0.1, maximum = 3600)]
    segment_seconds: Option<f64>,
    /// How long an HLS media segment is. 4 unless given.
    #[schema(minimum = 0.1, maximum = 60)]
    media_segment_seconds: Option<f64>,
    /// What becomes of an interlaced frame: one picture (`frame`), or one of each field at twice the rate (`field`). `frame` unless given.
    #[schema(value_type = Option<String>)]
    deinterlace: Option<Deinterlace>,
    /// Threads of each encode. 1 unless given.
    #[schema(minimum = 1, maximum = 64)]
    threads: Option<u32>,
    /// Refuse what is damaged or cut off, instead of making the best of it.
    strict: bool,
    /// Keep `live.m3u8` at the destination, which plays what is encoded so far.
    live: bool,
    /// Delete the source once it is published, unless it has changed meanwhile.
    delete_source: bool,
    /// A statement, instead of a source.
    #[schema(example = "SELECT * FROM media('s3://uploads/**')")]
    sql: Option<String>,
    /// Jobs of a higher one go first. 0 unless given.
    #[schema(minimum = -100, maximum = 100)]
    priority: i64,
}

impl JobRequest {
    /// What the store is asked for, and how urgently. `media` is where it is published unless the request says.
    pub(crate) fn read(self, media: Option<&str>) -> Result<(Request, i64), Problem> {
        let wrong = |detail: String| Err(Problem::new(ProblemKind::Invalid, detail));
        if !PRIORITIES.contains(&self.priority) {
            let (least, most) = PRIORITIES.into_inner();
            return wrong(format!("priority: it is {}: it must be from {least} to {most}", self.priority));
        }
        let threads = self.threads.unwrap_or(1);
        let request = match (self.source, self.sql) {
            (Some(source), None) => {
                let kept = || media.map(|media| format!("{}/{VIDEO}/", media.trim_end_matches('/')));
                let Some(destination) = self.destination.or_else(kept) else {
                    return wrong(
                        "destination: it is missing, and this server keeps nothing itself: say where to publish".to_owned(),
                    );
                };
                let Request::Transcode { ladder, cut, .. } = Request::transcode("", "") else {
                    return wrong("source: it cannot be transcoded".to_owned());
                };
                Request::Transcode {
                    source,
                    destination,
                    ladder: self.ladder.unwrap_or(ladder),
                    cut: Cut {
                        segment_seconds: self.segment_seconds,
                        media_segment_seconds: self
                            .media_segment_seconds
                            .unwrap_or(cut.media_segment_seconds),
                        deinterlace: self.deinterlace.unwrap_or_default(),
                    },
                    threads,
                    strict: self.strict,
                    live: self.live,
                    delete_source: self.delete_source,
                }
            }
            (None, Some(sql)) => {
                let others = [
                    self.destination.is_some(),
                    self.ladder.is_some(),
                    self.segment_seconds.is_some(),
                    self.media_segment_seconds.is_some(),
                ];
                if others.contains(&true)
                    || self.deinterlace.is_some()
                    || self.strict
                    || self.live
                    || self.delete_source
                {
                    return wrong(
                        "sql: a statement says all of it itself: only threads and priority go with it"
                            .to_owned(),
                    );
                }
                Request::Sql { sql, threads }
            }
            (Some(_), Some(_)) => {
                return wrong("sql: there is a source as well: give one of the two".to_owned());
            }
            (None, None) => return wrong("source: it is missing: give a source or sql".to_owned()),
        };
        Ok((request, self.priority))
    }
}

impl JobRequest {
    /// The same for a source that is known already.
    pub(crate) fn with_source(self, source: &str) -> Result<Self, Problem> {
        if self.source.is_some() || self.sql.is_some() {
            return Err(Problem::new(
                ProblemKind::Invalid,
                "job: its source is the upload: leave out source and sql",
            ));
        }
        Ok(Self { source: Some(source.to_owned()), ..self })
    }
}

/// The document of a job that is a part of something else.
pub(crate) fn parse_job_request(text: &str) -> Result<JobRequest, Problem> {
    let read: Result<Object<JobRequest>, _> = serde_json::from_str(text);
    read.map(|Object(job)| job).map_err(|error| Problem::new(ProblemKind::Invalid, format!("job: {error}")))
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobShown {
    #[schema(example = "job_019aa1b2c3d47e5f8a9b0c1d2e3f4a5b")]
    id: String,
    /// `pending`, `processing`, `published`, `failed` or `canceled`.
    state: String,
    /// What is done with it: `waiting`, `planning`, `encoding`, `publishing` or `ended`.
    phase: String,
    /// How far it is, by the length of its media; 100 only once it is published.
    #[schema(minimum = 0, maximum = 100)]
    percent: i64,
    /// The video that it makes.
    video: Option<String>,
    /// What was asked for, without secrets.
    #[schema(value_type = Object)]
    request: Value,
    priority: i64,
    /// How often it was begun since somebody asked for it.
    tries: i64,
    /// Has somebody asked to stop it?
    cancel_requested: bool,
    /// Rows that are planned.
    rows: i64,
    /// Rows that are done.
    rows_done: i64,
    /// Milliseconds since 1970, as all times here.
    created_ms: i64,
    /// It is not begun before.
    due_ms: i64,
    started_ms: Option<i64>,
    ended_ms: Option<i64>,
    /// What publishing returned; of a statement, its rows.
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    /// Why it failed, or why it is tried again.
    error: Option<ErrorShown>,
    /// Number of its last event.
    events: i64,
}

/// Why a job failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorShown {
    /// `not_found`, `not_allowed`, `bad_input`, `transient`, `canceled` or `bug`.
    #[schema(value_type = String)]
    kind: spool_storage::ErrorKind,
    /// What happened, and what to do.
    message: String,
}

impl From<Job> for JobShown {
    fn from(job: Job) -> Self {
        Self {
            percent: job.percent(),
            id: job.id.to_string(),
            state: job.state.to_string(),
            phase: job.phase.word().to_owned(),
            video: job.video.map(|video| video.to_string()),
            // Texts and numbers always serialise.
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
            error: job.error.map(|error| ErrorShown { kind: error.kind, message: error.message }),
            events: job.events,
        }
    }
}

/// Some of the jobs, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobsShown {
    jobs: Vec<JobShown>,
    /// The cursor of the next page, if there is one.
    next: Option<String>,
}

impl From<Page<Job>> for JobsShown {
    fn from(page: Page<Job>) -> Self {
        Self {
            jobs: page.items.into_iter().map(JobShown::from).collect(),
            next: page.next.map(|id| id.to_string()),
        }
    }
}

/// A video.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VideoShown {
    #[schema(example = "video_019aa1b2c3d47e5f8a9b0c1d2e3f4a5b")]
    id: String,
    name: String,
    /// What it is made of, without secrets.
    source: String,
    /// Where it is published.
    destination: String,
    created_ms: i64,
    /// When it was published, the last time that it was.
    published_ms: Option<i64>,
    /// What publishing returned.
    #[schema(value_type = Option<Object>)]
    published: Option<Value>,
    /// What plays it, on this server.
    play: Option<String>,
}

impl From<Video> for VideoShown {
    fn from(video: Video) -> Self {
        let play = video.published.is_some().then(|| format!("/v1/videos/{}/play/master.m3u8", video.id));
        Self {
            id: video.id.to_string(),
            name: video.name,
            source: video.source,
            destination: video.destination,
            created_ms: video.created_ms,
            published_ms: video.published_ms,
            published: video.published,
            play,
        }
    }
}

/// Some of the videos, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VideosShown {
    videos: Vec<VideoShown>,
    /// The cursor of the next page, if there is one.
    next: Option<String>,
}

impl From<Page<Video>> for VideosShown {
    fn from(page: Page<Video>) -> Self {
        Self {
            videos: page.items.into_iter().map(VideoShown::from).collect(),
            next: page.next.map(|id| id.to_string()),
        }
    }
}

/// An upload.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UploadShown {
    #[schema(example = "upload_019aa1b2c3d47e5f8a9b0c1d2e3f4a5b")]
    id: String,
    /// `open`, `finished` or `gone`.
    state: &'static str,
    name: String,
    /// Its length.
    bytes: u64,
    /// Bytes of it that are there.
    received: u64,
    /// The job that was made of it.
    job: Option<String>,
    created_ms: i64,
    /// When it is given up unless more comes.
    expires_ms: i64,
}

impl From<Upload> for UploadShown {
    fn from(upload: Upload) -> Self {
        Self {
            id: upload.id.to_string(),
            state: upload.state.word(),
            name: upload.name,
            bytes: upload.bytes,
            received: upload.received,
            job: upload.job.map(|job| job.to_string()),
            created_ms: upload.created_ms,
            expires_ms: upload.expires_ms,
        }
    }
}

/// A token for one upload.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenShown {
    /// What is shown as `Authorization: Bearer …`: it is never shown again.
    pub(crate) token: String,
    /// How long the upload may be.
    pub(crate) most_bytes: u64,
    /// When it ends, unless an upload was begun with it.
    pub(crate) expires_ms: i64,
}

/// A key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyShown {
    #[schema(example = "key_019aa1b2c3d47e5f8a9b0c1d2e3f4a5b")]
    id: String,
    name: String,
    /// What it opens: `read`, `write`, `keys`.
    scopes: Vec<&'static str>,
    created_ms: i64,
    expires_ms: Option<i64>,
    revoked_ms: Option<i64>,
    /// When it was used last, to the minute.
    used_ms: Option<i64>,
}

impl From<ApiKey> for KeyShown {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            scopes: key.scopes.into_iter().map(Scope::word).collect(),
            created_ms: key.created_ms,
            expires_ms: key.expires_ms,
            revoked_ms: key.revoked_ms,
            used_ms: key.used_ms,
        }
    }
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewKeyShown {
    #[serde(flatten)]
    pub(crate) key: KeyShown,
    /// What is shown as `Authorization: Bearer …`: it is never shown again.
    pub(crate) token: String,
}

/// A tenant's keys, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeysShown {
    pub(crate) keys: Vec<KeyShown>,
}

/// A link that plays a video, for whoever has it, for a while.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkShown {
    /// Where the master playlist is. What it leads to lies below the same path.
    pub(crate) play: String,
    pub(crate) expires_ms: i64,
}

/// A row of a job: what one FFmpeg run encodes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RowShown {
    number: i64,
    /// `video` or `audio`.
    #[schema(value_type = String)]
    track: spool_media::plan::segments::SegmentTrack,
    /// Number of the segment within the video, or of the audio track within the source.
    track_index: i64,
    first_frame: i64,
    frames: i64,
    start_ms: i64,
    duration_ms: i64,
    /// `waiting`, `running` or `done`.
    state: String,
    /// Milliseconds of it that are encoded.
    done_ms: i64,
    /// How often it was begun.
    attempts: i64,
    /// Rungs that were encoded for it.
    encoded: i64,
    /// Rungs that were there already.
    reused: i64,
}

impl From<Row> for RowShown {
    fn from(row: Row) -> Self {
        Self {
            number: row.number,
            track: row.track,
            track_index: row.track_index,
            first_frame: row.first_frame,
            frames: row.frames,
            start_ms: row.start_ms,
            duration_ms: row.duration_ms,
            state: row.state.word().to_owned(),
            done_ms: row.done_ms,
            attempts: row.attempts,
            encoded: row.encoded,
            reused: row.reused,
        }
    }
}

/// Some of a job's rows, by number.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RowsShown {
    pub(crate) rows: Vec<RowShown>,
    /// The number that the next page begins with, if there is one.
    pub(crate) next: Option<i64>,
}

/// An attempt at a row that gave nothing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttemptShown {
    /// The row's number.
    row: i64,
    /// Its number, from 1, of whoever had the job in hand.
    attempt: i64,
    at_ms: i64,
    /// Why, with FFmpeg's last lines where FFmpeg failed.
    reason: String,
}

impl From<Attempt> for AttemptShown {
    fn from(attempt: Attempt) -> Self {
        Self { row: attempt.row, attempt: attempt.attempt, at_ms: attempt.at_ms, reason: attempt.reason }
    }
}

/// The last attempts at a job's rows that gave nothing, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttemptsShown {
    pub(crate) attempts: Vec<AttemptShown>,
}

/// Something that happened to a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventShown {
    /// 1, 2, 3, … of the job, without a gap.
    pub(crate) sequence: i64,
    at_ms: i64,
    /// What happened.
    #[schema(example = "job.progress")]
    pub(crate) kind: String,
    /// What there is to say of it.
    #[schema(value_type = Object)]
    data: Value,
}

impl From<Event> for EventShown {
    fn from(event: Event) -> Self {
        Self {
            sequence: event.sequence,
            at_ms: event.at_ms,
            kind: event.kind.word().to_owned(),
            data: event.data,
        }
    }
}

/// Some of what happened to a job, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventsShown {
    pub(crate) events: Vec<EventShown>,
    /// May there be more, now or later?
    pub(crate) more: bool,
}

/// A state by its word.
pub(crate) fn parse_state(word: &str) -> Result<State, Problem> {
    let words: Vec<&str> = State::ALL.into_iter().map(State::word).collect();
    word.parse().map_err(|_| {
        Problem::new(ProblemKind::Invalid, format!("state: {word:?} is none: there are {}", words.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Request, i64), Problem> {
        serde_json::from_str::<JobRequest>(text).unwrap().read(Some("s3://media"))
    }

    #[test]
    fn a_source_alone_is_a_whole_request() {
        let (request, priority) = read(r#"{"source": "s3://uploads/talk.mp4"}"#).unwrap();
        assert_eq!(
            (request, priority),
            (Request::transcode("s3://uploads/talk.mp4", "s3://media/{video}/"), 0)
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let fault = |text: &str| read(text).unwrap_err().detail;
        assert!(fault("{}").starts_with("source: it is missing"));
        assert!(fault(r#"{"source": "a", "sql": "SELECT 1"}"#).starts_with("sql: "));
        assert!(fault(r#"{"sql": "SELECT 1", "live": true}"#).starts_with("sql: "));
        assert!(fault(r#"{"source": "a", "priority": 101}"#).contains("from -100 to 100"));
        let homeless =
            serde_json::from_str::<JobRequest>(r#"{"source": "a"}"#).unwrap().read(None).unwrap_err();
        assert!(homeless.detail.starts_with("destination: "));
        assert!(serde_json::from_str::<JobRequest>(r#"{"source": "a", "speed": 2}"#).is_err());
        assert!(parse_state("done").unwrap_err().detail.contains("there are pending, processing"));
    }
}
