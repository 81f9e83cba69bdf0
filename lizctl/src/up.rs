//! `lizctl up`: everything on this machine, in one process.
//!
//! ```text
//! house (CA, certificates) -> receiver <- monitor
//!                                │
//!                                └──── reader -> the table on stdout
//! ```
//!
//! The three speak over real sockets and real mutual TLS, each with its own certificate, as they would on three machines.

mod house;
mod place;

use std::future::Future;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf, absolute};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use lizmon_client::enrol::lists::ServerLists;
use lizmon_client::{BaseUrl, Client, Credentials, Error};
use lizmon_daemon::Ended;
use lizmon_monitor::collect::{CPU, MEM};
use lizmon_monitor::config::PublishUrl;
use lizmon_monitor::{Agent, Edges, spool};
use lizmon_mtls::TlsMin;
use lizmon_mtls::trust::TrustFiles;
use lizmon_protocol::name::NodeName;
use lizmon_protocol::problem::Code;
use lizmon_protocol::route;
use lizmon_protocol::summary::Summaries;
use lizmon_receiver::{Clocks, Receiver};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::house::{House, Pace};
use self::place::Place;
use crate::ask::per_series;
use crate::cli::Context;
use crate::output::{self, live};
use crate::view;

/// How often the table is drawn anew on a terminal.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// How often it is printed where there is no terminal.
const PRINT_EVERY: Duration = Duration::from_secs(10);
/// How often certificates and revocation lists are looked after.
const KEEP_HOUSE_EVERY: Duration = Duration::from_secs(600);
/// Below `--data`: what the monitor has not delivered yet.
const SPOOL: &str = "spool";
/// Lines around the table: its title, and the advice how to end.
const LINES_AROUND: usize = 3;

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// End by itself after this long
    #[arg(long = "for", env = "LIZMON_FOR", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasting: Option<Duration>,
    /// Where the receiver listens; if the port is taken, the next free one
    #[arg(
        long,
        env = "LIZMON_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8443",
        value_parser = place::parse_listen
    )]
    listen: std::net::SocketAddr,
    /// What this machine is called in the fleet [default: its host name, as far as a certificate can say it]
    #[arg(long, env = "LIZMON_THIS_HOST", value_name = "NAME")]
    this_host: Option<NodeName>,
    /// Folder for everything that must survive; locked by one process
    #[arg(long, env = "LIZMON_DATA", value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// The oldest version of TLS the receiver speaks: 1.2 or 1.3
    #[arg(long, env = "LIZMON_TLS_MIN", value_name = "VERSION", default_value_t)]
    tls_min: TlsMin,
}

/// Runs until Ctrl-C, or for as long as was asked.
pub(crate) fn up(args: &Up, context: &Context, edges: Edges) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(async {
            let stop = lizmon_daemon::stop_or_hang_up().context("cannot listen for signals")?;
            let site = Site::build(args, context, edges).await?;
            site.run(args.lasting, stop).await
        })
}

/// Why the table is shown no more.
enum End {
    /// It was time, or somebody said so.
    Told,
    /// The terminal has gone.
    HungUp,
    /// It cannot be printed.
    Unprinted(anyhow::Error),
    /// The receiver or the monitor ended without being told.
    BrokeDown(anyhow::Result<()>),
}

/// Everything that runs, and the reader that looks at it.
struct Site {
    host: NodeName,
    reader: Client,
    clock: fn() -> u64,
    receiver: JoinHandle<Result<(), lizmon_receiver::StartError>>,
    monitor: JoinHandle<Result<(), lizmon_monitor::StartError>>,
    housekeeping: JoinHandle<()>,
    stop_monitor: watch::Sender<bool>,
    stop_receiver: watch::Sender<bool>,
}

impl Site {
    async fn build(args: &Up, context: &Context, edges: Edges) -> anyhow::Result<Self> {
        let clock = context.clock;
        let certs = absolute(&context.certs).context("cannot tell where --certs is")?;
        let place = Place::take(args.listen)?;
        let (keys, this_host) = (context.keys.unlock(), args.this_host.as_ref());
        let house = House::open(certs, keys, &place, this_host, clock())?;
        let url: BaseUrl = place.url.parse().context("cannot name the receiver")?;
        let monitor = lizmon_monitor::Config {
            host: house.host.clone(),
            publish: vec![PublishUrl::new(url.clone())],
            credentials: house.node(),
            server_lists: ServerLists::default(),
            interval: NonZeroU32::MIN,
            collect: vec![&CPU, &MEM],
            spool: Some(args.data.join(SPOOL)),
            spool_bytes_max: spool::DISK_BYTES_MAX,
        };
        let (receiver, stop_receiver) =
            start_receiver(place, house.trust_files(), args, clock).await?;
        output::note(format!(
            "receiver: {url}, keeping its data in {}",
            args.data.display()
        ));
        let monitor = Agent::new(monitor, edges).context("the monitor cannot start")?;
        let reader = Client::new(url.clone(), &house.reader(), clock())?;
        print_curl(&url, &house)?;
        let (stop_monitor, stopped) = watch::channel(false);
        let watched = house.host.clone();
        let ready = move || tracing::debug!("watching {watched}");
        Ok(Self {
            host: house.host.clone(),
            reader,
            clock,
            receiver,
            monitor: tokio::spawn(monitor.run(ready, told(stopped))),
            housekeeping: tokio::spawn(keep_house(house, clock)),
            stop_monitor,
            stop_receiver,
        })
    }

    /// The monitor goes first and the receiver last, so that nothing that was sampled is lost.
    async fn run(
        mut self,
        lasting: Option<Duration>,
        stop: impl Future<Output = Ended>,
    ) -> anyhow::Result<()> {
        let has_terminal = live::size().is_some();
        let end = self.look_on(lasting, stop).await;
        let erased = live::draw(Vec::new()).context("cannot draw on the terminal");
        self.housekeeping.abort();
        if let End::BrokeDown(ended) = end {
            return ended;
        }
        // Whatever becomes of what is printed, what was sampled is kept.
        self.stop_monitor.send_replace(true);
        (&mut self.monitor)
            .await
            .context("the monitor broke down")??;
        let seen = self.see().await;
        let title = self.title();
        // Its connections end here, so that the receiver need not wait for them.
        drop(self.reader);
        self.stop_receiver.send_replace(true);
        self.receiver.await.context("the receiver broke down")??;
        match end {
            End::HungUp => return Ok(()),
            // The terminal had gone before the signal came that says so.
            End::Unprinted(error) if has_terminal && output::terminal_is_gone(&error) => {
                return Ok(());
            }
            End::Unprinted(error) => return Err(error),
            End::Told | End::BrokeDown(_) => (),
        }
        erased?;
        let host = &self.host;
        print(
            &title,
            &seen?.with_context(|| format!("no sample of {host} was taken in this time"))?,
        )
    }

    /// Shows the table until it is time to stop.
    async fn look_on(
        &mut self,
        lasting: Option<Duration>,
        stop: impl Future<Output = Ended>,
    ) -> End {
        let mut stop = pin!(stop);
        let mut end: Pin<Box<dyn Future<Output = ()>>> = match lasting {
            Some(lasting) => Box::pin(tokio::time::sleep(lasting)),
            None => Box::pin(std::future::pending()),
        };
        let every = match live::size() {
            Some(_) => REDRAW_EVERY,
            None => PRINT_EVERY,
        };
        loop {
            tokio::select! {
                ended = &mut stop => return match ended {
                    Ended::Told => End::Told,
                    Ended::HungUp => End::HungUp,
                },
                () = &mut end => return End::Told,
                ended = &mut self.receiver => return End::BrokeDown(broke_down("receiver", ended.map_err(Into::into).and_then(|ended| Ok(ended?)))),
                ended = &mut self.monitor => return End::BrokeDown(broke_down("monitor", ended.map_err(Into::into).and_then(|ended| Ok(ended?)))),
                () = tokio::time::sleep(every) => (),
            }
            if let Err(error) = self.reader.reload((self.clock)()) {
                let why = lizmon_client::error::in_one_line(&error);
                tracing::warn!("keeping the reader's certificate files read before: {why}");
            }
            match self.see().await {
                Ok(Some(summaries)) => {
                    if let Err(error) = self.show(&summaries) {
                        return End::Unprinted(error);
                    }
                }
                Ok(None) => tracing::debug!("no sample yet"),
                Err(error) => tracing::warn!("cannot read the summaries: {error}"),
            }
        }
    }

    /// By-minute summaries of this host; none before its first sample.
    async fn see(&self) -> Result<Option<Summaries>, Error> {
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
        let newest = per_series(summaries, rows.saturating_sub(LINES_AROUND));
        let mut lines = vec![self.title()];
        lines.extend(view::one_window(summaries, Some(newest)));
        lines.push("Ctrl-C ends it.".to_owned());
        live::draw(lines).context("cannot draw on the terminal")
    }

    fn title(&self) -> String {
        format!("{} by minute, {}", self.host, output::date((self.clock)()))
    }
}

fn print(title: &str, summaries: &Summaries) -> anyhow::Result<()> {
    output::line(title)?;
    let lines = view::one_window(summaries, None);
    lines.iter().try_for_each(output::line)
}

fn broke_down(what: &str, ended: anyhow::Result<()>) -> anyhow::Result<()> {
    ended.with_context(|| format!("the {what} ended"))?;
    anyhow::bail!("the {what} ended without being told to: its log lines say why")
}

/// Resolves when the sender says so, or is gone.
async fn told(mut stopped: watch::Receiver<bool>) {
    let _gone = stopped.wait_for(|stop| *stop).await;
}

type ReceiverTask = JoinHandle<Result<(), lizmon_receiver::StartError>>;

async fn start_receiver(
    place: Place,
    trust: TrustFiles,
    args: &Up,
    clock: fn() -> u64,
) -> anyhow::Result<(ReceiverTask, watch::Sender<bool>)> {
    let config = lizmon_receiver::Config {
        tls_min: args.tls_min,
        ..lizmon_receiver::Config::new(trust, args.data.clone())
    };
    let clocks = Clocks {
        wall: Arc::new(clock),
        fine: Arc::new(lizmon_daemon::since_1970),
        monotonic: Arc::new(lizmon_daemon::since_boot_secs),
        boot: lizmon_daemon::boot_id(),
    };
    let receiver = Receiver::start(place.listener, config, clocks)
        .await
        .context("the receiver cannot start")?;
    let (stop, stopped) = watch::channel(false);
    Ok((tokio::spawn(receiver.run(told(stopped))), stop))
}

/// Renews what is due, for as long as it runs; the others take up new files by themselves.
async fn keep_house(house: House, clock: fn() -> u64) {
    let house = Arc::new(house);
    loop {
        tokio::time::sleep(KEEP_HOUSE_EVERY).await;
        let keeping = house.clone();
        let kept = tokio::task::spawn_blocking(move || keeping.keep(Pace::Running, clock())).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!("certificates and revocation lists cannot be looked after: {error:#}");
        }
    }
}

fn print_curl(url: &BaseUrl, house: &House) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    output::line("The same by curl:")?;
    output::line(curl_line(&program, url, &house.host, &house.reader()))?;
    output::line("")
}

/// One line that can be pasted into a shell, in whatever folder it is, for as long as this runs: its token is fetched
/// when it is used.
fn curl_line(program: &Path, url: &BaseUrl, host: &NodeName, reader: &Credentials) -> String {
    let [program, cert, key, ca] =
        [program, &reader.cert, &reader.key, &reader.ca].map(|path| path.display().to_string());
    let receiver = url.as_str();
    let token = shell_words::join([
        &program,
        "token",
        "--receiver",
        receiver,
        "--cert",
        &cert,
        "--key",
        &key,
        "--ca",
        &ca,
    ]);
    // curl takes what follows a colon for a password.
    let cert = cert.replace('\\', r"\\").replace(':', r"\:");
    let curl = shell_words::join(["curl", "--cacert", &ca, "--cert", &cert, "--key", &key]);
    let asked = format!("{receiver}{}", route::host(host));
    let asked = shell_words::quote(&asked);
    format!("{curl} -H \"Authorization: Bearer $({token})\" {asked}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curl_line_can_be_pasted() {
        let reader = |folder: &str| Credentials {
            cert: format!("{folder}/a.crt").into(),
            key: format!("{folder}/a.key").into(),
            ca: format!("{folder}/root.crt").into(),
        };
        let check = |folder: &str, curl_cert: &str| {
            let url = "https://127.0.0.1:8443".parse().unwrap();
            let host = "web1".parse().unwrap();
            let line = curl_line(Path::new("/b in/lizctl"), &url, &host, &reader(folder));
            let (curl, rest) = line.split_once(" -H \"Authorization: Bearer $(").unwrap();
            let (token, asked) = rest.split_once(")\" ").unwrap();
            let [cert, key, ca] =
                ["a.crt", "a.key", "root.crt"].map(|name| format!("{folder}/{name}"));
            assert_eq!(
                shell_words::split(curl).unwrap(),
                ["curl", "--cacert", &ca, "--cert", curl_cert, "--key", &key]
            );
            assert_eq!(
                shell_words::split(token).unwrap(),
                [
                    "/b in/lizctl",
                    "token",
                    "--receiver",
                    "https://127.0.0.1:8443",
                    "--cert",
                    &cert,
                    "--key",
                    &key,
                    "--ca",
                    &ca
                ]
            );
            assert_eq!(asked, "https://127.0.0.1:8443/api/perf/web1");
        };
        check("/certs", "/certs/a.crt");
        check("/it's $HOME", "/it's $HOME/a.crt");
        check(r"/c:\d", r"/c\:\\d/a.crt");
    }
}
