//! Uploads: objects that come in pieces, over many requests and through any of several servers.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::Serialize;

use crate::{Error, Id, Job, Order, Result, Video};

/// Where an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// More may come.
    Open,
    /// All of it is there.
    Finished,
    /// It was given up, or nobody came back for it.
    Gone,
}

impl UploadState {
    const ALL: [Self; 3] = [Self::Open, Self::Finished, Self::Gone];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Finished => "finished",
            Self::Gone => "gone",
        }
    }
}

impl std::str::FromStr for UploadState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::Unknown { what: "state of an upload", value: text.to_owned() };
        Self::ALL.into_iter().find(|state| state.word() == text).ok_or_else(unknown)
    }
}

/// An upload.
#[derive(Debug, Clone, PartialEq)]
pub struct Upload {
    /// Its name in the store.
    pub id: Id,
    /// Whose it is.
    pub tenant: String,
    /// Where it stands.
    pub state: UploadState,
    /// Its name for people.
    pub name: String,
    /// What the client says of it.
    pub metadata: BTreeMap<String, String>,
    /// Where the object will be.
    pub location: String,
    /// The object store's name for what is not there yet.
    pub token: String,
    /// Its length.
    pub bytes: u64,
    /// Bytes of it that are kept.
    pub received: u64,
    /// What the object store gave for the pieces that it has.
    pub pieces: Vec<String>,
    /// The job that was made of it.
    pub job: Option<Id>,
    /// When it was begun, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it is given up unless more comes, in milliseconds since 1970.
    pub expires_ms: i64,
}

/// An upload to be begun.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUpload {
    /// Its name in the store.
    pub id: Id,
    /// Whose it is.
    pub tenant: String,
    /// Its name for people.
    pub name: String,
    /// What the client says of it.
    pub metadata: BTreeMap<String, String>,
    /// Where the object will be.
    pub location: String,
    /// The object store's name for what is not there yet.
    pub token: String,
    /// Its length.
    pub bytes: u64,
    /// What is asked for once it is there.
    pub order: Option<Order>,
    /// The token that it is begun with, which is good for no other.
    pub once: Option<Id>,
    /// How long it is kept without more of it.
    pub kept_for: Duration,
}

/// An upload in a request's hand: until its lease ends nobody else adds to it, and then its number is an older one.
#[derive(Debug, Clone, PartialEq)]
pub struct UploadHold {
    /// The upload, as it was when it was taken.
    pub upload: Upload,
    /// The hold's number: higher than that of every one before.
    pub fence: i64,
}

/// What is to be done once videos are published: with their sources, and with parts that nothing refers to.
#[async_trait]
pub trait Sources: Send + Sync + 'static {
    /// A published job whose source is to be deleted, and that no other job that has not ended reads. For the time of a lease nobody else is
    /// given it.
    async fn hold_source(&self, lease: Duration) -> Result<Option<Job>>;

    /// Writes down that a job's source is deleted, or why it is kept.
    async fn settle_source(&self, job: &Job, source: &str, kept: Option<&str>) -> Result<()>;

    /// A video that was published or swept at least so long ago and may have parts that nothing refers to. For the time of a lease nobody else is
    /// given it.
    async fn hold_unswept(&self, since: Duration, lease: Duration) -> Result<Option<Video>>;

    /// Writes down that a video was swept, and whether it is to be once more.
    async fn swept(&self, id: &Id, again: bool) -> Result<()>;
}

/// A durable store of uploads.
#[async_trait]
pub trait Uploads: Send + Sync + 'static {
    /// Begins one. Where all of it is there already (`done`), it is finished at once, with its job.
    ///
    /// # Errors
    /// [`Error::Quota`] where the tenant may keep no more; [`Error::Spent`] where the token is good no more.
    async fn begin_upload(&self, new: &NewUpload, done: bool) -> Result<Upload>;

    /// A tenant's upload.
    ///
    /// # Errors
    /// [`Error::NotFound`] also where it is another tenant's.
    async fn upload(&self, tenant: &str, id: &Id) -> Result<Upload>;

    /// Takes an upload in hand for the time of a lease.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is none that is open; [`Error::Held`] where it is in another's hand.
    async fn hold_upload(&self, tenant: &str, id: &Id, lease: Duration) -> Result<UploadHold>;

    /// Takes one in hand that all of is there and that is not finished, or that nobody came back for.
    async fn hold_left_upload(&self, lease: Duration) -> Result<Option<UploadHold>>;

    /// Keeps a hold for so long from now on; for no time at all, it is let go.
    ///
    /// # Errors
    /// [`Error::Lost`] where somebody else took it, or it is not open any more.
    async fn renew_upload(&self, hold: &UploadHold, lease: Duration) -> Result<()>;

    /// Writes down what is kept of it, and keeps it for so long from now on.
    ///
    /// # Errors
    /// [`Error::Lost`] where somebody else took it, or it is not open any more: nothing is written then.
    async fn advance_upload(
        &self,
        hold: &UploadHold,
        received: u64,
        pieces: &[String],
        kept_for: Duration,
    ) -> Result<()>;

    /// Finishes it, and makes the job that it asks for: once, whoever asks and however often.
    ///
    /// # Errors
    /// [`Error::Lost`] as for [`Uploads::advance_upload`].
    async fn finish_upload(&self, hold: &UploadHold) -> Result<Upload>;

    /// Gives it up.
    ///
    /// # Errors
    /// [`Error::Lost`] as for [`Uploads::advance_upload`].
    async fn give_up_upload(&self, hold: &UploadHold) -> Result<()>;
}
