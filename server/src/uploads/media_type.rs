//! Media type of an upload: the declared type if it is one of video or audio, else that of the name's
//! extension.

/// Type of an upload for which neither the client nor the name gives a type.
const UNKNOWN: &str = "application/octet-stream";

/// Maximum length of a type or subtype (RFC 6838 section 4.2).
const MAX_NAME: usize = 127;

/// Types of media outside of `video/` and `audio/`.
const APPLICATION_TYPES: [&str; 3] = ["application/mp4", "application/mxf", "application/ogg"];

/// Media types by the extension of a file's name.
///
/// Source: IANA, "Media Types"; for unregistered extensions, Apache's `mime.types`.
const BY_EXTENSION: [(&str, &str); 28] = [
    ("3g2", "video/3gpp2"),
    ("3gp", "video/3gpp"),
    ("aac", "audio/aac"),
    ("avi", "video/vnd.avi"),
    ("flac", "audio/flac"),
    ("flv", "video/x-flv"),
    ("m2ts", "video/mp2t"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("mka", "audio/matroska"),
    ("mkv", "video/matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("mts", "video/mp2t"),
    ("mxf", "application/mxf"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("qt", "video/quicktime"),
    ("ts", "video/mp2t"),
    ("vob", "video/mpeg"),
    ("wav", "audio/vnd.wave"),
    ("webm", "video/webm"),
    ("wmv", "video/x-ms-wmv"),
];

/// Returns the media type of an upload by the type that its client declares and by its name.
pub(super) fn media_type(declared: Option<&str>, name: &str) -> String {
    declared.and_then(media).unwrap_or_else(|| by_extension(name).unwrap_or(UNKNOWN).to_owned())
}

/// Returns a declared type without its parameters, if it is one of video or audio: the default type of a
/// client, such as curl's `application/x-www-form-urlencoded`, describes the request and not the file.
fn media(declared: &str) -> Option<String> {
    let essence = declared.split(';').next()?.trim().to_ascii_lowercase();
    let (kind, subtype) = essence.split_once('/')?;
    let is_media = matches!(kind, "video" | "audio") && is_name(subtype);
    (is_media || APPLICATION_TYPES.contains(&essence.as_str())).then_some(essence)
}

/// Returns whether a text is a name as RFC 6838 section 4.2 restricts it.
fn is_name(text: &str) -> bool {
    let allowed = |char: char| char.is_ascii_alphanumeric() || "!#$&-^_.+".contains(char);
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(allowed)
}

fn by_extension(name: &str) -> Option<&'static str> {
    let extension = name.rsplit_once('.')?.1.to_ascii_lowercase();
    BY_EXTENSION.iter().find(|(known, _)| *known == extension).map(|(_, media_type)| *media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_type_of_media_is_kept_without_its_parameters() {
        for (declared, expected) in [
            ("video/x-matroska", "video/x-matroska"),
            ("Audio/MPEG", "audio/mpeg"),
            ("video/mp4; codecs=\"avc1.640028\"", "video/mp4"),
            ("application/mxf", "application/mxf"),
        ] {
            assert_eq!(media_type(Some(declared), "talk.mov"), expected);
        }
    }

    #[test]
    fn another_type_gives_way_to_the_extension() {
        for declared in [
            "application/x-www-form-urlencoded",
            "application/octet-stream",
            "text/html",
            "video/",
            "video/a b",
            "video/\r\nx: y",
            "",
        ] {
            assert_eq!(media_type(Some(declared), "talk.MOV"), "video/quicktime", "{declared:?}");
        }
        assert_eq!(media_type(None, "a.b.mxf"), "application/mxf");
    }

    #[test]
    fn an_unknown_upload_is_a_stream_of_octets() {
        for name in ["source", "notes.txt", "mp4", "talk."] {
            assert_eq!(media_type(None, name), UNKNOWN, "{name}");
        }
    }
}
