//! Lease loop: takes leases on items that are due, works on them, and waits when nothing is due. Every
//! background worker of the server is one such loop; the lease keeps two servers from working on one item.

use std::time::Duration;

use spool_storage::ConcurrencyLimit;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Pace of a lease loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseLoop {
    /// Name of the items in logs.
    pub(crate) name: &'static str,
    /// Wait before the next query, after the store had nothing due or failed.
    pub(crate) poll_interval: Duration,
    /// Maximum of leases that are worked on at a time.
    pub(crate) concurrency: usize,
    /// Maximum of leases that are taken before the loop waits for `poll_interval`.
    pub(crate) max_per_poll: usize,
}

/// Takes leases with `lease` and runs `work` on each, until `shutdown` fires. Running work is not
/// interrupted: long work watches `shutdown` itself.
pub(crate) async fn run_leased<L, F, W>(
    pace: LeaseLoop,
    shutdown: CancellationToken,
    lease: impl Fn() -> F,
    work: impl Fn(L) -> W,
) where
    F: Future<Output = spool_jobs::Result<Option<L>>>,
    W: Future<Output = ()> + Send + 'static,
{
    let limit = ConcurrencyLimit::new(pace.name, pace.concurrency);
    let mut taken = 0;
    loop {
        // Before the lease: a lease could expire while it waits for a permit.
        let permit = tokio::select! {
            () = shutdown.cancelled() => return,
            permit = limit.acquire() => permit,
        };
        if taken < pace.max_per_poll {
            match lease().await {
                Ok(Some(leased)) => {
                    taken += 1;
                    let work = work(leased);
                    tokio::spawn(async move {
                        work.await;
                        drop(permit);
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) => warn!(items = pace.name, %error, "failed to take a lease"),
            }
        }
        drop(permit);
        taken = 0;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(pace.poll_interval) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;

    const POLL_INTERVAL: Duration = Duration::from_millis(500);
    const ITEM: Duration = Duration::from_millis(10);

    /// Runs a loop over `items` items that take [`ITEM`] each; returns the time taken and the most items that
    /// ran at once.
    async fn run(items: usize, concurrency: usize, max_per_poll: usize) -> (Duration, usize) {
        let queue = Arc::new(Mutex::new(VecDeque::from_iter(0..items)));
        let (running, most, done) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (start, shutdown) = (Instant::now(), CancellationToken::new());
        let pace = LeaseLoop { name: "items", poll_interval: POLL_INTERVAL, concurrency, max_per_poll };
        let lease = || std::future::ready(Ok(queue.lock().pop_front()));
        let work = |_| {
            let (running, most, done, shutdown) =
                (running.clone(), most.clone(), done.clone(), shutdown.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(ITEM).await;
                running.fetch_sub(1, Ordering::SeqCst);
                if done.fetch_add(1, Ordering::SeqCst) + 1 == items {
                    shutdown.cancel();
                }
            }
        };
        run_leased(pace, shutdown.clone(), lease, work).await;
        (start.elapsed(), most.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn items_that_are_due_are_worked_on_without_a_wait_up_to_the_limit() {
        for concurrency in [1, 3] {
            let (took, most) = run(6, concurrency, usize::MAX).await;
            assert!(took < POLL_INTERVAL && most == concurrency, "{most} at a time, {took:?}");
        }
    }

    #[tokio::test]
    async fn after_so_many_items_the_loop_waits() {
        let (took, _) = run(2, 1, 1).await;
        assert!(took >= POLL_INTERVAL, "{took:?}");
    }

    #[tokio::test]
    async fn a_store_that_fails_is_asked_again_after_the_interval() {
        let (polls, shutdown) = (AtomicUsize::new(0), CancellationToken::new());
        let pace = LeaseLoop { name: "items", poll_interval: POLL_INTERVAL, concurrency: 1, max_per_poll: 9 };
        let start = Instant::now();
        let lease = || {
            if polls.fetch_add(1, Ordering::SeqCst) == 2 {
                shutdown.cancel();
            }
            let error = spool_jobs::Error::NotFound { what: "item", id: "1".to_owned() };
            std::future::ready(Err::<Option<()>, _>(error))
        };
        run_leased(pace, shutdown.clone(), lease, |()| std::future::ready(())).await;
        assert_eq!(polls.load(Ordering::SeqCst), 3);
        assert!(start.elapsed() >= 2 * POLL_INTERVAL);
    }
}
