//! What this end shows and whom it trusts: certificate, key, roots and revocation lists, watched and swapped whole.
//!
//! A [`Trust`] never changes. A reload checks what it read before anyone sees it, and makes a new one with a TLS
//! configuration and a ticket key of its own: no session of an older trust can be resumed.

use std::fmt;
use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::Clock;
use crate::handshake::{DomainVerifier, provider, server_config};
use crate::identity::Identity;
use crate::revocation::{
    CrlRefused, CrlStatus, RevocationList, lacks_a_list, newest, require, verified_authorities,
};

mod error;
mod files;

pub use error::TrustError;
pub use files::TrustFiles;
use files::{FileStamps, Parts, REVOCATION_LIST, keep, stamps};

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

/// A certificate that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// `own`, `issuing` or `root`.
    pub part: &'static str,
    /// Its subject, as text.
    pub subject: String,
    /// Its last second: epoch seconds.
    pub not_after: u64,
}

/// What is shown and trusted from one reload to the next.
pub struct Trust {
    generation: u64,
    own: Identity,
    server_name: Option<String>,
    server_config: Arc<ServerConfig>,
    verifier: Arc<DomainVerifier>,
    crls: Vec<CrlStatus>,
    parts: Parts,
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
        parts: Parts,
        files: &TrustFiles,
        generation: u64,
        clock: &Clock,
    ) -> Result<Self, TrustError> {
        // rustls would ask nobody for revocation then: whoever is let in by no list is let in by anything.
        if parts.lists.is_empty() {
            return Err(TrustError::Empty {
                file: files.crl.clone(),
                what: REVOCATION_LIST,
            });
        }
        let provider = Arc::new(provider());
        let leaf = parts.chain.first().map(AsRef::as_ref).unwrap_or_default();
        let own = Identity::from_der(leaf).map_err(|source| TrustError::Identity {
            file: files.cert.clone(),
            source,
        })?;
        if !own.spiffe_id.role.is_server() {
            return Err(TrustError::WrongRole {
                file: files.cert.clone(),
                role: own.spiffe_id.role,
            });
        }
        let server_name = crate::identity::first_server_name(leaf);
        let mut roots = RootCertStore::empty();
        for root in &parts.roots {
            roots
                .add(root.clone())
                .map_err(|source| TrustError::Unusable {
                    file: files.ca.clone(),
                    source,
                })?;
        }
        // An expired list still revokes: what becomes of one is the receiver's to decide, not the handshake's.
        let webpki = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .with_crls(parts.lists.iter().map(|list| list.der().clone()))
            .allow_unauthenticated()
            .build()
            .map_err(|source| TrustError::Verifier {
                file: files.ca.clone(),
                source,
            })?;
        let trust_domain = own.spiffe_id.trust_domain.clone();
        let misses_a_list = lacks_a_list(&parts.lists, &parts.chain, &parts.roots);
        let verifier = Arc::new(DomainVerifier {
            webpki,
            trust_domain,
            misses_a_list: misses_a_list.into(),
        });
        let (chain, key) = (parts.chain.clone(), parts.key.clone_key());
        let server_config =
            server_config(provider, verifier.clone(), chain, key, clock).map_err(|source| {
                TrustError::Unusable {
                    file: files.cert.clone(),
                    source,
                }
            })?;
        let crls = parts
            .lists
            .iter()
            .map(|list| list.status().clone())
            .collect();
        Ok(Self {
            generation,
            own,
            server_name,
            server_config: Arc::new(server_config),
            verifier,
            crls,
            parts,
        })
    }

    /// What peers would say of our own certificate.
    pub fn judge_own(&self, now: u64) -> Result<(), Refusal> {
        self.verify(&self.parts.chain, now)
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

    /// Every certificate that was loaded: what we show, leaf first, then the roots.
    pub fn loaded(&self) -> impl Iterator<Item = Loaded> {
        let own = (self
            .parts
            .chain
            .iter()
            .zip(iter::once("own").chain(iter::repeat("issuing"))))
        .chain(self.parts.roots.iter().zip(iter::repeat("root")));
        own.filter_map(|(der, part)| {
            let (subject, not_after) = crate::identity::subject_and_end(der)?;
            Some(Loaded {
                part,
                subject,
                not_after,
            })
        })
    }

    /// The TLS configuration of this trust.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server_config.clone()
    }

    /// Whether a list is wanted that is not here: of one of our roots, of an authority of our own certificate, or of one
    /// whose holder was turned away for that since this trust is in force.
    pub fn misses_a_list(&self) -> bool {
        self.verifier.misses_a_list.load(Ordering::Relaxed)
    }

    /// The authorities whose lists can be judged: the roots, and those of our own chain and of `shown` that a root signed.
    fn authorities<'a>(&'a self, shown: &'a [CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
        let Parts { roots, chain, .. } = &self.parts;
        verified_authorities(roots, chain.iter().chain(shown))
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

/// What became of lists that were fetched.
#[derive(Debug)]
pub struct Newer {
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
    seen: FileStamps,
    current: Arc<ArcSwap<Trust>>,
}

impl TrustWriter {
    /// Loads the files for the first time. A certificate of ours that peers would refuse is refused here; later it is
    /// only complained of, for the others' revocations must come into force all the same.
    pub fn open(files: TrustFiles, clock: Clock) -> Result<(Self, TrustReader), TrustError> {
        Self::open_with(files, None, clock)
    }

    /// The same with a file where lists that are handed in are kept, and looked for beside `files.crl`. It need not
    /// exist yet.
    pub fn open_keeping(
        files: TrustFiles,
        kept_crl: PathBuf,
        clock: Clock,
    ) -> Result<(Self, TrustReader), TrustError> {
        Self::open_with(files, Some(kept_crl), clock)
    }

    fn open_with(
        files: TrustFiles,
        kept_crl: Option<PathBuf>,
        clock: Clock,
    ) -> Result<(Self, TrustReader), TrustError> {
        let seen = stamps(&files, kept_crl.as_deref());
        let parts = Parts::read(&files, kept_crl.as_deref(), &[], clock())?;
        let trust = Trust::assemble(parts, &files, 1, &clock)?;
        trust
            .judge_own(clock())
            .map_err(|refusal| TrustError::OwnRefused {
                file: files.cert.clone(),
                refusal,
            })?;
        let current = Arc::new(ArcSwap::from_pointee(trust));
        let reader = TrustReader(current.clone());
        Ok((
            Self {
                files,
                kept_crl,
                clock,
                seen,
                current,
            },
            reader,
        ))
    }

    /// Loads the files again if one has changed since they were last read. On error the trust stays as it was. A list
    /// with a lower number than the one in force does not replace it.
    pub fn reload_if_changed(&mut self) -> Option<Result<Arc<Trust>, TrustError>> {
        let found = stamps(&self.files, self.kept_crl.as_deref());
        let now = (self.clock)();
        let has_ended = |list: &CrlStatus| !list.is_required && list.has_long_ended(now);
        if found == self.seen && !self.current.load().crls.iter().any(has_ended) {
            return None;
        }
        // Stamped before they are read: what changes while they are read is seen the next time.
        self.seen = found;
        Some(self.reload(now))
    }

    fn reload(&self, now: u64) -> Result<Arc<Trust>, TrustError> {
        let current = self.current.load_full();
        let kept_crl = self.kept_crl.as_deref();
        let parts = Parts::read(&self.files, kept_crl, &current.parts.lists, now)?;
        let trust = self.next(parts)?;
        self.current.store(trust.clone());
        Ok(trust)
    }

    /// Takes lists that were handed in: judged, kept on disk, and in force when this returns. All of them or none.
    ///
    /// `shown` are certificates somebody has shown, among which the lists' authorities may be; they are not believed.
    pub fn take_lists(
        &mut self,
        lists: Vec<RevocationList>,
        shown: &[CertificateDer<'static>],
    ) -> Result<Result<Arc<Trust>, CrlRefused>, TrustError> {
        let (current, now) = (self.current.load_full(), (self.clock)());
        let authorities = current.authorities(shown);
        let judge = |list: &RevocationList| list.judge(&current.parts.lists, &authorities, now);
        match lists.iter().try_for_each(judge) {
            Err(refused) => Ok(Err(refused)),
            Ok(()) => self.put_in_force(&current, lists, now).map(Ok),
        }
    }

    /// The same for lists that we fetched ourselves. Each stands for itself: one that is not taken keeps no other back, and
    /// those in force already are passed over.
    pub fn take_newer(
        &mut self,
        lists: Vec<RevocationList>,
        shown: &[CertificateDer<'static>],
    ) -> Result<Newer, TrustError> {
        let (current, now) = (self.current.load_full(), (self.clock)());
        let authorities = current.authorities(shown);
        let in_force = &current.parts.lists;
        let (mut good, mut refused) = (Vec::new(), Vec::new());
        for list in lists {
            if in_force.iter().any(|held| held.der() == list.der()) {
                continue;
            }
            match list.judge(in_force, &authorities, now) {
                Ok(()) => good.push(list),
                Err(why) => refused.push(why),
            }
        }
        let taken = !good.is_empty();
        let trust = self.put_in_force(&current, good, now)?;
        Ok(Newer {
            trust: taken.then_some(trust),
            refused,
        })
    }

    /// Lists that have been judged.
    fn put_in_force(
        &self,
        current: &Arc<Trust>,
        lists: Vec<RevocationList>,
        now: u64,
    ) -> Result<Arc<Trust>, TrustError> {
        let Parts {
            roots,
            lists: in_force,
            chain,
            ..
        } = &current.parts;
        let mut lists = newest(in_force.iter().cloned().chain(lists));
        require(&mut lists, chain, roots, now);
        if lists == *in_force {
            return Ok(current.clone());
        }
        let parts = current.parts.with_lists(lists);
        // Made before it is kept: what cannot be used is not kept.
        let trust = self.next(parts)?;
        if let Some(file) = &self.kept_crl {
            keep(file, &trust.parts.lists).map_err(|source| TrustError::NotKept {
                file: file.clone(),
                source,
            })?;
        }
        self.current.store(trust.clone());
        Ok(trust)
    }

    fn next(&self, parts: Parts) -> Result<Arc<Trust>, TrustError> {
        let generation = self.current.load().generation + 1;
        Trust::assemble(parts, &self.files, generation, &self.clock).map(Arc::new)
    }
}

#[cfg(test)]
mod tests;
