//! A receiver and its clients with certificates of any profile.

use std::path::PathBuf;
use std::process::Command;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::harness::process::{Finished, Running, program, run};
use crate::harness::world::wall_clock;

pub(super) const NODE: &str = "spiffe://lizmon.internal/node/web1";
pub(super) const RECEIVER: &str = "spiffe://lizmon.internal/receiver/rx1";
pub(super) const HOUR: Duration = Duration::HOUR;

pub(super) fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(wall_clock() as i64).unwrap()
}

/// A CA with an arbitrary profile.
pub(super) struct Ca {
    pub(super) certificate: Certificate,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

pub(super) type Edit<'e> = &'e dyn Fn(&mut CertificateParams);

pub(super) const AS_IT_IS: Edit<'static> = &|_| ();

impl Ca {
    pub(super) fn new(name: &str, above: Option<&Self>, edit: Edit<'_>) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (now() - HOUR * 5, now() + HOUR * 500);
        edit(&mut params);
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        };
        Self {
            certificate: certificate.unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(super) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Certificate and key; also for a server, if it has a DNS name.
    pub(super) fn leaf(&self, id: &str, edit: Edit<'_>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = if id == RECEIVER {
            vec!["localhost".to_owned()]
        } else {
            vec![]
        };
        let mut params = CertificateParams::new(names).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(id.try_into().unwrap()));
        (params.not_before, params.not_after) = (now() - HOUR, now() + HOUR * 24);
        params.serial_number = Some(SerialNumber::from(77_u64));
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if id == RECEIVER {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        edit(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(super) fn list(&self, revoked: &[u64]) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now() - HOUR,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now() - HOUR,
            next_update: now() + HOUR * 24,
            crl_number: SerialNumber::from(7_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// The client's certificate, and what the receiver trusts besides its own root.
pub(super) struct Shape {
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) roots: String,
    pub(super) lists: String,
    /// What the client trusts besides the receiver's root.
    pub(super) client_roots: String,
}

pub(super) fn shape((cert, key): (String, String), behind: &[&Ca]) -> Shape {
    Shape {
        cert: cert + &behind.iter().map(|ca| ca.pem()).collect::<String>(),
        key,
        roots: String::new(),
        lists: behind.iter().map(|ca| ca.list(&[])).collect(),
        client_roots: String::new(),
    }
}

/// A valid CA and receiver, and a folder for files of clients.
pub(super) struct Fixture {
    pub(super) folder: tempfile::TempDir,
    pub(super) root: Ca,
    pub(super) receiver: (String, String),
}

impl Fixture {
    pub(super) fn new() -> Self {
        let root = Ca::new("test root", None, AS_IT_IS);
        Self {
            folder: tempfile::tempdir().unwrap(),
            receiver: root.leaf(RECEIVER, AS_IT_IS),
            root,
        }
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.at(name), text).unwrap();
        self.at(name)
    }

    /// A receiver's process and its URL.
    pub(super) fn receiver(&self, shape: &Shape) -> (Running, String) {
        let mut command = program("liz-receiver");
        command.args(["--listen", "127.0.0.1:0", "--cert"]);
        command.arg(self.write("rx.crt", &self.receiver.0));
        command
            .arg("--key")
            .arg(self.write("rx.key", &self.receiver.1));
        let roots = self.root.pem() + &shape.roots;
        command.arg("--ca").arg(self.write("ca.pem", &roots));
        let lists = self.root.list(&[]) + &shape.lists;
        command.arg("--crl").arg(self.write("crl.pem", &lists));
        let _fresh = std::fs::remove_dir_all(self.at("data"));
        command.arg("--data").arg(self.at("data"));
        let mut running = Running::start(&mut command);
        let ready = running.wait_for("READY on ");
        let (_, port) = ready.rsplit_once(':').unwrap();
        let url = format!("https://localhost:{}", port.trim());
        (running, url)
    }

    pub(super) fn client(&self, shape: &Shape, name: &str) -> Command {
        let mut command = program(name);
        command.arg("--cert").arg(self.write("n.crt", &shape.cert));
        command.arg("--key").arg(self.write("n.key", &shape.key));
        let roots = self.root.pem() + &shape.client_roots;
        command.arg("--ca").arg(self.write("trusted.pem", &roots));
        command
    }

    pub(super) fn token(&self, shape: &Shape, url: &str) -> Finished {
        let mut command = program("lizctl");
        command.args(["token", "--receiver", url]);
        command.args(self.client(shape, "lizctl").get_args());
        run(&mut command)
    }

    pub(super) fn monitor(&self, shape: &Shape, url: &str) -> Running {
        let mut command = program("liz-monitor");
        command.args(["--this-host", "web1", "--publish"]);
        command.arg(format!("{url}/api/perf"));
        command.args(self.client(shape, "liz-monitor").get_args());
        command.arg("--spool").arg(self.at("spool"));
        Running::start(&mut command)
    }
}
