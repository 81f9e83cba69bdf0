//! `crl.pem`: the CRLs of the trusted CAs, as the ledger holds them.

use super::error::Error;
use crate::files::{Access, CaFiles, disk};
use crate::ledger::LedgerTx;
use crate::pki::Profile;
use crate::pki::crl::CrlRecord;

/// Writes `crl.pem` if it differs from the ledger.
pub(super) fn write_crls(files: &CaFiles, tx: &LedgerTx<'_>) -> Result<(), Error> {
    let current = trusted_crls(tx)?;
    if disk::read_if_there(&files.crl)?.as_deref() == Some(current.as_bytes()) {
        return Ok(());
    }
    Ok(disk::write(&files.crl, current.as_bytes(), Access::Public)?)
}

/// One CRL for each trusted CA, roots first.
pub(super) fn trusted_crls(tx: &LedgerTx<'_>) -> Result<String, Error> {
    let generations = tx.generations()?;
    let crls = tx.crls()?;
    let mut pem = String::new();
    for profile in [Profile::Root, Profile::Issuing] {
        for ca in &generations {
            let trusted = ca.entry.profile == profile && ca.phase.is_trusted();
            let of_this = |crl: &&CrlRecord| trusted && crl.issuer == ca.entry.serial;
            pem.extend(crls.iter().find(of_this).map(|crl| crl.pem.as_str()));
        }
    }
    Ok(pem)
}

/// The newest CRL of a CA.
pub(super) fn crl_of(tx: &LedgerTx<'_>, issuer: &str) -> Result<Option<CrlRecord>, Error> {
    Ok(tx.crls()?.into_iter().find(|crl| crl.issuer == issuer))
}
