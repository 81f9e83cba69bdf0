//! Passphrases that are typed on the terminal.

use std::io::{IsTerminal, stderr, stdin};

use anyhow::{anyhow, bail};
use lizmon_ca::pki::{Passphrase, PassphraseError};

use crate::failure::Exit;

/// Asks twice for a new passphrase, to catch typing errors.
pub(crate) fn ask_twice(what: &str) -> anyhow::Result<Passphrase> {
    if !can_ask() {
        let why = anyhow!("no terminal to ask for the passphrase: give a file with it");
        return Err(why.context(Exit::Usage));
    }
    let first = ask(&format!("{what}: "))?;
    let again = ask("again: ")?;
    if first.as_bytes() != again.as_bytes() {
        bail!("the two passphrases differ: try again");
    }
    Ok(first)
}

pub(crate) fn can_ask() -> bool {
    stdin().is_terminal() || stderr().is_terminal()
}

pub(crate) fn ask(prompt: &str) -> Result<Passphrase, PassphraseError> {
    let typed = rpassword::prompt_password(prompt).map_err(PassphraseError::Prompt)?;
    Passphrase::new(typed.into_bytes())
}
