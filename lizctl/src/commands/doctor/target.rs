//! What is checked: by flags and environment variables, and by the settings of a daemon.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use lizmon_client::{BaseUrl, Credentials};
use lizmon_daemon::args::{CommaList, Items, items};
use lizmon_receiver::store::redis::config::{RedisConfig, StoreDurability, StoreUrl};
use serde::Deserialize;

use super::machine;
use crate::failure::Exit;
use crate::profile::ConnectionProfile;
use crate::receiver_url::parse_receiver;

/// MiB of `liz-monitor --spool-mib`, where its settings do not say.
const SPOOL_MIB: u64 = 64;

#[derive(Debug, Args)]
#[command(next_help_heading = "What to check")]
pub(super) struct TargetFlags {
    /// Settings of a daemon (TOML), which say what to check: /etc/lizmon/monitor.toml. A flag is
    /// used rather than its environment variable, and that rather than the file
    #[arg(long = "config", env = "LIZMON_CONFIG", value_name = "FILE")]
    daemon_config: Option<PathBuf>,
    /// URL of a receiver: https://HOST:8443; can be given several times
    #[arg(long = "receiver", env = "LIZMON_RECEIVER", value_name = "URL", value_parser = Items(parse_receiver))]
    receivers: Vec<CommaList<BaseUrl>>,
    /// The certificate to check and to use, followed by the issuing CA's (PEM)
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// The root certificate that verifies receivers and liz-ca (PEM)
    #[arg(long, env = "LIZMON_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// CRLs to check (PEM)
    #[arg(long, env = "LIZMON_CRL", value_name = "FILE")]
    crl: Option<PathBuf>,
    /// URL of liz-ca
    #[arg(long, env = "LIZMON_CA_URL", value_name = "URL")]
    ca_url: Option<BaseUrl>,
    /// A monitor's folder of records that are not delivered yet
    #[arg(long, env = "LIZMON_SPOOL", value_name = "DIR")]
    spool: Option<PathBuf>,
    /// A receiver's data folder: its whole store is read
    #[arg(long, env = "LIZMON_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// A shared store: redis://HOST:PORT, or rediss:// for TLS
    #[arg(long, env = "LIZMON_STORE", value_name = "URL")]
    store: Option<StoreUrl>,
    /// CA certificates that the store's servers are verified against (PEM) [default: the system's]
    #[arg(long, env = "LIZMON_STORE_CA", value_name = "FILE")]
    store_ca: Option<PathBuf>,
    /// ACL user of the store [default: the server's default user]
    #[arg(long, env = "LIZMON_STORE_USER", value_name = "USER")]
    store_user: Option<String>,
    /// File with the password of the store's user
    #[arg(long, env = "LIZMON_STORE_PASSWORD_FILE", value_name = "FILE")]
    store_password_file: Option<PathBuf>,
    /// What keeps the store's writes through crashes and failovers [default: server]
    #[arg(long, env = "LIZMON_STORE_DURABILITY", value_name = "BY")]
    store_durability: Option<StoreDurability>,
    /// The service to ask systemd about [default: that of the settings]
    #[arg(long, env = "LIZMON_UNIT", value_name = "UNIT")]
    unit: Option<String>,
}

/// What is checked.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) receivers: Vec<BaseUrl>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    pub(super) crl: Option<PathBuf>,
    pub(super) ca_url: Option<BaseUrl>,
    pub(super) spool: Option<PathBuf>,
    pub(super) spool_mib: u64,
    pub(super) data: Option<PathBuf>,
    pub(super) store: Option<RedisConfig>,
    pub(super) unit: Option<String>,
    /// The port that the daemon itself serves on, if it serves any.
    pub(super) own_port: Option<u16>,
    /// Whether that daemon is liz-ca.
    pub(super) is_authority: bool,
    /// Whether the user named the service, which is there then.
    pub(super) is_unit_typed: bool,
    /// Files with secrets, besides the key.
    pub(super) secrets: Vec<PathBuf>,
}

impl Target {
    pub(super) fn credentials(&self) -> Option<Credentials> {
        Some(Credentials {
            cert: self.cert.clone()?,
            key: self.key.clone()?,
            ca: self.ca.clone()?,
        })
    }

    /// What is not given is taken from the profile; certificate and key together.
    pub(super) fn complete_from(&mut self, profile: ConnectionProfile) {
        if self.cert.is_none() && self.key.is_none() {
            (self.cert, self.key) = (profile.cert, profile.key);
        }
        self.ca = self.ca.take().or(profile.ca);
        if self.receivers.is_empty() {
            self.receivers.extend(profile.receiver);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let files = [
            &self.cert,
            &self.key,
            &self.ca,
            &self.crl,
            &self.spool,
            &self.data,
        ];
        files.iter().all(|file| file.is_none())
            && self.receivers.is_empty()
            && self.ca_url.is_none()
            && self.store.is_none()
            && self.unit.is_none()
    }
}

/// One text or several, as in a daemon's settings.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The settings of any daemon that matter here. The others are its own business.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DaemonSettings {
    publish: Option<OneOrMany>,
    this_host: Option<toml::Value>,
    listen: Option<String>,
    certs: Option<PathBuf>,
    name: Option<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    ca_url: Option<String>,
    spool: Option<PathBuf>,
    spool_mib: Option<u64>,
    data: Option<PathBuf>,
    store: Option<String>,
    store_ca: Option<PathBuf>,
    store_user: Option<String>,
    store_password_file: Option<PathBuf>,
    store_durability: Option<String>,
    passphrase_file: Option<PathBuf>,
}

/// The programs that have settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Receiver,
    Summarizer,
    Monitor,
    Authority,
}

impl Daemon {
    /// Its service, as the packages name it.
    fn unit(self) -> &'static str {
        match self {
            Self::Receiver => "lizmon-receiver.service",
            Self::Summarizer => "lizmon-summarizer.service",
            Self::Monitor => "lizmon-monitor.service",
            Self::Authority => "lizmon-ca.service",
        }
    }
}

impl DaemonSettings {
    fn read(file: &Path) -> anyhow::Result<Self> {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the settings in {shown}"))
            .context(Exit::Usage)?;
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map(|span| {
                text.bytes()
                    .take(span.start)
                    .filter(|byte| *byte == b'\n')
                    .count()
                    + 1
            });
            let line = line.map_or_else(String::new, |line| format!(":{line}"));
            anyhow::anyhow!("{shown}{line}: {}", error.message()).context(Exit::Usage)
        })
    }

    /// Those of liz-ca are in one folder. Its keys are returned.
    fn files_of_the_ca(&mut self) -> Vec<PathBuf> {
        let Some(certs) = &self.certs else {
            return Vec::new();
        };
        let name = self.name.as_deref().unwrap_or("liz-ca");
        let own = |end: &str| certs.join("cas").join(format!("{name}.{end}"));
        let known = |given: &mut Option<PathBuf>, file: PathBuf| {
            given.get_or_insert(file);
        };
        known(&mut self.cert, own("crt"));
        known(&mut self.key, own("key"));
        known(&mut self.ca, certs.join("root.crt"));
        known(&mut self.crl, certs.join("crl.pem"));
        let keys = ["issuing.key", "root.key"].map(|name| certs.join(name));
        // The root's key may be kept elsewhere.
        keys.into_iter().filter(|key| key.exists()).collect()
    }

    /// Whose settings they are: by the file's name, as the packages have it, else by what is set.
    fn daemon(&self, file: &Path) -> Daemon {
        let by_name = match file.file_stem().and_then(|name| name.to_str()) {
            Some("receiver") => Some(Daemon::Receiver),
            Some("summarizer") => Some(Daemon::Summarizer),
            Some("monitor") => Some(Daemon::Monitor),
            Some("ca") => Some(Daemon::Authority),
            _ => None,
        };
        by_name.unwrap_or_else(|| {
            if self.publish.is_some() || self.this_host.is_some() {
                Daemon::Monitor
            } else if self.crl.is_none() && self.data.is_none() {
                Daemon::Authority
            } else if self.store.is_some() && self.listen.is_none() && self.data.is_none() {
                Daemon::Summarizer
            } else {
                Daemon::Receiver
            }
        })
    }

    /// The port that it listens on.
    fn own_port(&self, daemon: Daemon) -> Option<u16> {
        let default = match daemon {
            Daemon::Receiver => 8443,
            Daemon::Authority => 8444,
            Daemon::Monitor | Daemon::Summarizer => return None,
        };
        let listen = self.listen.as_deref();
        let port = listen.and_then(|listen| listen.rsplit(':').next()?.parse().ok());
        Some(port.unwrap_or(default))
    }

    /// What has a default, and where relative paths are.
    fn complete(&mut self, daemon: Daemon, certs: &Path) {
        let known = |given: &mut Option<PathBuf>, file: &Path| {
            given.get_or_insert_with(|| file.to_owned());
        };
        match daemon {
            Daemon::Receiver => known(&mut self.data, Path::new("data")),
            Daemon::Authority => known(&mut self.certs, certs),
            Daemon::Monitor | Daemon::Summarizer => (),
        }
        let Some(folder) = machine::working_folder(daemon.unit()) else {
            return;
        };
        for path in [
            &mut self.certs,
            &mut self.cert,
            &mut self.key,
            &mut self.ca,
            &mut self.crl,
            &mut self.spool,
            &mut self.data,
            &mut self.store_ca,
            &mut self.store_password_file,
            &mut self.passphrase_file,
        ]
        .into_iter()
        .flatten()
        {
            *path = folder.join(&*path);
        }
    }

    fn receivers(&self) -> anyhow::Result<Vec<BaseUrl>> {
        let texts: Vec<&str> = match &self.publish {
            None => Vec::new(),
            Some(OneOrMany::One(text)) => text.split(',').collect(),
            Some(OneOrMany::Many(texts)) => texts.iter().flat_map(|text| text.split(',')).collect(),
        };
        let texts = texts.into_iter().filter(|text| !text.trim().is_empty());
        texts
            .map(|text| parse_receiver(text).map_err(anyhow::Error::from))
            .collect()
    }
}

impl TargetFlags {
    /// What the flags say, then the settings of the daemon. `certs` is the folder of a CA whose
    /// settings name none.
    pub(super) fn target(self, certs: &Path) -> anyhow::Result<Target> {
        let (mut settings, mut daemon) = (DaemonSettings::default(), None);
        if let Some(file) = &self.daemon_config {
            settings = DaemonSettings::read(file)?;
            daemon = Some(settings.daemon(file));
        }
        if let Some(daemon) = daemon {
            settings.complete(daemon, certs);
        }
        let own_port = daemon.and_then(|daemon| settings.own_port(daemon));
        let mut secrets = settings.files_of_the_ca();
        let typed = items(self.receivers);
        let receivers = match typed.is_empty() {
            true => settings.receivers().context(Exit::Usage)?,
            false => typed,
        };
        let parsed = |text: Option<&str>| text.map(str::parse).transpose();
        let ca_url = parsed(settings.ca_url.as_deref()).context(Exit::Usage)?;
        let url: Option<StoreUrl> = match (self.store, settings.store) {
            (Some(url), _) => Some(url),
            (None, text) => text
                .map(|text| text.parse().map_err(anyhow::Error::from))
                .transpose()
                .context(Exit::Usage)?,
        };
        let by_service = settings.store_durability.as_deref() == Some("service");
        let durability = self.store_durability.unwrap_or(match by_service {
            true => StoreDurability::Service,
            false => StoreDurability::Server,
        });
        let (cert, key) = (self.cert.or(settings.cert), self.key.or(settings.key));
        let password_file = self.store_password_file.or(settings.store_password_file);
        let store = url.map(|url| RedisConfig {
            client: cert.clone().zip(key.clone()).filter(|_| url.is_tls),
            ca: self.store_ca.or(settings.store_ca),
            user: self.store_user.or(settings.store_user),
            password_file: password_file.clone(),
            durability,
            ..RedisConfig::new(url)
        });
        Ok(Target {
            receivers,
            cert,
            key,
            ca: self.ca.or(settings.ca),
            crl: self.crl.or(settings.crl),
            ca_url: self.ca_url.or(ca_url),
            spool: self.spool.or(settings.spool),
            spool_mib: settings.spool_mib.unwrap_or(SPOOL_MIB),
            data: self.data.or(settings.data),
            store,
            is_unit_typed: self.unit.is_some(),
            unit: self.unit.or(daemon.map(|daemon| daemon.unit().to_owned())),
            own_port,
            is_authority: daemon == Some(Daemon::Authority),
            secrets: {
                secrets.extend(password_file.into_iter().chain(settings.passphrase_file));
                secrets
            },
        })
    }
}
