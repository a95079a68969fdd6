//! Page sizes of listings.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::problem::{Problem, ProblemKind};

/// Items per page: the default, and the maximum.
pub(super) const DEFAULT_PAGE_ITEMS: u32 = 50;
const MAX_PAGE_ITEMS: u32 = 1000;

/// Query of a paginated listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Cursor: the `next` of the previous page. Default: the first page.
    pub(super) cursor: Option<String>,
    /// Number of items per page. Default: 50.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<u32>,
}

/// Query of a listing that has one page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitQuery {
    /// Number of items that are returned at most. Default: 50.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<u32>,
}

/// Returns the requested number of items per page.
pub(super) fn page_items(limit: Option<u32>) -> Result<u32, Problem> {
    let items = limit.unwrap_or(DEFAULT_PAGE_ITEMS);
    if (1..=MAX_PAGE_ITEMS).contains(&items) {
        return Ok(items);
    }
    let detail = format!("limit: must be from 1 to {MAX_PAGE_ITEMS}, not {items}");
    Err(Problem::new(ProblemKind::Invalid, detail))
}
