//! What every verb gets besides its own flags.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lizmon_ca::Error;
use lizmon_ca::authority::Authority;

use crate::flags::ca_keys::CaKeyFlags;
use crate::output;

/// What every verb gets besides its own flags.
pub(crate) struct Context {
    /// Folder of certificates, keys and the ledger.
    pub(crate) certs: PathBuf,
    /// How CA keys are unlocked.
    pub(crate) keys: CaKeyFlags,
    /// The file of a person's profiles; `None` for a user without a home.
    pub(crate) profiles: Option<PathBuf>,
    /// Seconds since 1970 UTC.
    pub(crate) clock: fn() -> u64,
    /// A random number from 0 to 1.
    pub(crate) chance: fn() -> f64,
    /// A fresh secret of 256 bits.
    pub(crate) new_secret: fn() -> [u8; 32],
    /// Time since 1970 UTC with its fraction, for measuring durations.
    pub(crate) stopwatch: fn() -> Duration,
}

impl Context {
    /// Opens the CA for writing.
    pub(crate) fn authority(&self, now: u64) -> Result<Authority, Error> {
        let authority = Authority::open_with(&self.certs, self.keys.unlock(), now)?;
        warn_of_expiry(&authority, now);
        Ok(authority)
    }

    /// Opens the CA for reading. Never prompts for a passphrase.
    pub(crate) fn authority_to_read(&self, now: u64) -> Result<Authority, Error> {
        let authority =
            Authority::open_read_only(&self.certs, self.keys.unlock_without_prompt(), now)?;
        if let Some(at) = authority.copied_at()? {
            output::note(format_args!(
                "this ledger was restored or copied, as was found at {}: it does not know what was issued or revoked elsewhere before then",
                output::date(at)
            ));
        }
        if authority.is_read_only() {
            output::note(format_args!(
                "nothing can be written in {}: showing what is stored there",
                self.certs.display()
            ));
        } else if authority.crls_are_due(now)? {
            output::note(
                "a CRL is past half of its lifetime: run `lizctl sign-crl`, or this command with --passphrase-file",
            );
        }
        warn_of_expiry(&authority, now);
        Ok(authority)
    }

    /// ` --certs DIR` for a command that is printed; empty where `--certs` has its default.
    pub(crate) fn certs_flag(&self) -> String {
        if self.certs == Path::new("certs") {
            String::new()
        } else {
            format!(" --certs {}", quoted(&self.certs))
        }
    }
}

/// Warns long before a CA expires.
fn warn_of_expiry(authority: &Authority, now: u64) {
    if let Some(ending) = authority.expiry(now) {
        output::note(ending);
    }
}

/// The path, quoted for a shell.
pub(crate) fn quoted(path: &Path) -> String {
    shell_words::quote(&path.to_string_lossy()).into_owned()
}
