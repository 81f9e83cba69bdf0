//! All that the audit log is compared with, read in one transaction.

use super::db::LedgerTx;
use super::error::LedgerError;
use super::record::{Entry, Generation, UnknownRevoked};
use crate::pki::crl::CrlRecord;

/// Everything in the ledger that the audit log has to record.
#[derive(Debug, Clone, Default)]
pub(crate) struct LedgerSnapshot {
    pub(crate) entries: Vec<Entry>,
    pub(crate) generations: Vec<Generation>,
    pub(crate) crls: Vec<CrlRecord>,
    /// Short ids of join tokens, and whether each was used.
    pub(crate) tokens: Vec<(String, bool)>,
    pub(crate) unknown: Vec<UnknownRevoked>,
}

impl LedgerTx<'_> {
    pub(crate) fn snapshot(&self) -> Result<LedgerSnapshot, LedgerError> {
        Ok(LedgerSnapshot {
            entries: self.entries()?,
            generations: self.generations()?,
            crls: self.crls()?,
            tokens: self.token_ids()?,
            unknown: self.unknown_revoked()?,
        })
    }
}
