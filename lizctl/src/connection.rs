//! The connection to a receiver: flags and variables, completed from a profile.

use std::path::PathBuf;

use anyhow::Context as _;
use lizmon_client::{BaseUrl, Client, Credentials};

use crate::context::Context;
use crate::failure::Exit;
use crate::flags::connection::{ConnectionFlags, ProfileFlag};
use crate::profile::{self, ConnectionProfile, ProfileFile, ProfileFileError};

impl ConnectionFlags {
    /// Reads and checks the files; sends nothing yet.
    pub(crate) fn client(&self, context: &Context) -> anyhow::Result<Client> {
        let ReceiverConnection {
            receiver,
            credentials,
        } = self.connection(context)?;
        Ok(Client::new(receiver, &credentials, (context.clock)())?)
    }

    /// The flags, their variables, and one profile for what these leave open.
    pub(crate) fn connection(&self, context: &Context) -> anyhow::Result<ReceiverConnection> {
        let given = self.given();
        let chosen = chosen_profile(&given, &self.profile, context)?;
        complete(with_profile(given, chosen.map(|chosen| chosen.profile)))
    }

    /// What flags and variables say.
    pub(crate) fn given(&self) -> ConnectionProfile {
        ConnectionProfile {
            receiver: self.receiver.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
            ca_url: None,
        }
    }
}

/// Where a receiver is, and who asks it.
#[derive(Debug, Clone)]
pub(crate) struct ReceiverConnection {
    pub(crate) receiver: BaseUrl,
    pub(crate) credentials: Credentials,
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
    flag: &ProfileFlag,
    context: &Context,
) -> anyhow::Result<Option<ChosenProfile>> {
    let is_complete = |profile: &ConnectionProfile| {
        complete(with_profile(given.clone(), Some(profile.clone()))).is_ok()
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
    given.ca_url = profile.ca_url;
    given
}

/// Something of a connection is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub(crate) struct MissingConnection(Vec<(&'static str, &'static str)>);

/// What is needed, and how one gets it.
const NEEDED: [(&str, &str); 4] = [
    ("--receiver", "the URL of your receiver, https://HOST:8443"),
    (
        "--cert",
        "your certificate, from `lizctl join` with a token or from who runs the CA (`lizctl issue-reader NAME`)",
    ),
    (
        "--key",
        "the private key of your certificate, NAME.key beside NAME.crt",
    ),
    ("--ca", "root.crt of the CA, beside your certificate"),
];

impl MissingConnection {
    fn text(&self) -> String {
        const PROFILE: &str = "an environment variable LIZMON_… or a profile (`lizctl profile list`) can say it as well";
        if self.0.len() == NEEDED.len() {
            return format!(
                "--receiver, --cert, --key and --ca are missing: run this in a folder where `lizctl up` ran; or get a certificate by `lizctl join` or `lizctl issue-reader NAME`; {PROFILE}"
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

fn complete(found: ConnectionProfile) -> anyhow::Result<ReceiverConnection> {
    let is_there = [
        found.receiver.is_some(),
        found.cert.is_some(),
        found.key.is_some(),
        found.ca.is_some(),
    ];
    let missing = NEEDED.into_iter().zip(is_there);
    let missing = missing.filter_map(|(needed, there)| (!there).then_some(needed));
    match found {
        ConnectionProfile {
            receiver: Some(receiver),
            cert: Some(cert),
            key: Some(key),
            ca: Some(ca),
            ca_url: _,
        } => Ok(ReceiverConnection {
            receiver,
            credentials: Credentials { cert, key, ca },
        }),
        _ => Err(MissingConnection(missing.collect())).context(Exit::Usage),
    }
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
