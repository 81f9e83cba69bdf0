//! The CA and the three certificates of `lizctl up`: made where there are none, renewed where they are due.

pub(super) mod ca_replacement;

use std::path::{Path, PathBuf};

use lizmon_ca::Error;
use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_ca::inspect::{Item, inspect};
use lizmon_ca::layout::{CaFiles, LeafFiles};
use lizmon_ca::ledger::{CertState, Entry, Generation, Phase};
use lizmon_ca::passphrase::Unlock;
use lizmon_ca::profile::{Profile, San};
use lizmon_client::Credentials;
use lizmon_mtls::trust::TrustFiles;
use lizmon_protocol::name::{NODE_NAME_BYTES_MAX, NameError, NodeName, Role};

use self::ca_replacement::MaintenanceMode;
use super::local_endpoint::LocalEndpoint;
use crate::output;

/// Receiver and reader are of this machine and for it alone.
const LOCAL_NAME: &str = "localhost";

/// Which files there are, and what must be in them.
pub(crate) struct LocalPki {
    certs: PathBuf,
    unlock: Unlock,
    ca: CaFiles,
    /// This machine.
    pub(crate) host: NodeName,
    local: NodeName,
    receiver_sans: Vec<San>,
}

impl LocalPki {
    /// Makes and renews what has to be there before anything starts.
    pub(crate) fn open(
        certs: PathBuf,
        unlock: Unlock,
        endpoint: &LocalEndpoint,
        this_host: Option<&NodeName>,
        now: u64,
    ) -> anyhow::Result<Self> {
        let mut pki = Self {
            unlock,
            ca: CaFiles::new(&certs),
            host: match this_host {
                Some(name) => name.clone(),
                None => this_host_name(&rustix::system::uname().nodename().to_string_lossy())?,
            },
            local: LOCAL_NAME.parse()?,
            receiver_sans: endpoint.sans.clone(),
            certs,
        };
        let authority = pki.authority(now)?;
        pki.adopt_issued_name(&authority.entries()?)?;
        pki.maintain_with(authority, MaintenanceMode::BeforeStart, now)?;
        Ok(pki)
    }

    /// Makes what is missing, renews what is past two thirds of its life, replaces a CA that comes to its end if it is
    /// nobody else's, and signs revocation lists again that are past half of their life.
    pub(crate) fn maintain(&self, mode: MaintenanceMode, now: u64) -> Result<(), Error> {
        self.maintain_with(self.authority(now)?, mode, now)
    }

    fn authority(&self, now: u64) -> Result<Authority, Error> {
        if Authority::exists(&self.certs) {
            return Authority::open_with(&self.certs, self.unlock.clone(), now);
        }
        let authority = Authority::init(&self.certs, &InitOptions::default(), now)?;
        output::note(format!("made a CA in {}", self.certs.display()));
        Ok(authority)
    }

    /// No two names may differ only by case, and a machine's name changes its case by a whim of DHCP.
    fn adopt_issued_name(&mut self, entries: &[Entry]) -> Result<(), NameError> {
        let host = self.host.as_str();
        let is_node = |entry: &&Entry| entry.profile == Profile::Leaf(Role::Node);
        let mut twins = entries.iter().filter(is_node).map(|entry| &entry.name);
        if twins.clone().any(|name| name == host) {
            return Ok(());
        }
        if let Some(issued) = twins.find(|name| name.eq_ignore_ascii_case(host)) {
            output::note(format!(
                "this host `{host}` goes as `{issued}`: that is how its certificates were issued"
            ));
            self.host = issued.parse()?;
        }
        Ok(())
    }

    fn maintain_with(
        &self,
        mut authority: Authority,
        mode: MaintenanceMode,
        now: u64,
    ) -> Result<(), Error> {
        let rounds = match mode {
            // One CA may be due after the other: each is begun, its leaves issued anew, the old one ended.
            MaintenanceMode::BeforeStart => 2 * 2,
            MaintenanceMode::WhileRunning => 1,
        };
        for _ in 0..rounds {
            let stepped = ca_replacement::replace_ending(
                &mut authority,
                mode,
                |entries| self.is_sole_holder(entries, now),
                now,
            )?;
            self.renew_leaves(&authority, now)?;
            if !stepped {
                break;
            }
        }
        Ok(())
    }

    fn renew_leaves(&self, authority: &Authority, now: u64) -> Result<(), Error> {
        let entries = authority.entries()?;
        let generations = authority.generations()?;
        let signs =
            |ca: &&Generation| ca.phase == Phase::Current && ca.entry.profile == Profile::Issuing;
        let issuer = generations.iter().find(signs).map(|ca| &*ca.entry.serial);
        for (role, name, sans) in self.leaves() {
            let files = LeafFiles::new(&self.certs, role, name);
            if is_usable(&files, sans, &entries, issuer, now) {
                continue;
            }
            let mut request = Request::new(role, name.clone());
            request.sans = sans.to_vec();
            let issued = authority.issue(request, now)?;
            output::note(format!(
                "issued {} to {role} {name}, until {}",
                issued.certificate_path.display(),
                output::date(issued.validity.not_after)
            ));
        }
        Ok(())
    }

    fn leaves(&self) -> [(Role, &NodeName, &[San]); 3] {
        [
            (Role::Receiver, &self.local, &self.receiver_sans),
            (Role::Node, &self.host, &[]),
            (Role::Reader, &self.local, &[]),
        ]
    }

    /// Whether every certificate that counts is one of ours.
    fn is_sole_holder(&self, entries: &[Entry], now: u64) -> bool {
        let ours = self.leaves();
        let is_ours = |entry: &Entry, role: Role| {
            ours.iter()
                .any(|(our_role, name, _)| *our_role == role && name.as_str() == entry.name)
        };
        let live = entries.iter().filter(|entry| entry.is_live(now));
        live.into_iter().all(|entry| match entry.profile {
            Profile::Leaf(role) => is_ours(entry, role),
            Profile::Root | Profile::Issuing => true,
        })
    }

    /// What the receiver shows and trusts.
    pub(crate) fn trust_files(&self) -> TrustFiles {
        let files = LeafFiles::new(&self.certs, Role::Receiver, &self.local);
        TrustFiles {
            cert: files.certificate,
            key: files.key,
            ca: self.ca.root_certificate.clone(),
            crl: self.ca.crl.clone(),
        }
    }

    /// As whom the monitor publishes.
    pub(crate) fn node(&self) -> Credentials {
        self.credentials(Role::Node, &self.host)
    }

    /// As whom the summaries are read.
    pub(crate) fn reader(&self) -> Credentials {
        self.credentials(Role::Reader, &self.local)
    }

    fn credentials(&self, role: Role, name: &NodeName) -> Credentials {
        let files = LeafFiles::new(&self.certs, role, name);
        Credentials {
            cert: files.certificate,
            key: files.key,
            ca: self.ca.root_certificate.clone(),
        }
    }
}

/// Whether the CA that signs now issued the certificate, it is not revoked, has begun, has a third of its life before it,
/// bears the names and has its key beside it.
fn is_usable(
    files: &LeafFiles,
    sans: &[San],
    entries: &[Entry],
    issuer: Option<&str>,
    now: u64,
) -> bool {
    let chain = std::fs::read_to_string(&files.certificate).unwrap_or_default();
    let Some(entry) = entries.iter().find(|entry| chain.starts_with(&entry.pem)) else {
        return false;
    };
    let life = entry.not_after.saturating_sub(entry.not_before);
    let renew_at = entry.not_before + life / 3 * 2;
    entry.state == CertState::Valid
        && Some(&*entry.issuer) == issuer
        && (entry.not_before..renew_at).contains(&now)
        && key_of(&files.key).is_some_and(|key| key == entry.key_sha256)
        && has_sans(&chain, sans)
}

fn key_of(path: &Path) -> Option<String> {
    let items = inspect(&std::fs::read(path).ok()?).ok()?;
    items.into_iter().find_map(|item| match item {
        Item::PrivateKey { key_sha256, .. } => Some(key_sha256),
        _ => None,
    })
}

fn has_sans(chain: &str, sans: &[San]) -> bool {
    match inspect(chain.as_bytes()).unwrap_or_default().first() {
        Some(Item::Certificate { names, .. }) => {
            sans.iter().all(|san| names.contains(&san.to_string()))
        }
        _ => false,
    }
}

/// The name of this machine, and a word about it where it could not be taken as it is.
fn this_host_name(host_name: &str) -> Result<NodeName, NameError> {
    let name = node_name(host_name)?;
    if name.as_str() != host_name {
        output::note(format!(
            "this host is called `{}`, which no certificate can say: it goes as `{name}`; --this-host gives it another name",
            host_name.escape_debug()
        ));
    }
    Ok(name)
}

/// What an operating system takes for a host name may be no node name: what does not fit becomes `-`.
fn node_name(host_name: &str) -> Result<NodeName, NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fitted: String = host_name
        .trim_end_matches('.')
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(NODE_NAME_BYTES_MAX)
        .collect();
    if fitted.is_empty() {
        LOCAL_NAME.parse()
    } else {
        fitted.parse()
    }
}

#[cfg(test)]
mod tests;
