//! Issues the identities of the nodes and readers, in memory only.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lizmon_ca::authority::{Authority, InMemory};
use lizmon_protocol::name::{NameError, NodeName, Role};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::http_version::HttpVersion;

/// The certificates end soon after the longest run: their keys are gone when it ends, so there is
/// nothing to revoke. The odd second tells them from those of real hosts.
const LIFETIME: Duration = Duration::from_secs(2 * 3_600 + 1);

/// A node or reader: its name, and the TLS configuration that shows its certificate.
pub(crate) struct LoadIdentity {
    pub(crate) name: NodeName,
    pub(crate) tls: Arc<ClientConfig>,
}

/// How identities connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TlsOptions {
    pub(crate) http: HttpVersion,
    /// Whether an earlier TLS session may be resumed, as monitors do.
    pub(crate) is_resumed: bool,
}

/// The name of a node; the first is 1.
pub(crate) fn name(prefix: &str, at: u32) -> Result<NodeName, NameError> {
    format!("{prefix}-{at:06}").parse()
}

/// Issues `count` identities named PREFIX-000001 and so on.
pub(crate) fn issue(
    authority: &Authority,
    (role, prefix, count): (Role, &str, u32),
    options: TlsOptions,
    now: u64,
) -> anyhow::Result<Vec<LoadIdentity>> {
    let names = (1..=count).map(|at| name(prefix, at));
    let names: Vec<NodeName> = names.collect::<Result<_, _>>().context("--prefix")?;
    let issued = authority.issue_in_memory(role, &names, LIFETIME, now)?;
    let root = &authority.files().root_certificate;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(root)
        .with_context(|| format!("cannot read {}", root.display()))?
    {
        roots.add(certificate.context("cannot read a root certificate")?)?;
    }
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let identity = |issued: InMemory| {
        let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes());
        let chain = chain
            .collect::<Result<_, _>>()
            .context("cannot read the new certificate")?;
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())
            .context("cannot read the new key")?;
        let mut tls = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain, key)?;
        tls.alpn_protocols = vec![options.http.alpn().to_vec()];
        if !options.is_resumed {
            tls.resumption = Resumption::disabled();
        }
        Ok(LoadIdentity {
            name: issued.spiffe_id.name,
            tls: Arc::new(tls),
        })
    };
    issued.into_iter().map(identity).collect()
}
