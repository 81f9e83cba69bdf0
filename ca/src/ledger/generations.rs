//! Generations of the CAs, and whether the CA's files follow the ledger.

use super::db::LedgerTx;
use super::error::LedgerError;
use super::record::{Generation, Phase};
use super::sql::{seconds, sql};

impl LedgerTx<'_> {
    /// Every generation: current ones first, then by phase and age.
    pub(crate) fn generations(&self) -> Result<Vec<Generation>, LedgerError> {
        let rows: Vec<(String, Phase, u64)> = self.run(|t| {
            t.prepare_cached("SELECT serial, phase, since FROM generation ORDER BY rowid")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, seconds(row, 2)?)))?
                .collect()
        })?;
        let mut generations = Vec::new();
        for (serial, phase, since) in rows {
            generations.extend(self.find(&serial)?.map(|entry| Generation {
                entry,
                phase,
                since,
            }));
        }
        generations.sort_by_key(|generation| generation.phase);
        Ok(generations)
    }

    /// Moves a CA into a phase.
    pub(crate) fn set_phase(
        &self,
        serial: &str,
        phase: Phase,
        now: u64,
    ) -> Result<(), LedgerError> {
        self.run(|t| {
            t.execute(
                "INSERT INTO generation (serial, phase, since) VALUES (?1, ?2, ?3)
                 ON CONFLICT (serial) DO UPDATE SET phase = excluded.phase, since = excluded.since",
                (serial, phase.as_str(), sql(now)),
            )
        })?;
        Ok(())
    }

    /// Whether the CA's files still have to follow the ledger.
    pub(crate) fn is_reconcile_pending(&self) -> Result<bool, LedgerError> {
        self.run(|t| {
            t.prepare_cached("SELECT 1 FROM reconcile_pending")?
                .exists([])
        })
    }

    /// Remembers whether the CA's files still have to follow the ledger.
    pub(crate) fn set_reconcile_pending(&self, pending: bool) -> Result<(), LedgerError> {
        let statement = if pending {
            "INSERT OR IGNORE INTO reconcile_pending VALUES (1)"
        } else {
            "DELETE FROM reconcile_pending"
        };
        self.run(|t| t.execute(statement, []))?;
        Ok(())
    }
}
