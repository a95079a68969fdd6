//! Paths and URIs as other processes and people read them.

use crate::error::CliError;

/// Returns a path as another process on the same file system can open it. A URI is returned unchanged.
pub fn absolute(place: &str) -> Result<String, CliError> {
    if place.is_empty() || place.contains("://") {
        return Ok(place.to_owned());
    }
    let path =
        std::path::absolute(place).map_err(|source| CliError::Read { path: place.to_owned(), source })?;
    Ok(path.to_string_lossy().into_owned())
}

/// Returns a `file://` URI as a path, and any other URI unchanged.
pub fn display_uri(uri: &str) -> String {
    url::Url::parse(uri)
        .ok()
        .filter(|url| url.scheme() == "file")
        .and_then(|url| url.to_file_path().ok())
        .map_or_else(|| uri.to_owned(), |path| path.display().to_string())
}

/// Returns the last component of a path or URI, without the query of a presigned link.
pub fn short_name(source: &str) -> String {
    let path = display_uri(&spool_storage::redact(source));
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(&path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_name_is_the_last_component() {
        assert_eq!(short_name("s3://bucket/a/talk.mp4"), "talk.mp4");
        assert_eq!(short_name("file:///a/two%20words.mp4"), "two words.mp4");
    }
}
