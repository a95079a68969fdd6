//! How often may a tenant ask? So many times a minute, of each server; whoever asks too often is told when to go on.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};

/// Requests a minute where nobody has said otherwise.
pub const REQUESTS_A_MINUTE: u32 = 1200;

/// Tenants that are kept in mind.
const TENANTS: usize = 10_000;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// What says how a tenant stands.
pub(crate) const TOLD: [HeaderName; 3] = [LIMIT, REMAINING, RESET];

type Bucket = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// The rates of all tenants.
#[derive(Default)]
pub(crate) struct Rates {
    buckets: Mutex<HashMap<String, (u32, Arc<Bucket>)>>,
}

/// How a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Requests a minute.
    pub(crate) limit: u32,
    /// Requests that may come at once, behind this one.
    remaining: Option<u32>,
    /// Seconds until there is one more, or all of them where there are some.
    pub(crate) reset: u64,
}

impl Rates {
    /// Counts a request.
    pub(crate) fn take(&self, tenant: &str, limit: Option<u32>) -> Rate {
        let limit = limit.unwrap_or(REQUESTS_A_MINUTE);
        let Some(quota) = NonZeroU32::new(limit).map(Quota::per_minute) else {
            return Rate { limit, remaining: None, reset: 60 };
        };
        let bucket = self.bucket(tenant, limit, quota);
        match bucket.check() {
            Ok(state) => {
                let used = limit - state.remaining_burst_capacity().min(limit);
                Rate {
                    limit,
                    remaining: Some(state.remaining_burst_capacity()),
                    reset: seconds(quota.replenish_interval() * used),
                }
            }
            Err(until) => Rate {
                limit,
                remaining: None,
                reset: seconds(until.wait_time_from(DefaultClock::default().now())),
            },
        }
    }

    fn bucket(&self, tenant: &str, limit: u32, quota: Quota) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((same, bucket)) = buckets.get(tenant)
            && *same == limit
        {
            return bucket.clone();
        }
        if buckets.len() >= TENANTS {
            buckets.clear();
        }
        let bucket = Arc::new(RateLimiter::direct(quota).with_middleware());
        buckets.insert(tenant.to_owned(), (limit, bucket.clone()));
        bucket
    }
}

/// Whole ones, and one at least.
fn seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1)
}

impl Rate {
    pub(crate) fn allowed(self) -> bool {
        self.remaining.is_some()
    }

    /// Says how it stands.
    ///
    /// Source: IETF draft "RateLimit header fields for HTTP", version 3.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining.unwrap_or(0)));
        headers.insert(RESET, HeaderValue::from(self.reset));
        if !self.allowed() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.reset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_its_own_measure() {
        let rates = Rates::default();
        let first = rates.take("acme", Some(3));
        assert_eq!((first.limit, first.remaining), (3, Some(2)));
        assert!(rates.take("acme", Some(3)).allowed() && rates.take("acme", Some(3)).allowed());
        let refused = rates.take("acme", Some(3));
        assert!(!refused.allowed() && (1..=20).contains(&refused.reset), "{refused:?}");
        let mut headers = HeaderMap::new();
        refused.tell(&mut headers);
        assert_eq!((&headers[LIMIT], &headers[REMAINING]), (&HeaderValue::from(3), &HeaderValue::from(0)));
        assert_eq!(headers[RESET], headers[header::RETRY_AFTER]);
        assert!(rates.take("globex", Some(3)).allowed(), "another's requests are not counted");
        assert!(rates.take("acme", Some(4)).allowed(), "a limit that was raised counts at once");
        assert!(!rates.take("nobody", Some(0)).allowed());
        assert_eq!(rates.take("initech", None).limit, REQUESTS_A_MINUTE);
    }
}
