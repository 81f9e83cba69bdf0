//! Certificates that were shown to the receiver.

mod holders;
mod registry;

pub(crate) use self::holders::HolderCertificates;
pub(crate) use self::registry::{CERTIFICATES_MAX, CertificateRegistry};
