//! What this end shows and whom it trusts: certificate, key, roots and CRLs, watched and swapped whole.
//!
//! A [`Trust`] never changes. A reload checks what it read before anyone sees it, and makes a new one with a TLS
//! configuration and a ticket key of its own: no session of an older trust can be resumed.

use std::fmt;
use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use lizmon_pki::anchors::Anchors;
use lizmon_pki::authority;
use lizmon_pki::crls_in_force::CrlAddition;
pub use lizmon_pki::path::Fault;
use lizmon_pki::path::{PathVerifier, RevocationPolicy};
use lizmon_pki::provider::provider;
use lizmon_protocol::name::TrustDomain;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;

use crate::Clock;
use crate::handshake::{DomainVerifier, server_config};
use crate::identity::{Identity, IdentityError};
use crate::revocation::{self, Crl, CrlRefused, CrlStatus};
use crate::version::TlsMin;

mod crl_sources;
mod error;
mod files;
mod own;

use crl_sources::CrlSources;
pub use error::TrustError;
use files::{ServerPair, TrustStamps, keep, root_store, stamps};
pub use files::{TrustFiles, TrustPart, TrustWarning};

/// Why a peer's certificate is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// By its chain.
    #[error("the certificate is not taken: {0}")]
    Chain(#[from] Fault),
    /// It speaks for nobody here.
    #[error("the certificate is not one of lizmon's: {0}: issue one with lizctl")]
    Nobody(#[source] IdentityError),
    /// It speaks for somebody elsewhere.
    #[error(
        "the certificate is of the trust domain `{found}`, and here `{ours}` is served: show one of that domain"
    )]
    OtherDomain {
        /// Its own.
        found: TrustDomain,
        /// Ours.
        ours: TrustDomain,
    },
}

impl PeerRefusal {
    /// Whether somebody is revoked.
    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Chain(Fault::Revoked(_)))
    }

    /// Whether it is the time: tomorrow, or by another clock, it may be taken.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Self::Chain(fault) if fault.is_about_time())
    }
}

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
    generation: u64,
    own: Identity,
    server_name: Option<String>,
    server_config: Arc<ServerConfig>,
    verifier: Arc<DomainVerifier>,
    crls: Vec<CrlStatus>,
    parts: TrustParts,
    warnings: Vec<TrustWarning>,
    notes: Vec<String>,
    ignored_text: Vec<String>,
}

/// What trust is made of.
struct TrustParts {
    own: ServerPair,
    anchors: Anchors,
    crls: Vec<Crl>,
    /// Authorities that signed CRLs, and that stand in no file of ours.
    known: Vec<CertificateDer<'static>>,
}

/// What was read, and what is to be said of it.
struct TrustContents {
    parts: TrustParts,
    warnings: Vec<TrustWarning>,
    notes: Vec<String>,
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
    fn assemble(
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
        let ServerPair { chain, key } = parts.own.same();
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
            ignored_text: files::ignored_text(files),
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
    fn authorities<'a>(
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
pub struct TrustReader(Arc<ArcSwap<Trust>>);

impl TrustReader {
    /// The trust of this moment.
    pub fn current(&self) -> arc_swap::Guard<Arc<Trust>> {
        self.0.load()
    }
}

/// What became of CRLs that were fetched.
#[derive(Debug)]
pub struct CrlUpdate {
    /// The trust with those that were taken; `None` if none was new.
    pub trust: Option<Arc<Trust>>,
    /// Why others were not.
    pub refused: Vec<CrlRefused>,
}

/// Replaces the trust when its files change.
pub struct TrustWriter {
    files: TrustFiles,
    kept_crl: Option<PathBuf>,
    clock: Clock,
    tls_min: TlsMin,
    seen: TrustStamps,
    /// A chain in our own certificate's file that clients would not take yet.
    waiting: Option<Vec<CertificateDer<'static>>>,
    current: Arc<ArcSwap<Trust>>,
}

impl TrustWriter {
    /// Loads the files for the first time. A certificate of ours that peers would refuse is refused here; later it is
    /// only complained of, for the others' revocations must come into force all the same.
    pub fn open(
        files: TrustFiles,
        clock: Clock,
        tls_min: TlsMin,
    ) -> Result<(Self, TrustReader), TrustError> {
        Self::open_with(files, None, clock, tls_min)
    }

    /// The same with a file where CRLs that are handed in are kept, and looked for beside `files.crl`. It need not
    /// exist yet.
    pub fn open_with_crl_file(
        files: TrustFiles,
        kept_crl: PathBuf,
        clock: Clock,
        tls_min: TlsMin,
    ) -> Result<(Self, TrustReader), TrustError> {
        Self::open_with(files, Some(kept_crl), clock, tls_min)
    }

    fn open_with(
        files: TrustFiles,
        kept_crl: Option<PathBuf>,
        clock: Clock,
        tls_min: TlsMin,
    ) -> Result<(Self, TrustReader), TrustError> {
        let (seen, now) = (stamps(&files, kept_crl.as_deref()), clock());
        let sources = CrlSources::read_strictly(&files, kept_crl.as_deref())?;
        let own = ServerPair::read(&files)?;
        let anchors = files::anchors(&files)?;
        let read = sources.put_in_force(own, anchors, Vec::new(), &[], now);
        let trust = Trust::assemble(read, &files, 1, &clock, tls_min)?;
        trust.verify_own(now).map_err(|source| {
            let TrustParts { own, anchors, .. } = &trust.parts;
            let missing = revocation::missing(&trust.parts.crls, &own.chain, &anchors.roots);
            // Whoever lacks a CRL is let in by nobody, and it would be no use to have a new certificate.
            let is_list = matches!(source, Fault::NoList { .. } | Fault::ForeignList { .. });
            if is_list && !missing.is_empty() {
                return TrustError::no_lists(files.crl.clone(), missing, &trust.warnings);
            }
            TrustError::OwnRefused {
                file: files.cert.clone(),
                source,
            }
        })?;
        let current = Arc::new(ArcSwap::from_pointee(trust));
        let reader = TrustReader(current.clone());
        Ok((
            Self {
                files,
                kept_crl,
                clock,
                tls_min,
                seen,
                waiting: None,
                current,
            },
            reader,
        ))
    }

    /// Loads the files again if one has changed since they were last read. Our own pair, the roots and each CRL are taken
    /// each for itself; what cannot be used stays as it was, and is among [`Trust::warnings`]. A CRL never takes the place
    /// of one that it is not newer than.
    pub fn reload_if_changed(&mut self) -> Option<Result<Arc<Trust>, TrustError>> {
        let found = stamps(&self.files, self.kept_crl.as_deref());
        let now = (self.clock)();
        let has_ended =
            |crl: &CrlStatus| !crl.is_required && !crl.is_concurrent && crl.is_past_retention(now);
        let is_same = found == self.seen && !self.current.load().crls.iter().any(has_ended);
        if is_same && !self.is_time_for_what_waits(now) {
            return None;
        }
        // Stamped before they are read: what changes while they are read is seen the next time.
        self.seen = found;
        Some(self.reload(now))
    }

    fn reload(&mut self, now: u64) -> Result<Arc<Trust>, TrustError> {
        let current = self.current.load_full();
        let mut warnings = Vec::new();
        let mut or_as_it_was = |part, file: &PathBuf, error: TrustError| {
            let reason = format!("{}; kept what was there before", error.reason(file));
            warnings.push(TrustWarning::new(file, part, reason));
        };
        let own = ServerPair::read(&self.files).unwrap_or_else(|error| {
            or_as_it_was(TrustPart::Own, &self.files.cert, error);
            current.parts.own.same()
        });
        let anchors = files::anchors(&self.files).unwrap_or_else(|error| {
            or_as_it_was(TrustPart::Roots, &self.files.ca, error);
            current.parts.anchors.clone()
        });
        let mut known = current.parts.known.clone();
        known.extend(current.verifier.paths.learned());
        let sources = CrlSources::read(&self.files, self.kept_crl.as_deref());
        let mut read = sources.put_in_force(own, anchors, known, &current.parts.crls, now);
        read.warnings.splice(0..0, warnings);
        let trust = self.next(read)?;
        let trust = self.with_the_better_pair(trust, &current, now)?;
        // What a start would not find in the files again is kept.
        if trust.warnings.iter().any(|warning| warning.is_older_crl)
            || trust.crls.iter().any(|crl| crl.is_concurrent)
        {
            self.keep(&trust)?;
        }
        self.current.store(trust.clone());
        Ok(trust)
    }

    /// Takes CRLs that were handed in: judged, kept on disk, and in force when this returns. All of them or none, but that one
    /// which is neither newer nor older than the one in force is taken beside it: then it is refused, and in force.
    ///
    /// `shown` are certificates somebody has shown, among which the CRLs' authorities may be; they are not believed.
    pub fn add_crls(
        &mut self,
        crls: Vec<Crl>,
        shown: &[CertificateDer<'static>],
    ) -> Result<Result<Arc<Trust>, CrlRefused>, TrustError> {
        let CrlUpdate { trust, refused } = self.take(crls, shown, |refused| {
            !matches!(
                refused,
                CrlRefused::NotNewer {
                    is_concurrent: true,
                    ..
                }
            )
        })?;
        match refused.into_iter().next() {
            Some(refused) => Ok(Err(refused)),
            None => Ok(Ok(trust.unwrap_or_else(|| self.current.load_full()))),
        }
    }

    /// The same for CRLs that we fetched ourselves. Each stands for itself: one that is not taken keeps no other back, and
    /// those in force already are passed over.
    pub fn add_fetched_crls(
        &mut self,
        crls: Vec<Crl>,
        shown: &[CertificateDer<'static>],
    ) -> Result<CrlUpdate, TrustError> {
        self.take(crls, shown, |_| false)
    }

    /// `ends_it` says which refusal of one CRL is that of all.
    fn take(
        &mut self,
        crls: Vec<Crl>,
        shown: &[CertificateDer<'static>],
        ends_it: impl Fn(&CrlRefused) -> bool,
    ) -> Result<CrlUpdate, TrustError> {
        let (current, now) = (self.current.load_full(), (self.clock)());
        let authorities = current.authorities(shown);
        let mut in_force = current.parts.crls.clone();
        let mut refused = Vec::new();
        for crl in crls {
            match revocation::take(&mut in_force, crl, &authorities, now) {
                Ok(
                    CrlAddition::Same
                    | CrlAddition::Newer
                    | CrlAddition::Beside
                    | CrlAddition::Older,
                ) => (),
                Err(why) if ends_it(&why) => {
                    let (trust, refused) = (None, vec![why]);
                    return Ok(CrlUpdate { trust, refused });
                }
                Err(why) => refused.push(why),
            }
        }
        let trust = self.put_in_force(&current, in_force, &authorities, now)?;
        Ok(CrlUpdate { trust, refused })
    }

    /// CRLs that have been judged. `None` if they are in force already.
    fn put_in_force(
        &mut self,
        current: &Arc<Trust>,
        mut crls: Vec<Crl>,
        authorities: &[authority::AuthorityCertificate],
        now: u64,
    ) -> Result<Option<Arc<Trust>>, TrustError> {
        let TrustParts { own, anchors, .. } = &current.parts;
        revocation::require(&mut crls, &own.chain, &anchors.roots, now);
        if crls == current.parts.crls {
            return Ok(None);
        }
        let parts = TrustParts {
            known: crl_sources::signers(&crls, authorities, anchors),
            own: own.same(),
            anchors: anchors.clone(),
            crls,
        };
        // What the files say has not changed, though what is said of their CRLs may have.
        let mut warnings = current.warnings.clone();
        warnings.retain(|warning| warning.part != TrustPart::Crls);
        let sources = CrlSources::read(&self.files, None);
        warnings.extend(sources.warnings(&parts, authorities));
        let notes = Vec::new();
        // Made before it is kept: what cannot be used is not kept.
        let trust = self.next(TrustContents {
            parts,
            warnings,
            notes,
        })?;
        self.keep(&trust)?;
        self.current.store(trust.clone());
        Ok(Some(trust))
    }

    fn keep(&mut self, trust: &Trust) -> Result<(), TrustError> {
        let Some(file) = &self.kept_crl else {
            return Ok(());
        };
        let TrustParts { crls, known, .. } = &trust.parts;
        keep(file, crls, known).map_err(|source| TrustError::NotKept {
            file: file.clone(),
            source,
        })
    }

    fn next(&self, read: TrustContents) -> Result<Arc<Trust>, TrustError> {
        let generation = self.current.load().generation + 1;
        Trust::assemble(read, &self.files, generation, &self.clock, self.tls_min).map(Arc::new)
    }
}

#[cfg(test)]
mod tests;
