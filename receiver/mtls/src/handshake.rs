//! The TLS configuration of a trust: one provider, our order of cipher suites, and a verifier that asks one thing more
//! than WebPKI does.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use lizmon_pki::path::{Fault, Paths, Usage, unix_time};
use lizmon_protocol::name::TrustDomain;

use crate::Clock;
use crate::identity::Identity;
use crate::trust::Refusal;

/// The one crypto provider, preferring the cipher suite that costs least with hardware AES.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

pub(crate) fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<DomainVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clock: &Clock,
) -> Result<ServerConfig, rustls::Error> {
    let time = Arc::new(HandshakeTime(clock.clone()));
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()?
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

/// WebPKI's judgement, and besides it that the certificate speaks for somebody of our trust domain.
#[derive(Debug)]
pub(crate) struct DomainVerifier {
    pub(crate) webpki: Arc<dyn ClientCertVerifier>,
    /// Judges chains, and asks the lists.
    pub(crate) paths: Paths,
    pub(crate) trust_domain: TrustDomain,
    /// Set when somebody is turned away because no list speaks of them.
    pub(crate) misses_a_list: AtomicBool,
}

impl DomainVerifier {
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), Refusal> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(Refusal::Untrusted);
        };
        match self.verify_client_cert(leaf, intermediates, unix_time(now)) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(error)) => Err(match error {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Refusal::Expired
                }
                CertificateError::Revoked => Refusal::Revoked,
                _ => Refusal::Untrusted,
            }),
            Err(_) => Err(Refusal::Untrusted),
        }
    }
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
        let judged = self
            .paths
            .judge(end_entity, intermediates, now, Usage::Client);
        let verified = match judged {
            Ok(()) => ClientCertVerified::assertion(),
            Err(Fault::Revoked) => return Err(CertificateError::Revoked.into()),
            Err(Fault::NoList) => {
                self.misses_a_list.store(true, Ordering::Relaxed);
                return Err(CertificateError::UnknownRevocationStatus.into());
            }
            // rustls says it in its own words, with times and names.
            Err(Fault::NoPath(_)) => {
                let shown: Vec<_> = self
                    .paths
                    .intermediates()
                    .iter()
                    .chain(intermediates)
                    .cloned()
                    .collect();
                self.webpki.verify_client_cert(end_entity, &shown, now)?;
                return Err(CertificateError::UnknownIssuer.into());
            }
        };
        match Identity::from_der(end_entity) {
            Ok(identity) if identity.spiffe_id.trust_domain == self.trust_domain => Ok(verified),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
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
