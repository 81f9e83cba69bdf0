//! The CA of a test, and the files of a server whose certificates it issued.

use rcgen::{BasicConstraints, Certificate, DistinguishedName, IsCa, KeyUsagePurpose};
use rustls_pki_types::pem::PemObject;

use super::*;

pub(super) struct Ca {
    pub(super) certificate: Certificate,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

pub(super) fn params(name: &str, life: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = at(NOW - DAY);
    params.not_after = at(NOW + life);
    params
}

pub(super) fn at(epoch: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(epoch as i64).unwrap()
}

pub(super) fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name, 1000 * DAY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(super) fn root(name: &str) -> Ca {
    let key = KeyPair::generate().unwrap();
    let params = ca_params(name);
    let certificate = params.self_signed(&key).unwrap();
    Ca {
        certificate,
        issuer: Issuer::new(params, key),
    }
}

impl Ca {
    pub(super) fn issuing(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// Leaf and key as PEM, with the issuing certificate after the leaf.
    pub(super) fn leaf(&self, id: &str, serial: u8) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let leaf = self
            .leaf_params(id, serial)
            .signed_by(&key, &self.issuer)
            .unwrap();
        (
            format!("{}{}", leaf.pem(), self.certificate.pem()),
            key.serialize_pem(),
        )
    }

    pub(super) fn leaf_params(&self, id: &str, serial: u8) -> CertificateParams {
        let mut params = params("", 90 * DAY);
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        params.subject_alt_names = vec![
            SanType::URI(id.try_into().unwrap()),
            SanType::DnsName("rx".try_into().unwrap()),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params
    }

    pub(super) fn crl(&self, number: u64, revoked: &[u8]) -> String {
        self.crl_from(number, revoked, NOW - DAY)
    }

    pub(super) fn crl_from(&self, number: u64, revoked: &[u8], this_update: u64) -> String {
        let revoked = revoked.iter().map(|serial| vec![*serial]);
        self.crl_naming(number, revoked.collect(), this_update)
    }

    pub(super) fn crl_naming(
        &self,
        number: u64,
        revoked: Vec<Vec<u8>>,
        this_update: u64,
    ) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: at(this_update),
            reason_code: None,
            invalidity_date: None,
        });
        CertificateRevocationListParams {
            this_update: at(this_update),
            next_update: at(this_update + 30 * DAY),
            crl_number: SerialNumber::from_slice(&number.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }
}

pub(super) const RECEIVER: u8 = 1;
pub(super) const NODE: u8 = 2;

pub(super) struct House {
    pub(super) folder: tempfile::TempDir,
    pub(super) root: Ca,
    pub(super) issuing: Ca,
    pub(super) node: Vec<CertificateDer<'static>>,
}

impl House {
    pub(super) fn new() -> Self {
        let root = root("root");
        let issuing = root.issuing("issuing 1");
        let node = chain(&issuing.leaf("spiffe://lizmon.internal/node/web1", NODE).0);
        let house = Self {
            folder: tempfile::tempdir().unwrap(),
            root,
            issuing,
            node,
        };
        let (cert, key) = house
            .issuing
            .leaf("spiffe://lizmon.internal/receiver/rx", RECEIVER);
        house.write("rx.crt", &cert);
        house.write("rx.key", &key);
        house.write("root.crt", &house.root.certificate.pem());
        house.write_crls(&house.issuing.crl(1, &[]));
        house
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(super) fn write_crls(&self, issuing: &str) {
        self.write("crl.pem", &format!("{}{issuing}", self.root.crl(1, &[])));
    }

    pub(super) fn open(&self) -> Result<(TrustWriter, TrustReader), TrustError> {
        self.open_at(Arc::new(|| NOW))
    }

    pub(super) fn open_at(&self, clock: Clock) -> Result<(TrustWriter, TrustReader), TrustError> {
        let file = |name: &str| self.folder.path().join(name);
        let files = TrustFiles {
            cert: file("rx.crt"),
            key: file("rx.key"),
            ca: file("root.crt"),
            crl: file("crl.pem"),
        };
        TrustWriter::open_with_crl_file(files, file("kept.pem"), clock, TlsMin::default())
    }

    pub(super) fn push(&self, writer: &mut TrustWriter, crls: &str) -> Result<(), CrlRefused> {
        let crls = Crl::read_all(crls.as_bytes()).unwrap();
        writer.add_crls(crls, &self.node).unwrap().map(|_| ())
    }
}

pub(super) fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}
