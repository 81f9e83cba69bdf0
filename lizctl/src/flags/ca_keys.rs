//! How CA keys are unlocked: `--passphrase-file`, `--root-key`, or a prompt on the terminal.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use clap::Args;
use lizmon_ca::pki::{Passphrase, Unlock};

use crate::passphrase;

/// Flags of every verb that opens the CA.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The CA's keys")]
pub(crate) struct CaKeyFlags {
    /// File whose first line is the passphrase of the CA's keys [default: ask on the terminal if a
    /// key needs one]
    #[arg(
        long,
        global = true,
        env = "LIZMON_PASSPHRASE_FILE",
        value_name = "FILE"
    )]
    passphrase_file: Option<PathBuf>,
    /// The root key, if it is not in --certs
    #[arg(long, global = true, env = "LIZMON_ROOT_KEY", value_name = "FILE")]
    root_key: Option<PathBuf>,
}

impl CaKeyFlags {
    /// Unlocks the CA's keys. The terminal is asked at most once, however often the CA is opened.
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

    /// For reading: unlocks the keys with `--passphrase-file` alone, and never prompts.
    pub(crate) fn unlock_without_prompt(&self) -> Unlock {
        match &self.passphrase_file {
            Some(_) => self.unlock(),
            None => Unlock {
                root_key: self.root_key.clone(),
                ask: None,
            },
        }
    }

    /// The passphrase of new keys: from the file, or typed twice; `None` if they are not encrypted.
    pub(crate) fn new_passphrase(&self, wanted: bool) -> anyhow::Result<Option<Passphrase>> {
        match &self.passphrase_file {
            Some(file) => Ok(Some(Passphrase::from_file(file)?)),
            None if wanted => passphrase::ask_twice("new passphrase of the CA's keys").map(Some),
            None => Ok(None),
        }
    }
}
