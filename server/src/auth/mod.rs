//! Authentication: who asks, which tenant's data that principal may touch, and how often.

pub(crate) mod authenticate;
pub(crate) mod oidc;
pub(crate) mod rate_limit;
pub(crate) mod signed_links;
