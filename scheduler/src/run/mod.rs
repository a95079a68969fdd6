//! Running a statement: planning, attempts at its rows, retries and speculation, the merge and the result.

pub(crate) mod attempt;
pub(crate) mod early_playback;
pub(crate) mod explain;
pub(crate) mod plan_rewrite;
pub(crate) mod planner;
pub(crate) mod results;
pub(crate) mod rows;
pub(crate) mod statement;
pub(crate) mod stragglers;
