//! Queue: the running statements, and the order in which their rows get slots.

pub(crate) mod fair_queue;
pub(crate) mod statement_list;
