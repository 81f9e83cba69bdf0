//! Loads and checks credential files.

use std::path::PathBuf;
use std::sync::Arc;

use lizmon_protocol::name::SpiffeId;
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys};
use rustls_pki_types::CertificateDer;

use super::client_tls::{trusting, with_protocol};
use super::error::CredentialsError;
use super::files::{in_file, in_pem, read, read_certificates, read_roots};
use super::server_verifier::ServerRoles;
use crate::anchors::Anchors;
use crate::certificate_files::CertificateFiles;
use crate::file_stamp::FileStamp;
use crate::identity::Leaf;
use crate::own_chain::OwnChain;
use crate::path::{ChainMember, Fault, PathVerifier, RevocationPolicy};
use crate::pem;
use crate::provider::provider;
use crate::server_crls::ServerCrls;

/// The paths of a client's certificate, key and CA certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The client's certificate, followed by its issuing CAs.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The certificates of the trusted authorities.
    pub ca: PathBuf,
}

/// Credentials that have been loaded and checked.
pub struct LoadedCredentials {
    /// The identity in the certificate.
    pub identity: SpiffeId,
    /// The last second at which the certificate is valid.
    pub not_after: u64,
    /// Why a server that trusts the same roots would reject the certificate at load time.
    pub fault: Option<Fault>,
    /// Verifies the certificate again at another time.
    pub own: OwnChain,
    /// TLS configuration with the client certificate.
    pub tls: ClientConfig,
    /// TLS configuration for the same servers without the client certificate, for public data.
    pub anonymous: ClientConfig,
}

/// The validity period of a certificate: epoch seconds, inclusive on both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first valid second.
    pub not_before: u64,
    /// The last valid second.
    pub not_after: u64,
}

/// The stamps of the three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialStamps([Option<FileStamp>; 3]);

impl Credentials {
    /// Loads and checks all files at `now` (epoch seconds). Fails if one of them cannot be used.
    pub fn load(&self, crls: &ServerCrls, now: u64) -> Result<LoadedCredentials, CredentialsError> {
        self.load_for(ServerRoles::Any, crls, now)
    }

    /// Like [`load`](Self::load), but also accepts a certificate that has expired or is not valid
    /// yet, although no server accepts it.
    pub fn load_at_any_time(
        &self,
        crls: &ServerCrls,
        now: u64,
    ) -> Result<LoadedCredentials, CredentialsError> {
        let at = self.validity().map_or(now, |validity| {
            now.min(validity.not_after).max(validity.not_before)
        });
        self.load(crls, at)
    }

    /// Like [`load`](Self::load), for connections to a `liz-ca` only: a stolen receiver key cannot
    /// impersonate the CA.
    pub fn load_for_ca(&self, now: u64) -> Result<LoadedCredentials, CredentialsError> {
        self.load_for(ServerRoles::CaOnly, &ServerCrls::default(), now)
    }

    /// The validity period of the certificate. Does not check the current time.
    pub fn validity(&self) -> Result<Validity, CredentialsError> {
        let chain = read_certificates("certificate", &self.cert)?;
        self.read_leaf(&chain[0]).map(|(_, validity)| validity)
    }

    /// The identity in the certificate. Does not check the validity period.
    pub fn identity(&self) -> Result<SpiffeId, CredentialsError> {
        let chain = read_certificates("certificate", &self.cert)?;
        self.read_leaf(&chain[0]).map(|(identity, _)| identity)
    }

    fn load_for(
        &self,
        servers: ServerRoles,
        crls: &ServerCrls,
        now: u64,
    ) -> Result<LoadedCredentials, CredentialsError> {
        // Finish a replacement that a crash interrupted. If that fails, the checks below report the
        // reason.
        let _finished = CertificateFiles {
            cert: self.cert.clone(),
            key: self.key.clone(),
        }
        .finish_install();
        let chain = read_certificates("certificate", &self.cert)?;
        let (identity, validity) = self.check_leaf(&chain[0], now)?;
        let key =
            pem::private_key(&read("key", &self.key)?).map_err(in_pem("private key", &self.key))?;
        let provider = Arc::new(provider());
        let anchors = read_roots(&self.ca)?;
        let own = own_chain(&chain, &anchors, &provider, validity);
        let fault = own.fault(now);
        // rustls would refuse to present it, with a less helpful message.
        if let Some(source @ (Fault::CriticalExtension(ChainMember::Leaf) | Fault::Malformed(_))) =
            fault
        {
            let path = self.cert.clone();
            return Err(CredentialsError::Unusable { path, source });
        }
        let certified =
            CertifiedKey::from_der(chain, key, &provider).map_err(|source| match source {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    CredentialsError::KeyMismatch {
                        key: self.key.clone(),
                        cert: self.cert.clone(),
                    }
                }
                source => CredentialsError::Tls {
                    path: self.key.clone(),
                    source,
                },
            })?;
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let to_them = trusting(&anchors, servers, crls, provider).map_err(in_file(&self.ca))?;
        Ok(LoadedCredentials {
            identity,
            not_after: validity.not_after,
            fault,
            own,
            anonymous: with_protocol(to_them.clone().with_no_client_auth()),
            tls: with_protocol(to_them.with_client_cert_resolver(resolver)),
        })
    }

    /// The stamps of the files. Take them before [`Self::load`], so that the next comparison
    /// detects a change during the load.
    pub fn stamps(&self) -> CredentialStamps {
        CredentialStamps([&self.cert, &self.key, &self.ca].map(|path| FileStamp::of(path)))
    }

    fn check_leaf(
        &self,
        leaf: &CertificateDer<'_>,
        now: u64,
    ) -> Result<(SpiffeId, Validity), CredentialsError> {
        let path = || self.cert.clone();
        let (identity, validity) = self.read_leaf(leaf)?;
        if now > validity.not_after {
            let (path, not_after) = (path(), validity.not_after);
            return Err(CredentialsError::Expired {
                path,
                not_after,
                now,
            });
        }
        if now < validity.not_before {
            let (path, not_before) = (path(), validity.not_before);
            return Err(CredentialsError::NotYetValid {
                path,
                not_before,
                now,
            });
        }
        Ok((identity, validity))
    }

    fn read_leaf(
        &self,
        leaf: &CertificateDer<'_>,
    ) -> Result<(SpiffeId, Validity), CredentialsError> {
        let in_identity = |source| CredentialsError::Identity {
            path: self.cert.clone(),
            source,
        };
        let leaf = Leaf::read(leaf).map_err(|error| in_identity(error.into()))?;
        let validity = Validity {
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        };
        Ok((leaf.spiffe_id, validity))
    }
}

fn own_chain(
    chain: &[CertificateDer<'static>],
    anchors: &Anchors,
    provider: &CryptoProvider,
    validity: Validity,
) -> OwnChain {
    let paths = PathVerifier::new(
        &anchors.roots,
        anchors.intermediates.clone(),
        Vec::new(),
        RevocationPolicy::CrlOptional,
        provider.signature_verification_algorithms.all,
    );
    OwnChain {
        chain: chain.to_vec(),
        paths,
        validity: (validity.not_before, validity.not_after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Files, NODE, Pki};

    fn check(files: &Files, now: u64, expected: Result<(), &[&str]>) {
        let got = files.credentials().load(&ServerCrls::default(), now);
        match (got, expected) {
            (Ok(_), Ok(())) => (),
            (Err(error), Err(parts)) => {
                let text = error.to_string();
                for part in parts {
                    assert!(text.contains(part), "{text}: should say {part:?}");
                }
            }
            (got, expected) => panic!("got {:?}, expected {expected:?}", got.err()),
        }
    }

    #[test]
    fn good_files_say_who_and_until_when() {
        let files = Files::new();
        let crls = ServerCrls::default();
        let loaded = files.credentials().load(&crls, Pki::NOW).unwrap();
        assert_eq!(loaded.identity.to_string(), NODE);
        assert_eq!(loaded.not_after, 1_798_675_200);
    }

    #[test]
    fn bad_files_are_named() {
        let other = Pki::new("root").issue(&[NODE]);
        let pem = other.certificate.pem();
        let cases: &[(&str, Option<&str>, &[&str])] = &[
            ("cert", None, &["cannot read the certificate", "cert`"]),
            ("key", None, &["cannot read the key", "key`"]),
            ("ca", None, &["cannot read the CA certificate", "ca`"]),
            ("cert", Some(""), &["there is no certificate in", "cert`"]),
            ("key", Some("x"), &["there is no private key in", "key`"]),
            ("ca", Some("x"), &["there is no CA certificate in", "ca`"]),
            ("cert", Some(&pem[..200]), &["cannot be used", "cert`"]),
            ("cert", Some(&pem), &["does not belong", "key`", "cert`"]),
            (
                "key",
                Some(&other.key.serialize_pem()),
                &["does not belong"],
            ),
        ];
        for (name, text, parts) in cases {
            let files = Files::new();
            match text {
                Some(text) => files.write(name, text),
                None => std::fs::remove_file(files.path(name)).unwrap(),
            }
            check(&files, Pki::NOW, Err(parts));
        }
    }

    #[test]
    fn a_certificate_of_another_house_is_refused() {
        let files = Files::new();
        let foreign = files.pki.issue(&[]);
        files.write("cert", &foreign.certificate.pem());
        files.write("key", &foreign.key.serialize_pem());
        check(
            &files,
            Pki::NOW,
            Err(&["is not a lizmon certificate", "cert`"]),
        );
    }

    #[test]
    fn the_time_is_checked() {
        const END: u64 = 1_798_675_200;
        const BEGIN: u64 = 1_767_225_600;
        let cases: &[(u64, Result<(), &[&str]>)] = &[
            (BEGIN - 1, Err(&["only in 1 second", "clock"])),
            (BEGIN, Ok(())),
            (END, Ok(())),
            (END + 1, Err(&["expired 1 second ago"])),
            (END + 86_400 * 3, Err(&["expired 3 days ago", "cert`"])),
        ];
        let files = Files::new();
        for (now, expected) in cases {
            check(&files, *now, *expected);
        }
    }

    #[test]
    fn a_changed_file_changes_the_stamps() {
        let files = Files::new();
        let credentials = files.credentials();
        let before = credentials.stamps();
        assert_eq!(before, credentials.stamps());
        for name in ["cert", "key", "ca"] {
            let before = credentials.stamps();
            // A rename, as lizctl does it. The inode changes, even if the modification time does
            // not.
            let fresh = files.path("fresh");
            std::fs::copy(files.path(name), &fresh).unwrap();
            std::fs::rename(fresh, files.path(name)).unwrap();
            assert_ne!(before, credentials.stamps(), "{name}");
        }
    }
}
