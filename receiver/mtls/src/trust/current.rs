//! The trust that is in force between two reloads.

use std::fmt;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use lizmon_pki::anchors::Anchors;
use lizmon_pki::authority;
use lizmon_pki::path::{PathVerifier, RevocationPolicy};
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
use crate::refusal::PeerRefusal;
use crate::revocation::{self, CrlStatus};
use crate::version::TlsMin;

/// A certificate that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedCertificate {
    /// `own`, `issuing` or `root`.
    pub part: &'static str,
    /// Its subject, as text.
    pub subject: String,
    /// Its first second: epoch seconds.
    pub not_before: u64,
    /// Its last second: epoch seconds.
    pub not_after: u64,
}

/// How long before its end an authority is complained of at the earliest: 90 days, enough to hand a new root to a fleet.
pub const AUTHORITY_EXPIRY_WARNING_SECS: u64 = 90 * 86_400;

impl LoadedCertificate {
    /// Whether it is an authority's that should be followed by another one by now: less is left than
    /// [`AUTHORITY_EXPIRY_WARNING_SECS`], and than a third of its life. Leaves renew themselves.
    pub fn is_expiring_authority(&self, now: u64) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        let early = AUTHORITY_EXPIRY_WARNING_SECS.min(life / 3);
        self.part != "own" && now.saturating_add(early) > self.not_after
    }
}

/// What is shown and trusted from one reload to the next.
pub struct Trust {
    pub(super) generation: u64,
    pub(super) own: Identity,
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
    /// Puts the parts together. `files` only name what does not fit.
    pub(super) fn assemble(
        read: TrustContents,
        files: &TrustFiles,
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
        // Nobody could be asked for then: whoever is let in by no CRL is let in by anything.
        if parts.crls.is_empty() {
            let file = files.crl.clone();
            return Err(TrustError::no_lists(file, Vec::new(), &warnings));
        }
        let provider = Arc::new(provider());
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let own = Identity::from_der(leaf).map_err(|source| TrustError::Identity {
            file: files.cert.clone(),
            source,
        })?;
        let server_name = crate::identity::first_server_name(leaf);
        let roots = root_store(&parts.anchors.roots, files)?;
        // It is not given the CRLs: the paths ask them, for whatever it finds.
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
        // An expired CRL still revokes: what becomes of one is the receiver's to decide, not the handshake's.
        let paths = PathVerifier::new(
            roots,
            intermediates.clone(),
            parts.crls.clone(),
            RevocationPolicy::CrlRequired,
            provider.signature_verification_algorithms.all,
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

    /// Rises with every reload; never 0.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Who we are.
    pub fn own(&self) -> &Identity {
        &self.own
    }

    /// The certificate that says so, DER.
    pub fn own_certificate(&self) -> &[u8] {
        let own = self.parts.own.chain.first();
        own.map(AsRef::as_ref).unwrap_or_default()
    }

    /// The first DNS name or address of our certificate, as it stands in a URL.
    pub fn server_name(&self) -> Option<String> {
        self.server_name.clone()
    }

    /// The CRLs in force.
    pub fn crls(&self) -> &[CrlStatus] {
        &self.crls
    }

    /// What is not in use as it stands: files, and parts of them. What is in force instead is what was before.
    pub fn warnings(&self) -> &[TrustWarning] {
        &self.warnings
    }

    /// What somebody may want to know of how the files were understood: to be said once.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Text in the files that was passed over when they were read: to be warned of once.
    pub fn ignored_text(&self) -> &[String] {
        &self.ignored_text
    }

    /// Every certificate that was loaded: what we show, leaf first, then the authorities of the roots' file.
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

    /// Whether a CRL is wanted that is not here: of one of our roots, of an authority of our own certificate, or of one
    /// whose holder was turned away for that since this trust is in force.
    pub fn misses_crl(&self) -> bool {
        self.verifier.misses_crl.load(Ordering::Relaxed)
    }

    /// The authorities whose CRLs can be judged: the roots, and those below them, to any depth, of our own chain, of the
    /// roots' file, of those that signed CRLs before, that peers have shown, and that are shown now.
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

    /// Judges a chain as a handshake at `now` would.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), PeerRefusal> {
        self.verifier.verify(chain, now)
    }
}

/// Reads the trust of this moment. Cheap to clone and to ask.
#[derive(Debug, Clone)]
pub struct TrustReader(pub(super) Arc<ArcSwap<Trust>>);

impl TrustReader {
    /// The trust of this moment.
    pub fn current(&self) -> arc_swap::Guard<Arc<Trust>> {
        self.0.load()
    }
}
