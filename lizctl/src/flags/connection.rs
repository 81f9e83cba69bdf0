//! The connection to a receiver: `--receiver --cert --key --ca`, the same for every verb.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use lizmon_client::{BaseUrl, Client, Credentials};
use lizmon_daemon::args::{CommaList, Items, items};
use lizmon_protocol::name::Role;

use crate::receiver_url::parse_receiver;

/// The connection of a verb that queries one receiver. What is not given comes from a profile.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionFlags {
    /// URL of the receiver: https://HOST:8443 [default: the profile's]
    #[arg(long, env = "LIZMON_RECEIVER", value_name = "URL", value_parser = parse_receiver)]
    pub(crate) receiver: Option<BaseUrl>,
    /// Your certificate, followed by the issuing CA's (PEM): certs/readers/NAME.crt [default: the
    /// profile's]
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of the certificate (PEM): certs/readers/NAME.key [default: the profile's]
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Root certificate that verifies the receiver's (PEM): certs/root.crt [default: the profile's]
    #[arg(long, env = "LIZMON_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) profile: ProfileFlag,
}

/// Which profile is used.
#[derive(Debug, Default, Args)]
pub(crate) struct ProfileFlag {
    /// Profile of ~/.config/lizmon/config.toml to use [default: its `default`, else profile.toml in
    /// --certs]
    #[arg(long = "profile", env = "LIZMON_PROFILE", value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// The receivers that get new CRLs, if any.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ReceiversFlags {
    /// Receiver that gets the CRLs at once: https://HOST:8443; can be given several times
    #[arg(long = "receiver", env = "LIZMON_RECEIVER", value_name = "URL", value_parser = Items(parse_receiver),
          requires_all = ["cert", "key", "ca"])]
    urls: Vec<CommaList<BaseUrl>>,
    #[command(flatten)]
    operator: OperatorFlags,
}

/// The operator's certificate that authenticates to receivers.
#[derive(Debug, Args)]
struct OperatorFlags {
    /// An operator's certificate, followed by the issuing CA's (PEM): certs/operators/NAME.crt
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Private key of the certificate (PEM): certs/operators/NAME.key
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Root certificate that verifies the receivers' (PEM): certs/root.crt
    #[arg(long, env = "LIZMON_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl ReceiversFlags {
    /// Reads and checks the files, once for each receiver; sends nothing yet.
    pub(crate) fn clients(&self, now: u64) -> Result<Vec<Client>, lizmon_client::Error> {
        self.operator.clients(&self.urls, now)
    }
}

impl OperatorFlags {
    fn credentials(&self) -> Option<Credentials> {
        Some(Credentials {
            cert: self.cert.clone()?,
            key: self.key.clone()?,
            ca: self.ca.clone()?,
        })
    }

    fn clients(
        &self,
        urls: &[CommaList<BaseUrl>],
        now: u64,
    ) -> Result<Vec<Client>, lizmon_client::Error> {
        let Some(credentials) = self.credentials() else {
            return Ok(Vec::new());
        };
        let urls = items(urls.to_vec()).into_iter();
        urls.map(|url| Client::new(url, &credentials, now))
            .collect()
    }
}

/// The receivers that are queried, if any, by a verb that works without them. Environment variables
/// that were set for other verbs, or for a reader, are ignored.
#[derive(Debug)]
pub(crate) struct QueriedReceivers {
    flags: QueriedFlags,
    is_typed: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
struct QueriedFlags {
    /// Receiver that is asked which certificates it has seen: https://HOST:8443; can be given
    /// several times
    #[arg(long = "receiver", env = "LIZMON_RECEIVER", value_name = "URL", value_parser = Items(parse_receiver))]
    urls: Vec<CommaList<BaseUrl>>,
    #[command(flatten)]
    operator: OperatorFlags,
}

impl Args for QueriedReceivers {
    fn augment_args(command: Command) -> Command {
        QueriedFlags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        QueriedFlags::augment_args_for_update(command)
    }
}

impl FromArgMatches for QueriedReceivers {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let asked = Self {
            flags: QueriedFlags::from_arg_matches(matches)?,
            is_typed: matches.value_source("urls") == Some(ValueSource::CommandLine),
        };
        if asked.is_typed && asked.flags.operator.credentials().is_none() {
            let kind = ErrorKind::MissingRequiredArgument;
            let text = "--receiver needs --cert, --key and --ca: an operator's\n";
            return Err(clap::Error::raw(kind, text));
        }
        Ok(asked)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl QueriedReceivers {
    /// Reads and checks the files, once for each receiver; sends nothing yet.
    pub(crate) fn clients(&self, now: u64) -> Result<Vec<Client>, lizmon_client::Error> {
        let QueriedFlags { urls, operator } = &self.flags;
        let clients = operator.clients(urls, now);
        if self.is_typed {
            return clients;
        }
        let mut clients = clients.unwrap_or_default();
        clients.retain(|client| client.identity().role == Role::Operator);
        Ok(clients)
    }
}
