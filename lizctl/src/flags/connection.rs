//! The connection to a receiver: `--receiver --cert --key --ca`, the same for every verb.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use lizmon_client::BaseUrl;
use lizmon_daemon::args::{CommaList, Items, items};

use crate::profile::ConnectionProfile;
use crate::receiver_url::parse_receiver;

/// The connection of a verb that queries one receiver. What is not given comes from a profile.
#[derive(Debug)]
pub(crate) struct ConnectionFlags(pub(crate) ConnectionValues);

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionValues {
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

impl FromArgMatches for ConnectionFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = ConnectionValues::from_arg_matches(matches)?;
        flags.receiver = flags.receiver.filter(|_| is_meant(matches, "receiver"));
        flags.cert = flags.cert.filter(|_| is_meant(matches, "cert"));
        flags.key = flags.key.filter(|_| is_meant(matches, "key"));
        flags.ca = flags.ca.filter(|_| is_meant(matches, "ca"));
        Ok(Self(flags))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for ConnectionFlags {
    fn augment_args(command: Command) -> Command {
        ConnectionValues::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        ConnectionValues::augment_args_for_update(command)
    }
}

/// Which profile is used.
#[derive(Debug, Default, Args)]
pub(crate) struct ProfileFlag {
    /// Profile of ~/.config/lizmon/config.toml to use [default: its `default`, else profile.toml in
    /// --certs]
    #[arg(
        id = "profile",
        long = "profile",
        env = "LIZMON_PROFILE",
        value_name = "NAME"
    )]
    pub(crate) name: Option<String>,
}

/// The receivers that get new CRLs, if any.
#[derive(Debug)]
pub(crate) struct ReceiversFlags(pub(crate) OperatorConnection);

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
struct PushedFlags {
    /// Receiver that gets the CRLs at once: https://HOST:8443; can be given several times [default:
    /// the profile's, if its certificate is an operator's of this CA]
    #[arg(long = "receiver", env = "LIZMON_RECEIVER", value_name = "URL", value_parser = Items(parse_receiver))]
    urls: Vec<CommaList<BaseUrl>>,
    #[command(flatten)]
    operator: OperatorFlags,
}

/// The receivers that are queried, if any, by a verb that works without them. Environment variables
/// that were set for other verbs, or for a reader, are ignored.
#[derive(Debug)]
pub(crate) struct QueriedReceivers(pub(crate) OperatorConnection);

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
struct QueriedFlags {
    /// Receiver that is asked which certificates it has seen: https://HOST:8443; can be given
    /// several times [default: the profile's, if its certificate is an operator's of this CA]
    #[arg(long = "receiver", env = "LIZMON_RECEIVER", value_name = "URL", value_parser = Items(parse_receiver))]
    urls: Vec<CommaList<BaseUrl>>,
    #[command(flatten)]
    operator: OperatorFlags,
}

/// The operator's certificate that authenticates to receivers.
#[derive(Debug, Args)]
struct OperatorFlags {
    /// An operator's certificate, followed by the issuing CA's (PEM): certs/operators/NAME.crt
    /// [default: the profile's]
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Private key of the certificate (PEM): certs/operators/NAME.key [default: the profile's]
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Root certificate that verifies the receivers' (PEM): certs/root.crt [default: the profile's]
    #[arg(long, env = "LIZMON_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    profile: ProfileFlag,
}

/// Receivers, and the operator's certificate for them.
#[derive(Debug)]
pub(crate) struct OperatorConnection {
    pub(crate) urls: Vec<BaseUrl>,
    /// What flags and variables say, with the first receiver.
    pub(crate) given: ConnectionProfile,
    pub(crate) profile: ProfileFlag,
    /// Whether the user wants these receivers and no others. Else they are a default, which is used
    /// where it fits.
    pub(crate) is_wanted: bool,
}

impl OperatorConnection {
    fn new(
        urls: Vec<CommaList<BaseUrl>>,
        operator: OperatorFlags,
        (is_wanted, matches): (bool, &ArgMatches),
    ) -> Self {
        let mut urls = items(urls);
        urls.retain(|_| is_meant(matches, "urls"));
        Self {
            given: ConnectionProfile {
                receiver: urls.first().cloned(),
                cert: operator.cert.filter(|_| is_meant(matches, "cert")),
                key: operator.key.filter(|_| is_meant(matches, "key")),
                ca: operator.ca.filter(|_| is_meant(matches, "ca")),
                ca_url: None,
            },
            urls,
            profile: operator.profile,
            is_wanted,
        }
    }
}

/// Whether what this flag says is used. Variables that were set for daily use do not change what a
/// profile that is named on the command line says: half of each would be somebody else's connection.
fn is_meant(matches: &ArgMatches, flag: &str) -> bool {
    let is_of_variable = matches.value_source(flag) == Some(ValueSource::EnvVariable);
    !(is_typed(matches, "profile") && is_of_variable)
}

fn is_typed(matches: &ArgMatches, flag: &str) -> bool {
    matches.value_source(flag) == Some(ValueSource::CommandLine)
}

impl FromArgMatches for ReceiversFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let PushedFlags { urls, operator } = PushedFlags::from_arg_matches(matches)?;
        let is_wanted = !urls.is_empty() || is_typed(matches, "profile");
        Ok(Self(OperatorConnection::new(
            urls,
            operator,
            (is_wanted, matches),
        )))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl FromArgMatches for QueriedReceivers {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let QueriedFlags { urls, operator } = QueriedFlags::from_arg_matches(matches)?;
        let is_wanted = ["urls", "profile"]
            .iter()
            .any(|flag| is_typed(matches, flag));
        Ok(Self(OperatorConnection::new(
            urls,
            operator,
            (is_wanted, matches),
        )))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for ReceiversFlags {
    fn augment_args(command: Command) -> Command {
        PushedFlags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        PushedFlags::augment_args_for_update(command)
    }
}

impl Args for QueriedReceivers {
    fn augment_args(command: Command) -> Command {
        QueriedFlags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        QueriedFlags::augment_args_for_update(command)
    }
}
