//! Selects the CRLs in force from the CRL files.

use std::path::{Path, PathBuf};

use lizmon_pki::anchors::Anchors;
use lizmon_pki::authority::{self, AuthorityCertificate};
use lizmon_pki::crl::Crl;
use lizmon_pki::crls_in_force;
use rustls_pki_types::CertificateDer;

use super::contents::{TrustContents, TrustParts};
use super::crl_file::CrlFile;
use super::error::TrustError;
use super::files::TrustFiles;
use super::server_pair::ServerPair;
use super::warning::{TrustPart, TrustWarning};
use crate::revocation::require;

/// The contents of the CRL files.
pub(super) struct CrlSources {
    ca: PathBuf,
    crl: PathBuf,
    given: Result<CrlFile, TrustError>,
    kept_crl: Option<PathBuf>,
    kept: Result<CrlFile, TrustError>,
}

impl CrlSources {
    /// Reads the files. Files that cannot be read result in warnings.
    pub(super) fn read(files: &TrustFiles, kept_crl: Option<&Path>) -> Self {
        let kept_crl = kept_crl.filter(|kept| kept.exists());
        Self {
            ca: files.ca.clone(),
            crl: files.crl.clone(),
            given: CrlFile::from_file(&files.crl),
            kept_crl: kept_crl.map(Path::to_owned),
            kept: kept_crl.map_or_else(|| Ok(CrlFile::default()), CrlFile::from_file),
        }
    }

    /// Reads the files at startup. Malformed CRLs are errors, because one could contain a required
    /// revocation.
    pub(super) fn read_strictly(
        files: &TrustFiles,
        kept_crl: Option<&Path>,
    ) -> Result<Self, TrustError> {
        let sources = Self::read(files, kept_crl);
        let given = sources.given?;
        given.refuse_malformed(&sources.crl)?;
        let kept = sources.kept?;
        if let Some(file) = &sources.kept_crl {
            kept.refuse_malformed(file)?;
        }
        Ok(Self {
            given: Ok(given),
            kept: Ok(kept),
            ..sources
        })
    }

    /// Verifies each CRL and combines it with those in force so far.
    pub(super) fn put_in_force(
        self,
        own: ServerPair,
        anchors: Anchors,
        known: Vec<CertificateDer<'static>>,
        in_force: &[Crl],
        now: u64,
    ) -> TrustContents {
        let beside = self.of_both().flat_map(|read| &read.beside);
        let candidates = own.chain.iter().chain(&anchors.intermediates);
        let candidates = candidates.chain(&known).chain(beside);
        let authorities = authority::verified(&anchors.roots, candidates);
        let mut notes = notes_on(&anchors, &self.ca);
        let mut crls = Vec::new();
        for held in in_force {
            let mut crl = held.clone();
            crl.find_signer(&authorities);
            match (held.signer(), crl.signer()) {
                (_, Some(_)) => drop(crls_in_force::add(&mut crls, crl)),
                (Some(_), None) => notes.push(format!(
                    "the CRL of {} is dropped: its signer is no longer trusted",
                    crl.status().issuer
                )),
                // The signer is not known yet. If the file cannot be read now, assume that it still
                // contains this CRL.
                (None, None) if self.given.is_err() => crls.push(crl),
                (None, None) => (),
            }
        }
        let read = self.of_both().flat_map(|read| &read.crls).cloned();
        for mut crl in read {
            crl.find_signer(&authorities);
            if crl.signer().is_some() || !is_of_a_known_name(&crl, &authorities) {
                crls_in_force::add(&mut crls, crl);
            }
        }
        require(&mut crls, &own.chain, &anchors.roots, now);
        let parts = TrustParts {
            known: signers(&crls, &authorities, &anchors),
            own,
            anchors,
            crls,
        };
        let warnings = self.warnings(&parts, &authorities);
        notes.extend(self.notes(&parts));
        TrustContents {
            parts,
            warnings,
            notes,
        }
    }

    fn of_both(&self) -> impl Iterator<Item = &CrlFile> {
        [&self.kept, &self.given].into_iter().flatten()
    }

    /// Warnings about the contents of the CRL files that are not in force.
    pub(super) fn warnings(
        &self,
        parts: &TrustParts,
        authorities: &[AuthorityCertificate],
    ) -> Vec<TrustWarning> {
        let about = |file: &Path, reason| TrustWarning::new(file, TrustPart::Crls, reason);
        let mut warnings = Vec::new();
        let files = [
            (Some(&self.crl), &self.given),
            (self.kept_crl.as_ref(), &self.kept),
        ];
        for (file, read) in files {
            let Some(file) = file else {
                continue;
            };
            match read {
                Ok(read) => {
                    let unusable = read.unusable.iter();
                    warnings
                        .extend(unusable.map(|why| about(file, format!("{why}; not in force"))));
                }
                Err(error) => warnings.push(about(
                    file,
                    format!("{}; the CRLs in force stay", error.reason(file)),
                )),
            }
        }
        for crl in self.given.iter().flat_map(|read| &read.crls) {
            warnings.extend(self.passed_over(crl, parts, authorities));
        }
        warnings.extend(disagreements(&parts.crls).map(|reason| about(&self.crl, reason)));
        warnings
    }

    /// Why a CRL in the file is not in force, if so.
    fn passed_over(
        &self,
        crl: &Crl,
        parts: &TrustParts,
        authorities: &[AuthorityCertificate],
    ) -> Option<TrustWarning> {
        if parts.crls.iter().any(|held| held.der() == crl.der()) {
            return None;
        }
        let mut crl = crl.clone();
        crl.find_signer(authorities);
        let (issuer, number) = (&crl.status().issuer, crl.status().numbered());
        let mut warning = TrustWarning::new(&self.crl, TrustPart::Crls, String::new());
        if crl.signer().is_none() {
            warning.reason = match is_of_a_known_name(&crl, authorities) {
                true => format!(
                    "the CRL of {issuer}, {number}, is signed by another key than its CA's; not in force"
                ),
                false => format!("the CRL of {issuer}, {number}, has expired; not in force"),
            };
            return Some(warning);
        }
        let same: Vec<&Crl> = (parts.crls.iter())
            .filter(|held| held.signer() == crl.signer())
            .collect();
        let newer = same
            .iter()
            .find(|held| held.status().is_newer_than(crl.status()));
        warning.is_older_crl = newer.is_some();
        warning.reason = match newer {
            Some(newer) => format!(
                "the CRL of {issuer}, {number}, is older than the one in force, {}; not in force",
                newer.status().numbered()
            ),
            None if crl.is_covered_by(&same) => return None,
            None => format!("the CRL of {issuer}, {number}, has expired; not in force"),
        };
        Some(warning)
    }

    /// Notes on CRLs that cannot be verified yet.
    fn notes(&self, parts: &TrustParts) -> Vec<String> {
        let unjudged = parts.crls.iter().filter(|crl| crl.signer().is_none());
        unjudged
            .map(|crl| {
                format!(
                    "{}: the CRL of {} is of a CA that no client has presented yet: it applies to clients that do",
                    self.crl.display(),
                    crl.status().issuer
                )
            })
            .collect()
    }
}

/// CRLs of one issuer of which none is newer by both number and date.
fn disagreements(crls: &[Crl]) -> impl Iterator<Item = String> {
    let beside = crls.iter().filter(|crl| crl.status().is_concurrent);
    beside.map(|crl| {
        format!(
            "several CRLs of {} are in force, {} among them, because number and date disagree on which is newer: what any of them revokes is revoked, until one is newer by both",
            crl.status().issuer,
            crl.status().numbered()
        )
    })
}

fn is_of_a_known_name(crl: &Crl, authorities: &[AuthorityCertificate]) -> bool {
    authorities
        .iter()
        .any(|authority| *authority.name == *crl.issuer_name())
}

fn notes_on(anchors: &Anchors, file: &Path) -> Vec<String> {
    let file = file.display();
    let intermediates = anchors
        .intermediates
        .iter()
        .filter_map(AuthorityCertificate::read)
        .map(|authority| {
            format!(
                "{file}: {} is not a root: it is used to build chains, and is not trusted itself",
                authority.subject
            )
        });
    let passed_over = anchors.passed_over.iter();
    intermediates
        .chain(passed_over.map(|why| format!("{file}: {why}")))
        .collect()
}

/// The authorities that signed these CRLs, and those above them, without those in the file of
/// roots.
pub(super) fn signers(
    crls: &[Crl],
    authorities: &[AuthorityCertificate],
    anchors: &Anchors,
) -> Vec<CertificateDer<'static>> {
    let signed = |authority: &&AuthorityCertificate| {
        let by_it = |crl: &Crl| crl.signer() == Some(&authority.key);
        crls.iter().any(by_it)
    };
    let mut found: Vec<&AuthorityCertificate> = authorities.iter().filter(signed).collect();
    let mut at = 0;
    while let Some(one) = found.get(at) {
        let issuer = one.issuer_name.clone();
        let above = authorities.iter().filter(|above| *above.name == *issuer);
        for above in above {
            if !found.contains(&above) {
                found.push(above);
            }
        }
        at += 1;
    }
    let is_there = |der: &CertificateDer<'static>| {
        anchors.roots.contains(der) || anchors.intermediates.contains(der)
    };
    let ders = found.into_iter().map(|authority| authority.der.clone());
    ders.filter(|der| !is_there(der)).collect()
}
