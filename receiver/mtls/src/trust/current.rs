//! The trust in force between two reloads.

use std::fmt;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use lizmon_pki::anchors::Anchors;
use lizmon_pki::authority;
use lizmon_pki::path::{PathVerifier, RevocationPolicy, Usage};
use lizmon_pki::provider::provider;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;

use super::contents::{TrustContents, TrustParts};
use super::error::TrustError;
use super::files::{TrustFiles, ignored_text, root_store};
use super::server_pair::ServerPair;
use super::warning::TrustWarning;
use crate::Clock;
use crate::handshake::{DomainVerifier, server_config};
use crate::identity::Identity;
use crate::known_signatures;
use crate::refusal::PeerRefusal;
use crate::revocation::{self, CrlStatus};
use crate::version::TlsMin;

/// A loaded certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedCertificate {
    /// `own`, `issuing` or `root`.
    pub part: &'static str,
    /// The subject, as text.
    pub subject: String,
    /// The first second in which it is valid: epoch seconds.
    pub not_before: u64,
    /// The last second in which it is valid: epoch seconds.
    pub not_after: u64,
}

/// The earliest warning about a CA certificate that expires: 90 days, enough to distribute a new
/// root to a fleet.
pub const AUTHORITY_EXPIRY_WARNING_SECS: u64 = 90 * 86_400;

impl LoadedCertificate {
    /// Whether this is a CA certificate that should have a successor by now: its remaining lifetime
    /// is less than [`AUTHORITY_EXPIRY_WARNING_SECS`] and less than a third of its whole lifetime.
    /// Leaf certificates are renewed automatically.
    pub fn is_expiring_authority(&self, now: u64) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        let early = AUTHORITY_EXPIRY_WARNING_SECS.min(life / 3);
        self.part != "own" && now.saturating_add(early) > self.not_after
    }
}

/// The certificates, keys and CRLs in use from one reload to the next.
pub struct Trust {
    pub(super) generation: u64,
    pub(super) own: Identity,
    /// What our own certificate is used for.
    pub(super) own_usage: Usage,
    pub(super) server_name: Option<String>,
    pub(super) server_config: Arc<ServerConfig>,
    pub(super) verifier: Arc<DomainVerifier>,
    pub(super) crls: Vec<CrlStatus>,
    pub(super) parts: TrustParts,
    pub(super) warnings: Vec<TrustWarning>,
    pub(super) notes: Vec<String>,
    pub(super) ignored_text: Vec<String>,
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
    /// Assembles a trust. `files` is used only for paths in error messages.
    pub(super) fn assemble(
        read: TrustContents,
        files: &TrustFiles,
        own_usage: Usage,
        generation: u64,
        clock: &Clock,
        tls_min: TlsMin,
    ) -> Result<Self, TrustError> {
        let TrustContents {
            parts,
            warnings,
            notes,
        } = read;
        let ServerPair { chain, key } = parts.own.copy();
        // Without any CRL, revocation would not be checked at all.
        if parts.crls.is_empty() {
            let file = files.crl.clone();
            return Err(TrustError::no_crls(file, Vec::new(), &warnings));
        }
        let provider = Arc::new(provider());
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let own = Identity::from_der(leaf).map_err(|source| TrustError::Identity {
            file: files.cert.clone(),
            source,
        })?;
        let server_name = crate::identity::first_server_name(leaf);
        let roots = root_store(&parts.anchors.roots, files)?;
        // This verifier gets no CRLs: `PathVerifier` checks revocation on every path.
        let webpki = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|source| TrustError::Verifier {
                file: files.ca.clone(),
                source,
            })?;
        let Anchors {
            roots,
            intermediates,
            ..
        } = &parts.anchors;
        // An expired CRL still revokes. What else happens with one is decided by the receiver, not
        // in the handshake.
        let paths = PathVerifier::new(
            roots,
            intermediates.clone(),
            parts.crls.clone(),
            RevocationPolicy::CrlRequired,
            known_signatures::algorithms(),
        );
        let missing = revocation::missing(&parts.crls, &chain, roots);
        let verifier = Arc::new(DomainVerifier {
            webpki,
            paths,
            trust_domain: own.spiffe_id.trust_domain.clone(),
            misses_crl: (!missing.is_empty()).into(),
        });
        let server_config = server_config(provider, verifier.clone(), chain, key, clock, tls_min)
            .map_err(|source| TrustError::Unusable {
            file: files.cert.clone(),
            source,
        })?;
        let statuses = parts.crls.iter().map(|crl| crl.status().clone());
        Ok(Self {
            generation,
            own,
            own_usage,
            server_name,
            server_config: Arc::new(server_config),
            verifier,
            crls: statuses.collect(),
            parts,
            warnings,
            notes,
            ignored_text: ignored_text(files),
        })
    }

    /// Increases with every reload; never 0.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Our own identity.
    pub fn own(&self) -> &Identity {
        &self.own
    }

    /// Our own certificate, DER.
    pub fn own_certificate(&self) -> &[u8] {
        let own = self.parts.own.chain.first();
        own.map(AsRef::as_ref).unwrap_or_default()
    }

    /// The first DNS name or address of our certificate, in the form used in a URL.
    pub fn server_name(&self) -> Option<String> {
        self.server_name.clone()
    }

    /// The CRLs in force.
    pub fn crls(&self) -> &[CrlStatus] {
        &self.crls
    }

    /// Whether a CRL in force of this issuer, as text, revokes this serial number.
    pub fn revokes(&self, issuer: &str, serial: &[u8]) -> bool {
        let mut crls = self.parts.crls.iter();
        crls.any(|crl| crl.status().issuer == issuer && crl.revokes(serial))
    }

    /// Files, or parts of them, that are not in use. The previous contents remain in force.
    pub fn warnings(&self) -> &[TrustWarning] {
        &self.warnings
    }

    /// Notes on how the files were interpreted. Log them once.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Text in the files that was ignored. Warn about it once.
    pub fn ignored_text(&self) -> &[String] {
        &self.ignored_text
    }

    /// All loaded certificates: our own chain, leaf first, then the CAs from the file of roots.
    pub fn loaded(&self) -> impl Iterator<Item = LoadedCertificate> {
        let own = (self
            .parts
            .own
            .chain
            .iter()
            .zip(iter::once("own").chain(iter::repeat("issuing"))))
        .chain(
            self.parts
                .anchors
                .intermediates
                .iter()
                .zip(iter::repeat("issuing")),
        )
        .chain(self.parts.anchors.roots.iter().zip(iter::repeat("root")));
        own.filter_map(|(der, part)| {
            let (subject, not_before, not_after) = crate::identity::subject_and_term(der)?;
            Some(LoadedCertificate {
                part,
                subject,
                not_before,
                not_after,
            })
        })
    }

    /// The TLS configuration of this trust.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server_config.clone()
    }

    /// Whether a required CRL is missing: that of one of our roots, of a CA in our own chain, or of
    /// a CA whose client was rejected for that reason since this trust is in force.
    pub fn misses_crl(&self) -> bool {
        self.verifier.misses_crl.load(Ordering::Relaxed)
    }

    /// The authorities whose CRLs can be verified: the roots, and authorities below them at any
    /// depth. These come from our own chain, the file of roots, the signers of earlier CRLs, chains
    /// of peers, and `shown`.
    pub(super) fn authorities<'a>(
        &'a self,
        shown: &'a [CertificateDer<'a>],
    ) -> Vec<authority::AuthorityCertificate> {
        let TrustParts {
            own,
            anchors,
            known,
            ..
        } = &self.parts;
        let learned = self.verifier.paths.learned();
        let all = own.chain.iter().chain(&anchors.intermediates);
        let all = all.chain(known).chain(&learned).chain(shown);
        authority::verified(&anchors.roots, all)
    }

    /// The authorities between a certificate and a root that are known here, nearest first.
    pub(crate) fn known_issuers(&self, leaf: &CertificateDer<'_>) -> Vec<CertificateDer<'static>> {
        let authorities = self.authorities(&[]);
        let mut chain = Vec::new();
        let mut below = authority::AuthorityCertificate::read(leaf);
        while let Some(certificate) = below
            && chain.len() < authorities.len()
        {
            let issuer = authorities
                .iter()
                .find(|authority| *authority.name == *certificate.issuer_name);
            below = issuer.filter(|issuer| !issuer.is_self_issued()).cloned();
            chain.extend(below.iter().map(|issuer| issuer.der.clone()));
        }
        chain
    }

    /// Verifies a chain as a handshake at `now` would.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), PeerRefusal> {
        self.verifier.verify(chain, now)
    }
}

/// Gives access to the current trust. Cheap to clone and to read.
#[derive(Debug, Clone)]
pub struct TrustReader(pub(super) Arc<ArcSwap<Trust>>);

impl TrustReader {
    /// The current trust.
    pub fn current(&self) -> arc_swap::Guard<Arc<Trust>> {
        self.0.load()
    }
}
