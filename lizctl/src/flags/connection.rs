//! Which receiver is asked, and as whom: `--receiver --cert --key --ca`, the same for every verb that asks.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use lizmon_client::{BaseUrl, BaseUrlError, Client, Credentials};
use lizmon_daemon::args::{Items, List, items};
use lizmon_protocol::name::Role;
use lizmon_protocol::route;

/// The flags of a connection.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionFlags {
    /// Where the receiver is: https://HOST:8443
    #[arg(long, env = "LIZMON_RECEIVER", value_name = "URL", value_parser = parse_receiver)]
    receiver: BaseUrl,
    /// Your certificate, followed by the issuing one (PEM): certs/readers/NAME.crt
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE")]
    cert: PathBuf,
    /// The private key to it (PEM): certs/readers/NAME.key
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE")]
    key: PathBuf,
    /// The root certificate that the receiver's certificate must lead to (PEM): certs/root.crt
    #[arg(long, env = "LIZMON_CA", value_name = "FILE")]
    ca: PathBuf,
}

impl ConnectionFlags {
    /// Reads and checks the files; nothing is sent yet.
    pub(crate) fn client(&self, now: u64) -> Result<Client, lizmon_client::Error> {
        let credentials = Credentials {
            cert: self.cert.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
        };
        Client::new(self.receiver.clone(), &credentials, now)
    }
}

/// The receivers that are told of a new revocation list, if any, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ReceiversFlags {
    /// A receiver that is told at once: https://HOST:8443; may be given several times
    #[arg(long = "receiver", env = "LIZMON_RECEIVER", value_name = "URL", value_parser = Items(parse_receiver),
          requires_all = ["cert", "key", "ca"])]
    urls: Vec<List<BaseUrl>>,
    #[command(flatten)]
    operator: OperatorFlags,
}

/// As whom receivers are told or asked.
#[derive(Debug, Args)]
struct OperatorFlags {
    /// An operator's certificate, followed by the issuing one (PEM): certs/operators/NAME.crt
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The private key to it (PEM): certs/operators/NAME.key
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// The root certificate that the receivers' certificates must lead to (PEM): certs/root.crt
    #[arg(long, env = "LIZMON_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl ReceiversFlags {
    /// Reads and checks the files, once for each receiver; nothing is sent yet.
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
        urls: &[List<BaseUrl>],
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

/// The receivers that are asked, if any, by a verb that needs none of them. The variables may be there for other verbs, and
/// for a reader: then nobody is asked.
#[derive(Debug)]
pub(crate) struct QueriedReceivers {
    flags: QueriedFlags,
    is_typed: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
struct QueriedFlags {
    /// A receiver that is asked which certificates it has seen: https://HOST:8443; may be given several times
    #[arg(long = "receiver", env = "LIZMON_RECEIVER", value_name = "URL", value_parser = Items(parse_receiver))]
    urls: Vec<List<BaseUrl>>,
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
    /// Reads and checks the files, once for each receiver; nothing is sent yet.
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

/// A monitor's publish URL is taken too: it names the same receiver.
fn parse_receiver(text: &str) -> Result<BaseUrl, BaseUrlError> {
    let bare = text.trim().trim_end_matches('/');
    bare.strip_suffix(route::PERF).unwrap_or(bare).parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers() {
        let cases = [
            ("https://r1:8443", Some("https://r1:8443")),
            ("https://r1:8443/", Some("https://r1:8443")),
            ("https://r1:8443/api/perf", Some("https://r1:8443")),
            ("https://r1:8443/api/perf/", Some("https://r1:8443")),
            ("https://a.example/x/api/perf", Some("https://a.example/x")),
            ("r1:8443", None),
            ("http://r1:8443", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let got = parse_receiver(text).ok();
            assert_eq!(got.as_ref().map(BaseUrl::as_str), expected, "{text}");
        }
    }
}
