//! Our own certificate and key.

use lizmon_pki::path::Usage;
use lizmon_pki::pem;
use lizmon_pki::provider::provider;
use lizmon_protocol::name::Role;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::error::TrustError;
use super::files::{TrustFiles, read};
use crate::identity::Identity;

/// Our certificate chain and its key.
pub(super) struct ServerPair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl ServerPair {
    /// Reads the certificate and the key. The certificate must be one for this usage, and the key
    /// must match it.
    pub(super) fn read(files: &TrustFiles, usage: Usage) -> Result<Self, TrustError> {
        let certificate = |source| TrustError::Unreadable {
            file: files.cert.clone(),
            what: "a certificate",
            source,
        };
        let chain = pem::certificates(&read(&files.cert)?).map_err(certificate)?;
        let key =
            pem::private_key(&read(&files.key)?).map_err(|source| TrustError::Unreadable {
                file: files.key.clone(),
                what: "a private key",
                source,
            })?;
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let own = Identity::from_der(leaf).map_err(|source| TrustError::Identity {
            file: files.cert.clone(),
            source,
        })?;
        let role = own.spiffe_id.role;
        let (is_right, wanted) = match usage {
            Usage::Server => (
                role.is_server(),
                "a server needs one from `lizctl issue-receiver`",
            ),
            Usage::Client => (
                role == Role::Summarizer,
                "a summarizer needs one from `lizctl issue-summarizer`",
            ),
        };
        if !is_right {
            return Err(TrustError::WrongRole {
                file: files.cert.clone(),
                role,
                wanted,
            });
        }
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(|source| {
            TrustError::Unusable {
                file: files.cert.clone(),
                source,
            }
        })?;
        Ok(Self { chain, key })
    }

    pub(super) fn copy(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}
