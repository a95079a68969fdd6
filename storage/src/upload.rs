//! Lengths of parts in multipart uploads.

/// Shortest part, except the last: S3 accepts no shorter ones.
const PART_MIN_BYTES: u64 = 5 << 20;

/// Most parts of an object, and the unit of their lengths.
const PARTS_MAX: u64 = 10_000;
const PART_STEP_BYTES: u64 = 1 << 20;

/// Returns the length of every part but the last for an object of `bytes` bytes. A receiver holds one part in
/// memory.
pub fn part_bytes(bytes: u64) -> u64 {
    bytes.div_ceil(PARTS_MAX).next_multiple_of(PART_STEP_BYTES).max(PART_MIN_BYTES)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{ObjectKind, Stores};

    #[test]
    fn parts_are_as_short_as_stores_and_lengths_allow() {
        assert_eq!(part_bytes(0), 5 << 20);
        assert_eq!(part_bytes(100 << 20), 5 << 20);
        assert_eq!(part_bytes(500 << 30), 52 << 20);
        for gigabytes in [1_u64, 50, 48, 49, 100, 1000] {
            let bytes = gigabytes << 30;
            assert!(bytes.div_ceil(part_bytes(bytes)) <= PARTS_MAX, "{gigabytes} GiB");
        }
    }

    #[tokio::test]
    async fn a_file_appears_when_all_of_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in/talk.mp4");
        let location = Stores::with_options::<&str, &str>([]).locate(path.to_str().unwrap()).unwrap();
        let upload = location.create_multipart(ObjectKind::Record).await.unwrap();
        location.put_part(&upload, 1, 3, Bytes::from_static(b"def")).await.unwrap();
        location.put_part(&upload, 0, 0, Bytes::from_static(b"xyz")).await.unwrap();
        location.put_part(&upload, 0, 0, Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(location.size().await.unwrap(), None);
        location.complete_multipart(&upload, &[], 6).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abcdef");
        location.complete_multipart(&upload, &[], 6).await.unwrap();
        assert!(location.complete_multipart(&upload, &[], 7).await.is_err(), "that is another one");
        assert!(location.put_part(&upload, 2, 6, Bytes::from_static(b"ghi")).await.is_err());
        let other = location.create_multipart(ObjectKind::Record).await.unwrap();
        location.abort_multipart(&other).await.unwrap();
        location.abort_multipart(&other).await.unwrap();
        let names: Vec<_> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["talk.mp4"]);
        assert!(
            location.abort_multipart("../talk.mp4").await.is_err() && path.exists(),
            "a name of a store's own leads nowhere else"
        );
    }
}
