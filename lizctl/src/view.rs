//! Summaries and hosts as text.

pub(crate) mod chart;
mod format;
pub(crate) mod table;
