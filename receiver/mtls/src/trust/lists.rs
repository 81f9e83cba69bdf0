//! From the files of lists to those in force.

use std::path::{Path, PathBuf};

use lizmon_pki::anchors::Anchors;
use lizmon_pki::authority::{self, Authority};
use lizmon_pki::held;
use lizmon_pki::list::RevocationList;
use rustls_pki_types::CertificateDer;

use super::files::{ListsRead, Own};
use super::{Complaint, Part, Parts, Read, TrustError, TrustFiles};
use crate::revocation::require;

/// What the files of lists hold.
pub(super) struct Sources {
    ca: PathBuf,
    crl: PathBuf,
    given: Result<ListsRead, TrustError>,
    kept_crl: Option<PathBuf>,
    kept: Result<ListsRead, TrustError>,
}

impl Sources {
    /// Reads them; what cannot be read is complained of.
    pub(super) fn read(files: &TrustFiles, kept_crl: Option<&Path>) -> Self {
        let kept_crl = kept_crl.filter(|kept| kept.exists());
        Self {
            ca: files.ca.clone(),
            crl: files.crl.clone(),
            given: ListsRead::from_file(&files.crl),
            kept_crl: kept_crl.map(Path::to_owned),
            kept: kept_crl.map_or_else(|| Ok(ListsRead::default()), ListsRead::from_file),
        }
    }

    /// The same at a start: what is not understood might be the very list that somebody is on.
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

    /// Judges each list beside those that were in force so far.
    pub(super) fn put_in_force(
        self,
        own: Own,
        anchors: Anchors,
        known: Vec<CertificateDer<'static>>,
        in_force: &[RevocationList],
        now: u64,
    ) -> Read {
        let beside = self.of_both().flat_map(|read| &read.beside);
        let candidates = own.chain.iter().chain(&anchors.intermediates);
        let candidates = candidates.chain(&known).chain(beside);
        let authorities = authority::verified(&anchors.roots, candidates);
        let mut notes = notes_on(&anchors, &self.ca);
        let mut lists = Vec::new();
        for held in in_force {
            let mut list = held.clone();
            list.find_signer(&authorities);
            match (held.signer(), list.signer()) {
                (_, Some(_)) => drop(held::add(&mut lists, list)),
                (Some(_), None) => notes.push(format!(
                    "the list of {} is dropped: nobody trusted any more signed it",
                    list.status().issuer
                )),
                // Whoever signed it is not known yet. If its file cannot be read now, it has not gone from there.
                (None, None) if self.given.is_err() => lists.push(list),
                (None, None) => (),
            }
        }
        let read = self.of_both().flat_map(|read| &read.lists).cloned();
        for mut list in read {
            list.find_signer(&authorities);
            if list.signer().is_some() || !is_of_a_known_name(&list, &authorities) {
                held::add(&mut lists, list);
            }
        }
        require(&mut lists, &own.chain, &anchors.roots, now);
        let parts = Parts {
            known: signers(&lists, &authorities, &anchors),
            own,
            anchors,
            lists,
        };
        let complaints = self.complaints(&parts, &authorities);
        notes.extend(self.notes(&parts));
        Read {
            parts,
            complaints,
            notes,
        }
    }

    fn of_both(&self) -> impl Iterator<Item = &ListsRead> {
        [&self.kept, &self.given].into_iter().flatten()
    }

    /// What is not in force as it stands in the files of lists and of roots.
    pub(super) fn complaints(&self, parts: &Parts, authorities: &[Authority]) -> Vec<Complaint> {
        let about = |file: &Path, reason| Complaint::new(file, Part::Lists, reason);
        let mut complaints = Vec::new();
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
                    complaints
                        .extend(unusable.map(|why| about(file, format!("{why}; not in force"))));
                }
                Err(error) => complaints.push(about(
                    file,
                    format!("{}; kept the lists in force", error.reason(file)),
                )),
            }
        }
        for list in self.given.iter().flat_map(|read| &read.lists) {
            complaints.extend(self.passed_over(list, parts, authorities));
        }
        complaints.extend(disagreements(&parts.lists).map(|reason| about(&self.crl, reason)));
        complaints
    }

    /// Why a list of the file is not in force, if it is not.
    fn passed_over(
        &self,
        list: &RevocationList,
        parts: &Parts,
        authorities: &[Authority],
    ) -> Option<Complaint> {
        if parts.lists.iter().any(|held| held.der() == list.der()) {
            return None;
        }
        let mut list = list.clone();
        list.find_signer(authorities);
        let (issuer, number) = (&list.status().issuer, list.status().numbered());
        let mut complaint = Complaint::new(&self.crl, Part::Lists, String::new());
        if list.signer().is_none() {
            complaint.reason = match is_of_a_known_name(&list, authorities) {
                true => format!(
                    "the list of {issuer}, {number}, is signed by another key than its authority's; not in force"
                ),
                false => format!("the list of {issuer}, {number}, has ended; not in force"),
            };
            return Some(complaint);
        }
        let same: Vec<&RevocationList> = (parts.lists.iter())
            .filter(|held| held.signer() == list.signer())
            .collect();
        let newer = same
            .iter()
            .find(|held| held.status().is_newer_than(list.status()));
        complaint.is_older_list = newer.is_some();
        complaint.reason = match newer {
            Some(newer) => format!(
                "the list of {issuer}, {number}, is older than the one in force, {}; not in force",
                newer.status().numbered()
            ),
            None if list.is_covered_by(&same) => return None,
            None => format!("the list of {issuer}, {number}, has ended; not in force"),
        };
        Some(complaint)
    }

    /// Lists that nobody could judge yet.
    fn notes(&self, parts: &Parts) -> Vec<String> {
        let unjudged = parts.lists.iter().filter(|list| list.signer().is_none());
        unjudged
            .map(|list| {
                format!(
                    "{}: the list of {} is of an authority that nobody has shown yet: it holds for whoever shows that",
                    self.crl.display(),
                    list.status().issuer
                )
            })
            .collect()
    }
}

/// Lists of one authority of which none is newer by number and date.
fn disagreements(lists: &[RevocationList]) -> impl Iterator<Item = String> {
    let beside = lists.iter().filter(|list| list.status().is_beside);
    beside.map(|list| {
        format!(
            "lists of {} are in force beside each other, {} among them, for number and date do not say which is newer: what either revokes is revoked, until one comes that is newer by both",
            list.status().issuer,
            list.status().numbered()
        )
    })
}

fn is_of_a_known_name(list: &RevocationList, authorities: &[Authority]) -> bool {
    authorities
        .iter()
        .any(|authority| *authority.name == *list.issuer_name())
}

fn notes_on(anchors: &Anchors, file: &Path) -> Vec<String> {
    let file = file.display();
    let intermediates = anchors
        .intermediates
        .iter()
        .filter_map(Authority::read)
        .map(|authority| {
            format!(
                "{file}: {} is no root: it helps to build chains, and is not trusted for itself",
                authority.subject
            )
        });
    let passed_over = anchors.passed_over.iter();
    intermediates
        .chain(passed_over.map(|why| format!("{file}: {why}")))
        .collect()
}

/// The authorities who signed these lists, and those above them, but for what the roots' file holds.
pub(super) fn signers(
    lists: &[RevocationList],
    authorities: &[Authority],
    anchors: &Anchors,
) -> Vec<CertificateDer<'static>> {
    let signed = |authority: &&Authority| {
        let by_it = |list: &RevocationList| list.signer() == Some(&authority.key);
        lists.iter().any(by_it)
    };
    let mut found: Vec<&Authority> = authorities.iter().filter(signed).collect();
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
