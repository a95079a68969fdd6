//! What every store promises of its outbox.

use spool_jobs::{DeliveryState, Sent, Webhooks};

use super::*;

pub(super) async fn what_happened_is_told_until_it_arrived(backend: Backend) {
    let store = &backend.store;
    let webhook = store.create_webhook("acme", "https://example.com/hook", "whsec_c2VjcmV0").await.unwrap();
    made(store, "globex", "theirs.mp4").await;
    assert_eq!(store.hold_delivery(LONG).await.unwrap(), None, "another's jobs are told to nobody");
    let job = made(store, "acme", "talk.mp4").await;
    let other = backend.again().await;
    // Many hands: one of them has it.
    let mut all = JoinSet::new();
    for _ in 0..6 {
        let store = other.clone();
        all.spawn(async move { store.hold_delivery(SHORT).await.unwrap() });
    }
    let holds: Vec<_> = all.join_all().await.into_iter().flatten().collect();
    let [hold] = holds.as_slice() else { panic!("it is in {} hands", holds.len()) };
    assert_eq!((&hold.delivery.job, hold.delivery.kind, hold.delivery.tries), (&job.id, Kind::Created, 1));
    assert_eq!((hold.url.as_str(), hold.secret.as_str()), (webhook.url.as_str(), "whsec_c2VjcmV0"));
    // Whoever had it died: another takes it, and what the first says later is not written.
    let again = held(store).await;
    assert!(
        again.delivery.id == hold.delivery.id && again.delivery.tries == 2 && again.fence > hold.fence,
        "{again:?}"
    );
    assert!(matches!(other.end_delivery(hold, &Sent::Delivered).await, Err(Error::Lost { .. })));
    store
        .end_delivery(&again, &Sent::Again { after: Duration::ZERO, trouble: "it answers 500".to_owned() })
        .await
        .unwrap();
    let last = held(store).await;
    assert_eq!((last.delivery.tries, last.delivery.trouble.as_deref()), (3, Some("it answers 500")));
    store.end_delivery(&last, &Sent::Delivered).await.unwrap();
    assert_eq!(store.hold_delivery(LONG).await.unwrap(), None);
    let told = store.deliveries("acme", &webhook.id, 10).await.unwrap();
    assert!(
        told.len() == 1 && told[0].state == DeliveryState::Delivered && told[0].trouble.is_none(),
        "{told:?}"
    );
    assert!(matches!(store.deliveries("globex", &webhook.id, 10).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.replay("globex", &webhook.id, 0).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.disable_webhook("globex", &webhook.id).await, Err(Error::NotFound { .. })));
    assert!(store.webhooks("globex").await.unwrap().is_empty());
    assert_eq!(store.replay("acme", &webhook.id, i64::MAX).await.unwrap(), 0);
    assert_eq!(store.replay("acme", &webhook.id, 0).await.unwrap(), 1);
    let replayed = held(store).await;
    assert_eq!(replayed.delivery.id, last.delivery.id, "it is the same message");
    store.end_delivery(&replayed, &Sent::Gone).await.unwrap();
    assert!(store.webhooks("acme").await.unwrap()[0].disabled_ms.is_some());
    made(store, "acme", "next.mp4").await;
    assert_eq!(store.hold_delivery(LONG).await.unwrap(), None);
}

/// The next message, once its lease has ended.
async fn held(store: &SqlStore) -> spool_jobs::DeliveryHold {
    let started = Instant::now();
    loop {
        if let Some(hold) = store.hold_delivery(LONG).await.unwrap() {
            return hold;
        }
        assert!(started.elapsed() < SOON, "nothing came to be told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
