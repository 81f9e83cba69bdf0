//! A CA, and receivers that share a store.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lizmon_mtls::revocation::Crl;
use lizmon_mtls::trust::{TrustFiles, TrustReader, TrustWriter};
use lizmon_mtls::{Clock, TlsMin};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::*;

pub(super) const NOW: u64 = 1_465_001_814;
pub(super) const DAY: u64 = 86_400;

fn at(epoch: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(epoch as i64).unwrap()
}

/// A root that signs leaves.
pub(super) struct Pki {
    root: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.not_before = at(NOW - DAY);
        params.not_after = at(NOW + 1000 * DAY);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        Self { root, issuer }
    }

    fn crl(&self, number: u64, revoked: &[u8]) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: at(NOW),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: at(NOW - DAY),
            next_update: at(NOW + 30 * DAY),
            crl_number: SerialNumber::from_slice(&number.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// One receiver.
pub(super) struct Member {
    folder: tempfile::TempDir,
    writer: TrustWriter,
    time: Arc<AtomicU64>,
    pub(super) trust: TrustReader,
    pub(super) tokens: Arc<Tokens>,
    pub(super) verifier: Arc<KeyStatementVerifier>,
}

impl Member {
    /// `rx`, whose certificate has this number and ends after that many days.
    pub(super) fn new(pki: &Pki, serial: u8, days: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.crt"), pki.root.pem()).unwrap();
        std::fs::write(folder.path().join("crl.pem"), pki.crl(1, &[])).unwrap();
        issue(
            pki,
            folder.path(),
            serial,
            days,
            KeyPair::generate().unwrap(),
        );
        let time = Arc::new(AtomicU64::new(NOW));
        let of_test = time.clone();
        let clock: Clock = Arc::new(move || of_test.load(Ordering::Relaxed));
        let file = |name: &str| folder.path().join(name);
        let files = TrustFiles {
            cert: file("rx.crt"),
            key: file("rx.key"),
            ca: file("root.crt"),
            crl: file("crl.pem"),
        };
        let (writer, trust) = TrustWriter::open(files, clock.clone(), TlsMin::default()).unwrap();
        let url = "https://localhost:8443".to_owned();
        let (ttl, life) = (Duration::from_secs(300), Duration::from_secs(30 * DAY));
        let tokens = Tokens::open(folder.path(), url.clone(), url, ttl, life, NOW).unwrap();
        let verifier = KeyStatementVerifier::new(trust.clone(), clock);
        Self {
            folder,
            writer,
            time,
            trust,
            tokens: Arc::new(tokens),
            verifier: Arc::new(verifier),
        }
    }

    pub(super) fn keys(&self) -> ReceiverKeys {
        ReceiverKeys::open(self.tokens.clone(), self.verifier.clone()).unwrap()
    }

    pub(super) fn set_time(&self, now: u64) {
        self.time.store(now, Ordering::Relaxed);
    }

    pub(super) fn revoke(&mut self, pki: &Pki, number: u64, serials: &[u8]) {
        let crls = Crl::read_all(pki.crl(number, serials).as_bytes()).unwrap();
        self.writer.add_crls(crls, &[]).unwrap().unwrap();
    }

    pub(super) fn renew(&mut self, pki: &Pki, serial: u8, key: KeyPair) {
        issue(pki, self.folder.path(), serial, 90, key);
        self.writer.reload_if_changed().unwrap().unwrap();
    }
}

fn issue(pki: &Pki, folder: &Path, serial: u8, days: u64, key: KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = at(NOW - DAY);
    params.not_after = at(NOW + days * DAY);
    params.serial_number = Some(SerialNumber::from_slice(&[serial]));
    let id = format!("spiffe://lizmon.internal/receiver/rx{serial}");
    params.subject_alt_names = vec![
        SanType::URI(id.try_into().unwrap()),
        SanType::DnsName("rx".try_into().unwrap()),
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let leaf = params.signed_by(&key, &pki.issuer).unwrap();
    std::fs::write(folder.join("rx.crt"), leaf.pem()).unwrap();
    std::fs::write(folder.join("rx.key"), key.serialize_pem()).unwrap();
}
