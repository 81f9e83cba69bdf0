//! What this end shows and whom it trusts: certificate, key, roots and revocation lists, watched and swapped whole.
//!
//! A [`Trust`] never changes. A reload checks what it read before anyone sees it, and makes a new one with a TLS
//! configuration and a ticket key of its own: no session of an older trust can be resumed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer, ParsedExtension};

use lizmon_protocol::name::{Role, TrustDomain};

use crate::Clock;
use crate::identity::{Identity, IdentityError};

/// The files that say what to show and whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFiles {
    /// Our certificate, followed by those between it and the root: PEM.
    pub cert: PathBuf,
    /// Its key: PKCS#8 PEM.
    pub key: PathBuf,
    /// The roots we trust: PEM.
    pub ca: PathBuf,
    /// A current revocation list of every authority that may stand in a chain: PEM.
    pub crl: PathBuf,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file that cannot be read as what it should be.
    #[error("{file}: cannot read {what}", file = file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// Why not.
        source: rustls_pki_types::pem::Error,
    },
    /// A file without what it should hold.
    #[error("{file}: there is no {what} in it", file = file.display())]
    Empty {
        /// Which file.
        file: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// A revocation list that is not DER of one.
    #[error("{file}: not a certificate revocation list", file = file.display())]
    MalformedCrl {
        /// Which file.
        file: PathBuf,
    },
    /// A certificate of ours that speaks for nobody.
    #[error("{file}: not a certificate of ours", file = file.display())]
    Identity {
        /// Which file.
        file: PathBuf,
        /// Why not.
        source: IdentityError,
    },
    /// A certificate of ours for another use.
    #[error("{file}: this certificate is for the role `{role}`, a server needs one from `lizctl issue-receiver`", file = file.display())]
    WrongRole {
        /// Which file.
        file: PathBuf,
        /// What it is for.
        role: Role,
    },
    /// A certificate of ours that peers would refuse.
    #[error("{file}: {refusal}; issue a new one with `lizctl issue-receiver`", file = file.display())]
    OwnRefused {
        /// Which file.
        file: PathBuf,
        /// What peers would say.
        refusal: Refusal,
    },
    /// The parts do not fit each other.
    #[error("{file}: certificate and key cannot be used together", file = file.display())]
    Unusable {
        /// The certificate's file.
        file: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Roots or revocation lists nobody could be verified with.
    #[error("{file}: these roots and revocation lists cannot be used", file = file.display())]
    Verifier {
        /// The roots' file.
        file: PathBuf,
        /// Why not.
        source: VerifierBuilderError,
    },
}

/// Why a peer's certificate is not good any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It, or one above it, has ended.
    #[error("the certificate has expired")]
    Expired,
    /// It, or one above it, has been revoked.
    #[error("the certificate has been revoked")]
    Revoked,
    /// It does not lead to a root that is trusted now.
    #[error("the certificate is not signed by an authority that is trusted here")]
    Untrusted,
}

/// One revocation list that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlStatus {
    /// Whose it is, as text.
    pub issuer: String,
    /// Its number: RFC 5280 section 5.2.3; 0 if it has none.
    pub number: u64,
    /// Signed at: epoch seconds.
    pub this_update: u64,
    /// To be replaced before: epoch seconds; the same as `this_update` if it does not say.
    pub next_update: u64,
}

impl CrlStatus {
    /// Whether more than half of its life is over: somebody should have signed a new one.
    pub fn is_past_half(&self, now: u64) -> bool {
        now > self.this_update + self.next_update.saturating_sub(self.this_update) / 2
    }
}

/// What is shown and trusted from one reload to the next.
pub struct Trust {
    generation: u64,
    own: Identity,
    server_name: Option<String>,
    server_config: Arc<ServerConfig>,
    verifier: Arc<DomainVerifier>,
    crls: Vec<CrlStatus>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("generation", &self.generation)
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

impl Trust {
    fn load(files: &TrustFiles, generation: u64, clock: &Clock) -> Result<Self, TrustError> {
        let provider = Arc::new(provider());
        let chain = certificates(&files.cert)?;
        let own = chain
            .first()
            .map_or(Err(IdentityError::NotACertificate), |der| {
                Identity::from_der(der)
            });
        let own = own.map_err(|source| TrustError::Identity {
            file: files.cert.clone(),
            source,
        })?;
        if !own.spiffe_id.role.is_server() {
            return Err(TrustError::WrongRole {
                file: files.cert.clone(),
                role: own.spiffe_id.role,
            });
        }
        let server_name = chain
            .first()
            .and_then(|der| crate::identity::first_server_name(der));
        let (crls, statuses) = revocation_lists(&files.crl)?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&files.ca)? {
            roots.add(root).map_err(|source| TrustError::Unusable {
                file: files.ca.clone(),
                source,
            })?;
        }
        // An expired list still revokes: what becomes of one is the receiver's to decide, not the handshake's.
        let webpki = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .with_crls(crls)
            .allow_unauthenticated()
            .build()
            .map_err(|source| TrustError::Verifier {
                file: files.ca.clone(),
                source,
            })?;
        let trust_domain = own.spiffe_id.trust_domain.clone();
        let verifier = Arc::new(DomainVerifier {
            webpki,
            trust_domain,
        });
        if let Err(refusal) = verifier.verify(&chain, clock()) {
            return Err(TrustError::OwnRefused {
                file: files.cert.clone(),
                refusal,
            });
        }
        let key =
            PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TrustError::Unreadable {
                file: files.key.clone(),
                what: "a private key",
                source,
            })?;
        let server_config =
            server_config(provider, verifier.clone(), chain, key, clock).map_err(|source| {
                TrustError::Unusable {
                    file: files.cert.clone(),
                    source,
                }
            })?;
        Ok(Self {
            generation,
            own,
            server_name,
            server_config: Arc::new(server_config),
            verifier,
            crls: statuses,
        })
    }

    /// Rises with every reload; never 0.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Who we are.
    pub fn own(&self) -> &Identity {
        &self.own
    }

    /// The first DNS name or address of our certificate, as it stands in a URL.
    pub fn server_name(&self) -> Option<String> {
        self.server_name.clone()
    }

    /// The revocation lists in force.
    pub fn crls(&self) -> &[CrlStatus] {
        &self.crls
    }

    /// The TLS configuration of this trust.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server_config.clone()
    }

    /// Judges a chain as a handshake at `now` would.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), Refusal> {
        self.verifier.verify(chain, now)
    }
}

/// Reads the trust of this moment. Cheap to clone and to ask.
#[derive(Debug, Clone)]
pub struct TrustReader(Arc<ArcSwap<Trust>>);

impl TrustReader {
    /// The trust of this moment.
    pub fn current(&self) -> arc_swap::Guard<Arc<Trust>> {
        self.0.load()
    }
}

/// Replaces the trust when its files change.
pub struct TrustWriter {
    files: TrustFiles,
    clock: Clock,
    seen: FileStamps,
    current: Arc<ArcSwap<Trust>>,
}

impl TrustWriter {
    /// Loads the files for the first time.
    pub fn open(files: TrustFiles, clock: Clock) -> Result<(Self, TrustReader), TrustError> {
        let seen = stamps(&files);
        let trust = Trust::load(&files, 1, &clock)?;
        let current = Arc::new(ArcSwap::from_pointee(trust));
        let reader = TrustReader(current.clone());
        Ok((
            Self {
                files,
                clock,
                seen,
                current,
            },
            reader,
        ))
    }

    /// Loads the files again if one has changed since they were last read. On error the trust stays as it was.
    pub fn reload_if_changed(&mut self) -> Option<Result<Arc<Trust>, TrustError>> {
        let now = stamps(&self.files);
        if now == self.seen {
            return None;
        }
        // Stamped before they are read: what changes while they are read is seen the next time.
        self.seen = now;
        let generation = self.current.load().generation + 1;
        Some(
            Trust::load(&self.files, generation, &self.clock).map(|trust| {
                let trust = Arc::new(trust);
                self.current.store(trust.clone());
                trust
            }),
        )
    }
}

type FileStamps = [Option<(SystemTime, u64, u64)>; 4];

/// Enough of each file's metadata to see that it was replaced or written to.
fn stamps(files: &TrustFiles) -> FileStamps {
    [&files.cert, &files.key, &files.ca, &files.crl].map(|file| {
        let metadata = std::fs::metadata(file).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some((metadata.modified().ok()?, metadata.len(), inode))
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let what = "a certificate";
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|source| TrustError::Unreadable {
            file: file.to_owned(),
            what,
            source,
        })?;
    if found.is_empty() {
        Err(TrustError::Empty {
            file: file.to_owned(),
            what,
        })
    } else {
        Ok(found)
    }
}

fn revocation_lists(
    file: &Path,
) -> Result<(Vec<CertificateRevocationListDer<'static>>, Vec<CrlStatus>), TrustError> {
    let what = "a certificate revocation list";
    let lists: Vec<_> = CertificateRevocationListDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|source| TrustError::Unreadable {
            file: file.to_owned(),
            what,
            source,
        })?;
    if lists.is_empty() {
        return Err(TrustError::Empty {
            file: file.to_owned(),
            what,
        });
    }
    let malformed = || TrustError::MalformedCrl {
        file: file.to_owned(),
    };
    let statuses = lists
        .iter()
        .map(|der| status_of(der).ok_or_else(malformed))
        .collect::<Result<_, _>>()?;
    Ok((lists, statuses))
}

fn status_of(der: &[u8]) -> Option<CrlStatus> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    let this_update = u64::try_from(list.last_update().timestamp()).ok()?;
    let next_update = list
        .next_update()
        .and_then(|time| u64::try_from(time.timestamp()).ok());
    let number =
        list.extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::CRLNumber(number) => u64::try_from(number).ok(),
                _ => None,
            });
    Some(CrlStatus {
        issuer: list.issuer().to_string(),
        number: number.unwrap_or(0),
        this_update,
        next_update: next_update.unwrap_or(this_update),
    })
}

/// The one crypto provider, preferring the cipher suite that costs least with hardware AES.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

fn server_config(
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

fn unix_time(epoch: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(epoch))
}

/// WebPKI's judgement, and besides it that the certificate speaks for somebody of our trust domain.
#[derive(Debug)]
struct DomainVerifier {
    webpki: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomain,
}

impl DomainVerifier {
    fn verify(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), Refusal> {
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
        let verified = self
            .webpki
            .verify_client_cert(end_entity, intermediates, now)?;
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
