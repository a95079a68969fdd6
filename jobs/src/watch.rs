//! Watches: places where files arrive that jobs are made of, whoever tells of them, and however often.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Id, Result};

/// A place where files arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Its name in the store.
    pub id: Id,
    /// Whose jobs are made.
    pub tenant: String,
    /// What lies in it is taken: a folder or a URI prefix.
    pub prefix: String,
    /// What is made of it: the document of a job, without its source.
    pub job: String,
    /// A queue of Amazon's that tells of what arrives.
    pub queue: Option<String>,
    /// How often it is looked for what has arrived, where nobody tells.
    pub list_every: Option<Duration>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was looked last.
    pub looked_ms: Option<i64>,
    /// What kept from looking last, or from reading the queue.
    pub trouble: Option<String>,
}

/// A watch to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWatch {
    /// Whose jobs are made.
    pub tenant: String,
    /// What lies in it is taken.
    pub prefix: String,
    /// What is made of it.
    pub job: String,
    /// A queue that tells of what arrives.
    pub queue: Option<String>,
    /// How often it is looked for what has arrived.
    pub list_every: Option<Duration>,
}

/// A durable store of watches.
#[async_trait]
pub trait Watches: Send + Sync + 'static {
    /// Has jobs made of what arrives in a place.
    async fn create_watch(&self, new: &NewWatch) -> Result<Watch>;

    /// The watches of a tenant, or of all, the oldest first.
    async fn watches(&self, tenant: Option<&str>) -> Result<Vec<Watch>>;

    /// Has no more jobs made of what arrives there.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) where there is no such watch.
    async fn remove_watch(&self, id: &Id) -> Result<Watch>;

    /// Takes a watch in hand that is to be looked at, for the time of a lease.
    async fn hold_watch(&self, lease: Duration) -> Result<Option<Watch>>;

    /// Writes down that it was looked, and what kept from it. The next look is due when its time comes.
    async fn looked(&self, id: &Id, trouble: Option<&str>) -> Result<()>;

    /// Which of these keys stand for a job of the tenant's already?
    async fn used_keys(&self, tenant: &str, keys: &[String]) -> Result<Vec<String>>;
}
