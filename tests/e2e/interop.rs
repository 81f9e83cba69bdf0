//! Our certificates and CRLs, verified by other implementations: OpenSSL, GnuTLS, pkilint and
//! rustls.
//!
//! pkilint is looked for in `LIZMON_TEST_TOOLS`, else where `tests/run` installs it. A missing tool
//! fails the test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lizmon_ca::authority::{Authority, InitOptions, Issued, KeySource, Request};
use lizmon_ca::pki::verify::{Trusted, verify};
use lizmon_ca::pki::{KeyAlg, Reason, San};
use lizmon_protocol::name::Role;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer, ServerName,
    UnixTime,
};
use serde_json::Value;
use tempfile::TempDir;

/// Purposes as OpenSSL and GnuTLS name them.
const CLIENT: (&str, &str) = ("sslclient", "1.3.6.1.5.5.7.3.2");
const SERVER: (&str, &str) = ("sslserver", "1.3.6.1.5.5.7.3.1");

/// A CA in its own folder, with a certificate of every role.
struct Fleet {
    dir: TempDir,
    authority: Authority,
    leaves: Vec<Issued>,
    now: u64,
}

impl Fleet {
    fn new(ca_alg: KeyAlg) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = wall_clock();
        let options = InitOptions {
            key_alg: ca_alg,
            ..InitOptions::default()
        };
        let authority = Authority::init(&dir.path().join("certs"), &options, now).unwrap();
        let mut fleet = Self {
            dir,
            authority,
            leaves: Vec::new(),
            now,
        };
        let longest = "n".repeat(200);
        for name in ["web1", "a.b_c-D", "Z".repeat(64).as_str(), longest.as_str()] {
            fleet.issue(Role::Node, name, &[], KeyAlg::P256);
        }
        fleet.issue(Role::Node, "ed", &[], KeyAlg::Ed25519);
        fleet.issue(Role::Reader, "alice", &[], KeyAlg::P256);
        fleet.issue(Role::Operator, "olga", &[], KeyAlg::P256);
        fleet.issue(Role::Summarizer, "sum1", &[], KeyAlg::P256);
        fleet.issue(Role::Proxy, "edge1", &[], KeyAlg::P256);
        let sans = ["metrics.example.com", "10.0.0.5", "2001:db8::5"];
        fleet.issue(Role::Receiver, "metrics", &sans, KeyAlg::P256);
        fleet.issue(Role::Ca, "enrol", &["ca.example.com"], KeyAlg::P256);
        fleet
    }

    fn issue(&mut self, role: Role, name: &str, sans: &[&str], alg: KeyAlg) {
        let request = Request {
            sans: sans.iter().map(|san| san.parse::<San>().unwrap()).collect(),
            key: KeySource::New(alg),
            ..Request::new(role, name.parse().unwrap())
        };
        let issued = self.authority.issue(request, self.now).unwrap();
        self.leaves.push(issued);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("certs").join(name)
    }

    /// Splits a PEM file into one file per section, for tools that read one section per file.
    fn sections(&self, file: &Path) -> Vec<PathBuf> {
        let text = std::fs::read_to_string(file).unwrap();
        let stem = file.file_name().unwrap().to_string_lossy().into_owned();
        let parts = text.split_inclusive("-----\n").collect::<Vec<_>>();
        let section = |(index, pair): (usize, &[&str])| {
            let path = self.dir.path().join(format!("{index}-{stem}"));
            std::fs::write(&path, pair.concat()).unwrap();
            path
        };
        parts.chunks(2).enumerate().map(section).collect()
    }

    fn openssl_verify(&self, file: &Path, purpose: &str) -> Output {
        let mut command = Command::new("openssl");
        command.args([
            "verify",
            "-x509_strict",
            "-crl_check_all",
            "-purpose",
            purpose,
        ]);
        command.arg("-CAfile").arg(self.file("root.crt"));
        command.arg("-CRLfile").arg(self.file("crl.pem"));
        command
            .arg("-untrusted")
            .arg(self.file("issuing.crt"))
            .arg(file);
        run(&mut command)
    }

    fn gnutls_verify(&self, file: &Path, purpose: &str) -> Output {
        let mut command = Command::new("certtool");
        command
            .arg("--verify")
            .arg(format!("--verify-purpose={purpose}"));
        command
            .arg("--load-ca-certificate")
            .arg(self.file("root.crt"));
        command.arg("--load-crl").arg(self.file("crl.pem"));
        command.arg("--infile").arg(file);
        run(&mut command)
    }

    fn rustls_verify(&self, file: &Path, purpose: &str) -> Result<(), String> {
        let read = |name: &str| std::fs::read(self.file(name)).unwrap();
        let (roots_pem, crls_pem) = (read("root.crt"), read("crl.pem"));
        let chain_pem = std::fs::read(file).unwrap();
        if purpose == SERVER.0 {
            return rustls_server_verify(&chain_pem, &roots_pem, &crls_pem, self.now);
        }
        let trusted = Trusted {
            roots_pem: &roots_pem,
            crls_pem: &crls_pem,
        };
        let verdict = verify(&chain_pem, trusted, self.now);
        verdict.map(drop).map_err(|refusal| refusal.to_string())
    }

    /// Checks the verdict of every implementation on a certificate for a purpose.
    #[track_caller]
    fn judged(&self, issued: &Issued, purpose: (&str, &str), good: bool) {
        let file = &issued.certificate_path;
        let shown = format!("{} as {}", issued.spiffe_id, purpose.0);
        let openssl = self.openssl_verify(file, purpose.0);
        assert_eq!(
            openssl.status.success(),
            good,
            "OpenSSL on {shown}: {openssl:?}"
        );
        let gnutls = self.gnutls_verify(file, purpose.1);
        assert_eq!(
            gnutls.status.success(),
            good,
            "GnuTLS on {shown}: {gnutls:?}"
        );
        let rustls = self.rustls_verify(file, purpose.0);
        assert_eq!(rustls.is_ok(), good, "rustls on {shown}: {rustls:?}");
    }
}

#[test]
fn openssl_gnutls_and_rustls_take_each_for_its_purpose_and_no_other() {
    for alg in [KeyAlg::P256, KeyAlg::Ed25519] {
        let fleet = Fleet::new(alg);
        for issued in &fleet.leaves {
            fleet.judged(issued, CLIENT, true);
            fleet.judged(issued, SERVER, issued.spiffe_id.role.is_server());
        }
    }
}

#[test]
fn openssl_gnutls_and_rustls_refuse_the_revoked_and_only_those() {
    let fleet = Fleet::new(KeyAlg::P256);
    let (revoked, others) = fleet.leaves.split_first().unwrap();
    for reason in [Reason::KeyCompromise, Reason::Superseded] {
        // A second revocation changes nothing.
        fleet
            .authority
            .revoke(&revoked.serial, reason, fleet.now)
            .unwrap();
    }
    fleet.judged(revoked, CLIENT, false);
    fleet.judged(&others[0], CLIENT, true);
    let verdict = fleet.openssl_verify(&revoked.certificate_path, CLIENT.0);
    let text = String::from_utf8_lossy(&verdict.stderr);
    assert!(text.contains("certificate revoked"), "{text}");
}

#[test]
fn another_root_is_not_trusted() {
    let (ours, theirs) = (Fleet::new(KeyAlg::P256), Fleet::new(KeyAlg::P256));
    ours.judged(&theirs.leaves[0], CLIENT, false);
}

#[test]
fn pkilint_is_content() {
    for alg in [KeyAlg::P256, KeyAlg::Ed25519] {
        let fleet = Fleet::new(alg);
        let root = fleet.file("root.crt");
        let issuing = fleet.file("issuing.crt");
        let uri = "spiffe://lizmon.internal";
        content(lint("lint_pkix_cert", &[], &[&root]), &[uri]);
        content(
            lint(
                "lint_pkix_signer_signee_cert_chain",
                &[],
                &[&root, &issuing],
            ),
            &[uri],
        );
        for issued in &fleet.leaves {
            let leaf = &fleet.sections(&issued.certificate_path)[0];
            let uris = [uri, &issued.spiffe_id.to_string()];
            content(lint("lint_pkix_cert", &[], &[leaf]), &uris);
            content(
                lint("lint_pkix_signer_signee_cert_chain", &[], &[&issuing, leaf]),
                &uris,
            );
        }
        let revoked = &fleet.leaves[0];
        fleet
            .authority
            .revoke(&revoked.serial, Reason::CessationOfOperation, fleet.now)
            .unwrap();
        let crls = fleet.sections(&fleet.file("crl.pem"));
        assert_eq!(crls.len(), 2);
        for (crl, kind) in crls.iter().zip(["ARL", "CRL"]) {
            content(lint("lint_crl", &["-t", kind, "-p", "PKIX"], &[crl]), &[]);
        }
    }
}

/// If the linter were silent about everything, the test above would prove nothing.
#[test]
fn pkilint_is_not_content_with_anything() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("careless.crt");
    let mut params = rcgen::CertificateParams::new(vec!["a b".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
    let findings = lint("lint_pkix_cert", &[], &[&file]);
    assert!(
        findings
            .iter()
            .any(|finding| finding["severity"] == "ERROR"),
        "{findings:?}"
    );
}

#[test]
fn openssl_reads_every_key() {
    let fleet = Fleet::new(KeyAlg::Ed25519);
    let mut keys: Vec<PathBuf> = fleet
        .leaves
        .iter()
        .filter_map(|l| l.key_path.clone())
        .collect();
    assert_eq!(keys.len(), fleet.leaves.len());
    keys.extend([fleet.file("root.key"), fleet.file("issuing.key")]);
    for key in keys {
        let read = run(Command::new("openssl")
            .args(["pkey", "-noout", "-check", "-in"])
            .arg(&key));
        assert!(read.status.success(), "{key:?}: {read:?}");
    }
}

/// A key and a request with additional extensions, made by `openssl req`.
#[test]
fn requests_made_by_openssl_are_taken_for_their_key_alone() {
    let cases = [
        ("ec -pkeyopt ec_paramgen_curve:P-256", true),
        ("ec -pkeyopt ec_paramgen_curve:P-384", true),
        ("ed25519", true),
        ("rsa:2048", true),
        ("rsa:1024", false),
        ("ec -pkeyopt ec_paramgen_curve:P-521", false),
        ("ec -pkeyopt ec_paramgen_curve:secp256k1", false),
        ("ed448", false),
    ];
    let fleet = Fleet::new(KeyAlg::P256);
    for (index, (kind, taken)) in cases.into_iter().enumerate() {
        let file = fleet.dir.path().join("request.csr");
        let mut command = Command::new("openssl");
        command.args(["req", "-new", "-nodes", "-subj", "/O=other/CN=admin"]);
        command.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
        command.args([
            "-addext",
            "keyUsage=keyCertSign",
            "-addext",
            "extendedKeyUsage=serverAuth",
        ]);
        command.args([
            "-addext",
            "subjectAltName=URI:spiffe://lizmon.internal/operator/admin",
        ]);
        command.arg("-newkey").args(kind.split(' '));
        command
            .arg("-keyout")
            .arg(fleet.dir.path().join("request.key"))
            .arg("-out")
            .arg(&file);
        let made = run(&mut command);
        assert!(made.status.success(), "{kind}: {made:?}");
        let der = CertificateSigningRequestDer::from_pem_file(&file).unwrap();
        let request = Request {
            key: KeySource::Csr(der.to_vec()),
            ..Request::new(Role::Node, format!("by-hand-{index}").parse().unwrap())
        };
        let issued = fleet.authority.issue(request, fleet.now);
        assert_eq!(issued.is_ok(), taken, "{kind}: {issued:?}");
        if let Ok(issued) = issued {
            fleet.judged(&issued, CLIENT, true);
            fleet.judged(&issued, SERVER, false);
            let leaf = &fleet.sections(&issued.certificate_path)[0];
            content(
                lint("lint_pkix_cert", &[], &[leaf]),
                &[&issued.spiffe_id.to_string()],
            );
        }
    }
}

fn rustls_server_verify(
    chain_pem: &[u8],
    roots_pem: &[u8],
    crls_pem: &[u8],
    now: u64,
) -> Result<(), String> {
    let certificates = |pem: &[u8]| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem)
            .map(Result::unwrap)
            .collect()
    };
    let chain = certificates(chain_pem);
    let mut roots = RootCertStore::empty();
    for root in certificates(roots_pem) {
        roots.add(root).unwrap();
    }
    let crls = CertificateRevocationListDer::pem_slice_iter(crls_pem).map(Result::unwrap);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(crls)
        .build()
        .unwrap();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now));
    // The first DNS name of each server of the fleet.
    let names = ["metrics.example.com", "ca.example.com"];
    let verdicts = names.map(|name| {
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], time)
    });
    match verdicts.iter().any(Result::is_ok) {
        true => Ok(()),
        false => Err(format!("{verdicts:?}")),
    }
}

/// Findings of level notice and above.
fn lint(tool: &str, flags: &[&str], files: &[&Path]) -> Vec<Value> {
    let folder = std::env::var_os("LIZMON_TEST_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/venv/bin"),
        PathBuf::from,
    );
    let mut command = Command::new(folder.join(tool));
    command
        .arg("lint")
        .args(flags)
        .args(["-s", "NOTICE", "-f", "JSON"])
        .args(files);
    let output = run(&mut command);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{tool} on {files:?}: {error}: {output:?}"));
    let results = report["results"].as_array().unwrap();
    let findings = results
        .iter()
        .flat_map(|result| result["finding_descriptions"].as_array());
    findings.flatten().cloned().collect()
}

/// No findings except a false one: pkilint 0.13 accepts only URIs with the schemes of web and mail,
/// which RFC 3986 does not require. It is allowed for exactly our own URIs.
#[track_caller]
fn content(findings: Vec<Value>, uris: &[&str]) {
    for finding in findings {
        let message = finding["message"].as_str().unwrap_or_default();
        let meant = |uri: &&str| message == format!("Invalid URI syntax: \"{uri}\"");
        let forgiven = finding["code"] == "pkix.invalid_uri_syntax" && uris.iter().any(meant);
        assert!(forgiven, "{finding}");
    }
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!(
            "{} is needed for this test ({error}): ./tests/run installs it",
            command.get_program().to_string_lossy()
        )
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "these judges look at the clock on the wall"
)]
fn wall_clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}
