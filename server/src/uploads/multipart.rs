//! Multipart uploads by links: a client sends the parts of an upload straight to the object store, by signed
//! links, and not through a server.

use std::time::Duration;

use spool_jobs::{Upload, UploadLease, UploadState};
use spool_storage::{Location, PartLink, part_bytes};

use crate::{
    problem::{Problem, ProblemKind},
    uploads::service::{RETENTION, UploadService, UploadSpec, panicked},
};

/// Time for which a link is valid.
pub(crate) const LINK_LIFETIME: Duration = Duration::from_secs(3600);

/// Maximum number of links per request.
pub(crate) const MAX_LINKS: u64 = 1000;

/// Maximum length of an ETag, in bytes.
const MAX_ETAG: usize = 200;

/// Link for one part of an upload.
pub(crate) struct Part {
    /// Number of the part, from 1.
    pub(crate) number: u64,
    /// Length of the part in bytes.
    pub(crate) bytes: u64,
    /// Signed URL that the part is sent to by `PUT`.
    pub(crate) url: String,
}

/// Returns the number of parts of an upload; all but the last have the same length.
pub(crate) fn part_count(bytes: u64) -> u64 {
    bytes.div_ceil(part_bytes(bytes))
}

impl UploadService {
    /// Returns an error if a multipart upload is empty, or its object store has no signed links.
    pub(crate) fn check_multipart(&self, spec: &UploadSpec) -> Result<(), Problem> {
        if spec.bytes() == 0 {
            return Err(Problem::new(
                ProblemKind::Invalid,
                "bytes: a multipart upload must have at least 1 byte",
            ));
        }
        if self.root()?.has_part_links() {
            return Ok(());
        }
        let detail = "this server's object store has no signed links for parts; send the file to \
                      POST /v1/uploads, in one request or by tus";
        Err(Problem::new(ProblemKind::Invalid, detail))
    }

    /// Signs links for `count` parts of an upload from part `from`, and restarts the time until the upload
    /// expires.
    pub(crate) async fn part_links(
        &self,
        lease: &UploadLease,
        from: u64,
        count: u64,
    ) -> Result<Vec<Part>, Problem> {
        let links = async {
            let upload = check_accepts_parts(&lease.upload)?;
            let (part_bytes, all) = (part_bytes(upload.bytes), part_count(upload.bytes));
            if !(1..=all).contains(&from) || !(1..=MAX_LINKS).contains(&count) {
                let detail = format!("from: must be from 1 to {all}, and count from 1 to {MAX_LINKS}");
                return Err(Problem::new(ProblemKind::Invalid, detail));
            }
            let bytes =
                |number| if number == all { upload.bytes - (all - 1) * part_bytes } else { part_bytes };
            let numbers = from..=all.min(from - 1 + count);
            let parts = numbers
                .clone()
                .map(|number| (usize::try_from(number - 1).unwrap_or(usize::MAX), bytes(number)));
            let parts: Vec<_> = parts.collect();
            let links = self.location(upload)?.part_links(&upload.token, &parts, LINK_LIFETIME).await;
            let links = links.map_err(spool_media::Error::from)?;
            let links = links.ok_or_else(|| {
                Problem::new(
                    ProblemKind::Conflict,
                    "this upload accepts no parts by links; continue it by tus",
                )
            })?;
            self.upload_store.advance_upload(lease, upload.received, &upload.parts, RETENTION).await?;
            Ok(numbers
                .zip(links)
                .map(|(number, PartLink(url))| Part { number, bytes: bytes(number), url })
                .collect())
        };
        self.with_lease(lease, links).await
    }

    /// Completes the object from its parts, by the ETag that the store returned for each, and finishes the
    /// upload. Idempotent. The work is a task of its own, so that it completes even if the client
    /// disconnects.
    pub(crate) async fn complete_multipart(
        &self,
        lease: UploadLease,
        etags: Vec<String>,
    ) -> Result<Upload, Problem> {
        let service = self.clone();
        let completed = tokio::spawn(async move { service.join_parts(&lease, etags).await });
        completed.await.unwrap_or_else(|_| Err(panicked()))
    }

    async fn join_parts(&self, lease: &UploadLease, etags: Vec<String>) -> Result<Upload, Problem> {
        let completed = async {
            let upload = check_accepts_parts(&lease.upload)?;
            check(&etags, part_count(upload.bytes))?;
            let location = self.location(upload)?;
            // Before the upload is recorded as received: a part that the store refuses can be sent again.
            location
                .complete_multipart(&upload.token, &etags, upload.bytes)
                .await
                .map_err(spool_media::Error::from)?;
            let bytes = location.size().await.map_err(spool_media::Error::from)?.unwrap_or_default();
            if bytes != upload.bytes {
                self.abort(lease).await?;
                let detail = format!(
                    "the parts have {bytes} bytes, but {} were declared; create another upload",
                    upload.bytes
                );
                return Err(Problem::new(ProblemKind::Conflict, detail));
            }
            self.upload_store.advance_upload(lease, upload.bytes, &etags, RETENTION).await?;
            let upload = Upload { received: upload.bytes, parts: etags, ..upload.clone() };
            self.complete(&UploadLease { upload, fencing_token: lease.fencing_token }).await
        };
        self.with_lease(lease, completed).await
    }

    fn location(&self, upload: &Upload) -> Result<Location, Problem> {
        Ok(self.object_stores.locate(&upload.location).map_err(spool_media::Error::from)?)
    }
}

/// Returns an error if an upload is finished or aborted, or receives bytes by tus.
pub(crate) fn check_accepts_parts(upload: &Upload) -> Result<&Upload, Problem> {
    if upload.state == UploadState::Open && upload.received == 0 {
        return Ok(upload);
    }
    Err(Problem::new(
        ProblemKind::Conflict,
        format!("upload {} is {} or receives bytes by tus; create another upload", upload.id, upload.state),
    ))
}

fn check(etags: &[String], parts: u64) -> Result<(), Problem> {
    if etags.len() as u64 != parts {
        return Err(Problem::new(
            ProblemKind::Invalid,
            format!("etags: has {} items, but the upload has {parts} parts", etags.len()),
        ));
    }
    let invalid =
        etags.iter().find(|etag| etag.is_empty() || etag.len() > MAX_ETAG || etag.contains(char::is_control));
    invalid.map_or(Ok(()), |invalid| {
        Err(Problem::new(ProblemKind::Invalid, format!("etags: {invalid:?} is not an ETag")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_counts_follow_from_the_length_of_a_part() {
        assert_eq!([1, 5 << 20, (5 << 20) + 1, 500 << 30].map(part_count), [1, 1, 2, 9847]);
    }
}
