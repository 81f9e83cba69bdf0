//! `liz-ca` of `lizctl up`, in this process: other machines join there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use lizmon_ca::pki::Unlock;
use lizmon_ca::service::{Config, Service, ServiceCertificate, ServiceError};
use lizmon_client::BaseUrl;
use lizmon_mtls::TlsMin;
use lizmon_protocol::name::NodeName;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::local_endpoint::LocalEndpoint;

/// The name of its certificate, as `liz-ca` has it by default.
pub(super) const CA_NAME: &str = "liz-ca";

/// The running service.
pub(super) struct EnrolmentService {
    /// Where machines join.
    pub(super) url: BaseUrl,
    pub(super) task: JoinHandle<Result<(), ServiceError>>,
    stop: watch::Sender<bool>,
}

impl EnrolmentService {
    /// Listens at the address of the receiver, on the port after its own, or the next free one.
    pub(super) async fn start(
        receiver: SocketAddr,
        certs: &Path,
        unlock: Unlock,
        tls_min: TlsMin,
        clock: fn() -> u64,
    ) -> anyhow::Result<Self> {
        let port = match receiver.port() {
            0 => 0,
            port => port.saturating_add(1),
        };
        let endpoint = LocalEndpoint::bind(SocketAddr::new(receiver.ip(), port))?;
        let name: NodeName = CA_NAME.parse()?;
        let sans = endpoint.sans;
        let certificate = ServiceCertificate::Issued { name, sans };
        let mut config = Config::new(certs.to_owned(), certificate);
        config.unlock = unlock;
        config.tls_min = tls_min;
        let service = Service::start(endpoint.listener, config, Arc::new(clock))
            .await
            .context("the enrolment service cannot start")?;
        let (stop, mut stopped) = watch::channel(false);
        let stopped = async move {
            let _gone = stopped.wait_for(|stop| *stop).await;
        };
        Ok(Self {
            url: endpoint.url.parse().context("cannot build its URL")?,
            task: tokio::spawn(service.run(stopped)),
            stop,
        })
    }

    /// Answers what was asked, and ends.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let ended = (&mut self.task)
            .await
            .context("the enrolment service panicked")?;
        ended.context("the enrolment service failed")
    }
}
