//! PKCS #12 files for browsers: key and chain in one encrypted file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use lizmon_ca::authority::Issued;
use lizmon_ca::files::{Access, disk};
use lizmon_ca::pki::Passphrase;
use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};

use crate::failure::Exit;
use crate::passphrase::ask_twice;

/// Iterations of PBKDF2-SHA256, as OWASP recommends. The file's MAC gets as many, or else it would
/// be the cheaper one to attack.
const ITERATIONS: u32 = 600_000;

/// Flags of a certificate for a browser.
#[derive(Debug, Args)]
pub(crate) struct Pkcs12Flags {
    /// Also write key and certificates into a PKCS #12 file, which browsers import
    #[arg(
        long = "p12",
        env = "LIZMON_P12",
        value_name = "FILE",
        conflicts_with = "csr"
    )]
    file: Option<PathBuf>,
    /// File whose first line is the passphrase of the PKCS #12 file [default: ask on the terminal]
    #[arg(
        long,
        env = "LIZMON_P12_PASSPHRASE_FILE",
        value_name = "FILE",
        requires = "file"
    )]
    p12_passphrase_file: Option<PathBuf>,
}

/// A PKCS #12 file to be written, and its passphrase.
pub(crate) struct Pkcs12Export<'a> {
    file: &'a Path,
    passphrase: Passphrase,
}

impl Pkcs12Flags {
    /// Gets the passphrase before anything is issued.
    pub(crate) fn prepare(&self) -> anyhow::Result<Option<Pkcs12Export<'_>>> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let passphrase = match &self.p12_passphrase_file {
            Some(file) => Passphrase::from_file(file)?,
            None => ask_twice(&format!("new passphrase of {}", file.display()))?,
        };
        if std::str::from_utf8(passphrase.as_bytes()).is_err() {
            let why = anyhow!("the passphrase of a PKCS #12 file must be UTF-8");
            return Err(why.context(Exit::Usage));
        }
        Ok(Some(Pkcs12Export { file, passphrase }))
    }
}

impl Pkcs12Export<'_> {
    /// Writes the issued certificate and its key.
    pub(crate) fn write(&self, issued: &Issued) -> anyhow::Result<&Path> {
        let key = issued.key_path.as_ref();
        let key = key.context("there is no private key to export")?;
        let pem = std::fs::read(key).with_context(|| format!("cannot read {}", key.display()))?;
        let key = lizmon_pki::pem::private_key(&pem)?;
        let chain = lizmon_pki::pem::certificates(issued.chain_pem.as_bytes())?;
        let chain = chain
            .iter()
            .map(|der| Certificate::from_der(der))
            .collect::<Result<Vec<_>, _>>()?;
        let chain = PrivateKeyChain::new(
            issued.serial.as_bytes(),
            PrivateKey::from_der(key.secret_der())?,
            chain,
        );
        let mut store = KeyStore::new();
        let title = format!("lizmon {} {}", issued.spiffe_id.role, issued.spiffe_id.name);
        store.add_entry(&title, KeyStoreEntry::PrivateKeyChain(chain));
        let bytes = store
            .writer(std::str::from_utf8(self.passphrase.as_bytes())?)
            .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
            .encryption_iterations(ITERATIONS)
            .mac_algorithm(MacAlgorithm::HmacSha256)
            .mac_iterations(ITERATIONS)
            .write()?;
        disk::write(self.file, &bytes, Access::Secret)?;
        Ok(self.file)
    }
}
