//! What is asked for? A document or a statement; either way it is a statement in the end.

use serde::{Deserialize, Serialize};
use spool_media::plan::{
    deinterlace::Deinterlace,
    ladder::Ladder,
    segments::{DEFAULT_MEDIA_SEGMENT_SECONDS, Lengths},
};
use spool_storage::path_policy::PathPolicy;

use crate::{Error, Id, Result};

/// The ladder that is made unless another is asked for.
const DEFAULT_LADDER: &str = "web";

/// Stands for the video's name in a destination.
pub const VIDEO: &str = "{video}";

/// The longest source, destination or statement, in bytes.
const MAX_TEXT: usize = 64 << 10;

/// Threads that an encode may have.
const THREADS: std::ops::RangeInclusive<u32> = 1..=64;

/// What a job is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Request {
    /// A video into a ladder.
    Transcode {
        /// Path or URI of the video.
        source: String,
        /// Folder or URI prefix that is published to; [`VIDEO`] in it stands for the video's name.
        destination: String,
        /// A preset, or rungs in their short form.
        #[serde(default = "default_ladder")]
        ladder: String,
        /// How it is cut.
        #[serde(default)]
        cut: Cut,
        /// Threads of each encode.
        #[serde(default = "one")]
        threads: u32,
        /// Refuse what is damaged or cut off.
        #[serde(default)]
        strict: bool,
        /// Keep playlists of what is encoded so far.
        #[serde(default)]
        live: bool,
        /// Delete the source once it is published.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        delete_source: bool,
    },
    /// A statement.
    Sql {
        /// The statement.
        sql: String,
        /// Threads of each encode.
        #[serde(default = "one")]
        threads: u32,
    },
}

/// What is to be done, how urgently, and within which places.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// What is to be done.
    pub request: Request,
    /// Higher ones of a tenant go first.
    pub priority: i64,
    /// The places that it may touch; any unless given. [`VIDEO`] in a destination stands for the video's name.
    pub confines: Option<PathPolicy>,
}

impl From<Request> for Order {
    fn from(request: Request) -> Self {
        Self { request, priority: 0, confines: None }
    }
}

impl Order {
    /// Says what is wrong with it, as far as that can be told without opening anything.
    ///
    /// # Errors
    /// [`Error::Request`], which names the field; [`Error::NotAllowed`] where it lies outside of its confines.
    pub fn check(&self) -> Result<()> {
        self.request.check()?;
        let (Some(confines), Request::Transcode { source, destination, delete_source, .. }) =
            (&self.confines, &self.request)
        else {
            return Ok(());
        };
        let refused = |field| {
            move |e: spool_storage::path_policy::Error| Error::NotAllowed { field, message: e.to_string() }
        };
        confines.check_source(source).map_err(refused("source"))?;
        if *delete_source {
            confines.check_delete(source).map_err(refused("delete_source"))?;
        }
        confines.check_write(destination).map_err(refused("destination"))
    }

    /// The same for a video of this name.
    #[must_use]
    pub(crate) fn of_video(&self, id: &Id) -> Self {
        let mut named = self.clone();
        if let Request::Transcode { destination, .. } = &mut named.request {
            *destination = destination.replace(VIDEO, id.as_str());
        }
        if let Some(confines) = &mut named.confines {
            confines.destinations.iter_mut().for_each(|place| *place = place.replace(VIDEO, id.as_str()));
        }
        named
    }
}

/// How a video is cut.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cut {
    /// About how long a segment is, in seconds: one row, one FFmpeg run. Unless given 30, or a quarter of the video if that is shorter.
    pub segment_seconds: Option<f64>,
    /// How long an HLS media segment is, in seconds.
    pub media_segment_seconds: f64,
    /// What becomes of an interlaced frame.
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
    /// The table function that cuts a source, with its arguments. Rows of what is played meanwhile are as short as can be.
    pub fn segments(&self, source: &str, live: bool) -> String {
        let segment = self.segment_seconds.or(live.then_some(self.media_segment_seconds));
        let segment = segment.map_or_else(|| "NULL".to_owned(), |seconds| seconds.to_string());
        let deinterlace = match self.deinterlace {
            Deinterlace::Frame => "frame",
            Deinterlace::Field => "field",
        };
        format!("segments({}, {segment}, {}, '{deinterlace}')", quoted(source), self.media_segment_seconds)
    }
}

impl Request {
    /// A video into a ladder, with every choice left to Spool.
    pub fn transcode(source: impl Into<String>, destination: impl Into<String>) -> Self {
        Self::Transcode {
            source: source.into(),
            destination: destination.into(),
            ladder: default_ladder(),
            cut: Cut::default(),
            threads: 1,
            strict: false,
            live: false,
            delete_source: false,
        }
    }

    /// Says what is wrong with it, as far as that can be told without opening anything.
    ///
    /// # Errors
    /// [`Error::Request`], which names the field.
    pub fn check(&self) -> Result<()> {
        let wrong = |field, message: String| Err(Error::Request { field, message });
        let texts: &[(&'static str, &str)] = match self {
            Self::Transcode { source, destination, .. } => {
                &[("source", source), ("destination", destination)]
            }
            Self::Sql { sql, .. } => &[("sql", sql)],
        };
        for (field, text) in texts {
            if text.trim().is_empty() {
                return wrong(field, "it must not be empty".to_owned());
            }
            if text.len() > MAX_TEXT {
                return wrong(
                    field,
                    format!("it is {} bytes long: at most {MAX_TEXT} are taken", text.len()),
                );
            }
            // PostgreSQL keeps no text with one, and no file is called so.
            if text.contains('\0') {
                return wrong(field, "it holds a NUL".to_owned());
            }
        }
        let (Self::Transcode { threads, .. } | Self::Sql { threads, .. }) = self;
        if !THREADS.contains(threads) {
            return wrong(
                "threads",
                format!("it is {threads}: it must be from {} to {}", THREADS.start(), THREADS.end()),
            );
        }
        if let Self::Transcode { source, ladder, cut, delete_source, .. } = self {
            let web = ["http:", "https:"]
                .iter()
                .any(|scheme| source.trim_start().to_ascii_lowercase().starts_with(scheme));
            if *delete_source && web {
                return wrong(
                    "delete_source",
                    "a page of the web cannot be deleted: leave it out".to_owned(),
                );
            }
            Ladder::parse(ladder).map(drop).or_else(|e| wrong("ladder", e.to_string()))?;
            Lengths::new(cut.segment_seconds, cut.media_segment_seconds)
                .map(drop)
                .or_else(|e| wrong("cut", e.to_string()))?;
        }
        Ok(())
    }

    /// The statement that does it.
    pub fn statement(&self) -> String {
        match self {
            Self::Sql { sql, .. } => sql.clone(),
            Self::Transcode { source, destination, ladder, cut, live, .. } => format!(
                "SELECT publish(hls_ladder(part)) AS published FROM (SELECT transcode(segment, {}, {}) AS part FROM {})",
                quoted(ladder),
                quoted(destination),
                cut.segments(source, *live),
            ),
        }
    }

    /// The settings that the statement runs with.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let (threads, strict, live) = match self {
            Self::Transcode { threads, strict, live, .. } => (threads, *strict, *live),
            Self::Sql { threads, .. } => (threads, false, false),
        };
        vec![
            ("spool.threads", threads.to_string()),
            ("spool.strict", strict.to_string()),
            ("spool.early_playback", live.to_string()),
        ]
    }

    /// The same as it may be shown: without the secrets of presigned links.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let mut shown = self.clone();
        match &mut shown {
            Self::Transcode { source, .. } => *source = spool_storage::redact(source),
            Self::Sql { sql, .. } => *sql = spool_storage::redact_in(sql),
        }
        shown
    }

    /// What tells it from any other request.
    pub(crate) fn hash(&self) -> String {
        // Texts and numbers always serialise.
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

    fn read(text: &str) -> std::result::Result<Request, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_document_is_the_statement_that_one_would_write() {
        let request =
            read(r#"{"source": "s3://uploads/it's.mp4", "destination": "s3://media/it/"}"#).unwrap();
        request.check().unwrap();
        assert_eq!(
            request.statement(),
            "SELECT publish(hls_ladder(part)) AS published FROM (SELECT transcode(segment, 'web', 's3://media/it/') AS part \
             FROM segments('s3://uploads/it''s.mp4', NULL, 4, 'frame'))"
        );
        let web =
            read(r#"{"source": "HTTPS://host/a.mp4", "destination": "b", "delete_source": true}"#).unwrap();
        assert!(web.check().unwrap_err().to_string().starts_with("delete_source: "));
        let live =
            read(r#"{"source": "a", "destination": "b", "live": true, "cut": {"media_segment_seconds": 2}}"#)
                .unwrap();
        assert!(
            live.statement().contains("segments('a', 2, 2, 'frame')")
                && live.settings().contains(&("spool.early_playback", "true".into()))
        );
    }

    #[test]
    fn an_order_stays_within_its_confines() {
        let confines = PathPolicy {
            sources: vec!["s3://in/".into()],
            destinations: vec!["s3://media/{video}/".into()],
            own: Vec::new(),
        };
        let order = |source: &str, destination: &str| Order {
            confines: Some(confines.clone()),
            ..Request::transcode(source, destination).into()
        };
        order("s3://in/a.mp4", "s3://media/{video}/").check().unwrap();
        let id = Id::video();
        let named = order("s3://in/a.mp4", "s3://media/{video}/").of_video(&id);
        named.check().unwrap();
        assert_eq!(named.confines.unwrap().destinations, [format!("s3://media/{id}/")]);
        let fault = |order: Order| order.check().unwrap_err().to_string();
        assert!(
            fault(order("s3://other/a.mp4", "s3://media/{video}/")).starts_with("source: s3://other/a.mp4")
        );
        assert!(fault(order("s3://in/a.mp4", "s3://media/another/")).starts_with("destination: "));
    }

    #[test]
    fn what_is_kept_is_what_was_asked() {
        for request in
            [Request::transcode("a.mp4", "out/"), read(r#"{"sql": "SELECT 1", "threads": 2}"#).unwrap()]
        {
            let kept = serde_json::to_string(&request).unwrap();
            assert_eq!(read(&kept).unwrap(), request);
            assert_eq!(read(&kept).unwrap().hash(), request.hash());
        }
        assert_ne!(Request::transcode("a.mp4", "out/").hash(), Request::transcode("a.mp4", "other/").hash());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let fault = |text: &str| read(text).unwrap().check().unwrap_err().to_string();
        assert!(fault(r#"{"source": " ", "destination": "b"}"#).starts_with("source: "));
        assert!(fault(r#"{"source": "a", "destination": "b", "ladder": "8000x"}"#).starts_with("ladder: "));
        assert!(
            fault(r#"{"source": "a", "destination": "b", "cut": {"media_segment_seconds": 0}}"#)
                .starts_with("cut: ")
        );
        assert!(fault(r#"{"sql": "SELECT 1", "threads": 0}"#).contains("from 1 to 64"));
        assert!(fault(r#"{"sql": "SELECT '\u0000'"}"#).starts_with("sql: "));
        assert!(
            read(r#"{"source": "a", "destination": "b", "ladders": "web"}"#).is_err(),
            "a field that is misspelt is no choice"
        );
    }
}
