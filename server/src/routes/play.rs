//! Playback routes: serve the playlists and media segments of published videos from their object store.

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
use spool_media::package::{early_playback::EARLY_MASTER, publish::MASTER};
use spool_storage::{ObjectKind, SourceReader};

use super::extract::PathParams;
use crate::{
    app_state::AppState,
    auth::principal::Tenant,
    problem::{Problem, ProblemKind},
};

/// Bytes that are read from the object store at a time, and kept in memory for each client.
const READ_BYTES: u64 = 1 << 20;

/// Folder of the part records at a destination, which players do not read.
const PARTS_FOLDER: &str = "parts/";

/// Returns a file of a published video.
///
/// `master.m3u8` is the multivariant playlist, which leads to all other files.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}/play/{path}",
    operation_id = "play",
    tag = "videos",
    params(
        ("id" = String, Path, description = "Id of the video, `video_…`."),
        ("path" = String, Path, description = "Path of the file, as the playlists name the file."),
        ("Range" = Option<String>, Header, description = "One range of bytes (RFC 9110 section 14)."),
        ("If-None-Match" = Option<String>, Header, description = "ETag of the client's copy of the file."),
    ),
    responses(
        (
            status = 200, description = "The file from start to end.",
            content((String = "application/vnd.apple.mpegurl"), (Vec<u8> = "video/mp4"))
        ),
        (
            status = 206, description = "The requested range of the file.",
            body = Vec<u8>, content_type = "video/mp4"
        ),
        (status = 304, description = "The client's copy is current."),
        (status = 404, description = "The tenant has no video with this id and file."),
        (status = 416, description = "The range lies outside the file."),
    )
)]
pub(super) async fn play(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams((id, path)): PathParams<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    serve_file(&state, &tenant, &id, &path, &method, &headers).await
}

/// Returns a file of a published video, by a signed link.
///
/// `POST /v1/videos/{id}/links` creates the link, which is the credential. Pages of every origin may use the
/// link.
#[utoipa::path(
    get,
    path = "/v1/play/{link}/{path}",
    operation_id = "play_by_link",
    tag = "videos",
    params(
        ("link" = String, Path, description = "The signed part of the link."),
        ("path" = String, Path, description = "Path of the file, as the playlists name the file."),
        ("Range" = Option<String>, Header, description = "One range of bytes (RFC 9110 section 14)."),
        ("If-None-Match" = Option<String>, Header, description = "ETag of the client's copy of the file."),
    ),
    responses(
        (
            status = 200, description = "The file from start to end.",
            content((String = "application/vnd.apple.mpegurl"), (Vec<u8> = "video/mp4"))
        ),
        (
            status = 206, description = "The requested range of the file.",
            body = Vec<u8>, content_type = "video/mp4"
        ),
        (status = 304, description = "The client's copy is current."),
        (status = 403, description = "The link is invalid or has expired."),
        (status = 404, description = "The video has no such file."),
        (status = 416, description = "The range lies outside the file."),
    )
)]
pub(super) async fn play_by_link(
    State(state): State<AppState>,
    PathParams((link, path)): PathParams<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let link = state.link_signer.verify(&link).await?;
    serve_file(&state, &link.tenant, &link.video, &path, &method, &headers).await
}

async fn serve_file(
    state: &AppState,
    tenant: &str,
    id: &str,
    path: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let not_found = || Problem::new(ProblemKind::NotFound, format!("video {id} has no file {path}"));
    let kind = file_kind(path).ok_or_else(not_found)?;
    let video = state.job_store.video(tenant, &Id::from_text(id)).await?;
    // The client chooses the destination, which may contain other files: files are served only once a job has
    // published the video, or as playlists of early playback.
    let is_playable = path.contains(EARLY_MASTER) || video.published.is_some();
    let is_web = video.destination.starts_with("http://") || video.destination.starts_with("https://");
    if is_web || !is_playable {
        return Err(not_found());
    }
    let location = state.object_stores.locate(&video.destination)?.child(path);
    let reader = match location.open().await {
        Ok(reader) => reader,
        // The storage error would reveal the destination.
        Err(spool_storage::Error::NotFound { .. } | spool_storage::Error::NotAFile { .. }) => {
            return Err(not_found());
        }
        Err(error) => return Err(error.into()),
    };
    let etag = format!("\"{}\"", reader.source().etag.trim_matches('"').replace(['"', '\\'], ""));
    let shared = [
        (header::ETAG, etag.clone()),
        (header::CACHE_CONTROL, kind.cache_control().to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    if matches_etag(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, shared).into_response());
    }
    let bytes = reader.source().bytes;
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (status, range) = match range.map(|range| parse_range(range, bytes)) {
        None | Some(RequestedRange::Whole) => (StatusCode::OK, 0..bytes),
        Some(RequestedRange::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(RequestedRange::Outside) => {
            let problem = Problem::new(ProblemKind::Range, format!("{path} has {bytes} bytes"));
            return Ok(([(header::CONTENT_RANGE, format!("bytes */{bytes}"))], problem).into_response());
        }
    };
    let entity = [
        (header::CONTENT_TYPE, kind.media_type().to_owned()),
        (header::CONTENT_LENGTH, (range.end - range.start).to_string()),
    ];
    let mut response = (status, shared, entity).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let sent = format!("bytes {}-{}/{bytes}", range.start, range.end - 1);
        response.headers_mut().extend(sent.parse().ok().map(|sent| (header::CONTENT_RANGE, sent)));
    }
    if *method != Method::HEAD {
        *response.body_mut() = Body::from_stream(read_range(reader, range));
    }
    Ok(response)
}

fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    let matches = |known: &str| known.contains(etag) || known == "*";
    headers.get_all(header::IF_NONE_MATCH).iter().any(|known| known.to_str().is_ok_and(matches))
}

/// Returns the kind of a file that players read, by the file's name; `None` for every other path below a
/// destination.
fn file_kind(path: &str) -> Option<ObjectKind<'static>> {
    let mut segments = path.split('/');
    let is_below = segments.all(|segment| !segment.is_empty() && !segment.starts_with('.'))
        && !path.starts_with(PARTS_FOLDER);
    let kind = match path.rsplit_once('.')?.1 {
        _ if path == MASTER => ObjectKind::MultivariantPlaylist,
        // Playlists of early playback grow, so that caches must not keep them.
        "m3u8" if path.rsplit('/').next()? == EARLY_MASTER => ObjectKind::MutablePlaylist,
        "m3u8" => ObjectKind::MediaPlaylist,
        "m4s" => ObjectKind::MediaSegment,
        "mp4" => ObjectKind::InitSegment,
        _ => return None,
    };
    is_below.then_some(kind)
}

/// Bytes that a `Range` header requests.
#[derive(Debug, PartialEq, Eq)]
enum RequestedRange {
    Whole,
    Part(Range<u64>),
    Outside,
}

/// Parses a `Range` header for an object of `bytes` bytes. Several ranges, other units and malformed ranges
/// request the whole, as the standard permits.
///
/// Source: RFC 9110 section 14.
fn parse_range(text: &str, bytes: u64) -> RequestedRange {
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return RequestedRange::Whole;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(bytes),
        (Ok(first), Err(_)) if last.is_empty() => first..bytes,
        (Err(_), Ok(last)) if first.is_empty() => bytes.saturating_sub(last)..bytes,
        _ => return RequestedRange::Whole,
    };
    if range.is_empty() { RequestedRange::Outside } else { RequestedRange::Part(range) }
}

/// Reads a range in steps, each when the client has received the previous one.
fn read_range(
    reader: SourceReader,
    range: Range<u64>,
) -> impl futures::Stream<Item = Result<Bytes, spool_storage::Error>> {
    stream::try_unfold((reader, range), |(reader, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let end = range.end.min(range.start + READ_BYTES);
        let bytes = reader.read(range.start..end).await?;
        Ok(Some((bytes, (reader, end..range.end))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_read_playlists_and_media_only() {
        assert_eq!(file_kind("master.m3u8"), Some(ObjectKind::MultivariantPlaylist));
        assert_eq!(file_kind("720p/ab12.m3u8"), Some(ObjectKind::MediaPlaylist));
        assert_eq!(file_kind("720p/3-ab12.m4s"), Some(ObjectKind::MediaSegment));
        assert_eq!(file_kind("720p/init-ab12.mp4"), Some(ObjectKind::InitSegment));
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
            assert_eq!(file_kind(path), None, "{path}");
        }
    }

    #[test]
    fn a_range_header_is_parsed_against_the_length() {
        assert_eq!(parse_range("bytes=0-9", 100), RequestedRange::Part(0..10));
        assert_eq!(parse_range("bytes=90-", 100), RequestedRange::Part(90..100));
        assert_eq!(parse_range("bytes=-10", 100), RequestedRange::Part(90..100));
        assert_eq!(parse_range("bytes=-1000", 100), RequestedRange::Part(0..100));
        assert_eq!(parse_range("bytes=50-1000", 100), RequestedRange::Part(50..100));
        assert_eq!(parse_range("bytes=100-", 100), RequestedRange::Outside);
        assert_eq!(parse_range("bytes=-0", 100), RequestedRange::Outside);
        assert!(
            ["bytes=5-4", "bytes=a-b", "bytes=0-1,5-6", "items=0-1", ""]
                .iter()
                .all(|text| parse_range(text, 100) == RequestedRange::Whole)
        );
        assert_eq!(parse_range(&format!("bytes=0-{}", u64::MAX), 100), RequestedRange::Part(0..100));
    }
}
