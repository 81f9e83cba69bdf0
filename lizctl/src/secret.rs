//! How a verb comes by the CA's keys: `--passphrase-file`, `--root-key`, or a question on the terminal.

use std::io::{IsTerminal, stderr, stdin};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{anyhow, bail};
use clap::Args;
use lizmon_ca::Error;
use lizmon_ca::authority::Authority;
use lizmon_ca::passphrase::{Passphrase, Unlock};

use crate::cli::Context;
use crate::failure::Exit;
use crate::output;

/// Flags of every verb that opens the CA.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The CA's keys")]
pub(crate) struct Keys {
    /// A file whose first line is the passphrase of the CA's keys; asked for on a terminal where a key needs one
    #[arg(
        long,
        global = true,
        env = "LIZMON_PASSPHRASE_FILE",
        value_name = "FILE"
    )]
    passphrase_file: Option<PathBuf>,
    /// The root's key, where it is not in --certs
    #[arg(long, global = true, env = "LIZMON_ROOT_KEY", value_name = "FILE")]
    root_key: Option<PathBuf>,
}

impl Keys {
    /// What the CA is opened with, also again and again: the question is asked once.
    pub(crate) fn unlock(&self) -> Unlock {
        let file = self.passphrase_file.clone();
        let known = OnceLock::new();
        Unlock {
            root_key: self.root_key.clone(),
            ask: Some(Arc::new(move |key: &Path| {
                if let Some(known) = known.get() {
                    return Ok(Some(Passphrase::clone(known)));
                }
                let answer = match &file {
                    Some(file) => Passphrase::from_file(file)?,
                    None if is_somebody_there() => {
                        ask(&format!("passphrase of {}: ", key.display()))?
                    }
                    None => return Ok(None),
                };
                Ok(Some(known.get_or_init(|| answer).clone()))
            })),
        }
    }

    /// The same for who only looks: nobody is asked.
    pub(crate) fn unlock_unasked(&self) -> Unlock {
        match &self.passphrase_file {
            Some(_) => self.unlock(),
            None => Unlock {
                root_key: self.root_key.clone(),
                ask: None,
            },
        }
    }

    /// The passphrase of keys that are made: from the file, or asked twice; `None` where none is wanted.
    pub(crate) fn new_passphrase(&self, wanted: bool) -> anyhow::Result<Option<Passphrase>> {
        match &self.passphrase_file {
            Some(file) => Ok(Some(Passphrase::from_file(file)?)),
            None if wanted => ask_twice("new passphrase of the CA's keys").map(Some),
            None => Ok(None),
        }
    }
}

impl Context {
    /// Opens the CA.
    pub(crate) fn authority(&self, now: u64) -> Result<Authority, Error> {
        let authority = Authority::open_with(&self.certs, self.keys.unlock(), now)?;
        warn_of_ending(&authority, now);
        Ok(authority)
    }

    /// Opens the CA to look at it.
    pub(crate) fn look(&self, now: u64) -> Result<Authority, Error> {
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
}

/// Who opens the CA is told of its end long before it comes.
pub(crate) fn warn_of_ending(authority: &Authority, now: u64) {
    if let Some(ending) = authority.ending(now) {
        output::note(ending);
    }
}

/// Asks for something new, and again against typing errors.
pub(crate) fn ask_twice(what: &str) -> anyhow::Result<Passphrase> {
    if !is_somebody_there() {
        let why = anyhow!("there is no terminal to ask on: give a file with the passphrase");
        return Err(why.context(Exit::Usage));
    }
    let first = ask(&format!("{what}: "))?;
    let again = ask("once more: ")?;
    if first.as_bytes() != again.as_bytes() {
        bail!("the two differ: try again");
    }
    Ok(first)
}

fn is_somebody_there() -> bool {
    stdin().is_terminal() || stderr().is_terminal()
}

fn ask(prompt: &str) -> Result<Passphrase, Error> {
    let typed = rpassword::prompt_password(prompt).map_err(Error::PassphraseAsk)?;
    Passphrase::new(typed.into_bytes())
}
