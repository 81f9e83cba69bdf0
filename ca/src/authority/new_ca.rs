//! Generates a root or an issuing CA.

use std::path::Path;

use lizmon_protocol::name::TrustDomain;
use rcgen::{Certificate, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::ca::operator;
use super::error::Error;
use crate::ledger::{CertState, Entry};
use crate::pki::{
    self, CaCertificate, CertFields, DAY_SECS, KeyAlg, KeyGenError, Profile, Serial, SignError,
    Signer, Validity, key,
};

/// A CA that was just created.
pub(crate) struct NewCa {
    pub(crate) serial: Serial,
    pub(crate) key: KeyPair,
    pub(crate) certificate: Certificate,
    profile: Profile,
    issuer: String,
    validity: Validity,
    common_name: String,
}

impl NewCa {
    /// Creates a root that is valid for `days`.
    pub(crate) fn root(
        domain: &TrustDomain,
        alg: KeyAlg,
        days: u32,
        now: u64,
    ) -> Result<Self, Error> {
        let validity = pki::validity_from(now, u64::from(days) * DAY_SECS, None)?;
        let (serial, key) = (Serial::random()?, key::generate(alg)?);
        let facts = CertFields {
            serial: &serial,
            validity,
            key_id: &key::identifier(&key),
        };
        let params = pki::root(domain, facts)?;
        Ok(Self {
            profile: Profile::Root,
            issuer: serial.to_string(),
            common_name: pki::common_name_of(&params),
            certificate: params.self_signed(&key).map_err(SignError::from)?,
            serial,
            key,
            validity,
        })
    }

    /// Creates an issuing CA that is valid for `days`, but not past its root's end.
    pub(crate) fn issuing(
        domain: &TrustDomain,
        root: &Signer,
        alg: KeyAlg,
        days: u32,
        now: u64,
    ) -> Result<Self, Error> {
        let above = root.certificate();
        let validity = pki::validity_from(now, u64::from(days) * DAY_SECS, Some(above.validity))?;
        let (serial, key) = (Serial::random()?, key::generate(alg)?);
        let facts = CertFields {
            serial: &serial,
            validity,
            key_id: &key::identifier(&key),
        };
        let params = pki::issuing(domain, facts)?;
        Ok(Self {
            profile: Profile::Issuing,
            issuer: above.serial.clone(),
            common_name: pki::common_name_of(&params),
            certificate: root.sign_certificate(&params, &key)?,
            serial,
            key,
            validity,
        })
    }

    /// The certificate with its key.
    pub(crate) fn signer(
        &self,
        path: &Path,
        above: Option<&CaCertificate>,
    ) -> Result<Signer, Error> {
        let pem = self.certificate.pem();
        let certificate = CaCertificate::from_pem(path, pem.as_bytes(), above)?;
        let der = PrivatePkcs8KeyDer::from(self.key.serialized_der());
        let key = KeyPair::try_from(&PrivateKeyDer::Pkcs8(der)).map_err(KeyGenError::from)?;
        Ok(Signer::new(certificate, path, key)?)
    }

    /// Its ledger entry.
    pub(crate) fn entry(&self, now: u64) -> Entry {
        Entry {
            serial: self.serial.to_string(),
            profile: self.profile,
            name: self.common_name.clone(),
            issuer: self.issuer.clone(),
            key_sha256: key::fingerprint(&self.key),
            not_before: self.validity.not_before,
            not_after: self.validity.not_after,
            issued_at: now,
            issued_by: operator(),
            state: CertState::Valid,
            revoked_at: None,
            revoked_reason: None,
            revoked_by: None,
            renews: None,
            pem: self.certificate.pem(),
        }
    }
}
