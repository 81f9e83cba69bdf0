//! A small authority for the tests of this crate.

use crate::anchors::Anchors;
use crate::credentials::Credentials;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

pub(crate) struct Pki {
    pub(crate) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) struct IssuedLeaf {
    pub(crate) certificate: Certificate,
    pub(crate) key: KeyPair,
}

impl Pki {
    /// 2026-01-15. Certificates from [`Self::issue`] are valid for all of 2026 except the last day.
    pub(crate) const NOW: u64 = 1_768_435_200;

    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    pub(crate) fn below(certificate: Certificate, issuer: Issuer<'static, KeyPair>) -> Self {
        Self {
            certificate,
            issuer,
        }
    }

    pub(crate) fn roots(&self) -> Anchors {
        Anchors {
            roots: vec![self.certificate.der().clone()],
            ..Anchors::default()
        }
    }

    /// Issues a certificate for localhost and these URIs, for client and server.
    pub(crate) fn issue(&self, uris: &[&str]) -> IssuedLeaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        for uri in uris {
            let uri = (*uri).try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 12, 31);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        IssuedLeaf { certificate, key }
    }
}

pub(crate) const NODE: &str = "spiffe://lizmon.internal/node/web1";

/// The credential files of one client.
pub(crate) struct Files {
    dir: tempfile::TempDir,
    pub(crate) pki: Pki,
    leaf: IssuedLeaf,
}

impl Files {
    pub(crate) fn new() -> Self {
        let pki = Pki::new("root");
        let leaf = pki.issue(&[NODE]);
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
            pki,
            leaf,
        };
        files.write("cert", &files.leaf.certificate.pem());
        files.write("key", &files.leaf.key.serialize_pem());
        files.write("ca", &files.pki.certificate.pem());
        files
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn credentials(&self) -> Credentials {
        let at = |name| self.path(name);
        Credentials {
            cert: at("cert"),
            key: at("key"),
            ca: at("ca"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}
