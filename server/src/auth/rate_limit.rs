//! Rate limits: requests per minute of each tenant, counted by each server on its own.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};
use moka::{policy::EvictionPolicy, sync::Cache};

/// Requests per minute of a tenant whose policy sets no other limit.
pub const REQUESTS_A_MINUTE: u32 = 1200;

/// Buckets that are kept. Beyond that, the least recently used bucket is dropped.
const MAX_BUCKETS: u64 = 10_000;

/// Time for which an unused bucket is kept. After a minute without requests a bucket is full, so dropping it
/// changes nothing.
const BUCKET_IDLE: Duration = Duration::from_secs(60);

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Response headers that report the state of a rate limit.
pub(crate) const RATE_HEADERS: [HeaderName; 3] = [LIMIT, REMAINING, RESET];

type Bucket = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// Bucket, and its requests per minute.
#[derive(Clone)]
struct LimitedBucket {
    limit: u32,
    bucket: Arc<Bucket>,
}

/// Token buckets of all tenants and upload tokens.
pub(crate) struct RateLimits {
    buckets: Cache<String, LimitedBucket>,
}

/// State of a rate limit after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Requests per minute.
    pub(crate) limit: u32,
    /// Requests that are allowed at once after this one; `None` if this one is not allowed.
    remaining: Option<u32>,
    /// Seconds until the bucket is full, or, if this request is not allowed, until the next one is.
    pub(crate) reset: u64,
}

impl Default for RateLimits {
    fn default() -> Self {
        let buckets = Cache::builder()
            .max_capacity(MAX_BUCKETS)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(BUCKET_IDLE)
            .build();
        Self { buckets }
    }
}

impl RateLimits {
    /// Counts a request against the bucket `name`, and returns the bucket's state.
    pub(crate) fn take(&self, name: &str, limit: Option<u32>) -> Rate {
        let limit = limit.unwrap_or(REQUESTS_A_MINUTE);
        let Some(quota) = NonZeroU32::new(limit).map(Quota::per_minute) else {
            return Rate { limit, remaining: None, reset: 60 };
        };
        match self.bucket(name, limit, quota).check() {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let used = limit - remaining.min(limit);
                let reset = whole_seconds(quota.replenish_interval() * used);
                Rate { limit, remaining: Some(remaining), reset }
            }
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                Rate { limit, remaining: None, reset: whole_seconds(wait) }
            }
        }
    }

    /// Returns the bucket `name`; creates it if there is none with this limit.
    fn bucket(&self, name: &str, limit: u32, quota: Quota) -> Arc<Bucket> {
        let new = || LimitedBucket { limit, bucket: Arc::new(RateLimiter::direct(quota).with_middleware()) };
        let entry = self.buckets.entry_by_ref(name).or_insert_with_if(new, |kept| kept.limit != limit);
        entry.into_value().bucket
    }
}

/// Rounds up to whole seconds, at least one.
fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1)
}

impl Rate {
    /// Returns whether the request is allowed.
    pub(crate) fn allowed(self) -> bool {
        self.remaining.is_some()
    }

    /// Writes the state into the headers of a response.
    ///
    /// Source: IETF draft "RateLimit header fields for HTTP", version 3.
    pub(crate) fn write_headers(self, headers: &mut HeaderMap) {
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
    fn each_tenant_has_its_own_bucket() {
        let rates = RateLimits::default();
        let first = rates.take("acme", Some(3));
        assert_eq!((first.limit, first.remaining), (3, Some(2)));
        assert!(rates.take("acme", Some(3)).allowed() && rates.take("acme", Some(3)).allowed());
        let refused = rates.take("acme", Some(3));
        assert!(!refused.allowed() && (1..=20).contains(&refused.reset), "{refused:?}");
        assert!(rates.take("globex", Some(3)).allowed(), "requests of another tenant do not count");
        assert_eq!(rates.take("initech", None).limit, REQUESTS_A_MINUTE);
    }

    #[test]
    fn a_refused_request_reports_when_to_retry() {
        let rates = RateLimits::default();
        let _ = rates.take("acme", Some(1));
        let refused = rates.take("acme", Some(1));
        let mut headers = HeaderMap::new();
        refused.write_headers(&mut headers);
        assert_eq!((&headers[LIMIT], &headers[REMAINING]), (&HeaderValue::from(1), &HeaderValue::from(0)));
        assert_eq!(headers[RESET], headers[header::RETRY_AFTER]);
    }

    #[test]
    fn a_changed_limit_applies_at_once() {
        let rates = RateLimits::default();
        let _ = rates.take("acme", Some(1));
        assert!(!rates.take("acme", Some(1)).allowed());
        assert!(rates.take("acme", Some(2)).allowed());
        assert!(!rates.take("acme", Some(0)).allowed(), "a limit of 0 allows nothing");
    }

    #[test]
    fn more_tenants_than_buckets_drop_the_idlest_bucket_only() {
        let rates = RateLimits::default();
        let _ = rates.take("idle", Some(1));
        let _ = rates.take("active", Some(1));
        for tenant in 0..MAX_BUCKETS + 500 {
            let _ = rates.take(&format!("tenant-{tenant}"), Some(1));
            if tenant % 100 == 0 {
                assert!(!rates.take("active", Some(1)).allowed(), "lost its bucket after {tenant} others");
                rates.buckets.run_pending_tasks();
            }
        }
        rates.buckets.run_pending_tasks();
        assert!(rates.buckets.entry_count() <= MAX_BUCKETS);
        assert!(!rates.take("active", Some(1)).allowed(), "used all the time, and kept");
        assert!(rates.take("idle", Some(1)).allowed(), "idle the longest, and dropped");
    }
}
