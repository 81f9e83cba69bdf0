//! Summaries and hosts as text.

pub(crate) mod chart;
pub(crate) mod csv;
pub(crate) mod format;
pub(crate) mod hosts;
pub(crate) mod plot;
pub(crate) mod safe;
pub(crate) mod table;
