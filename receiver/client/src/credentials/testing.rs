//! A small authority for the tests of this crate.

use lizmon_pki::anchors::Anchors;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

pub(crate) struct Pki {
    pub(crate) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) struct Leaf {
    pub(crate) certificate: Certificate,
    pub(crate) key: KeyPair,
}

impl Pki {
    /// 2026-01-15, within what [`Self::issue`] issues: 2026 but for its last day.
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

    /// A certificate for localhost and these URIs, for both sides of a connection.
    pub(crate) fn issue(&self, uris: &[&str]) -> Leaf {
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
        Leaf { certificate, key }
    }
}
