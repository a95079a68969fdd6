//! How do an upload's bytes get to where they are kept? In pieces of which each is written down when it is there, so that another request, to
//! another server, goes on behind it. A server holds one part of each upload in memory, and nothing on a disk of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::body::BodyDataStream;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use spool_jobs::{Id, NewUpload, Order, Upload, UploadHold, Uploads};
use spool_storage::{Location, ObjectKind, Stores, part_bytes};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    auth::authenticate::Principal,
    problem::{Problem, ProblemKind},
    uploads::checksum::Checksum,
};

/// How long an upload is kept without more of it.
pub(crate) const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// The longest upload, in bytes.
pub(crate) const MAX_BYTES: u64 = 500 << 30;

/// How long a client may send nothing within a request.
const IDLE: Duration = Duration::from_secs(60);

/// What a client sends at least within this time, in bytes: whoever drips keeps others from their turn.
const WINDOW: Duration = Duration::from_secs(60);
const WINDOW_LEAST: u64 = 64 << 10;

/// Requests that send bytes at a time, and how long others wait for their turn. Each holds a part of 5 MiB, or of more where the upload is
/// longer than 48 GiB.
const TRANSFERS: usize = 8;
const TURN_WITHIN: Duration = Duration::from_secs(60);

/// Small uploads that are taken in at a time: each is whole in memory.
const SMALL_ONES: usize = 32;

/// How long an upload is nobody else's without a word of whoever has it in hand, and how often there is one.
const LEASE: Duration = Duration::from_secs(5);
const RENEW: Duration = Duration::from_secs(1);

/// How often it is looked for what was left.
const LOOK: Duration = Duration::from_secs(10);

/// The name of what comes without one.
const NAMELESS: &str = "source";

/// Where uploads are kept, and what is known of them.
#[derive(Clone)]
pub(crate) struct UploadService {
    pub(crate) uploads: Arc<dyn Uploads>,
    pub(crate) stores: Stores,
    root: Arc<str>,
    transfers: Arc<Semaphore>,
    small: Arc<Semaphore>,
}

/// What a client announces.
pub(crate) struct UploadSpec {
    tenant: String,
    name: String,
    metadata: BTreeMap<String, String>,
    bytes: u64,
    once: Option<Id>,
}

impl UploadSpec {
    /// What a client says of a file. Of its name only the last part counts, and what begins with a dot is ours or a folder's.
    pub(crate) fn new(
        principal: &Principal,
        name: &str,
        metadata: BTreeMap<String, String>,
        bytes: u64,
    ) -> Self {
        let name: String =
            name.rsplit(['/', '\\']).next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        let name = if name.is_empty() || name.starts_with('.') { NAMELESS.to_owned() } else { name };
        Self { tenant: principal.tenant.clone(), name, metadata, bytes, once: principal.upload_token_id() }
    }

    /// How long it will be.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl UploadService {
    pub(crate) fn new(uploads: Arc<dyn Uploads>, stores: Stores, root: &str) -> Self {
        Self {
            uploads,
            stores,
            root: Arc::from(root),
            transfers: Arc::new(Semaphore::new(TRANSFERS)),
            small: Arc::new(Semaphore::new(SMALL_ONES)),
        }
    }

    /// How many requests send bytes now.
    pub(crate) fn active_transfers(&self) -> usize {
        TRANSFERS - self.transfers.available_permits()
    }

    /// The turn of an upload that is small enough to be taken in at once; not a byte of it need be read before.
    pub(crate) async fn small_upload_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = timeout(TURN_WITHIN, self.small.clone().acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(busy)
    }

    /// A tenant's upload.
    pub(crate) async fn get(&self, tenant: &str, id: &Id) -> Result<Upload, Problem> {
        Ok(self.uploads.upload(tenant, id).await?)
    }

    /// Begins an upload; `order` says what is asked for once it is where it will be.
    pub(crate) async fn create(
        &self,
        spec: UploadSpec,
        order: impl FnOnce(&str) -> Result<Option<Order>, Problem>,
    ) -> Result<Upload, Problem> {
        if spec.bytes == 0 {
            return self.create_finished(spec, Bytes::new(), order).await;
        }
        let (id, location) = self.new_location(&spec)?;
        let order = validated(order(location.uri())?)?;
        let token = location.create_multipart().await.map_err(spool_media::Error::from)?;
        let new = new_upload(spec, id, &location, token, order);
        let begun = self.uploads.begin_upload(&new, false).await;
        if matches!(&begun, Err(error) if is_rejection(error)) {
            // What nobody knows of would never go.
            location.abort_multipart(&new.token).await.map_err(spool_media::Error::from)?;
        }
        Ok(begun?)
    }

    /// Keeps what came at once.
    pub(crate) async fn create_finished(
        &self,
        spec: UploadSpec,
        bytes: Bytes,
        order: impl FnOnce(&str) -> Result<Option<Order>, Problem>,
    ) -> Result<Upload, Problem> {
        let (id, location) = self.new_location(&spec)?;
        let order = validated(order(location.uri())?)?;
        location.put(bytes, ObjectKind::Record).await.map_err(spool_media::Error::from)?;
        let new = new_upload(spec, id, &location, String::new(), order);
        let begun = self.uploads.begin_upload(&new, true).await;
        if matches!(&begun, Err(error) if is_rejection(error)) {
            location.delete().await.map_err(spool_media::Error::from)?;
        }
        Ok(begun?)
    }

    /// Takes an upload in hand.
    pub(crate) async fn lease(&self, tenant: &str, id: &Id) -> Result<UploadHold, Problem> {
        Ok(self.uploads.hold_upload(tenant, id, LEASE).await?)
    }

    /// Does something with an upload as long as it is in this hand, and then lets go of it.
    pub(crate) async fn with_lease<T>(
        &self,
        hold: &UploadHold,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let kept = async {
            let mut renew = interval(RENEW);
            loop {
                renew.tick().await;
                match self.uploads.renew_upload(hold, LEASE).await {
                    Ok(()) => {}
                    Err(error @ spool_jobs::Error::Lost { .. }) => return error,
                    // It may be back in time; what is written is checked anyway.
                    Err(error) => warn!(upload = %hold.upload.id, %error, "an upload cannot be kept in hand"),
                }
            }
        };
        let done = tokio::select! {
            biased;
            done = work => done,
            lost = kept => return Err(lost.into()),
        };
        // Of what is finished or given up there is nothing to let go of.
        let _ = self.uploads.renew_upload(hold, Duration::ZERO).await;
        done
    }

    /// Takes in what a request sends. What is kept stays also where the client goes away: the work is a task of its own.
    pub(crate) async fn append(
        &self,
        hold: UploadHold,
        body: BodyDataStream,
        checksum: Option<Checksum>,
    ) -> Result<Upload, Problem> {
        let service = self.clone();
        let taken = tokio::spawn(async move {
            let work = async {
                let turn = timeout(TURN_WITHIN, service.transfers.acquire()).await;
                let Ok(Ok(_turn)) = turn else {
                    return Err(busy());
                };
                service.receive(&hold, body, checksum).await
            };
            service.with_lease(&hold, work).await
        });
        taken.await.unwrap_or_else(|_| {
            Err(Problem::new(ProblemKind::Internal, "an upload broke off: see the server's log"))
        })
    }

    async fn receive(
        &self,
        hold: &UploadHold,
        mut body: BodyDataStream,
        mut checksum: Option<Checksum>,
    ) -> Result<Upload, Problem> {
        let upload = &hold.upload;
        let part = part_bytes(upload.bytes);
        let location = self.stores.locate(&upload.location).map_err(spool_media::Error::from)?;
        let mut pieces = upload.pieces.clone();
        let mut kept = pieces.len() as u64 * part;
        let mut buffer = self.read_remainder(upload, kept).await?;
        let mut received = upload.received;
        let mut window = (Instant::now(), received);
        let broken = loop {
            let chunk = match timeout(IDLE, body.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) => break None,
                Ok(Some(Err(_))) => {
                    break Some(Problem::new(ProblemKind::Malformed, "the request ended before its end"));
                }
                Err(_) => {
                    break Some(Problem::new(
                        ProblemKind::RequestTimeout,
                        format!("nothing came for {} s", IDLE.as_secs()),
                    ));
                }
            };
            if chunk.len() as u64 > upload.bytes - received {
                let detail = format!("more comes than the {} bytes that were announced", upload.bytes);
                return Err(Problem::new(ProblemKind::TooLarge, detail));
            }
            received += chunk.len() as u64;
            if let Some(checksum) = &mut checksum {
                checksum.update(&chunk);
            }
            buffer.extend_from_slice(&chunk);
            while buffer.len() as u64 >= part {
                let bytes = buffer.split_to(usize::try_from(part).unwrap_or(usize::MAX)).freeze();
                self.put_part(&location, upload, &mut pieces, kept, bytes).await?;
                kept += part;
                // What may be wrong is not written down: its pieces are replaced by those that come next.
                if checksum.is_none() {
                    self.uploads.advance_upload(hold, kept, &pieces, RETENTION).await?;
                }
            }
            if window.0.elapsed() >= WINDOW {
                if received - window.1 < WINDOW_LEAST {
                    let detail = format!(
                        "less than {WINDOW_LEAST} bytes came within {} s: what came is kept",
                        WINDOW.as_secs()
                    );
                    break Some(Problem::new(ProblemKind::RequestTimeout, detail));
                }
                window = (Instant::now(), received);
            }
        };
        if let Some(checksum) = checksum {
            match broken {
                Some(problem) => return Err(problem),
                None => checksum.verify()?,
            }
        }
        if received == upload.bytes && !buffer.is_empty() {
            self.put_part(&location, upload, &mut pieces, kept, buffer.freeze()).await?;
        } else if !buffer.is_empty() {
            let rest = self.remainder_location(upload, received)?;
            rest.put(buffer.freeze(), ObjectKind::Record).await.map_err(spool_media::Error::from)?;
        }
        self.uploads.advance_upload(hold, received, &pieces, RETENTION).await?;
        if upload.received > upload.pieces.len() as u64 * part && received > upload.received {
            self.delete_remainder(upload).await;
        }
        let mut now = UploadHold { upload: Upload { received, pieces, ..upload.clone() }, fence: hold.fence };
        if received == upload.bytes {
            now.upload = self.complete(&now).await?;
        }
        match broken {
            Some(problem) if received < upload.bytes => Err(problem),
            _ => Ok(now.upload),
        }
    }

    async fn put_part(
        &self,
        location: &Location,
        upload: &Upload,
        pieces: &mut Vec<String>,
        start: u64,
        bytes: Bytes,
    ) -> Result<(), Problem> {
        let kept = location.put_part(&upload.token, pieces.len(), start, bytes).await;
        pieces.push(kept.map_err(spool_media::Error::from)?);
        Ok(())
    }

    /// Finishes an upload that all of is there.
    pub(crate) async fn finish(&self, hold: &UploadHold) -> Result<Upload, Problem> {
        self.with_lease(hold, self.complete(hold)).await
    }

    /// Whoever dies on the way is followed by another: each step can be done again.
    pub(crate) async fn complete(&self, hold: &UploadHold) -> Result<Upload, Problem> {
        let upload = &hold.upload;
        let location = self.stores.locate(&upload.location).map_err(spool_media::Error::from)?;
        location
            .complete_multipart(&upload.token, &upload.pieces, upload.bytes)
            .await
            .map_err(spool_media::Error::from)?;
        let finished = self.uploads.finish_upload(hold).await?;
        info!(upload = %finished.id, bytes = finished.bytes, job = finished.job.as_ref().map(tracing::field::display), "upload finished");
        Ok(finished)
    }

    /// Gives an upload up, and what is kept of it.
    pub(crate) async fn abort(&self, hold: &UploadHold) -> Result<(), Problem> {
        let upload = &hold.upload;
        // First written down: what is gone is not added to, whoever dies next.
        self.uploads.give_up_upload(hold).await?;
        let location = self.stores.locate(&upload.location).map_err(spool_media::Error::from)?;
        location.abort_multipart(&upload.token).await.map_err(spool_media::Error::from)?;
        // Whoever put its parts together died before it could be written down: it lies where nothing else ever will.
        location.delete().await.map_err(spool_media::Error::from)?;
        self.delete_remainder(upload).await;
        Ok(())
    }

    /// Finishes and gives up what was left, until the server leaves.
    pub(crate) async fn run_expiry(self, leave: CancellationToken) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                () = leave.cancelled() => return,
                _ = look.tick() => {}
            }
            loop {
                match self.uploads.hold_left_upload(LEASE).await {
                    Ok(Some(hold)) => self.finish_or_abort(&hold).await,
                    Ok(None) => break,
                    Err(error) => {
                        warn!(%error, "uploads that were left cannot be looked for");
                        break;
                    }
                }
            }
        }
    }

    async fn finish_or_abort(&self, hold: &UploadHold) {
        let whole = hold.upload.received == hold.upload.bytes;
        let cleaned = if whole { self.finish(hold).await.map(drop) } else { self.abort(hold).await };
        match cleaned {
            Ok(()) => info!(upload = %hold.upload.id, whole, "an upload that was left is cleaned up"),
            Err(problem) => {
                warn!(upload = %hold.upload.id, problem = problem.detail, "an upload that was left cannot be cleaned up")
            }
        }
    }

    /// What is kept behind the last whole part.
    async fn read_remainder(&self, upload: &Upload, kept: u64) -> Result<BytesMut, Problem> {
        if upload.received == kept {
            return Ok(BytesMut::new());
        }
        let location = self.remainder_location(upload, upload.received)?;
        let reader = location.open().await.map_err(spool_media::Error::from)?;
        let bytes = reader.read(0..upload.received - kept).await.map_err(spool_media::Error::from)?;
        Ok(BytesMut::from(&bytes[..]))
    }

    async fn delete_remainder(&self, upload: &Upload) {
        if let Ok(location) = self.remainder_location(upload, upload.received)
            && let Err(error) = location.delete().await
        {
            warn!(%location, %error, "a part of an upload stays behind");
        }
    }

    fn remainder_location(&self, upload: &Upload, received: u64) -> Result<Location, Problem> {
        Ok(self.root()?.child(&format!("{}/{}.rest/{received}", upload.tenant, upload.id)))
    }

    /// Where an upload will be.
    fn new_location(&self, spec: &UploadSpec) -> Result<(Id, Location), Problem> {
        if spec.bytes > MAX_BYTES {
            let detail = format!("it is {} bytes long: at most {MAX_BYTES} are taken", spec.bytes);
            return Err(Problem::new(ProblemKind::TooLarge, detail));
        }
        let id = Id::upload();
        let location = self.root()?.child(&spec.tenant).child(id.as_str()).child(&spec.name);
        Ok((id, location))
    }

    pub(crate) fn root(&self) -> Result<Location, Problem> {
        Ok(self.stores.locate(&self.root).map_err(spool_media::Error::from)?)
    }
}

fn busy() -> Problem {
    Problem::new(
        ProblemKind::TooManyConcurrent,
        "as many uploads are under way as this server takes: try again",
    )
}

/// Did the store say no? Where it said nothing, it may have said yes.
fn is_rejection(error: &spool_jobs::Error) -> bool {
    !matches!(error, spool_jobs::Error::Database { .. })
}

/// What cannot be asked for is not waited for.
fn validated(order: Option<Order>) -> Result<Option<Order>, Problem> {
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
    order: Option<Order>,
) -> NewUpload {
    let UploadSpec { tenant, name, metadata, bytes, once } = spec;
    NewUpload {
        id,
        tenant,
        name,
        metadata,
        location: location.uri().to_owned(),
        token,
        bytes,
        order,
        once,
        kept_for: RETENTION,
    }
}
