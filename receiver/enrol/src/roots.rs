//! Updates the file of roots to the roots that the CA trusts. The roots of other CAs stay
//! unchanged.

use std::path::Path;

use lizmon_pki::certificate_files::{
    FileError, access, check_replaceable, with_certificates, write_whole,
};
use lizmon_pki::pem::{self, PemError};
use rustls::pki_types::CertificateDer;

use crate::answer::{pem as pem_text, trust_domain};
use crate::error::EnrolError;

/// Fails if the file holds roots, but not the pinned one. On the CA's own machine the directory may
/// already hold its root.
pub(crate) fn refuse_others(path: &Path, pinned: &CertificateDer<'_>) -> Result<(), EnrolError> {
    let there = read(path)?;
    if there.is_empty() || there.contains(pinned) {
        Ok(())
    } else {
        Err(EnrolError::OtherRoot(path.to_owned()))
    }
}

/// Checks that the file can be updated to these roots. Call it before requesting a certificate: the
/// CA assumes that a client with a new certificate trusts the new root, and would finish a rotation
/// although the client does not.
pub(crate) fn check_writable(
    path: &Path,
    roots: &[CertificateDer<'static>],
) -> Result<(), EnrolError> {
    match changed(path, roots)? {
        None => Ok(()),
        Some(_) => Ok(check_replaceable(path)?),
    }
}

/// Updates the file to these roots of one CA. Returns whether the file has changed.
pub(crate) fn write(path: &Path, roots: &[CertificateDer<'static>]) -> Result<bool, EnrolError> {
    let Some(wanted) = changed(path, roots)? else {
        return Ok(false);
    };
    let file = std::fs::read(path).unwrap_or_default();
    // `changed` has already rejected a file that cannot be parsed.
    let file = with_certificates(&file, &wanted, pem_text)
        .unwrap_or_else(|_| pem_text(&wanted).into_bytes());
    write_whole(path, &file, access(&file))?;
    Ok(true)
}

/// The new contents of the file, or `None` if they are the same. Roots of other trust domains are
/// kept: a client that publishes to receivers of two CAs has both roots in one file.
fn changed(
    path: &Path,
    roots: &[CertificateDer<'static>],
) -> Result<Option<Vec<CertificateDer<'static>>>, EnrolError> {
    let there = read(path)?;
    let domains: Vec<_> = roots.iter().filter_map(|root| trust_domain(root)).collect();
    let others = there
        .iter()
        .filter(|root| trust_domain(root).is_none_or(|domain| !domains.contains(&domain)));
    let wanted: Vec<_> = roots
        .iter()
        .chain(others.filter(|root| !roots.contains(root)))
        .cloned()
        .collect();
    let same = there.len() == wanted.len() && wanted.iter().all(|root| there.contains(root));
    Ok((!same).then_some(wanted))
}

/// Returns nothing if the file does not exist or is empty. Fails if it cannot be parsed, so that it
/// is not overwritten.
fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, EnrolError> {
    let failed = |source| FileError {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(failed)?,
    };
    match pem::certificates(&bytes) {
        Ok(there) => Ok(there),
        Err(PemError::Absent { .. }) => Ok(Vec::new()),
        Err(error) => Err(failed(std::io::Error::other(error)).into()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};

    use super::*;

    fn root(domain: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        if !domain.is_empty() {
            let uri = format!("spiffe://{domain}");
            params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    /// The roots of our own trust domain follow the CA. Other roots stay.
    #[test]
    fn only_our_own_roots_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.crt");
        let [old, new, others, foreign] = ["a.example", "a.example", "b.example", ""].map(root);
        let cases = [
            (vec![], vec![&old], vec![&old], true),
            (vec![&old], vec![&old], vec![&old], false),
            (vec![&old], vec![&old, &new], vec![&old, &new], true),
            (vec![&new, &old], vec![&old, &new], vec![&new, &old], false),
            (vec![&old, &new], vec![&new], vec![&new], true),
            (
                vec![&others, &old, &foreign],
                vec![&new],
                vec![&new, &others, &foreign],
                true,
            ),
            (
                vec![&others, &new, &foreign],
                vec![&new],
                vec![&others, &new, &foreign],
                false,
            ),
        ];
        for (at, (before, told, after, changed)) in cases.into_iter().enumerate() {
            let own = |roots: Vec<&CertificateDer<'static>>| -> Vec<CertificateDer<'static>> {
                roots.into_iter().cloned().collect()
            };
            std::fs::write(&path, pem_text(&own(before))).unwrap();
            assert_eq!(write(&path, &own(told)).unwrap(), changed, "{at}");
            let sorted = |mut roots: Vec<CertificateDer<'static>>| {
                roots.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
                roots
            };
            assert_eq!(sorted(read(&path).unwrap()), sorted(own(after)), "{at}");
        }
    }
}
