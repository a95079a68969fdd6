//! Authentication: the principal of a request, the scopes of its credential, and its rate limit.

pub(crate) mod authenticate;
pub(crate) mod authorize;
pub(crate) mod loopback;
pub(crate) mod oidc;
pub(crate) mod path_policy;
pub(crate) mod principal;
pub(crate) mod rate_limit;
pub(crate) mod signed_links;
