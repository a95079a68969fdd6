//! Fencing tokens: numbers that prevent writes by a process whose lease has ended.

use std::fmt;

use serde::Serialize;

/// Number of one lease of a job, an upload or a delivery: higher than that of every lease before it. The
/// store refuses a write under any token but the newest.
///
/// Source: Kleppmann, "How to do distributed locking" (2016), which names the scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FencingToken(i64);

impl FencingToken {
    /// Token of an object that was never leased.
    pub(crate) const NONE: Self = Self(0);

    /// Wraps a number that a store assigned.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
