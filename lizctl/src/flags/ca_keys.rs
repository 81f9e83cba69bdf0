//! How a verb comes by the CA's keys: `--passphrase-file`, `--root-key`, or a question on the terminal.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use clap::Args;
use lizmon_ca::passphrase::{Passphrase, Unlock};

use crate::passphrase;

/// Flags of every verb that opens the CA.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The CA's keys")]
pub(crate) struct CaKeyFlags {
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

impl CaKeyFlags {
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
                    None if passphrase::can_ask() => {
                        passphrase::ask(&format!("passphrase of {}: ", key.display()))?
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
            None if wanted => passphrase::ask_twice("new passphrase of the CA's keys").map(Some),
            None => Ok(None),
        }
    }
}
