//! The queue: which statements run, and whose row gets the next slot.

pub(crate) mod fair_queue;
pub(crate) mod statement_list;
