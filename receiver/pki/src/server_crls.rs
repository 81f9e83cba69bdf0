//! The CRLs that clients check servers against.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::crl::Crl;
use crate::crls_in_force;

/// The CRLs that a client checks servers against. A missing CRL is never a reason to reject a
/// server: a client must keep working while the CA is unreachable.
#[derive(Clone, Default)]
pub struct ServerCrls(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    version: u64,
    crls: Vec<Crl>,
}

/// The result of [`ServerCrls::take`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCrlUpdate {
    /// Whether the set of CRLs changed.
    pub is_new: bool,
    /// Why the other CRLs cannot be used.
    pub unusable: Vec<String>,
}

/// The input holds no usable CRL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer contains no CRLs in PEM: is it a liz-ca?")]
pub struct NotCrls;

impl fmt::Debug for ServerCrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerCrls(version {})", self.version())
    }
}

impl ServerCrls {
    /// Takes the CRLs of a CA, PEM. A CRL replaces the current one only if it is newer by number
    /// and date. Drops the CRLs of issuers that are not in the input. Does not check signatures:
    /// the certificate verifier does.
    pub fn take(&self, pem: &[u8]) -> Result<ServerCrlUpdate, NotCrls> {
        let (fresh, unusable) = Crl::read_usable(pem);
        let unusable = unusable.iter().map(ToString::to_string).collect();
        if fresh.is_empty() {
            return Err(NotCrls);
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_still_there = |held: &&Crl| {
            let names = fresh.iter().map(Crl::issuer_name);
            names.into_iter().any(|name| name == held.issuer_name())
        };
        let mut crls: Vec<_> = known.crls.iter().filter(is_still_there).cloned().collect();
        for crl in fresh {
            crls_in_force::add_unverified(&mut crls, crl);
        }
        let is_new = crls != known.crls;
        if is_new {
            known.crls = crls;
            known.version += 1;
        }
        Ok(ServerCrlUpdate { is_new, unusable })
    }

    /// Increases with every change.
    pub fn version(&self) -> u64 {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .version
    }

    /// All CRLs that are held.
    pub fn all(&self) -> Vec<Crl> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.crls.clone()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
        KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
    };

    use super::*;

    fn crl(issuer: &str, number: u64) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, issuer);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 2, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&Issuer::new(params, key))
        .unwrap()
        .pem()
        .unwrap()
    }

    /// An older CRL never replaces a newer one. CRLs of issuers that the CA no longer lists are
    /// dropped.
    #[test]
    fn the_newest_crl_of_each_ca_is_in_force() {
        let (a1, a2, b1) = (crl("a", 1), crl("a", 2), crl("b", 1));
        let steps = [
            (a1.clone(), true, 1),
            (a1.clone(), false, 1),
            (format!("{a1}{b1}"), true, 2),
            (format!("{a2}{b1}"), true, 2),
            (format!("{a1}{b1}"), false, 2),
            (b1, true, 1),
            (a1, true, 1),
        ];
        let crls = ServerCrls::default();
        let mut version = 0;
        for (at, (pem, changes, count)) in steps.into_iter().enumerate() {
            let taken = crls.take(pem.as_bytes()).unwrap();
            assert_eq!(
                (taken.is_new, taken.unusable),
                (changes, Vec::new()),
                "{at}"
            );
            version += u64::from(changes);
            assert_eq!((crls.version(), crls.all().len()), (version, count), "{at}");
        }
        for bad in [
            "",
            "hello",
            "-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n",
        ] {
            assert_eq!(crls.take(bad.as_bytes()), Err(NotCrls), "{bad}");
        }
        assert_eq!(crls.version(), version, "what is not a CRL changes nothing");
    }
}
