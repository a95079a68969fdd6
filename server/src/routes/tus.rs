//! Headers of tus, the protocol of resumable uploads: names, versions, and their parsing.
//!
//! Source: tus resumable upload protocol 1.0.0, with creation, creation-with-upload, expiration, checksum and
//! termination.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use spool_jobs::{Upload, UploadState};

use crate::{
    problem::{Problem, ProblemKind},
    uploads::{
        checksum::{self, Checksum},
        service::MAX_BYTES,
    },
};

const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const VERSION: HeaderName = HeaderName::from_static("tus-version");
const EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
pub(super) const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub(super) const LENGTH: HeaderName = HeaderName::from_static("upload-length");

/// Response headers that pages of other origins need to read.
pub(super) const TUS_RESPONSE_HEADERS: [HeaderName; 8] =
    [RESUMABLE, VERSION, EXTENSION, MAX_SIZE, CHECKSUM_ALGORITHM, OFFSET, LENGTH, EXPIRES];

/// The supported version, the supported extensions, and the media type of a request that carries bytes.
const TUS_VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,expiration,checksum,termination";
const OFFSET_OCTET_STREAM: &str = "application/offset+octet-stream";

/// Maximum length of `Upload-Metadata`, in bytes.
const MAX_METADATA_BYTES: usize = 16 << 10;

/// Adds the supported version to a response, also to that of a refused request.
pub(super) async fn add_tus_version(mut response: Response) -> Response {
    let headers = [RESUMABLE, VERSION].map(|name| (name, HeaderValue::from_static(TUS_VERSION)));
    response.headers_mut().extend(headers);
    response
}

/// Returns the headers that describe the server's support of tus.
pub(super) fn capabilities() -> [(HeaderName, String); 3] {
    [
        (EXTENSION, EXTENSIONS.to_owned()),
        (MAX_SIZE, MAX_BYTES.to_string()),
        (CHECKSUM_ALGORITHM, checksum::ALGORITHMS.to_owned()),
    ]
}

/// Returns whether a request uses tus.
pub(super) fn is_tus(headers: &HeaderMap) -> bool {
    headers.contains_key(RESUMABLE)
}

/// Returns an error if the request uses another version of tus.
pub(super) fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(RESUMABLE).is_some_and(|version| version == TUS_VERSION) {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::Version, format!("Tus-Resumable: must be {TUS_VERSION}")))
}

/// Returns an error if the request's bytes have another media type.
pub(super) fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == OFFSET_OCTET_STREAM) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::UnsupportedMediaType,
        format!("Content-Type: must be {OFFSET_OCTET_STREAM}"),
    ))
}

/// Parses a header that contains a number of bytes.
pub(super) fn byte_count(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| Problem::new(ProblemKind::Malformed, format!("{name}: must be a number of bytes")))
}

/// Parses `Upload-Checksum`.
pub(super) fn parse_checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Problem> {
    headers.get(CHECKSUM).map(|value| Checksum::parse(value.to_str().unwrap_or_default())).transpose()
}

/// Parses `Upload-Metadata`: comma-separated pairs of a name and a base64 text.
pub(super) fn parse_metadata(headers: &HeaderMap) -> Result<BTreeMap<String, String>, Problem> {
    let malformed = || {
        Problem::new(
            ProblemKind::Malformed,
            "Upload-Metadata: must be comma-separated pairs of a name, a blank and the base64 of a text",
        )
    };
    let text = headers.get(METADATA).map(HeaderValue::to_str).transpose().map_err(|_| malformed())?;
    let text = text.unwrap_or_default();
    if text.len() > MAX_METADATA_BYTES {
        return Err(Problem::new(
            ProblemKind::TooLarge,
            format!("Upload-Metadata: must have at most {MAX_METADATA_BYTES} bytes"),
        ));
    }
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = BASE64_STANDARD.decode(value.trim()).ok().and_then(|value| String::from_utf8(value).ok());
        let value = value.filter(|value| !value.contains('\0')).ok_or_else(malformed)?;
        Ok((name.to_owned(), value))
    });
    pairs.collect()
}

/// Returns the headers that report an upload's progress.
pub(super) fn progress_headers(upload: &Upload) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(OFFSET, upload.received.into());
    if upload.state == UploadState::Open {
        let expires = SystemTime::UNIX_EPOCH + Duration::from_millis(upload.expires_ms.unsigned_abs());
        headers.extend(httpdate::fmt_http_date(expires).parse().ok().map(|date| (EXPIRES, date)));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn metadata_is_parsed_into_names_and_texts() {
        let found = parse_metadata(&with(METADATA, "filename dGFsay5tcDQ=, job,empty ")).unwrap();
        let expected = [("filename", "talk.mp4"), ("job", ""), ("empty", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
        assert!(parse_metadata(&HeaderMap::new()).unwrap().is_empty());
    }

    #[test]
    fn malformed_metadata_is_refused() {
        for text in ["filename !", "filename /w==", "a AAA="] {
            assert!(parse_metadata(&with(METADATA, text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_byte_count_is_a_number_without_sign() {
        assert_eq!(byte_count(&with(OFFSET, "12"), &OFFSET).unwrap(), Some(12));
        for text in ["-1", "+1", "1.5", "0x1", "", "99999999999999999999"] {
            assert!(byte_count(&with(OFFSET, text), &OFFSET).is_err(), "{text}");
        }
    }
}
