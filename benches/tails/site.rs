//! The certificates of a run, and revocation lists of any length.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use lizmon_ca::authority::{Authority, InMemory, InitOptions, Request};
use lizmon_protocol::name::{NodeName, Role};
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevocationReason,
    RevokedCertParams, SerialNumber,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// Longer than any run.
const LIFETIME: Duration = Duration::from_secs(12 * 3_600);
/// Above all that the CA itself has signed: those begin with the seconds since 1970.
const FIRST_CRL_NUMBER: u64 = 1 << 62;

#[expect(clippy::disallowed_methods, reason = "the edge of the process")]
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Whoever may connect.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) tls: Arc<ClientConfig>,
}

/// A CA, a receiver's certificate, and those of its clients.
pub(super) struct Site {
    folder: TempDir,
    authority: Authority,
    roots: Arc<RootCertStore>,
    pub(super) nodes: Vec<Arc<Identity>>,
    pub(super) reader: Arc<Identity>,
    pub(super) operator: Arc<Identity>,
}

impl Site {
    pub(super) fn new(nodes: usize) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder")?;
        let certs = folder.path().join("certs");
        let authority = Authority::init(&certs, &InitOptions::default(), now()).context("a CA")?;
        let mut request = Request::new(Role::Receiver, "rx".parse().context("a name")?);
        request.sans = vec!["127.0.0.1".parse().context("a SAN")?];
        authority.issue(request, now()).context("a certificate")?;
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(certs.join("root.crt"));
        roots.add(root.context("a root")?).context("a root")?;
        let roots = Arc::new(roots);
        let issue = |role, names: &[NodeName]| -> Result<Vec<_>> {
            let issued = authority.issue_in_memory(role, names, LIFETIME, now());
            let issued = issued.context("certificates")?;
            issued
                .into_iter()
                .map(|one| identity(one, &roots))
                .collect()
        };
        let one = |role, name: &str| -> Result<_> {
            let name = name.parse().context("a name")?;
            issue(role, &[name])?.pop().context("an identity")
        };
        let names = (0..nodes).map(|at| format!("node{at}").parse().context("a name"));
        Ok(Self {
            nodes: issue(Role::Node, &names.collect::<Result<Vec<_>>>()?)?,
            reader: one(Role::Reader, "reader")?,
            operator: one(Role::Operator, "operator")?,
            roots,
            authority,
            folder,
        })
    }

    /// More nodes, named after `prefix`.
    pub(super) fn more_nodes(&self, prefix: &str, count: usize) -> Result<Vec<Arc<Identity>>> {
        let names = (0..count).map(|at| format!("{prefix}{at}").parse().context("a name"));
        let names = names.collect::<Result<Vec<_>>>()?;
        let issued = self
            .authority
            .issue_in_memory(Role::Node, &names, LIFETIME, now());
        let issued = issued.context("certificates")?;
        issued
            .into_iter()
            .map(|one| identity(one, &self.roots))
            .collect()
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn certs(&self) -> PathBuf {
        self.folder().join("certs")
    }

    /// A revocation list of the issuing CA with so many serials, none of which was issued.
    pub(super) fn long_crl(&self, serials: usize) -> Result<String> {
        let files = self.authority.files();
        let read = |file: &Path| std::fs::read_to_string(file).context("a file of the CA");
        let key = KeyPair::from_pem(&read(&files.issuing_key)?).context("the issuing key")?;
        let issuer = Issuer::from_ca_cert_pem(&read(&files.issuing_certificate)?, key);
        let at = |secs: u64| {
            let secs = UNIX_EPOCH + Duration::from_secs(secs);
            secs.into()
        };
        let revoked = |serial: usize| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial_bytes(serial)),
            revocation_time: at(now() - 60),
            reason_code: Some(RevocationReason::Superseded),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: at(now() - 1),
            next_update: at(now() + LIFETIME.as_secs()),
            crl_number: SerialNumber::from(FIRST_CRL_NUMBER),
            issuing_distribution_point: None,
            revoked_certs: (0..serials).map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = issuer.context("the issuing CA")?;
        let crl = params.signed_by(&issuer).context("a CRL")?;
        crl.pem().context("a CRL")
    }
}

/// 16 bytes, as those that the CA gives out, and positive.
fn serial_bytes(serial: usize) -> [u8; 16] {
    let mut bytes = [0x55; 16];
    // Spread, as random ones are.
    let spread = (serial as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes[1..9].copy_from_slice(&spread.to_be_bytes());
    bytes
}

fn identity(issued: InMemory, roots: &Arc<RootCertStore>) -> Result<Arc<Identity>> {
    let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes());
    let chain = chain.collect::<Result<_, _>>().context("a chain")?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).context("a key")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("versions")?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain, key)
        .context("a certificate")?;
    Ok(Arc::new(Identity {
        name: issued.spiffe_id.name.to_string(),
        tls: Arc::new(tls),
    }))
}
