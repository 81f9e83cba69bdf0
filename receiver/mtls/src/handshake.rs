//! The TLS configuration of a trust: one provider, our order of cipher suites, and a verifier with
//! one check in addition to WebPKI.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use lizmon_pki::path::{Fault, PathVerifier, Usage, unix_time};
use lizmon_protocol::name::TrustDomain;

use crate::Clock;
use crate::identity::{Identity, IdentityError, shown_name};
use crate::refusal::{PeerRefusal, RefusedCertificate};
use crate::version::TlsMin;

pub(crate) fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<DomainVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clock: &Clock,
    tls_min: TlsMin,
) -> Result<ServerConfig, rustls::Error> {
    let time = Arc::new(HandshakeTime(clock.clone()));
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(tls_min.versions())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

struct HandshakeTime(Clock);

impl fmt::Debug for HandshakeTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandshakeTime")
    }
}

impl rustls::time_provider::TimeProvider for HandshakeTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time((self.0)()))
    }
}

/// Applies the WebPKI checks, and also checks that the certificate has an ID in our trust domain.
#[derive(Debug)]
pub(crate) struct DomainVerifier {
    pub(crate) webpki: Arc<dyn ClientCertVerifier>,
    /// Verifies chains and checks revocation.
    pub(crate) paths: PathVerifier,
    pub(crate) trust_domain: TrustDomain,
    /// Set when a peer is rejected because the CRL of its issuer is missing.
    pub(crate) misses_crl: AtomicBool,
}

impl DomainVerifier {
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), PeerRefusal> {
        self.verify_as(Usage::Client, chain, now).map(drop)
    }

    /// Verifies a chain for this usage, and gives the identity in its leaf.
    pub(crate) fn verify_as(
        &self,
        usage: Usage,
        chain: &[CertificateDer<'_>],
        now: u64,
    ) -> Result<Identity, PeerRefusal> {
        match chain.split_first() {
            Some((leaf, intermediates)) => {
                self.verify_leaf(usage, leaf, intermediates, unix_time(now))
            }
            None => Err(PeerRefusal::NoIdentity(IdentityError::NotACertificate)),
        }
    }

    fn verify_leaf(
        &self,
        usage: Usage,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Identity, PeerRefusal> {
        let verified = self.paths.verify(leaf, intermediates, now, usage);
        if let Err(Fault::NoCrl { .. } | Fault::ForeignCrl { .. }) = verified {
            self.misses_crl.store(true, Ordering::Relaxed);
        }
        verified?;
        let identity = Identity::from_der(leaf).map_err(PeerRefusal::NoIdentity)?;
        let found = &identity.spiffe_id.trust_domain;
        match *found == self.trust_domain {
            true => Ok(identity),
            false => Err(PeerRefusal::OtherDomain {
                found: found.clone(),
                ours: self.trust_domain.clone(),
            }),
        }
    }
}

tokio::task_local! {
    /// rustls keeps only the part of an error that fits an alert. The full reason is stored
    /// separately.
    static REFUSED: RefCell<Option<RefusedCertificate>>;
}

/// Runs a handshake. Returns its result, and the reason if the peer's certificate was rejected.
pub(crate) async fn noting<F: Future>(handshake: F) -> (F::Output, Option<RefusedCertificate>) {
    let noted = async {
        let outcome = handshake.await;
        (outcome, REFUSED.with(RefCell::take))
    };
    REFUSED.scope(RefCell::default(), noted).await
}

/// The alert for a rejected certificate is as specific as TLS allows: RFC 8446 section 6.2.
fn certificate_error(refusal: &PeerRefusal) -> CertificateError {
    use CertificateError as E;
    let PeerRefusal::Chain(fault) = refusal else {
        return E::ApplicationVerificationFailure;
    };
    match fault {
        Fault::Revoked(_) => E::Revoked,
        Fault::Expired { not_after, now, .. } => E::ExpiredContext {
            time: unix_time(*now),
            not_after: unix_time(*not_after),
        },
        Fault::NotYetValid {
            not_before, now, ..
        } => E::NotValidYetContext {
            time: unix_time(*now),
            not_before: unix_time(*not_before),
        },
        Fault::Purpose { .. } => E::InvalidPurpose,
        Fault::MissingIssuer { .. } | Fault::UnknownRoot { .. } => E::UnknownIssuer,
        Fault::BadSignature | Fault::SignatureAlgorithm => E::BadSignature,
        Fault::CriticalExtension(_) => E::UnhandledCriticalExtension,
        Fault::Malformed(_) => E::BadEncoding,
        // This is not the client's fault: the alert must not say that its CA is unknown.
        Fault::NoCrl { .. } | Fault::ForeignCrl { .. } => other(fault),
        Fault::NameConstraints
        | Fault::PathLength
        | Fault::NotAnAuthority
        | Fault::IsAuthority
        | Fault::Other(_) => other(fault),
    }
}

fn other(fault: &Fault) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(fault.clone())))
}

impl ClientCertVerifier for DomainVerifier {
    fn offer_client_auth(&self) -> bool {
        self.webpki.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify_leaf(Usage::Client, end_entity, intermediates, now)
            .map_err(|refusal| {
                let error = certificate_error(&refusal);
                let shown = shown_name(end_entity);
                // Outside of our handshakes the reason is not needed.
                let _unasked = REFUSED
                    .try_with(|noted| noted.replace(Some(RefusedCertificate { shown, refusal })));
                error
            })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
