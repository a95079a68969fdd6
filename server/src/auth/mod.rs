//! Authentication: which principal makes a request, what its credential's scopes allow, and how often it may
//! ask.

pub(crate) mod authenticate;
pub(crate) mod loopback;
pub(crate) mod oidc;
pub(crate) mod path_policy;
pub(crate) mod principal;
pub(crate) mod rate_limit;
pub(crate) mod authorize;
pub(crate) mod signed_links;
