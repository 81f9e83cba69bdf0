//! Receiver, monitor and reader in one process.
//!
//! ```text
//! local_pki (CA, certificates) -> receiver <- monitor
//!                                │
//!                                └──── reader -> the table on stdout
//! ```
//!
//! The three talk over real sockets and mutual TLS, each with its own certificate, as they would on
//! three machines.

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf, absolute};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lizmon_client::{BaseUrl, Client, Credentials, Error};
use lizmon_daemon::Ended;
use lizmon_monitor::collect::{CollectOptions, DEFAULT_COLLECTORS};
use lizmon_monitor::config::{PublishUrl, SpoolConfig};
use lizmon_monitor::{Agent, Environment, spool};
use lizmon_mtls::TlsMin;
use lizmon_mtls::trust::TrustFiles;
use lizmon_pki::server_crls::ServerCrls;
use lizmon_protocol::name::NodeName;
use lizmon_protocol::problem::Code;
use lizmon_protocol::summary::Summaries;
use lizmon_receiver::{Clocks, Receiver};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::browser_server::BrowserServer;
use super::curl;
use super::enrolment_service::EnrolmentService;
use super::local_endpoint::LocalEndpoint;
use super::local_pki::LocalPki;
use super::local_pki::ca_replacement::MaintenanceMode;
use crate::context::Context;
use crate::output::{self, live, screen};
use crate::profile::{self, ConnectionProfile};
use crate::top::{self, TopState};
use crate::view::table;

/// How often the table is redrawn on a terminal.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// How often it is printed if stdout is not a terminal.
const PRINT_EVERY: Duration = Duration::from_secs(10);
/// How often certificates and CRLs are maintained.
const MAINTAIN_EVERY: Duration = Duration::from_secs(600);
/// The monitor's spool, below `--data`.
const SPOOL: &str = "spool";
/// Lines around the table: its title, and how to stop.
const LINES_AROUND: usize = 3;

/// What the flags of `up` configure.
pub(super) struct AllInOneConfig {
    pub(super) listen: SocketAddr,
    pub(super) this_host: Option<NodeName>,
    pub(super) data: PathBuf,
    pub(super) tls_min: TlsMin,
}

/// Why the live view ended.
enum EndReason {
    /// The time is over, or a signal said so.
    Stopped,
    /// The terminal was hung up.
    HungUp,
    /// The table cannot be printed.
    PrintFailed(anyhow::Error),
    /// The receiver or the monitor ended by itself.
    TaskEnded(anyhow::Result<()>),
}

/// The running receiver and monitor, and the client that reads their summaries.
pub(super) struct AllInOne {
    host: NodeName,
    reader: Client,
    clock: fn() -> u64,
    receiver: JoinHandle<Result<(), lizmon_receiver::ReceiverError>>,
    monitor: JoinHandle<Result<(), lizmon_monitor::AgentStartError>>,
    maintenance: JoinHandle<()>,
    browsers: BrowserServer,
    address: String,
    enrolment: EnrolmentService,
    stop_monitor: watch::Sender<bool>,
    stop_receiver: watch::Sender<bool>,
}

impl AllInOne {
    pub(super) async fn start(
        config: &AllInOneConfig,
        context: &Context,
        environment: Environment,
    ) -> anyhow::Result<Self> {
        let clock = context.clock;
        let certs = absolute(&context.certs).context("cannot find the folder --certs")?;
        let endpoint = LocalEndpoint::bind(config.listen)?;
        let address = endpoint.address;
        let (keys, this_host) = (context.keys.unlock(), config.this_host.as_ref());
        let pki = LocalPki::open(certs, keys, &endpoint, this_host, clock())?;
        let url: BaseUrl = endpoint
            .url
            .parse()
            .context("cannot build the URL of the receiver")?;
        let monitor = lizmon_monitor::Config {
            host: pki.host.clone(),
            publish: vec![PublishUrl::new(url.clone())],
            credentials: pki.node(),
            server_crls: ServerCrls::default(),
            interval: NonZeroU32::MIN,
            collect: DEFAULT_COLLECTORS.to_vec(),
            collect_options: CollectOptions::default(),
            spool: SpoolConfig {
                folder: Some(config.data.join(SPOOL)),
                bytes_max: spool::DISK_BYTES_MAX,
                keep_acknowledged: Duration::from_secs(spool::KEEP_SECS),
            },
        };
        let (receiver, stop_receiver) =
            start_receiver(endpoint, pki.trust_files(), config, clock).await?;
        output::note(format!(
            "receiver: {url}, keeping its data in {}",
            config.data.display()
        ));
        let monitor = Agent::new(monitor, environment).context("the monitor cannot start")?;
        let enrolment = EnrolmentService::start(
            address,
            &pki.certs,
            context.keys.unlock(),
            config.tls_min,
            clock,
        )
        .await?;
        output::note(format_args!(
            "enrolment: {}; to add a machine: lizctl join-token NAME",
            enrolment.url
        ));
        let reader = Client::new(url.clone(), &pki.reader(), clock())?;
        keep_profile(&context.certs, &url, &enrolment.url, &pki.reader());
        let browsers = BrowserServer::start(&url, &pki.reader(), context)?;
        let page = browsers.session.url(clock());
        output::line("The page, in a browser; this address works once, within 10 minutes:")?;
        output::line(&page)?;
        output::line("")?;
        curl::print(&url, &pki.host, &pki.reader())?;
        let (stop_monitor, stopped) = watch::channel(false);
        let watched = pki.host.clone();
        let ready = move || tracing::debug!("watching {watched}");
        Ok(Self {
            host: pki.host.clone(),
            reader,
            clock,
            receiver,
            monitor: tokio::spawn(monitor.run(ready, wait_for_stop(stopped))),
            maintenance: tokio::spawn(maintain_pki(pki, clock)),
            browsers,
            address: page,
            enrolment,
            stop_monitor,
            stop_receiver,
        })
    }

    /// Runs until the end. The monitor stops first and the receiver last, so that no sample is
    /// lost.
    pub(super) async fn run(
        mut self,
        run_for: Option<Duration>,
        stop: impl Future<Output = Ended>,
        context: &Context,
    ) -> anyhow::Result<()> {
        let has_terminal = live::size().is_some();
        let end = if screen::is_available() {
            self.show_top(run_for, stop, context).await
        } else {
            self.show_live(run_for, stop).await
        };
        let erased = live::draw(Vec::new()).context("cannot draw on the terminal");
        self.maintenance.abort();
        // Its streams would keep the receiver from stopping.
        self.browsers.stop();
        let enrolment_ended = self.enrolment.end().await;
        if let EndReason::TaskEnded(ended) = end {
            return ended;
        }
        // Samples are kept even if they cannot be printed.
        self.stop_monitor.send_replace(true);
        (&mut self.monitor)
            .await
            .context("the monitor panicked")??;
        let summaries = self.summaries().await;
        let title = self.title();
        // Closes its connections, so that the receiver does not wait for them.
        drop(self.reader);
        self.stop_receiver.send_replace(true);
        self.receiver.await.context("the receiver panicked")??;
        enrolment_ended?;
        match end {
            EndReason::HungUp => return Ok(()),
            // The terminal was hung up, and its signal has not arrived yet.
            EndReason::PrintFailed(error) if has_terminal && output::is_terminal_hangup(&error) => {
                return Ok(());
            }
            EndReason::PrintFailed(error) => return Err(error),
            EndReason::Stopped | EndReason::TaskEnded(_) => (),
        }
        erased?;
        let host = &self.host;
        print(
            &title,
            &summaries?.with_context(|| format!("no sample of {host} was taken in this time"))?,
        )
    }

    /// Shows this host, with plots, until it is time to stop or the user says so.
    async fn show_top(
        &mut self,
        run_for: Option<Duration>,
        stop: impl Future<Output = Ended>,
        context: &Context,
    ) -> EndReason {
        let (url, address) = (self.reader.url().to_string(), Some(self.address.clone()));
        let state = TopState::new(url, address, screen::uses_color());
        let state = state.looking_at(self.host.clone());
        let (upstream, session) = (&self.browsers.upstream, &self.browsers.session);
        let shown = top::run(state, upstream.clone(), Some(session.clone()), context);
        tokio::select! {
            ended = stop => match ended {
                Ended::Told => EndReason::Stopped,
                Ended::HungUp => EndReason::HungUp,
            },
            () = time_is_over(run_for) => EndReason::Stopped,
            ended = &mut self.receiver => EndReason::TaskEnded(task_ended("receiver", ended.map_err(Into::into).and_then(|ended| Ok(ended?)))),
            ended = &mut self.monitor => EndReason::TaskEnded(task_ended("monitor", ended.map_err(Into::into).and_then(|ended| Ok(ended?)))),
            shown = shown => match shown {
                Ok(()) => EndReason::Stopped,
                Err(error) => EndReason::PrintFailed(error),
            },
        }
    }

    /// Shows the table until it is time to stop.
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for as long as pure code has decided"
    )]
    async fn show_live(
        &mut self,
        run_for: Option<Duration>,
        stop: impl Future<Output = Ended>,
    ) -> EndReason {
        let mut stop = pin!(stop);
        let mut end = pin!(time_is_over(run_for));
        let every = match live::size() {
            Some(_) => REDRAW_EVERY,
            None => PRINT_EVERY,
        };
        loop {
            tokio::select! {
                ended = &mut stop => return match ended {
                    Ended::Told => EndReason::Stopped,
                    Ended::HungUp => EndReason::HungUp,
                },
                () = &mut end => return EndReason::Stopped,
                ended = &mut self.receiver => return EndReason::TaskEnded(task_ended("receiver", ended.map_err(Into::into).and_then(|ended| Ok(ended?)))),
                ended = &mut self.monitor => return EndReason::TaskEnded(task_ended("monitor", ended.map_err(Into::into).and_then(|ended| Ok(ended?)))),
                ended = &mut self.enrolment.task => return EndReason::TaskEnded(task_ended("enrolment service", ended.map_err(Into::into).and_then(|ended| Ok(ended?)))),
                () = tokio::time::sleep(every) => (),
            }
            if let Err(error) = self.reader.reload((self.clock)()) {
                let why = lizmon_pki::error_chain::in_one_line(&error);
                tracing::warn!(
                    "cannot reload the reader's certificate files, keeping the previous ones: {why}"
                );
            }
            match self.summaries().await {
                Ok(Some(summaries)) => {
                    if let Err(error) = self.show(&summaries) {
                        return EndReason::PrintFailed(error);
                    }
                }
                Ok(None) => tracing::debug!("no sample yet"),
                Err(error) => tracing::warn!("cannot query the summaries: {error}"),
            }
        }
    }

    /// By-minute summaries of this host; `None` before its first sample.
    async fn summaries(&self) -> Result<Option<Summaries>, Error> {
        let filter = Some("by-minute:");
        let asked = self
            .reader
            .summaries(&self.host, filter, (self.clock)())
            .await;
        match asked {
            Ok(summaries) if summaries.is_empty() => Ok(None),
            Err(error) if error.code() == Some(Code::UnknownHost) => Ok(None),
            asked => asked.map(Some),
        }
    }

    fn show(&self, summaries: &Summaries) -> anyhow::Result<()> {
        let Some((_, rows)) = live::size() else {
            print(&self.title(), summaries)?;
            return output::line("");
        };
        let newest = table::lines_per_series(summaries, rows.saturating_sub(LINES_AROUND));
        let mut lines = vec![self.title()];
        lines.extend(table::one_window(summaries, Some(newest)));
        lines.push("Ctrl-C ends it.".to_owned());
        live::draw(lines).context("cannot draw on the terminal")
    }

    fn title(&self) -> String {
        format!("{} by minute, {}", self.host, output::date((self.clock)()))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "waits for as long as the user has said"
)]
async fn time_is_over(run_for: Option<Duration>) {
    match run_for {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn print(title: &str, summaries: &Summaries) -> anyhow::Result<()> {
    output::line(title)?;
    let lines = table::one_window(summaries, None);
    lines.iter().try_for_each(output::line)
}

fn task_ended(what: &str, ended: anyhow::Result<()>) -> anyhow::Result<()> {
    ended.with_context(|| format!("the {what} ended"))?;
    anyhow::bail!("the {what} ended by itself: see its log lines")
}

/// Resolves when the sender says so, or is dropped.
async fn wait_for_stop(mut stopped: watch::Receiver<bool>) {
    let _gone = stopped.wait_for(|stop| *stop).await;
}

/// Writes `profile.toml`, so that verbs need no flags in this folder. Everything works without it.
fn keep_profile(certs: &Path, url: &BaseUrl, ca_url: &BaseUrl, reader: &Credentials) {
    let Ok(folder) = absolute(certs) else { return };
    let profile = ConnectionProfile {
        receiver: Some(url.clone()),
        cert: Some(reader.cert.clone()),
        key: Some(reader.key.clone()),
        ca: Some(reader.ca.clone()),
        ca_url: Some(ca_url.clone()),
    };
    match profile::write_local(&folder, &profile) {
        Ok(Some(file)) => output::note(format_args!(
            "wrote {}: lizctl needs no flags in this folder",
            file.display()
        )),
        Ok(None) => (),
        Err(error) => output::note(format_args!(
            "no profile was written: {}",
            lizmon_pki::error_chain::in_one_line(&error)
        )),
    }
}

type ReceiverTask = JoinHandle<Result<(), lizmon_receiver::ReceiverError>>;

async fn start_receiver(
    endpoint: LocalEndpoint,
    trust: TrustFiles,
    config: &AllInOneConfig,
    clock: fn() -> u64,
) -> anyhow::Result<(ReceiverTask, watch::Sender<bool>)> {
    let receiver_config = lizmon_receiver::Config {
        tls_min: config.tls_min,
        ..lizmon_receiver::Config::new(trust, config.data.clone())
    };
    let clocks = Clocks {
        wall: Arc::new(clock),
        fine: Arc::new(lizmon_daemon::since_1970),
        monotonic: Arc::new(lizmon_daemon::since_boot_secs),
        boot: lizmon_daemon::boot_id(),
    };
    let receiver = Receiver::start(endpoint.listener, receiver_config, clocks)
        .await
        .context("the receiver cannot start")?;
    let (stop, stopped) = watch::channel(false);
    Ok((tokio::spawn(receiver.run(wait_for_stop(stopped))), stop))
}

/// Renews certificates and CRLs when they are due. Receiver, monitor and reader reload the files.
#[expect(
    clippy::disallowed_methods,
    reason = "waits for as long as pure code has decided"
)]
async fn maintain_pki(pki: LocalPki, clock: fn() -> u64) {
    let pki = Arc::new(pki);
    loop {
        tokio::time::sleep(MAINTAIN_EVERY).await;
        let keeping = pki.clone();
        let maintained = tokio::task::spawn_blocking(move || {
            keeping.maintain(MaintenanceMode::WhileRunning, clock())
        })
        .await;
        if let Ok(Err(error)) = maintained {
            tracing::warn!("cannot maintain certificates and CRLs: {error:#}");
        }
    }
}
