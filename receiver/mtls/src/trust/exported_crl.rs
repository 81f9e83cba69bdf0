//! CRLs in force, for others that trust the same roots.

use aws_lc_rs::digest::{SHA256, digest};
use lizmon_pki::crl::Crl;

use super::crl_file;
use super::current::Trust;

/// A CRL as it is given to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedCrl {
    /// The CRL's SHA-256, in hexadecimal: no other CRL has this name.
    pub name: String,
    /// The CRL, and the certificates of authorities that are in no file of ours (PEM).
    pub pem: String,
}

impl ExportedCrl {
    /// The name of a CRL.
    pub fn name_of(crl: &Crl) -> String {
        hex::encode(digest(&SHA256, crl.der()))
    }
}

impl Trust {
    /// The verified CRLs in force.
    pub fn exported_crls(&self) -> Vec<ExportedCrl> {
        let crls = self.parts.crls.iter();
        let verified = crls.filter(|crl| crl.signer().is_some());
        let exported = |crl: &Crl| ExportedCrl {
            name: ExportedCrl::name_of(crl),
            pem: crl_file::text(std::slice::from_ref(crl), &self.parts.known),
        };
        verified.map(exported).collect()
    }
}
