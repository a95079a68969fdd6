//! The outbox of webhook deliveries.

use spool_jobs::{DeliveryOutcome, DeliveryState, WebhookStore};

use super::*;

pub(super) async fn a_delivery_is_retried_until_it_arrives(backend: Backend) {
    let store = &backend.store;
    let webhook = store.create_webhook("acme", "https://example.com/hook", "whsec_c2VjcmV0").await.unwrap();
    create(store, "globex", "theirs.mp4").await;
    assert_eq!(store.lease_delivery(LONG).await.unwrap(), None, "a job of another tenant is not delivered");
    let job = create(store, "acme", "talk.mp4").await;
    let other = backend.reopen().await;
    // Of concurrent calls one leases the delivery.
    let mut all = JoinSet::new();
    for _ in 0..6 {
        let store = other.clone();
        all.spawn(async move { store.lease_delivery(SHORT).await.unwrap() });
    }
    let leases: Vec<_> = all.join_all().await.into_iter().flatten().collect();
    let [first] = leases.as_slice() else { panic!("{} leases", leases.len()) };
    assert_eq!(
        (&first.delivery.job, first.delivery.kind, first.delivery.tries),
        (&job.id, EventKind::Created, 1)
    );
    assert_eq!((first.url.as_str(), first.secret.as_str()), (webhook.url.as_str(), "whsec_c2VjcmV0"));
    // The first holder died: another leases the delivery, and the first holder's outcome is refused.
    let second = leased_delivery(store).await;
    assert!(
        second.delivery.id == first.delivery.id
            && second.delivery.tries == 2
            && second.fencing_token > first.fencing_token,
        "{second:?}"
    );
    assert!(matches!(
        other.finish_delivery(first, &DeliveryOutcome::Delivered).await,
        Err(Error::LeaseLost { .. })
    ));
    store
        .finish_delivery(
            &second,
            &DeliveryOutcome::Retry { delay: Duration::ZERO, error: "status 500".to_owned() },
        )
        .await
        .unwrap();
    let last = leased_delivery(store).await;
    assert_eq!((last.delivery.tries, last.delivery.last_error.as_deref()), (3, Some("status 500")));
    store.finish_delivery(&last, &DeliveryOutcome::Delivered).await.unwrap();
    assert_eq!(store.lease_delivery(LONG).await.unwrap(), None);
    let deliveries = store.deliveries("acme", &webhook.id, 10).await.unwrap();
    assert!(
        deliveries.len() == 1
            && deliveries[0].state == DeliveryState::Delivered
            && deliveries[0].last_error.is_none(),
        "{deliveries:?}"
    );
    assert!(matches!(store.deliveries("globex", &webhook.id, 10).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.replay("globex", &webhook.id, 0).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.disable_webhook("globex", &webhook.id).await, Err(Error::NotFound { .. })));
    assert!(store.webhooks("globex").await.unwrap().is_empty());
    assert_eq!(store.replay("acme", &webhook.id, i64::MAX).await.unwrap(), 0);
    assert_eq!(store.replay("acme", &webhook.id, 0).await.unwrap(), 1);
    let replayed = leased_delivery(store).await;
    assert_eq!(replayed.delivery.id, last.delivery.id, "a replay keeps the ID");
    store.finish_delivery(&replayed, &DeliveryOutcome::Gone).await.unwrap();
    assert!(store.webhooks("acme").await.unwrap()[0].disabled_ms.is_some());
    create(store, "acme", "next.mp4").await;
    assert_eq!(store.lease_delivery(LONG).await.unwrap(), None);
}

/// Leases the next delivery, as soon as one is due.
async fn leased_delivery(store: &SqlStore) -> spool_jobs::DeliveryLease {
    let started = Instant::now();
    loop {
        if let Some(lease) = store.lease_delivery(LONG).await.unwrap() {
            return lease;
        }
        assert!(started.elapsed() < SOON, "no delivery became due");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
