//! What every verb is given beside its own flags.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lizmon_ca::Error;
use lizmon_ca::authority::Authority;

use crate::flags::ca_keys::CaKeyFlags;
use crate::output;

/// What every verb is given beside its own flags.
pub(crate) struct Context {
    /// The folder of certificates, keys and the ledger.
    pub(crate) certs: PathBuf,
    /// How the CA's keys are come by.
    pub(crate) keys: CaKeyFlags,
    /// Seconds since 1970 UTC.
    pub(crate) clock: fn() -> u64,
    /// The same with all its fractions, for what is measured.
    pub(crate) stopwatch: fn() -> Duration,
}

impl Context {
    /// Opens the CA.
    pub(crate) fn authority(&self, now: u64) -> Result<Authority, Error> {
        let authority = Authority::open_with(&self.certs, self.keys.unlock(), now)?;
        warn_of_ending(&authority, now);
        Ok(authority)
    }

    /// Opens the CA to look at it.
    pub(crate) fn authority_to_read(&self, now: u64) -> Result<Authority, Error> {
        let authority = Authority::open_read_only(&self.certs, self.keys.unlock_unasked(), now)?;
        if let Some(at) = authority.copied_at()? {
            output::note(format_args!(
                "this ledger was restored or copied, found so at {}: what was issued and revoked elsewhere before then it does not know",
                output::date(at)
            ));
        }
        if authority.is_read_only() {
            output::note(format_args!(
                "nothing can be written in {}: shown as it is there",
                self.certs.display()
            ));
        } else if authority.crls_are_due(now)? {
            output::note(
                "a revocation list is past half of its life: run `lizctl sign-crl`, or this with --passphrase-file",
            );
        }
        warn_of_ending(&authority, now);
        Ok(authority)
    }

    /// `--certs` as it must be typed again, with a space before it; nothing where it is the default.
    pub(crate) fn certs_flag(&self) -> String {
        if self.certs == Path::new("certs") {
            String::new()
        } else {
            format!(" --certs {}", quoted(&self.certs))
        }
    }
}

/// Who opens the CA is told of its end long before it comes.
fn warn_of_ending(authority: &Authority, now: u64) {
    if let Some(ending) = authority.ending(now) {
        output::note(ending);
    }
}

/// As it can be typed into a shell.
pub(crate) fn quoted(path: &Path) -> String {
    shell_words::quote(&path.to_string_lossy()).into_owned()
}
