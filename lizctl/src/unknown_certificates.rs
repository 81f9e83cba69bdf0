//! Certificates that receivers have seen and this CA's ledger does not know: issued after the
//! backup that the CA was restored from, or signed by another party with its key.

use std::collections::{BTreeMap, HashSet};

use lizmon_ca::authority::Authority;
use lizmon_ca::ledger::UnknownRevoked;
use lizmon_ca::pki::Serial;
use lizmon_ca::pki::inspect::{self, Item};
use lizmon_client::Client;
use lizmon_protocol::certificate::SeenCertificate;

use crate::context::Context;
use crate::{output, runtime};

/// A certificate that is not in the ledger.
#[derive(Debug, Clone)]
pub(crate) struct UnknownCertificate {
    pub(crate) certificate: SeenCertificate,
    /// Whether its issuer is one of our CAs: then it can be revoked here.
    pub(crate) of_this_ca: bool,
    /// URLs of the receivers that have seen it.
    pub(crate) seen_by: Vec<String>,
}

impl UnknownCertificate {
    pub(crate) fn role(&self) -> &'static str {
        self.certificate.identity.role.as_str()
    }

    /// The serial number in the ledger's notation.
    pub(crate) fn serial(&self) -> String {
        normalized(&self.certificate.serial)
    }

    /// Its state in the table of `list`.
    pub(crate) fn state(&self) -> &'static str {
        if self.of_this_ca {
            "unknown"
        } else {
            "unknown, of another CA"
        }
    }
}

fn normalized(serial: &str) -> String {
    match serial.parse::<Serial>() {
        Ok(serial) => serial.to_string(),
        Err(_) => serial.to_owned(),
    }
}

/// The unknown certificates that receivers have seen.
#[derive(Default)]
pub(crate) struct UnknownCertificates {
    /// Ordered by identity and hash.
    pub(crate) unknown: Vec<UnknownCertificate>,
    /// The first receiver that could not be queried.
    failed: Option<anyhow::Error>,
}

impl UnknownCertificates {
    /// Queries every receiver, even if some fail, and compares with the ledger.
    pub(crate) fn query(
        receivers: &[Client],
        authority: &Authority,
        context: &Context,
    ) -> anyhow::Result<Self> {
        if receivers.is_empty() {
            return Ok(Self::default());
        }
        let entries = authority.entries()?;
        let known: HashSet<&str> = entries.iter().map(|entry| entry.serial.as_str()).collect();
        let ours = issuers(authority)?;
        let runtime = runtime::current_thread()?;
        let (mut unknown, mut failed) = (BTreeMap::<_, UnknownCertificate>::new(), None);
        for receiver in receivers {
            let url = receiver.url().to_string();
            let asked = runtime.block_on(receiver.certificates((context.clock)()));
            let seen = match asked {
                Ok(seen) => seen,
                Err(error) => {
                    let error = anyhow::Error::from(error)
                        .context(format!("cannot get the certificates that {url} has seen"));
                    // The first failure sets the exit code.
                    if failed.is_some() {
                        output::note(format_args!("{error:#}"));
                    }
                    failed.get_or_insert(error);
                    continue;
                }
            };
            if !seen.complete {
                output::note(format_args!(
                    "{url} has seen more certificates than it remembers: there may be more"
                ));
            }
            for certificate in seen.certificates {
                if known.contains(normalized(&certificate.serial).as_str()) {
                    continue;
                }
                let key = (certificate.identity.to_string(), certificate.sha256.clone());
                let found = unknown.entry(key).or_insert_with(|| UnknownCertificate {
                    of_this_ca: ours.contains(&certificate.issuer),
                    certificate: certificate.clone(),
                    seen_by: Vec::new(),
                });
                found.seen_by.push(url.clone());
                let all = &mut found.certificate;
                all.first_seen = all.first_seen.min(certificate.first_seen);
                all.last_seen = all.last_seen.max(certificate.last_seen);
            }
        }
        Ok(Self {
            unknown: unknown.into_values().collect(),
            failed,
        })
    }

    /// Those that are not revoked here.
    pub(crate) fn not_revoked<'a>(
        &'a self,
        revoked: &[UnknownRevoked],
    ) -> impl Iterator<Item = &'a UnknownCertificate> {
        let revoked: HashSet<String> = revoked.iter().map(|row| row.serial.clone()).collect();
        let all = self.unknown.iter();
        all.filter(move |seen| !revoked.contains(&seen.serial()))
    }

    /// The unknown certificate with this serial number.
    pub(crate) fn find(&self, serial: &str) -> Option<&UnknownCertificate> {
        self.unknown.iter().find(|seen| seen.serial() == serial)
    }

    /// An error if a receiver could not be queried; called after everything else is printed.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

/// Subjects of the CAs in the ledger.
fn issuers(authority: &Authority) -> anyhow::Result<HashSet<String>> {
    let mut names = HashSet::new();
    for ca in authority.generations()? {
        for item in inspect::inspect(ca.entry.pem.as_bytes())? {
            if let Item::Certificate { subject, .. } = item {
                names.insert(subject);
            }
        }
    }
    Ok(names)
}

/// Advises what to do about unknown certificates.
pub(crate) fn advise(unknown: &[&UnknownCertificate], was_copied: bool) {
    let (ours, others): (Vec<&UnknownCertificate>, Vec<&UnknownCertificate>) =
        unknown.iter().partition(|seen| seen.of_this_ca);
    if let Some(first) = ours.first() {
        let serial = first.serial();
        let certificates = match ours.len() {
            1 => "1 certificate of this CA was seen".to_owned(),
            many => format!("{many} certificates of this CA were seen"),
        };
        let why = if was_copied {
            "issued after the backup that this CA was restored from: issue to those holders again"
        } else {
            "although it was never restored: unless there is another copy of the CA, its key is compromised: run `lizctl rotate issuing`"
        };
        output::note(format_args!(
            "{certificates} that this ledger does not know, {why}; revoke unwanted ones with `lizctl revoke --serial {serial} --receiver URL`"
        ));
    }
    if !others.is_empty() {
        output::note(format_args!(
            "{} of another CA, which receivers trust besides this one: revoke unwanted ones at that CA, or remove it from the receivers' --ca",
            others.len()
        ));
    }
}
