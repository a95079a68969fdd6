//! Multipart uploads over hours and through several processes: an acknowledged part is durable, and the
//! object appears as a whole at the end.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{
    PutMultipartOptions, PutPayload,
    multipart::{MultipartStore, PartId},
};

use super::{
    Location, ObjectKind, Place, blocking, clients::Client, error::Error, local, wire::UploadIdSlot,
};

/// The shortest piece, but for the last: S3 takes no shorter ones.
const PIECE_LEAST: u64 = 5 << 20;

/// Pieces of an object at most, and lengths that pieces come in.
const PIECES_MAX: u64 = 10_000;
const PIECE_STEP: u64 = 1 << 20;

/// Length of every piece but the last, of an object of so many bytes. A receiver holds one part in memory.
pub fn part_bytes(bytes: u64) -> u64 {
    bytes.div_ceil(PIECES_MAX).next_multiple_of(PIECE_STEP).max(PIECE_LEAST)
}

impl Location {
    /// Creates a multipart upload of an object of this kind; returns its ID, by which the other calls know
    /// it.
    ///
    /// Azure has no such IDs, and takes no media type with the parts: there the object gets the store's
    /// default, `application/octet-stream`.
    ///
    /// # Errors
    /// As [`Location::put`].
    pub async fn create_multipart(&self, kind: ObjectKind<'_>) -> Result<String, Error> {
        match &self.place {
            Place::Local(path) => {
                let path = path.clone();
                blocking(move || local::create_multipart(&path)).await.map_err(|e| self.system(e))
            }
            Place::Bucket { client, key } => {
                self.pieces(client)?;
                // `MultipartStore::create_multipart` takes no attributes, and `put_multipart_opts` does not
                // return the ID: it is read off the wire.
                let (slot, mut options) = (UploadIdSlot::default(), PutMultipartOptions::default());
                options.attributes = kind.attributes();
                options.extensions.insert(slot.clone());
                let created = client.store.put_multipart_opts(key, options).await;
                created.map_err(|e| client.error(&self.shown, &e))?;
                Ok(slot.take())
            }
            Place::Web { .. } => Err(self.read_only()),
        }
    }

    /// Keeps a piece of `upload`, by its number from 0 and where it begins; gives what the end needs of it.
    /// The same number again replaces it.
    ///
    /// # Errors
    /// As [`Location::put`]; [`Error::NotFound`] where the upload is complete or given up.
    pub async fn put_part(
        &self,
        upload: &str,
        number: usize,
        start: u64,
        bytes: Bytes,
    ) -> Result<String, Error> {
        match &self.place {
            Place::Local(path) => {
                let (path, upload) = (path.clone(), upload.to_owned());
                let kept = blocking(move || local::put_part(&path, &upload, start, &bytes)).await;
                kept.map(|()| String::new()).map_err(|e| self.system(e))
            }
            Place::Bucket { client, key } => {
                let pieces = self.pieces(client)?;
                let kept =
                    pieces.put_part(key, &upload.to_owned(), number, PutPayload::from_bytes(bytes)).await;
                kept.map(|part| part.content_id).map_err(|e| client.error(&self.shown, &e))
            }
            Place::Web { .. } => Err(self.read_only()),
        }
    }

    /// Makes the object, of so many bytes, of its pieces. Where that was done already, it is done.
    ///
    /// # Errors
    /// As [`Location::put`].
    pub async fn complete_multipart(&self, upload: &str, pieces: &[String], bytes: u64) -> Result<(), Error> {
        let completed = match &self.place {
            Place::Local(path) => {
                let (path, upload) = (path.clone(), upload.to_owned());
                blocking(move || local::complete_multipart(&path, &upload)).await.map_err(|e| self.system(e))
            }
            Place::Bucket { client, key } => {
                let pieces = pieces.iter().map(|piece| PartId { content_id: piece.clone() }).collect();
                let completed =
                    self.pieces(client)?.complete_multipart(key, &upload.to_owned(), pieces).await;
                completed.map(drop).map_err(|e| client.error(&self.shown, &e))
            }
            Place::Web { .. } => Err(self.read_only()),
        };
        match completed {
            // Its answer was lost, or the caller died before it could record it.
            Err(_) if self.size().await? == Some(bytes) => Ok(()),
            completed => completed,
        }
    }

    /// Gives up an object that is not there yet. What is gone is gone.
    ///
    /// # Errors
    /// What the store says.
    pub async fn abort_multipart(&self, upload: &str) -> Result<(), Error> {
        match &self.place {
            Place::Local(path) => {
                let (path, upload) = (path.clone(), upload.to_owned());
                blocking(move || local::abort_multipart(&path, &upload)).await.map_err(|e| self.system(e))
            }
            Place::Bucket { client, key } => {
                match self.pieces(client)?.abort_multipart(key, &upload.to_owned()).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(e) => Err(client.error(&self.shown, &e)),
                }
            }
            Place::Web { .. } => Err(self.read_only()),
        }
    }

    fn pieces<'a>(&self, client: &'a Client) -> Result<&'a Arc<dyn MultipartStore>, Error> {
        client.pieces.as_ref().ok_or_else(|| self.read_only())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stores;

    #[test]
    fn pieces_are_as_short_as_stores_and_lengths_allow() {
        assert_eq!(part_bytes(0), 5 << 20);
        assert_eq!(part_bytes(100 << 20), 5 << 20);
        assert_eq!(part_bytes(500 << 30), 52 << 20);
        for gigabytes in [1_u64, 50, 48, 49, 100, 1000] {
            let bytes = gigabytes << 30;
            assert!(bytes.div_ceil(part_bytes(bytes)) <= PIECES_MAX, "{gigabytes} GiB");
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
