//! Summaries and hosts as a person reads them.

pub(crate) mod chart;
mod format;
pub(crate) mod table;
