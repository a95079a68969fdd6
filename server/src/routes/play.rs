//! Playback: what was published, from where it lies to whoever plays it.

use std::ops::Range;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use spool_jobs::Id;
use spool_media::package::{early_playback::LIVE, publish::MASTER};
use spool_storage::{ObjectKind, SourceReader};

use crate::{
    app_state::AppState,
    auth::authenticate::Tenant,
    problem::{Problem, ProblemKind},
    routes::extract::Named,
};

/// Bytes that are read at a time, and so held in memory for each client.
const PIECE: u64 = 1 << 20;

/// A piece of a published video: `master.m3u8`, and what it leads to.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}/play/{path}",
    tag = "videos",
    params(
        ("id" = String, Path, description = "The video"),
        ("path" = String, Path, description = "What is wanted, as the playlists name it"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of what is there already"),
    ),
    responses(
        (status = 200, description = "All of it.", content((String = "application/vnd.apple.mpegurl"), (Vec<u8> = "video/mp4"))),
        (status = 206, description = "The range of it.", body = Vec<u8>, content_type = "video/mp4"),
        (status = 304, description = "It is as it was."),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "It has no such range.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn play(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named((id, path)): Named<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    piece(&state, &tenant, &id, &path, &method, &headers).await
}

/// The same by a link that `POST /v1/videos/{id}/links` made: for whoever has it, and for pages of any origin.
#[utoipa::path(
    get,
    path = "/v1/play/{link}/{path}",
    tag = "videos",
    params(
        ("link" = String, Path, description = "What the link says"),
        ("path" = String, Path, description = "What is wanted, as the playlists name it"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of what is there already"),
    ),
    responses(
        (status = 200, description = "All of it.", content((String = "application/vnd.apple.mpegurl"), (Vec<u8> = "video/mp4"))),
        (status = 206, description = "The range of it.", body = Vec<u8>, content_type = "video/mp4"),
        (status = 304, description = "It is as it was."),
        (status = 403, description = "The link is good no more, or never was.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "It has no such range.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn play_link(
    State(state): State<AppState>,
    Named((link, path)): Named<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let link = state.signed_links.check(&link).await?;
    piece(&state, &link.tenant, &link.video, &path, &method, &headers).await
}

async fn piece(
    state: &AppState,
    tenant: &str,
    id: &str,
    path: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let none = || Problem::new(ProblemKind::NotFound, format!("there is no {path} of video {id}"));
    let content = content(path).ok_or_else(none)?;
    let video = state.job_store.video(tenant, &Id::from_text(id)).await?;
    // A destination is whatever somebody asked for: what lies there is a video only once a job has published it, or grows there.
    let growing = path.contains(LIVE) || video.published.is_some();
    if video.destination.starts_with("http://") || video.destination.starts_with("https://") || !growing {
        return Err(none());
    }
    let location =
        state.object_stores.locate(&video.destination).map_err(spool_media::Error::from)?.child(path);
    let reader = match location.open().await {
        Ok(reader) => reader,
        // Where exactly it lies is nobody's business.
        Err(spool_storage::Error::NotFound { .. } | spool_storage::Error::NotAFile { .. }) => {
            return Err(none());
        }
        Err(error) => return Err(spool_media::Error::from(error).into()),
    };
    let tag = format!("\"{}\"", reader.source().etag.trim_matches('"').replace(['"', '\\'], ""));
    let shared = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, content.cache_control().to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    if headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|known| known.to_str().is_ok_and(|known| known.contains(&tag) || known == "*"))
    {
        return Ok((StatusCode::NOT_MODIFIED, shared).into_response());
    }
    let bytes = reader.source().bytes;
    let range =
        headers.get(header::RANGE).and_then(|range| range.to_str().ok()).map(|range| one_range(range, bytes));
    let (status, range) = match range {
        None | Some(Asked::Whole) => (StatusCode::OK, 0..bytes),
        Some(Asked::Piece(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Asked::Outside) => {
            let problem = Problem::new(ProblemKind::Range, format!("{path} has {bytes} bytes"));
            return Ok(([(header::CONTENT_RANGE, format!("bytes */{bytes}"))], problem).into_response());
        }
    };
    let mut response = (
        status,
        shared,
        [
            (header::CONTENT_TYPE, content.media_type().to_owned()),
            (header::CONTENT_LENGTH, (range.end - range.start).to_string()),
        ],
    )
        .into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let told = format!("bytes {}-{}/{bytes}", range.start, range.end - 1);
        response.headers_mut().extend(told.parse().ok().map(|told| (header::CONTENT_RANGE, told)));
    }
    if *method != Method::HEAD {
        *response.body_mut() = Body::from_stream(pieces(reader, range));
    }
    Ok(response)
}

/// What a name stands for; of a destination nothing else is anybody's business.
fn content(path: &str) -> Option<ObjectKind<'static>> {
    let mut segments = path.split('/');
    let inside = segments.all(|segment| !segment.is_empty() && !segment.starts_with('.'))
        && !path.starts_with("parts/");
    let kind = match path.rsplit_once('.')?.1 {
        _ if path == MASTER => ObjectKind::MultivariantPlaylist,
        // Of what is encoded so far the playlists grow.
        "m3u8" if path.rsplit('/').next()? == LIVE => ObjectKind::MutablePlaylist,
        "m3u8" => ObjectKind::MediaPlaylist,
        "m4s" => ObjectKind::MediaSegment,
        "mp4" => ObjectKind::InitSegment,
        _ => return None,
    };
    inside.then_some(kind)
}

/// What a range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Piece(Range<u64>),
    Outside,
}

/// Reads a range header. Several ranges, other units and what makes no sense are answered with all of it, as they may be.
///
/// Source: RFC 9110 section 14.
fn one_range(text: &str, bytes: u64) -> Asked {
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Asked::Whole;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(bytes),
        (Ok(first), Err(_)) if last.is_empty() => first..bytes,
        (Err(_), Ok(last)) if first.is_empty() => bytes.saturating_sub(last)..bytes,
        _ => return Asked::Whole,
    };
    if range.is_empty() { Asked::Outside } else { Asked::Piece(range) }
}

/// A range in pieces, each read when it is wanted.
fn pieces(
    reader: SourceReader,
    range: Range<u64>,
) -> impl futures::Stream<Item = Result<Bytes, spool_storage::Error>> {
    stream::try_unfold((reader, range), |(reader, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let end = range.end.min(range.start + PIECE);
        let bytes = reader.read(range.start..end).await?;
        Ok(Some((bytes, (reader, end..range.end))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_played_is_played() {
        assert_eq!(content("master.m3u8"), Some(ObjectKind::MultivariantPlaylist));
        assert_eq!(content("720p/ab12.m3u8"), Some(ObjectKind::MediaPlaylist));
        assert_eq!(content("720p/3-ab12.m4s"), Some(ObjectKind::MediaSegment));
        assert_eq!(content("720p/init-ab12.mp4"), Some(ObjectKind::InitSegment));
        for path in [
            "parts/ab12.json",
            "parts/ab12.mp4",
            "../other/master.m3u8",
            "720p/../../x.mp4",
            ".spool-lock",
            "a//b.mp4",
            "/etc/passwd",
            "x",
        ] {
            assert_eq!(content(path), None, "{path}");
        }
    }

    #[test]
    fn ranges_are_what_they_say() {
        assert_eq!(one_range("bytes=0-9", 100), Asked::Piece(0..10));
        assert_eq!(one_range("bytes=90-", 100), Asked::Piece(90..100));
        assert_eq!(one_range("bytes=-10", 100), Asked::Piece(90..100));
        assert_eq!(one_range("bytes=-1000", 100), Asked::Piece(0..100));
        assert_eq!(one_range("bytes=50-1000", 100), Asked::Piece(50..100));
        assert_eq!(one_range("bytes=100-", 100), Asked::Outside);
        assert_eq!(one_range("bytes=-0", 100), Asked::Outside);
        assert!(
            ["bytes=5-4", "bytes=a-b", "bytes=0-1,5-6", "items=0-1", ""]
                .iter()
                .all(|text| one_range(text, 100) == Asked::Whole)
        );
        assert_eq!(one_range(&format!("bytes=0-{}", u64::MAX), 100), Asked::Piece(0..100));
    }
}
