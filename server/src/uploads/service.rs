//! Upload service: writes the bytes of an upload to the object store in parts. Each part is recorded once it
//! is stored, so that another request, to another server, continues after it. A server keeps one part of each
//! upload in memory, and nothing on a local disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::body::BodyDataStream;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use spool_jobs::{Id, JobSpec, NewUpload, Upload, UploadLease, UploadStore};
use spool_storage::{ConcurrencyLimit, ConcurrencyPermit, Location, ObjectKind, Stores, part_bytes};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    auth::principal::Principal,
    background::lease_loop::{LeaseLoop, run_leased},
    problem::{Problem, ProblemKind},
    uploads::{checksum::Checksum, media_type::media_type},
};

/// Time after which an upload that received nothing more is aborted.
pub(crate) const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Maximum length of an upload, in bytes.
pub(crate) const MAX_BYTES: u64 = 500 << 30;

/// Time for which a request may send no bytes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Minimum number of bytes that a request must send in each window: slow requests withhold permits from
/// others.
const RATE_WINDOW: Duration = Duration::from_secs(60);
const MIN_BYTES_PER_WINDOW: u64 = 64 << 10;

/// Maximum of requests that transfer bytes at a time, and time that further requests wait for a permit. Each
/// request keeps a part of 5 MiB in memory, or of more if the upload is longer than 48 GiB.
const MAX_TRANSFERS: usize = 8;
const PERMIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum of small uploads at a time: each is in memory as a whole.
const MAX_SMALL_UPLOADS: usize = 32;

/// Lease of a request on its upload, and interval of its renewals.
const LEASE: Duration = Duration::from_secs(5);
const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between queries for uploads that no request finished.
const EXPIRY_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Name of an upload whose client gives none.
const DEFAULT_NAME: &str = "source";

/// Media type of the bytes after the last complete part of an upload.
const REMAINDER_TYPE: &str = "application/octet-stream";

/// Creates, receives, finishes and expires uploads.
#[derive(Clone)]
pub(crate) struct UploadService {
    pub(crate) upload_store: Arc<dyn UploadStore>,
    pub(crate) object_stores: Stores,
    root: Arc<str>,
    transfers: ConcurrencyLimit,
    small_uploads: ConcurrencyLimit,
}

/// Upload as its client declares it.
pub(crate) struct UploadSpec {
    tenant: String,
    name: String,
    metadata: BTreeMap<String, String>,
    media_type: String,
    bytes: u64,
    once: Option<Id>,
}

impl UploadSpec {
    /// Keeps only the last component of the file's name; a name that begins with a dot is replaced, since
    /// such names are temporary files of the store or folders.
    pub(crate) fn new(
        principal: &Principal,
        name: &str,
        metadata: BTreeMap<String, String>,
        bytes: u64,
    ) -> Self {
        let name: String =
            name.rsplit(['/', '\\']).next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        let name = if name.is_empty() || name.starts_with('.') { DEFAULT_NAME.to_owned() } else { name };
        // The key by which tus clients declare it (tus-js-client, Uppy).
        let media_type = media_type(metadata.get("filetype").map(String::as_str), &name);
        let (tenant, once) = (principal.tenant.clone(), principal.upload_token_id());
        Self { tenant, name, metadata, media_type, bytes, once }
    }

    /// Sets the media type to the one that the client declares, if it is one of video or audio, and returns
    /// the updated value.
    pub(crate) fn with_declared_type(mut self, declared: Option<&str>) -> Self {
        self.media_type = media_type(declared, &self.name);
        self
    }

    fn kind(&self) -> ObjectKind<'_> {
        ObjectKind::Upload(&self.media_type)
    }

    /// Returns the declared length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl UploadService {
    pub(crate) fn new(upload_store: Arc<dyn UploadStore>, object_stores: Stores, root: &str) -> Self {
        Self {
            upload_store,
            object_stores,
            root: Arc::from(root),
            transfers: ConcurrencyLimit::new("upload transfers", MAX_TRANSFERS),
            small_uploads: ConcurrencyLimit::new("small uploads", MAX_SMALL_UPLOADS),
        }
    }

    /// Returns the number of requests that transfer bytes now.
    pub(crate) fn active_transfers(&self) -> usize {
        self.transfers.in_use()
    }

    /// Waits for a permit to receive an upload that is small enough for memory. No byte needs to be read
    /// before.
    pub(crate) async fn small_upload_permit(&self) -> Result<ConcurrencyPermit, Problem> {
        self.small_uploads.acquire_within(PERMIT_TIMEOUT).await.ok_or_else(too_many_uploads)
    }

    /// Returns an upload of a tenant.
    pub(crate) async fn get(&self, tenant: &str, id: &Id) -> Result<Upload, Problem> {
        Ok(self.upload_store.upload(tenant, id).await?)
    }

    /// Creates an upload. `order` returns the job to create from the finished upload, by its URI.
    pub(crate) async fn create(
        &self,
        spec: UploadSpec,
        order: impl FnOnce(&str) -> Result<Option<JobSpec>, Problem>,
    ) -> Result<Upload, Problem> {
        if spec.bytes == 0 {
            return self.create_finished(spec, Bytes::new(), order).await;
        }
        let (id, location) = self.new_location(&spec)?;
        let order = validated(order(location.uri())?)?;
        let token = location.create_multipart(spec.kind()).await.map_err(spool_media::Error::from)?;
        let new = new_upload(spec, id, &location, token, order);
        let recorded = self.upload_store.create_upload(&new, false).await;
        if matches!(&recorded, Err(error) if is_rejection(error)) {
            // Without a record, expiry would never abort the multipart upload.
            location.abort_multipart(&new.token).await.map_err(spool_media::Error::from)?;
        }
        Ok(recorded?)
    }

    /// Creates an upload whose bytes are all in memory, and finishes it.
    pub(crate) async fn create_finished(
        &self,
        spec: UploadSpec,
        bytes: Bytes,
        order: impl FnOnce(&str) -> Result<Option<JobSpec>, Problem>,
    ) -> Result<Upload, Problem> {
        let (id, location) = self.new_location(&spec)?;
        let order = validated(order(location.uri())?)?;
        location.put(bytes, spec.kind()).await.map_err(spool_media::Error::from)?;
        let new = new_upload(spec, id, &location, String::new(), order);
        let recorded = self.upload_store.create_upload(&new, true).await;
        if matches!(&recorded, Err(error) if is_rejection(error)) {
            location.delete().await.map_err(spool_media::Error::from)?;
        }
        Ok(recorded?)
    }

    /// Takes the lease of an open upload.
    pub(crate) async fn lease(&self, tenant: &str, id: &Id) -> Result<UploadLease, Problem> {
        Ok(self.upload_store.lease_upload(tenant, id, LEASE).await?)
    }

    /// Runs `work` while the lease on its upload is renewed, and releases the lease afterwards. A lost lease
    /// ends the work.
    pub(crate) async fn with_lease<T>(
        &self,
        lease: &UploadLease,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let renewed = async {
            let mut renew = interval(RENEW_INTERVAL);
            loop {
                renew.tick().await;
                match self.upload_store.renew_upload(lease, LEASE).await {
                    Ok(()) => {}
                    Err(error @ spool_jobs::Error::LeaseLost { .. }) => return error,
                    // The store may respond in time for the next renewal; it refuses writes of a lost lease
                    // anyway.
                    Err(error) => {
                        warn!(upload = %lease.upload.id, %error, "failed to renew the lease of an upload")
                    }
                }
            }
        };
        let done = tokio::select! {
            biased;
            done = work => done,
            lost = renewed => return Err(lost.into()),
        };
        // A finished or aborted upload has no lease to release.
        let _ = self.upload_store.renew_upload(lease, Duration::ZERO).await;
        done
    }

    /// Appends the bytes that a request sends. The work is a task of its own, so that bytes that arrived are
    /// recorded even if the client disconnects.
    pub(crate) async fn append(
        &self,
        lease: UploadLease,
        body: BodyDataStream,
        checksum: Option<Checksum>,
    ) -> Result<Upload, Problem> {
        let service = self.clone();
        let appended = tokio::spawn(async move {
            let work = async {
                let permit = service.transfers.acquire_within(PERMIT_TIMEOUT).await;
                let _permit = permit.ok_or_else(too_many_uploads)?;
                service.receive(&lease, body, checksum).await
            };
            service.with_lease(&lease, work).await
        });
        appended.await.unwrap_or_else(|_| Err(panicked()))
    }

    async fn receive(
        &self,
        lease: &UploadLease,
        mut body: BodyDataStream,
        mut checksum: Option<Checksum>,
    ) -> Result<Upload, Problem> {
        let upload = &lease.upload;
        let part_bytes = part_bytes(upload.bytes);
        let location = self.object_stores.locate(&upload.location).map_err(spool_media::Error::from)?;
        let mut parts = upload.parts.clone();
        let mut stored = parts.len() as u64 * part_bytes;
        let mut buffer = self.read_remainder(upload, stored).await?;
        let mut received = upload.received;
        let mut window = (Instant::now(), received);
        let interrupted = loop {
            let chunk = match next_chunk(&mut body).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break None,
                Err(problem) => break Some(problem),
            };
            if chunk.len() as u64 > upload.bytes - received {
                let detail =
                    format!("the request has more bytes than the {} that were declared", upload.bytes);
                return Err(Problem::new(ProblemKind::TooLarge, detail));
            }
            received += chunk.len() as u64;
            if let Some(checksum) = &mut checksum {
                checksum.update(&chunk);
            }
            buffer.extend_from_slice(&chunk);
            while buffer.len() as u64 >= part_bytes {
                let bytes = buffer.split_to(usize::try_from(part_bytes).unwrap_or(usize::MAX)).freeze();
                self.put_part(&location, upload, &mut parts, stored, bytes).await?;
                stored += part_bytes;
                // With a checksum, parts are recorded only once it matches; until then the next request
                // replaces them.
                if checksum.is_none() {
                    self.upload_store.advance_upload(lease, stored, &parts, RETENTION).await?;
                }
            }
            if window.0.elapsed() >= RATE_WINDOW {
                if received - window.1 < MIN_BYTES_PER_WINDOW {
                    break Some(too_slow());
                }
                window = (Instant::now(), received);
            }
        };
        if let Some(checksum) = checksum {
            match interrupted {
                Some(problem) => return Err(problem),
                None => checksum.verify()?,
            }
        }
        if received == upload.bytes && !buffer.is_empty() {
            self.put_part(&location, upload, &mut parts, stored, buffer.freeze()).await?;
        } else if !buffer.is_empty() {
            let remainder = self.remainder_location(upload, received)?;
            remainder
                .put(buffer.freeze(), ObjectKind::Upload(REMAINDER_TYPE))
                .await
                .map_err(spool_media::Error::from)?;
        }
        self.upload_store.advance_upload(lease, received, &parts, RETENTION).await?;
        if upload.received > upload.parts.len() as u64 * part_bytes && received > upload.received {
            self.delete_remainder(upload).await;
        }
        let mut now = UploadLease {
            upload: Upload { received, parts, ..upload.clone() },
            fencing_token: lease.fencing_token,
        };
        if received == upload.bytes {
            now.upload = self.complete(&now).await?;
        }
        match interrupted {
            Some(problem) if received < upload.bytes => Err(problem),
            _ => Ok(now.upload),
        }
    }

    async fn put_part(
        &self,
        location: &Location,
        upload: &Upload,
        parts: &mut Vec<String>,
        start: u64,
        bytes: Bytes,
    ) -> Result<(), Problem> {
        let part = location.put_part(&upload.token, parts.len(), start, bytes).await;
        parts.push(part.map_err(spool_media::Error::from)?);
        Ok(())
    }

    /// Finishes an upload all of whose bytes are stored.
    pub(crate) async fn finish(&self, lease: &UploadLease) -> Result<Upload, Problem> {
        self.with_lease(lease, self.complete(lease)).await
    }

    /// Finishes an upload whose lease is renewed elsewhere. Each step is idempotent, so that another server
    /// can continue after one that stops midway.
    pub(crate) async fn complete(&self, lease: &UploadLease) -> Result<Upload, Problem> {
        let upload = &lease.upload;
        let location = self.object_stores.locate(&upload.location).map_err(spool_media::Error::from)?;
        location
            .complete_multipart(&upload.token, &upload.parts, upload.bytes)
            .await
            .map_err(spool_media::Error::from)?;
        let finished = self.upload_store.finish_upload(lease).await?;
        let job = finished.job.as_ref().map(tracing::field::display);
        info!(upload = %finished.id, bytes = finished.bytes, job, "upload finished");
        Ok(finished)
    }

    /// Aborts an upload and deletes its bytes.
    pub(crate) async fn abort(&self, lease: &UploadLease) -> Result<(), Problem> {
        let upload = &lease.upload;
        // Recorded first: no request appends to an upload whose bytes may be deleted.
        self.upload_store.abort_upload(lease).await?;
        let location = self.object_stores.locate(&upload.location).map_err(spool_media::Error::from)?;
        location.abort_multipart(&upload.token).await.map_err(spool_media::Error::from)?;
        // A server may have completed the object and stopped before it recorded that. No other object has
        // this location.
        location.delete().await.map_err(spool_media::Error::from)?;
        self.delete_remainder(upload).await;
        Ok(())
    }

    /// Finishes or aborts uploads that no request finished, until `shutdown` fires.
    pub(crate) async fn run_expiry(self, shutdown: CancellationToken) {
        let pace = LeaseLoop {
            name: "upload expiry",
            poll_interval: EXPIRY_POLL_INTERVAL,
            concurrency: 1,
            max_per_poll: usize::MAX,
        };
        let work = |lease| {
            let service = self.clone();
            async move { service.finish_or_abort(&lease).await }
        };
        run_leased(pace, shutdown, || self.upload_store.lease_abandoned_upload(LEASE), work).await;
    }

    async fn finish_or_abort(&self, lease: &UploadLease) {
        let complete = lease.upload.received == lease.upload.bytes;
        let done = if complete { self.finish(lease).await.map(drop) } else { self.abort(lease).await };
        match done {
            Ok(()) => info!(upload = %lease.upload.id, complete, "expired upload finished or aborted"),
            Err(problem) => {
                let error = problem.detail;
                warn!(upload = %lease.upload.id, complete, error, "failed to finish or abort an upload");
            }
        }
    }

    /// Reads the bytes after the last complete part, which a request left behind.
    async fn read_remainder(&self, upload: &Upload, stored: u64) -> Result<BytesMut, Problem> {
        if upload.received == stored {
            return Ok(BytesMut::new());
        }
        let location = self.remainder_location(upload, upload.received)?;
        let reader = location.open().await.map_err(spool_media::Error::from)?;
        let bytes = reader.read(0..upload.received - stored).await.map_err(spool_media::Error::from)?;
        Ok(BytesMut::from(&bytes[..]))
    }

    async fn delete_remainder(&self, upload: &Upload) {
        if let Ok(location) = self.remainder_location(upload, upload.received)
            && let Err(error) = location.delete().await
        {
            warn!(%location, %error, "failed to delete the remainder of an upload");
        }
    }

    fn remainder_location(&self, upload: &Upload, received: u64) -> Result<Location, Problem> {
        Ok(self.root()?.child(&format!("{}/{}.rest/{received}", upload.tenant, upload.id)))
    }

    /// Returns a new ID, and the location of the upload's object.
    fn new_location(&self, spec: &UploadSpec) -> Result<(Id, Location), Problem> {
        if spec.bytes > MAX_BYTES {
            let detail = format!("the upload has {} bytes; at most {MAX_BYTES} are accepted", spec.bytes);
            return Err(Problem::new(ProblemKind::TooLarge, detail));
        }
        let id = Id::upload();
        let location = self.root()?.child(&spec.tenant).child(id.as_str()).child(&spec.name);
        Ok((id, location))
    }

    pub(crate) fn root(&self) -> Result<Location, Problem> {
        Ok(self.object_stores.locate(&self.root).map_err(spool_media::Error::from)?)
    }
}

/// Returns the next bytes of a request, or `None` at its end.
async fn next_chunk(body: &mut BodyDataStream) -> Result<Option<Bytes>, Problem> {
    match timeout(IDLE_TIMEOUT, body.next()).await {
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(None) => Ok(None),
        Ok(Some(Err(_))) => {
            let detail = "the request ended before its declared length";
            Err(Problem::new(ProblemKind::Malformed, detail))
        }
        Err(_) => {
            let detail = format!("no bytes received for {} s", IDLE_TIMEOUT.as_secs());
            Err(Problem::new(ProblemKind::RequestTimeout, detail))
        }
    }
}

fn too_slow() -> Problem {
    let detail = format!(
        "received less than {MIN_BYTES_PER_WINDOW} bytes within {} s; the upload can be resumed",
        RATE_WINDOW.as_secs()
    );
    Problem::new(ProblemKind::RequestTimeout, detail)
}

fn too_many_uploads() -> Problem {
    Problem::new(ProblemKind::TooManyConcurrent, "too many uploads at a time on this server; retry later")
}

/// Returns the problem of a task that panicked.
pub(super) fn panicked() -> Problem {
    Problem::new(ProblemKind::Internal, "the upload failed in the server; see the server's log")
}

/// Returns whether the database refused a write. A database that failed may still have written.
fn is_rejection(error: &spool_jobs::Error) -> bool {
    !matches!(error, spool_jobs::Error::Database { .. })
}

/// Checks the job of an upload before its bytes are received.
fn validated(order: Option<JobSpec>) -> Result<Option<JobSpec>, Problem> {
    if let Some(order) = &order {
        order.check()?;
    }
    Ok(order)
}

fn new_upload(
    spec: UploadSpec,
    id: Id,
    location: &Location,
    token: String,
    order: Option<JobSpec>,
) -> NewUpload {
    let UploadSpec { tenant, name, metadata, media_type: _, bytes, once } = spec;
    NewUpload {
        id,
        tenant,
        name,
        metadata,
        location: location.uri().to_owned(),
        token,
        bytes,
        spec: order,
        upload_token: once,
        expires_after: RETENTION,
    }
}
