//! Watches: one scan at a time, and the idempotency keys of earlier arrivals.

use spool_jobs::{NewWatch, WatchStore};

use super::*;

fn new_watch(tenant: &str, scan_interval: Option<Duration>) -> NewWatch {
    NewWatch {
        tenant: tenant.to_owned(),
        prefix: "s3://in/".to_owned(),
        job: "{}".to_owned(),
        queue: None,
        scan_interval,
    }
}

pub(super) async fn a_due_watch_is_leased_once(backend: Backend) {
    let store = &backend.store;
    let queued = store.create_watch(&new_watch("acme", None)).await.unwrap();
    assert_eq!(store.lease_watch(LONG).await.unwrap(), None, "a watch without an interval is not scanned");
    let scanned = store.create_watch(&new_watch("globex", Some(SHORT))).await.unwrap();
    assert_eq!(store.watches(None).await.unwrap(), [queued.clone(), scanned.clone()]);
    assert_eq!(store.watches(Some("acme")).await.unwrap(), std::slice::from_ref(&queued));
    // Of concurrent calls one leases the watch, until the lease ends.
    let mut all = JoinSet::new();
    for _ in 0..6 {
        let store = backend.reopen().await;
        all.spawn(async move { store.lease_watch(LONG).await.unwrap() });
    }
    let leases: Vec<_> = all.join_all().await.into_iter().flatten().collect();
    assert_eq!(leases.iter().map(|watch| &watch.id).collect::<Vec<_>>(), [&scanned.id]);
    store.record_scan(&scanned.id, Some("no such bucket")).await.unwrap();
    let until = Instant::now() + SOON;
    let rescanned = loop {
        assert!(Instant::now() < until, "the next scan does not become due");
        if let Some(watch) = store.lease_watch(LONG).await.unwrap() {
            break watch;
        }
        tokio::task::yield_now().await;
    };
    assert!(
        rescanned.last_error.as_deref() == Some("no such bucket") && rescanned.scanned_ms.is_some(),
        "{rescanned:?}"
    );
    store.delete_watch(&scanned.id).await.unwrap();
    assert!(matches!(store.delete_watch(&scanned.id).await, Err(Error::NotFound { .. })));
    assert_eq!(store.watches(None).await.unwrap(), [queued]);
    assert!(store.create_watch(&new_watch("../acme", None)).await.is_err());
}

pub(super) async fn used_idempotency_keys_are_found(backend: Backend) {
    let store = &backend.store;
    let key = |number: usize| format!("arrived s3://in/{number}.mp4 \"ab\"");
    store.create(&NewJob { idempotency_key: Some(key(700)), ..new("acme", "talk.mp4") }).await.unwrap();
    // More keys than one statement takes.
    let keys: Vec<String> = (0..1201).map(key).collect();
    assert_eq!(store.used_keys("acme", &keys).await.unwrap(), [key(700)]);
    assert!(
        store.used_keys("globex", &keys).await.unwrap().is_empty(),
        "an idempotency key is the tenant's own"
    );
}
