//! The connection to a receiver: flags and variables, completed from a profile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use lizmon_ca::files::CaFiles;
use lizmon_client::{BaseUrl, Client, Credentials};
use lizmon_enrol::renewer::Renewer;
use lizmon_pki::anchors;
use lizmon_protocol::name::Role;

use crate::context::Context;
use crate::failure::Exit;
use crate::flags::connection::{ConnectionFlags, OperatorConnection, ProfileFlag};
use crate::flags::renewal::RenewalFlags;
use crate::profile::{self, ConnectionProfile, ProfileFile, ProfileFileError};

impl ConnectionFlags {
    /// Reads and checks the files; sends nothing yet.
    pub(crate) fn client(&self, context: &Context) -> anyhow::Result<Client> {
        let ReceiverConnection {
            receiver,
            credentials,
            ca_url: _,
        } = self.connection(context)?;
        Ok(Client::new(receiver, &credentials, (context.clock)())?)
    }

    /// The flags, their variables, and one profile for what these leave open.
    pub(crate) fn connection(&self, context: &Context) -> anyhow::Result<ReceiverConnection> {
        let given = self.given();
        let chosen = chosen_profile(&given, (&self.0.profile, Server::Receiver), context)?;
        complete(with_profile(given, chosen.map(|chosen| chosen.profile)))
    }

    /// What flags and variables say.
    pub(crate) fn given(&self) -> ConnectionProfile {
        ConnectionProfile {
            receiver: self.0.receiver.clone(),
            cert: self.0.cert.clone(),
            key: self.0.key.clone(),
            ca: self.0.ca.clone(),
            ca_url: None,
        }
    }
}

impl OperatorConnection {
    /// Reads and checks the files, once for each receiver; sends nothing yet. There are none if
    /// nobody wants any and the default is not an operator's of the CA in `--certs`.
    pub(crate) fn clients(&self, context: &Context) -> anyhow::Result<Vec<Client>> {
        let found = self.complete(context);
        if self.is_wanted {
            let (clients, _) = found?;
            return Ok(clients);
        }
        // Whatever is wrong with a default that nobody asked for stops no revocation.
        let Ok((mut clients, ca)) = found else {
            return Ok(Vec::new());
        };
        let own = CaFiles::new(&context.certs).root_certificate;
        let is_of_this_ca = is_a_root_in_both(&ca, &own);
        clients.retain(|client| is_of_this_ca && client.identity().role == Role::Operator);
        Ok(clients)
    }

    /// The clients, and the file of the roots that they trust.
    fn complete(&self, context: &Context) -> anyhow::Result<(Vec<Client>, PathBuf)> {
        let chosen = chosen_profile(&self.given, (&self.profile, Server::Receiver), context)?;
        let whole = with_profile(self.given.clone(), chosen.map(|chosen| chosen.profile));
        let ReceiverConnection {
            receiver,
            credentials,
            ca_url: _,
        } = complete(whole)?;
        let urls = match self.urls.is_empty() {
            true => vec![receiver],
            false => self.urls.clone(),
        };
        let now = (context.clock)();
        let clients = urls
            .into_iter()
            .map(|url| Client::new(url, &credentials, now));
        Ok((clients.collect::<Result<_, _>>()?, credentials.ca))
    }
}

/// Where a receiver is, and who asks it.
#[derive(Debug, Clone)]
pub(crate) struct ReceiverConnection {
    pub(crate) receiver: BaseUrl,
    pub(crate) credentials: Credentials,
    /// Where the certificate is renewed, if that is known.
    pub(crate) ca_url: Option<BaseUrl>,
}

impl ReceiverConnection {
    /// Renews the certificate while a verb runs for long, as daemons do; without `liz-ca` it warns of
    /// its end. Finishes a renewal that a crash interrupted.
    pub(crate) fn renewer(
        &self,
        flags: &RenewalFlags,
        context: &Context,
    ) -> anyhow::Result<Renewer> {
        let renewer = Renewer {
            url: flags.ca_url.clone().or_else(|| self.ca_url.clone()),
            credentials: self.credentials.clone(),
            clock: Arc::new(context.clock),
            chance: Arc::new(context.chance),
            tell: Arc::new(|_| ()),
        };
        renewer.finish_install()?;
        Ok(renewer)
    }
}

/// Where `liz-ca` is, and who asks it.
#[derive(Debug, Clone)]
pub(crate) struct CaConnection {
    pub(crate) ca_url: BaseUrl,
    pub(crate) credentials: Credentials,
}

/// What a verb connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Receiver,
    Ca,
}

/// A profile, and where it is from.
#[derive(Debug)]
pub(crate) struct ChosenProfile {
    pub(crate) profile: ConnectionProfile,
    /// `None` for the one of a folder.
    pub(crate) name: Option<String>,
    pub(crate) file: PathBuf,
}

/// The profile that is used: the named one; else the default one; else that of the folder. A default
/// one that lacks something steps back where the folder has one.
pub(crate) fn chosen_profile(
    given: &ConnectionProfile,
    (flag, server): (&ProfileFlag, Server),
    context: &Context,
) -> anyhow::Result<Option<ChosenProfile>> {
    let is_complete = |profile: &ConnectionProfile| {
        missing(&with_profile(given.clone(), Some(profile.clone())), server).is_empty()
    };
    // A broken file is no obstacle for those who give everything.
    if flag.name.is_none() && is_complete(&ConnectionProfile::default()) {
        return Ok(None);
    }
    let file = match (&context.profiles, &flag.name) {
        (None, Some(_)) => return Err(ProfileFileError::NoHome).context(Exit::Usage),
        (None, None) => ProfileFile::default(),
        (Some(path), _) => ProfileFile::read(path).context(Exit::Usage)?,
    };
    let of_file = |name: &String| {
        let profile = file.named(name).context(Exit::Usage)?.clone();
        Ok::<_, anyhow::Error>(ChosenProfile {
            profile,
            name: Some(name.clone()),
            file: file.path.clone(),
        })
    };
    if let Some(name) = &flag.name {
        return of_file(name).map(Some);
    }
    let default = file.default.as_ref().map(of_file).transpose()?;
    if default
        .as_ref()
        .is_some_and(|found| is_complete(&found.profile))
    {
        return Ok(default);
    }
    let local = profile::read_local(&context.certs).context(Exit::Usage)?;
    let local = local.map(|profile| ChosenProfile {
        profile,
        name: None,
        file: profile::local_file(&context.certs),
    });
    Ok(local.or(default))
}

fn is_a_root_in_both(one: &Path, other: &Path) -> bool {
    let roots = |path: &Path| {
        let read = std::fs::read(path).ok()?;
        Some(anchors::read(&read).ok()?.roots)
    };
    match (roots(one), roots(other)) {
        (Some(one), Some(other)) => one.iter().any(|root| other.contains(root)),
        _ => false,
    }
}

/// What is given, completed from the profile. Certificate and key belong together, so the profile's
/// are used only where neither is given.
pub(crate) fn with_profile(
    mut given: ConnectionProfile,
    profile: Option<ConnectionProfile>,
) -> ConnectionProfile {
    let Some(profile) = profile else {
        return given;
    };
    if given.cert.is_none() && given.key.is_none() {
        (given.cert, given.key) = (profile.cert, profile.key);
    }
    given.receiver = given.receiver.or(profile.receiver);
    given.ca = given.ca.or(profile.ca);
    given.ca_url = given.ca_url.or(profile.ca_url);
    given
}

/// Something of a connection is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub(crate) struct MissingConnection(Vec<(&'static str, &'static str)>);

/// What is needed, and how one gets it.
const RECEIVER: (&str, &str) = ("--receiver", "the URL of your receiver, https://HOST:8443");
const CA_URL: (&str, &str) = ("--ca-url", "the URL of liz-ca, https://HOST:8444");
const CERT: (&str, &str) = (
    "--cert",
    "your certificate, from `lizctl join` with a token or from who runs the CA (`lizctl issue-reader NAME`)",
);
const KEY: (&str, &str) = (
    "--key",
    "the private key of your certificate, NAME.key beside NAME.crt",
);
const CA: (&str, &str) = ("--ca", "root.crt of the CA, beside your certificate");
const NEEDED: usize = 4;

impl MissingConnection {
    fn text(&self) -> String {
        const PROFILE: &str = "an environment variable LIZMON_… or a profile (`lizctl profile list`) can say it as well";
        if let [(server, _), .., (last, _)] = self.0[..]
            && self.0.len() == NEEDED
        {
            return format!(
                "{server}, --cert, --key and {last} are missing: run this in a folder where `lizctl up` ran; or get a certificate by `lizctl join` or `lizctl issue-reader NAME`; {PROFILE}"
            );
        }
        let missing: Vec<String> = self
            .0
            .iter()
            .map(|(flag, what)| format!("{flag} is missing: {what}"))
            .collect();
        format!("{}; {PROFILE}", missing.join("; "))
    }
}

fn missing(found: &ConnectionProfile, server: Server) -> Vec<(&'static str, &'static str)> {
    let of_server = match server {
        Server::Receiver => (RECEIVER, found.receiver.is_some()),
        Server::Ca => (CA_URL, found.ca_url.is_some()),
    };
    let needed = [
        of_server,
        (CERT, found.cert.is_some()),
        (KEY, found.key.is_some()),
        (CA, found.ca.is_some()),
    ];
    let missing = needed.into_iter().filter(|(_, is_there)| !is_there);
    missing.map(|(needed, _)| needed).collect()
}

fn complete(found: ConnectionProfile) -> anyhow::Result<ReceiverConnection> {
    let missing = missing(&found, Server::Receiver);
    let ca_url = found.ca_url.clone();
    match (found.receiver.clone(), credentials(found)) {
        (Some(receiver), Some(credentials)) => Ok(ReceiverConnection {
            receiver,
            credentials,
            ca_url,
        }),
        _ => Err(MissingConnection(missing)).context(Exit::Usage),
    }
}

/// The connection to `liz-ca`: what is given, and one profile for what that leaves open.
pub(crate) fn to_ca(
    given: ConnectionProfile,
    profile: &ProfileFlag,
    context: &Context,
) -> anyhow::Result<CaConnection> {
    let chosen = chosen_profile(&given, (profile, Server::Ca), context)?;
    let whole = with_profile(given, chosen.map(|chosen| chosen.profile));
    let missing = missing(&whole, Server::Ca);
    match (whole.ca_url.clone(), credentials(whole)) {
        (Some(ca_url), Some(credentials)) => Ok(CaConnection {
            ca_url,
            credentials,
        }),
        _ => Err(MissingConnection(missing)).context(Exit::Usage),
    }
}

fn credentials(found: ConnectionProfile) -> Option<Credentials> {
    Some(Credentials {
        cert: found.cert?,
        key: found.key?,
        ca: found.ca?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(parts: &str) -> ConnectionProfile {
        let path = |part: &str| parts.contains(part).then(|| PathBuf::from(part));
        ConnectionProfile {
            receiver: parts.contains("url").then(|| "https://r1".parse().unwrap()),
            cert: path("cert"),
            key: path("key"),
            ca: path("ca"),
            ca_url: None,
        }
    }

    #[test]
    fn certificate_and_key_come_from_one_place() {
        let check = |given: &str, known: &str, expected: &str| {
            let got = with_profile(profile(given), Some(profile(known)));
            assert_eq!(got, profile(expected), "{given} and {known}");
        };
        check("", "url cert key ca", "url cert key ca");
        check("url", "cert key ca", "url cert key ca");
        check("cert", "url cert key ca", "url cert ca");
        check("key", "cert", "key");
        check("cert key", "url", "url cert key");
    }

    #[test]
    fn what_is_missing_is_told() {
        let check = |known: &str, expected: &str| {
            let error = complete(profile(known)).unwrap_err();
            let said = format!("{error:#}");
            assert!(said.contains(expected), "{known}: {said}");
        };
        check(
            "",
            "--receiver, --cert, --key and --ca are missing: run this",
        );
        check("cert key ca", ": --receiver is missing: the URL");
        check("url cert ca", ": --key is missing: the private key");
        check(
            "url",
            "--cert is missing: your certificate, from `lizctl join`",
        );
        complete(profile("url cert key ca")).unwrap();
    }
}
