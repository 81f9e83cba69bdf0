//! The CA and the three certificates of `lizctl up`: created if missing, renewed if due.

pub(super) mod ca_replacement;

use std::path::{Path, PathBuf};

use lizmon_ca::Error;
use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_ca::files::{CaFiles, LeafFiles};
use lizmon_ca::ledger::{CertState, Entry, Generation, Phase};
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_ca::pki::{Profile, San, Unlock};
use lizmon_client::Credentials;
use lizmon_mtls::trust::TrustFiles;
use lizmon_protocol::name::{NODE_NAME_BYTES_MAX, NameError, NodeName, Role};

use self::ca_replacement::MaintenanceMode;
use super::enrolment_service::CA_NAME;
use super::local_endpoint::LocalEndpoint;
use crate::output;

/// Name of the receiver and the reader, which serve this machine alone.
const LOCAL_NAME: &str = "localhost";

/// The files of the CA and its leaf certificates, and what these must hold.
pub(crate) struct LocalPki {
    pub(crate) certs: PathBuf,
    unlock: Unlock,
    ca: CaFiles,
    /// Node name of this machine.
    pub(crate) host: NodeName,
    local: NodeName,
    receiver_sans: Vec<San>,
}

impl LocalPki {
    /// Opens or creates the CA, and issues or renews everything before anything starts.
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

    /// Issues what is missing, renews what is past two thirds of its lifetime, replaces an expiring
    /// CA if no other program uses it, and signs CRLs again that are past half of their lifetime.
    pub(crate) fn maintain(&self, mode: MaintenanceMode, now: u64) -> Result<(), Error> {
        self.maintain_with(self.authority(now)?, mode, now)
    }

    fn authority(&self, now: u64) -> Result<Authority, Error> {
        if Authority::exists(&self.certs) {
            return Authority::open_with(&self.certs, self.unlock.clone(), now);
        }
        let authority = Authority::init(&self.certs, &InitOptions::default(), now)?;
        output::note(format!("created a CA in {}", self.certs.display()));
        Ok(authority)
    }

    /// Names must not differ only by case, but DHCP may change the case of a host name: keeps the
    /// spelling of the certificates that were issued.
    fn adopt_issued_name(&mut self, entries: &[Entry]) -> Result<(), NameError> {
        let host = self.host.as_str();
        let is_node = |entry: &&Entry| entry.profile == Profile::Leaf(Role::Node);
        let mut nodes = entries.iter().filter(is_node).map(|entry| &entry.name);
        if nodes.clone().any(|name| name == host) {
            return Ok(());
        }
        if let Some(issued) = nodes.find(|name| name.eq_ignore_ascii_case(host)) {
            output::note(format!(
                "this host `{host}` is named `{issued}`, as in its earlier certificates"
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
            // Both CAs may be due, one after the other, in two steps each: use the new one, retire
            // the old one.
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

    /// Whether all live certificates are ours.
    fn is_sole_holder(&self, entries: &[Entry], now: u64) -> bool {
        let ours = self.leaves();
        let is_ours = |entry: &Entry, role: Role| {
            let is_enrolment_service = role == Role::Ca && entry.name == CA_NAME;
            is_enrolment_service
                || ours
                    .iter()
                    .any(|(our_role, name, _)| *our_role == role && name.as_str() == entry.name)
        };
        let live = entries.iter().filter(|entry| entry.is_live(now));
        live.into_iter().all(|entry| match entry.profile {
            Profile::Leaf(role) => is_ours(entry, role),
            Profile::Root | Profile::Issuing => true,
        })
    }

    /// Certificate, roots and CRL of the receiver.
    pub(crate) fn trust_files(&self) -> TrustFiles {
        let files = LeafFiles::new(&self.certs, Role::Receiver, &self.local);
        TrustFiles {
            cert: files.certificate,
            key: files.key,
            ca: self.ca.root_certificate.clone(),
            crl: self.ca.crl.clone(),
        }
    }

    /// Credentials of the monitor.
    pub(crate) fn node(&self) -> Credentials {
        self.credentials(Role::Node, &self.host)
    }

    /// Credentials of the reader.
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

/// Whether the current issuing CA issued the certificate, it is not revoked, is within the first
/// two thirds of its lifetime, has the SANs, and its key is there.
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

/// The node name of this machine, with a note if it differs from the host name.
fn this_host_name(host_name: &str) -> Result<NodeName, NameError> {
    let name = node_name(host_name)?;
    if name.as_str() != host_name {
        output::note(format!(
            "the host name `{}` is not a valid node name: using `{name}`; choose another with --this-host",
            host_name.escape_debug()
        ));
    }
    Ok(name)
}

/// Converts a host name to a node name: invalid characters become `-`.
fn node_name(host_name: &str) -> Result<NodeName, NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let converted: String = host_name
        .trim_end_matches('.')
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(NODE_NAME_BYTES_MAX)
        .collect();
    if converted.is_empty() {
        LOCAL_NAME.parse()
    } else {
        converted.parse()
    }
}

#[cfg(test)]
mod tests;
