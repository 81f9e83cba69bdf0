//! What pages are made of.

use lizmon_alarms::board::AlarmBoard;
use lizmon_mtls::trust::Trust;

use crate::certificates::{CertificateRegistry, HolderCertificates};
use crate::history::Histories;
use crate::summarize::SummaryTable;

/// What pages are made of, at one moment.
#[derive(Clone, Copy)]
pub(crate) struct PageSources<'a> {
    /// The summaries.
    pub(crate) table: &'a SummaryTable,
    /// By which certificates hosts report.
    pub(crate) holders: &'a HolderCertificates,
    /// Which certificates were seen.
    pub(crate) seen: &'a CertificateRegistry,
    /// The alarms.
    pub(crate) alarms: &'a AlarmBoard,
    /// What is kept longer.
    pub(crate) history: &'a Histories,
    /// The present trust.
    pub(crate) trust: &'a Trust,
    /// The time by which certificates are judged: epoch seconds.
    pub(crate) now: u64,
    /// The time that samples go by.
    pub(crate) sample_now: u64,
}
