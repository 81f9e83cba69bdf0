//! What all rows share: a CA, identities, the options, and the servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use lizmon_benches::cores;
use lizmon_ca::authority::{Authority, InMemory, InitOptions, Request};
use lizmon_protocol::name::{NodeName, Role};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::options::Options;
use crate::server::{Kind, Server};

/// As many as the row with most identities has.
const NODES: usize = 512;
/// Longer than any run.
const LIFETIME: Duration = Duration::from_secs(24 * 3_600);

#[expect(clippy::disallowed_methods, reason = "the edge of the process")]
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A holder of a certificate.
pub(crate) struct Identity {
    pub(crate) name: NodeName,
    tls: ClientConfig,
}

impl Identity {
    /// Each handshake is a full one.
    pub(crate) fn tls(&self, alpn: Option<&[u8]>) -> Arc<ClientConfig> {
        let mut tls = self.tls.clone();
        tls.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
        Arc::new(tls)
    }
}

pub(crate) struct Scene {
    pub(crate) options: Options,
    folder: tempfile::TempDir,
    /// The server's core and the load's; `None` where all are shared.
    cores: Option<cores::Pair>,
    nodes: Vec<Arc<Identity>>,
    reader: Arc<Identity>,
}

/// Whether server and load have a core each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placing {
    Apart,
    AllCores,
}

impl Scene {
    pub(crate) fn new(options: Options) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder")?;
        let certs = folder.path().join("certs");
        let ca = Authority::init(&certs, &InitOptions::default(), now()).context("a CA")?;
        let mut receiver = Request::new(Role::Receiver, "rx".parse().context("a name")?);
        receiver.sans = vec!["127.0.0.1".parse().context("a SAN")?];
        ca.issue(receiver, now()).context("a certificate")?;
        let names = (0..NODES).map(|at| format!("node{at}").parse());
        let names: Vec<NodeName> = names.collect::<Result<_, _>>().context("names")?;
        let reader = ["alice".parse().context("a name")?];
        let issue = |role, names: &[NodeName]| -> Result<Vec<Arc<Identity>>> {
            let issued = ca.issue_in_memory(role, names, LIFETIME, now())?;
            issued
                .iter()
                .map(|issued| identity(issued, &certs))
                .collect()
        };
        Ok(Self {
            cores: (!options.unpinned)
                .then(cores::Pair::of_this_thread)
                .transpose()?,
            nodes: issue(Role::Node, &names)?,
            reader: issue(Role::Reader, &reader)?.remove(0),
            options,
            folder,
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    pub(crate) fn nodes(&self, count: usize) -> &[Arc<Identity>] {
        &self.nodes[..count.min(NODES)]
    }

    pub(crate) fn reader(&self) -> &Arc<Identity> {
        &self.reader
    }

    /// Calls it where servers are.
    pub(crate) fn on_server<T>(
        &self,
        placing: Placing,
        call: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        match (placing, &self.cores) {
            (Placing::Apart, Some(cores)) => cores.on_server(call)?,
            _ => call(),
        }
    }

    /// A server with an empty store, and a load on it. Both end.
    pub(crate) fn load<T>(
        &self,
        kind: Kind,
        placing: Placing,
        load: impl AsyncFnOnce(&Server) -> Result<T>,
    ) -> Result<T> {
        let server = self.on_server(placing, || Server::start(kind, self))?;
        let run = || -> Result<T> {
            // One thread is the cheapest load, and can use one core.
            let runtime = match (placing, &self.cores) {
                (Placing::Apart, Some(_)) => tokio::runtime::Builder::new_current_thread(),
                _ => tokio::runtime::Builder::new_multi_thread(),
            }
            .enable_all()
            .build()
            .context("a runtime")?;
            runtime.block_on(load(&server))
        };
        match (placing, &self.cores) {
            (Placing::Apart, Some(cores)) => cores.on_load(run)?,
            _ => run(),
        }
    }

    /// Each kind in turn, as many rounds as the options say: the results of each round.
    pub(crate) fn rounds<T, const N: usize>(
        &self,
        (id, kinds): (&str, [Kind; N]),
        mut run: impl FnMut(Kind) -> Result<(T, String)>,
    ) -> Result<Vec<[T; N]>> {
        let round = |round: usize| {
            let mut results = Vec::with_capacity(N);
            for kind in kinds {
                let (result, said) = run(kind).with_context(|| format!("{id}, {kind}"))?;
                eprintln!(
                    "{id} {}/{} {kind}: {said}",
                    round + 1,
                    self.options.rounds()
                );
                results.push(result);
            }
            results.try_into().ok().context("a result of each")
        };
        (0..self.options.rounds()).map(round).collect()
    }
}

fn identity(issued: &InMemory, certs: &Path) -> Result<Arc<Identity>> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(certs.join("root.crt")).context("a root")?;
    roots.add(root).context("a root")?;
    let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes());
    let chain = chain.collect::<Result<_, _>>().context("a chain")?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).context("a key")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("versions")?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .context("a certificate")?;
    tls.resumption = Resumption::disabled();
    Ok(Arc::new(Identity {
        name: issued.spiffe_id.name.clone(),
        tls,
    }))
}
