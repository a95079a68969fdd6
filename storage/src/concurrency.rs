//! `ConcurrencyLimit`: a named limit on concurrent operations, with gauges of running and waiting ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits concurrent operations. Clones share one limit. Permits are granted in the order of the requests.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit(Arc<Limit>);

#[derive(Debug)]
struct Limit {
    name: &'static str,
    permits: usize,
    semaphore: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A permit. Dropping it lets the next request run.
#[derive(Debug)]
#[must_use = "the right ends when this is dropped"]
pub struct ConcurrencyPermit {
    _permit: OwnedSemaphorePermit,
}

/// Counts a request as waiting until it is dropped, even if the caller stops waiting.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConcurrencyLimit {
    /// Creates a limit of `permits` at a time. `name` labels the limit in metrics and logs.
    pub fn new(name: &'static str, permits: usize) -> Self {
        let semaphore = Arc::new(Semaphore::new(permits));
        Self(Arc::new(Limit { name, permits, semaphore, waiting: AtomicUsize::new(0) }))
    }

    /// Waits for a permit. A caller that stops waiting leaves the queue.
    pub async fn acquire(&self) -> ConcurrencyPermit {
        if let Some(permit) = self.try_acquire() {
            return permit;
        }
        let _waiting = Waiting::enter(&self.0.waiting);
        match self.0.semaphore.clone().acquire_owned().await {
            Ok(permit) => ConcurrencyPermit { _permit: permit },
            // The semaphore is private and is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits at most `timeout` for a permit; returns `None` after that.
    pub async fn acquire_within(&self, timeout: Duration) -> Option<ConcurrencyPermit> {
        tokio::time::timeout(timeout, self.acquire()).await.ok()
    }

    /// Takes a free permit without waiting; `None` if all are in use or others wait already.
    pub fn try_acquire(&self) -> Option<ConcurrencyPermit> {
        let permit = self.0.semaphore.clone().try_acquire_owned().ok()?;
        Some(ConcurrencyPermit { _permit: permit })
    }

    /// Returns the name that labels the limit in metrics and logs.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Returns the number of permits.
    pub fn permits(&self) -> usize {
        self.0.permits
    }

    /// Returns the number of permits in use.
    pub fn in_use(&self) -> usize {
        self.0.permits.saturating_sub(self.0.semaphore.available_permits())
    }

    /// Returns the number of requests that wait for a permit.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_request_beyond_the_limit_waits_and_is_granted_when_a_permit_is_dropped() {
        let limit = ConcurrencyLimit::new("test", 2);
        let first = limit.acquire().now_or_never().unwrap();
        let _second = limit.try_acquire().unwrap();
        assert!(limit.try_acquire().is_none());
        let mut third = Box::pin(limit.acquire());
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!((limit.permits(), limit.in_use(), limit.waiting()), (2, 2, 1));
        drop(first);
        let third = third.now_or_never().unwrap();
        assert_eq!((limit.in_use(), limit.waiting()), (2, 0));
        drop(third);
        assert_eq!(limit.in_use(), 1);
    }

    #[test]
    fn a_caller_that_stops_waiting_leaves_the_queue() {
        let limit = ConcurrencyLimit::new("test", 0);
        let mut waiting = Box::pin(limit.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(limit.waiting(), 1);
        drop(waiting);
        assert_eq!(limit.waiting(), 0);
    }

    #[tokio::test]
    async fn a_wait_ends_after_its_timeout() {
        let limit = ConcurrencyLimit::new("test", 0);
        assert!(limit.acquire_within(Duration::from_millis(10)).await.is_none());
        assert_eq!(limit.waiting(), 0);
    }
}
