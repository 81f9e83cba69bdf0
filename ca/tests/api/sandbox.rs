//! A CA in a temporary folder, and receivers that read its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lizmon_ca::authority::{Authority, InitOptions, Issued, Request};
use lizmon_ca::pki::verify::{Trusted, Verdict, VerifyError, verify};
use lizmon_protocol::name::{NodeName, Role};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const DAY: u64 = 86_400;

/// A folder that does not exist yet, in a temporary one.
pub(crate) fn folder() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    (dir, certs)
}

pub(crate) fn new_ca() -> (TempDir, PathBuf, Authority) {
    new_ca_at(NOW)
}

pub(crate) fn new_ca_at(now: u64) -> (TempDir, PathBuf, Authority) {
    let (dir, certs) = folder();
    let authority = Authority::init(&certs, &InitOptions::default(), now).unwrap();
    (dir, certs, authority)
}

pub(crate) fn node_name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(crate) fn node(text: &str) -> Request {
    Request::new(Role::Node, node_name(text))
}

/// A signing request of this key.
pub(crate) fn signing_request(key: &KeyPair) -> Vec<u8> {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    request.der().to_vec()
}

/// Every file below a folder with its content.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

pub(crate) fn read(certs: &Path, file: &str) -> Vec<u8> {
    std::fs::read(certs.join(file)).unwrap()
}

/// The judgement of a receiver that reads the CA's files.
pub(crate) fn verify_as_receiver(
    certs: &Path,
    issued: &Issued,
    now: u64,
) -> Result<Verdict, VerifyError> {
    let (roots_pem, crls_pem) = (read(certs, "root.crt"), read(certs, "crl.pem"));
    verify_with(&roots_pem, &crls_pem, issued.chain_pem.as_bytes(), now)
}

pub(crate) fn verify_with(
    roots_pem: &[u8],
    crls_pem: &[u8],
    chain_pem: &[u8],
    now: u64,
) -> Result<Verdict, VerifyError> {
    let trusted = Trusted {
        roots_pem,
        crls_pem,
    };
    verify(chain_pem, trusted, now)
}
