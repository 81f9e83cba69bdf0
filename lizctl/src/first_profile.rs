//! The profile that `join` and `issue-reader` write, so that the new certificate needs no flags.

use std::path::absolute;

use lizmon_ca::authority::Authority;
use lizmon_ca::ledger::CertState;
use lizmon_ca::pki::Profile as Template;
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_client::{BaseUrl, Credentials};
use lizmon_protocol::name::Role;

use crate::context::Context;
use crate::output;
use crate::profile::{self, Added, ConnectionProfile, ProfileFileError};

/// The port of a receiver, unless its owner chose another.
const RECEIVER_PORT: u16 = 8443;

/// Writes a profile of this name, unless there is one, and says so. A failure is a note: the
/// certificate is there.
pub(crate) fn keep(
    name: &str,
    (receiver, ca_url): (Option<BaseUrl>, Option<BaseUrl>),
    credentials: &Credentials,
    context: &Context,
) {
    let Some(path) = &context.profiles else {
        return output::note(format_args!(
            "no profile was written: {}",
            ProfileFileError::NoHome
        ));
    };
    let profile = ConnectionProfile {
        receiver,
        cert: absolute(&credentials.cert).ok(),
        key: absolute(&credentials.key).ok(),
        ca: absolute(&credentials.ca).ok(),
        ca_url,
    };
    let file = path.to_string_lossy();
    let file = file.escape_debug();
    let needs = match &profile.receiver {
        Some(url) => format!("with the receiver {url}"),
        None => "which has no receiver yet: add receiver = \"https://HOST:8443\" there, or set LIZMON_RECEIVER".to_owned(),
    };
    match profile::add(path, name, &profile) {
        Ok(Added::AsDefault) => output::note(format_args!(
            "wrote the profile {name}, the default one, to {file}, {needs}"
        )),
        Ok(Added::Beside) => output::note(format_args!(
            "wrote the profile {name} (--profile {name}, or `lizctl profile use {name}`) to {file}, {needs}"
        )),
        Ok(Added::WasThere) => output::note(format_args!(
            "{file} has a profile {name} already, which stays as it is"
        )),
        Err(error) => output::note(format_args!(
            "no profile was written: {}",
            lizmon_pki::error_chain::in_one_line(&error)
        )),
    }
}

/// The receiver of this CA: that of the folder's profile; else the only one that has a certificate,
/// under its first name and the usual port.
pub(crate) fn only_receiver(authority: &Authority, context: &Context) -> Option<BaseUrl> {
    let known = profile::read_local(&context.certs).ok().flatten();
    if let Some(url) = known.and_then(|profile| profile.receiver) {
        return Some(url);
    }
    let now = (context.clock)();
    let entries = authority.entries().ok()?;
    let receivers = entries.iter().filter(|entry| {
        entry.profile == Template::Leaf(Role::Receiver)
            && entry.state == CertState::Valid
            && entry.not_after > now
    });
    let newest = receivers.clone().max_by_key(|entry| entry.issued_at)?;
    if receivers.into_iter().any(|entry| entry.name != newest.name) {
        return None;
    }
    let host = match inspect(newest.pem.as_bytes()).ok()?.into_iter().next()? {
        Item::Certificate { names, .. } => names.into_iter().next()?,
        _ => return None,
    };
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host,
    };
    format!("https://{host}:{RECEIVER_PORT}").parse().ok()
}
