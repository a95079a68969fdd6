//! How does a client send an upload's parts straight to the store? By links that are signed for it; the bytes come past no server.

use std::time::Duration;

use spool_jobs::{Upload, UploadHold, UploadState};
use spool_storage::{Location, PartLink, part_bytes};

use crate::{
    problem::{Problem, ProblemKind},
    uploads::service::{RETENTION, UploadService, UploadSpec},
};

/// How long a link is good.
pub(crate) const LINK_LIFETIME: Duration = Duration::from_secs(3600);

/// Links that are made at a time.
pub(crate) const MAX_LINKS: u64 = 1000;

/// The longest ETag.
const MAX_ETAG: usize = 200;

/// Where a part is sent to.
pub(crate) struct Part {
    /// Its number, from 1.
    pub(crate) number: u64,
    /// Its length.
    pub(crate) bytes: u64,
    pub(crate) url: String,
}

/// How many parts an upload has; each but the last is as long as the first.
pub(crate) fn part_count(bytes: u64) -> u64 {
    bytes.div_ceil(part_bytes(bytes))
}

impl UploadService {
    /// Refuses an upload in parts where the store takes none but from a server.
    pub(crate) fn check_multipart(&self, spec: &UploadSpec) -> Result<(), Problem> {
        if spec.bytes() == 0 {
            return Err(Problem::new(ProblemKind::Invalid, "bytes: an upload in parts has some"));
        }
        if self.root()?.has_part_links() {
            return Ok(());
        }
        let detail = "this server keeps uploads where nobody else can send them: send yours to POST /v1/uploads, at once or by tus";
        Err(Problem::new(ProblemKind::Invalid, detail))
    }

    /// Links for some parts of an upload, which is kept from then on as if something had come.
    pub(crate) async fn part_links(
        &self,
        hold: &UploadHold,
        from: u64,
        count: u64,
    ) -> Result<Vec<Part>, Problem> {
        let links = async {
            let upload = check_accepts_parts(&hold.upload)?;
            let (length, all) = (part_bytes(upload.bytes), part_count(upload.bytes));
            if !(1..=all).contains(&from) || !(1..=MAX_LINKS).contains(&count) {
                let detail = format!("from: it must be from 1 to {all}, and count from 1 to {MAX_LINKS}");
                return Err(Problem::new(ProblemKind::Invalid, detail));
            }
            let bytes = |number| if number == all { upload.bytes - (all - 1) * length } else { length };
            let numbers = from..=all.min(from - 1 + count);
            let pieces = numbers
                .clone()
                .map(|number| (usize::try_from(number - 1).unwrap_or(usize::MAX), bytes(number)));
            let pieces: Vec<_> = pieces.collect();
            let links = self.location(upload)?.part_links(&upload.token, &pieces, LINK_LIFETIME).await;
            let links = links.map_err(spool_media::Error::from)?;
            let links = links.ok_or_else(|| {
                Problem::new(ProblemKind::Conflict, "this upload takes no parts: go on with it by tus")
            })?;
            self.uploads.advance_upload(hold, upload.received, &upload.pieces, RETENTION).await?;
            Ok(numbers
                .zip(links)
                .map(|(number, PartLink(url))| Part { number, bytes: bytes(number), url })
                .collect())
        };
        self.with_lease(hold, links).await
    }

    /// Makes the file of its parts, by what the store answered to each. Where that was done already, it is done. Once begun it is done also where
    /// the client goes away: the work is a task of its own.
    pub(crate) async fn complete_multipart(
        &self,
        hold: UploadHold,
        etags: Vec<String>,
    ) -> Result<Upload, Problem> {
        let service = self.clone();
        let assembled = tokio::spawn(async move { service.join_parts(&hold, etags).await });
        assembled.await.unwrap_or_else(|_| {
            Err(Problem::new(ProblemKind::Internal, "an upload broke off: see the server's log"))
        })
    }

    async fn join_parts(&self, hold: &UploadHold, etags: Vec<String>) -> Result<Upload, Problem> {
        let assembled = async {
            let upload = check_accepts_parts(&hold.upload)?;
            check(&etags, part_count(upload.bytes))?;
            let location = self.location(upload)?;
            // Before it is written down that all is there: what the store refuses can be sent again.
            location
                .complete_multipart(&upload.token, &etags, upload.bytes)
                .await
                .map_err(spool_media::Error::from)?;
            let bytes = location.size().await.map_err(spool_media::Error::from)?.unwrap_or_default();
            if bytes != upload.bytes {
                self.abort(hold).await?;
                let detail = format!(
                    "the parts are {bytes} bytes long, and {} were spec: begin another upload",
                    upload.bytes
                );
                return Err(Problem::new(ProblemKind::Conflict, detail));
            }
            self.uploads.advance_upload(hold, upload.bytes, &etags, RETENTION).await?;
            let upload = Upload { received: upload.bytes, pieces: etags, ..upload.clone() };
            self.complete(&UploadHold { upload, fence: hold.fence }).await
        };
        self.with_lease(hold, assembled).await
    }

    fn location(&self, upload: &Upload) -> Result<Location, Problem> {
        Ok(self.stores.locate(&upload.location).map_err(spool_media::Error::from)?)
    }
}

/// Refuses parts for what is finished, given up, or comes another way.
pub(crate) fn check_accepts_parts(upload: &Upload) -> Result<&Upload, Problem> {
    if upload.state == UploadState::Open && upload.received == 0 {
        return Ok(upload);
    }
    Err(Problem::new(
        ProblemKind::Conflict,
        format!("upload {} is {}, or came by tus: begin another", upload.id, upload.state.word()),
    ))
}

fn check(etags: &[String], parts: u64) -> Result<(), Problem> {
    if etags.len() as u64 != parts {
        return Err(Problem::new(
            ProblemKind::Invalid,
            format!("etags: there are {}, and the upload has {parts} parts", etags.len()),
        ));
    }
    let wrong =
        etags.iter().find(|etag| etag.is_empty() || etag.len() > MAX_ETAG || etag.contains(char::is_control));
    wrong.map_or(Ok(()), |wrong| {
        Err(Problem::new(ProblemKind::Invalid, format!("etags: {wrong:?} is none that a store gives")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_parts_as_it_takes() {
        assert_eq!([1, 5 << 20, (5 << 20) + 1, 500 << 30].map(part_count), [1, 1, 2, 9847]);
    }
}
