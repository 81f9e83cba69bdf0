//! Replaces the trust in force when its files change, or when CRLs are received.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use lizmon_pki::authority;
use lizmon_pki::crls_in_force::CrlAddition;
use lizmon_pki::path::Fault;
use rustls_pki_types::CertificateDer;

use super::contents::{TrustContents, TrustParts};
use super::crl_file;
use super::crl_sources::{self, CrlSources};
use super::current::{Trust, TrustReader};
use super::error::TrustError;
use super::files::{self, TrustFiles, TrustStamps, stamps};
use super::server_pair::ServerPair;
use super::warning::{TrustPart, TrustWarning};
use lizmon_pki::path::Usage;

use crate::Clock;
use crate::revocation::{self, Crl, CrlRefused, CrlStatus};
use crate::version::TlsMin;

/// The result of adding fetched CRLs.
#[derive(Debug)]
pub struct CrlUpdate {
    /// The trust with the accepted CRLs; `None` if no CRL was new.
    pub trust: Option<Arc<Trust>>,
    /// Why other CRLs were rejected.
    pub refused: Vec<CrlRefused>,
}

/// Replaces the trust when its files change.
pub struct TrustWriter {
    pub(super) files: TrustFiles,
    own_usage: Usage,
    kept_crl: Option<PathBuf>,
    clock: Clock,
    tls_min: TlsMin,
    seen: TrustStamps,
    /// A chain in our certificate file that clients would not accept yet.
    pub(super) waiting: Option<Vec<CertificateDer<'static>>>,
    pub(super) current: Arc<ArcSwap<Trust>>,
}

impl TrustWriter {
    /// Loads the files for the first time. Fails if clients would reject our own certificate. Later
    /// reloads only warn about that, because new revocations must take effect in any case.
    pub fn open(
        files: TrustFiles,
        clock: Clock,
        tls_min: TlsMin,
    ) -> Result<(Self, TrustReader), TrustError> {
        Self::open_with(files, Usage::Server, None, clock, tls_min)
    }

    /// Like [`Self::open`], for a process that serves no connection: its certificate is a client's.
    pub fn open_as_client(
        files: TrustFiles,
        clock: Clock,
    ) -> Result<(Self, TrustReader), TrustError> {
        Self::open_with(files, Usage::Client, None, clock, TlsMin::default())
    }

    /// Like [`Self::open`], with a file for uploaded CRLs. It is read in addition to `files.crl`
    /// and need not exist yet.
    pub fn open_with_crl_file(
        files: TrustFiles,
        kept_crl: PathBuf,
        clock: Clock,
        tls_min: TlsMin,
    ) -> Result<(Self, TrustReader), TrustError> {
        Self::open_with(files, Usage::Server, Some(kept_crl), clock, tls_min)
    }

    fn open_with(
        files: TrustFiles,
        own_usage: Usage,
        kept_crl: Option<PathBuf>,
        clock: Clock,
        tls_min: TlsMin,
    ) -> Result<(Self, TrustReader), TrustError> {
        let (seen, now) = (stamps(&files, kept_crl.as_deref()), clock());
        let sources = CrlSources::read_strictly(&files, kept_crl.as_deref())?;
        let own = ServerPair::read(&files, own_usage)?;
        let anchors = files::anchors(&files)?;
        let read = sources.put_in_force(own, anchors, Vec::new(), &[], now);
        let trust = Trust::assemble(read, &files, own_usage, 1, &clock, tls_min)?;
        trust.verify_own(now).map_err(|source| {
            let TrustParts { own, anchors, .. } = &trust.parts;
            let missing = revocation::missing(&trust.parts.crls, &own.chain, &anchors.roots);
            // Without a required CRL, all clients reject our certificate, and a new certificate
            // would not help.
            let is_list = matches!(source, Fault::NoCrl { .. } | Fault::ForeignCrl { .. });
            if is_list && !missing.is_empty() {
                return TrustError::no_crls(files.crl.clone(), missing, &trust.warnings);
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
                own_usage,
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

    /// Reloads the files if one has changed since the last read. Our own pair, the roots and each
    /// CRL are handled separately. What is unusable keeps its previous value and is reported in
    /// [`Trust::warnings`]. A CRL is replaced only by a newer one.
    pub fn reload_if_changed(&mut self) -> Option<Result<Arc<Trust>, TrustError>> {
        let found = stamps(&self.files, self.kept_crl.as_deref());
        let now = (self.clock)();
        let has_ended =
            |crl: &CrlStatus| !crl.is_required && !crl.is_concurrent && crl.is_past_retention(now);
        let is_same = found == self.seen && !self.current.load().crls.iter().any(has_ended);
        if is_same && !self.is_pending_pair_better(now) {
            return None;
        }
        // The stamps are taken before the files are read, so that a change during the read is
        // detected the next time.
        self.seen = found;
        Some(self.reload(now))
    }

    fn reload(&mut self, now: u64) -> Result<Arc<Trust>, TrustError> {
        let current = self.current.load_full();
        let mut warnings = Vec::new();
        let mut or_as_it_was = |part, file: &PathBuf, error: TrustError| {
            let reason = format!("{}; the previous ones stay in use", error.reason(file));
            warnings.push(TrustWarning::new(file, part, reason));
        };
        let own = ServerPair::read(&self.files, self.own_usage).unwrap_or_else(|error| {
            or_as_it_was(TrustPart::Own, &self.files.cert, error);
            current.parts.own.copy()
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
        let trust = self.with_accepted_pair(trust, &current, now)?;
        // Keep the CRLs that a restart would not find in the files.
        if trust.warnings.iter().any(|warning| warning.is_older_crl)
            || trust.crls.iter().any(|crl| crl.is_concurrent)
        {
            self.keep(&trust)?;
        }
        self.current.store(trust.clone());
        Ok(trust)
    }

    /// Adds uploaded CRLs. On return they are verified, stored on disk and in force. Either all are
    /// accepted or none. Exception: a CRL that is neither newer nor older than the one in force is
    /// in force together with it, and is still reported as rejected.
    ///
    /// `shown` are certificates from the client that may include the issuers of the CRLs. They are
    /// untrusted and get verified.
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

    /// Adds CRLs that we fetched ourselves. Each is handled separately: a rejected CRL does not
    /// block others, and CRLs that are already in force are skipped.
    pub fn add_fetched_crls(
        &mut self,
        crls: Vec<Crl>,
        shown: &[CertificateDer<'static>],
    ) -> Result<CrlUpdate, TrustError> {
        self.take(crls, shown, |_| false)
    }

    /// `ends_it` decides whether the rejection of one CRL rejects all.
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

    /// Puts verified CRLs in force. Returns `None` if they are in force already.
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
            own: own.copy(),
            anchors: anchors.clone(),
            crls,
        };
        // Warnings about other files still apply. Those about CRLs may have changed.
        let mut warnings = current.warnings.clone();
        warnings.retain(|warning| warning.part != TrustPart::Crls);
        let sources = CrlSources::read(&self.files, None);
        warnings.extend(sources.warnings(&parts, authorities));
        let notes = Vec::new();
        // The trust is assembled before it is stored, so that an unusable one is never stored.
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
        crl_file::write(file, crls, known).map_err(|source| TrustError::NotKept {
            file: file.clone(),
            source,
        })
    }

    pub(super) fn next(&self, read: TrustContents) -> Result<Arc<Trust>, TrustError> {
        let generation = self.current.load().generation + 1;
        let (files, usage) = (&self.files, self.own_usage);
        Trust::assemble(read, files, usage, generation, &self.clock, self.tls_min).map(Arc::new)
    }
}
