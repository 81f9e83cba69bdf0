//! What receivers have seen and this CA's ledger does not know: what it issued after the backup that it was restored from,
//! or what somebody else has signed with its key.

use std::collections::{BTreeMap, HashSet};

use lizmon_ca::authority::Authority;
use lizmon_ca::inspect::{self, Item};
use lizmon_ca::ledger::UnknownRevoked;
use lizmon_ca::profile::Serial;
use lizmon_client::Client;
use lizmon_protocol::certificate::SeenCertificate;

use crate::context::Context;
use crate::{output, runtime};

/// A certificate that is in no ledger here.
#[derive(Debug, Clone)]
pub(crate) struct UnknownCertificate {
    pub(crate) certificate: SeenCertificate,
    /// Whether it names a CA of ours as the one that signed it: then it can be ended here.
    pub(crate) of_this_ca: bool,
    /// By whom it was seen.
    pub(crate) seen_by: Vec<String>,
}

impl UnknownCertificate {
    pub(crate) fn role(&self) -> &'static str {
        self.certificate.identity.role.as_str()
    }

    /// As the ledger would write it, whatever stands before the number.
    pub(crate) fn serial(&self) -> String {
        normal(&self.certificate.serial)
    }

    /// What the table says of it.
    pub(crate) fn state(&self) -> &'static str {
        if self.of_this_ca {
            "unknown"
        } else {
            "unknown, of another CA"
        }
    }
}

fn normal(serial: &str) -> String {
    match serial.parse::<Serial>() {
        Ok(serial) => serial.to_string(),
        Err(_) => serial.to_owned(),
    }
}

/// What the receivers said.
#[derive(Default)]
pub(crate) struct UnknownCertificates {
    /// By identity and serial number.
    pub(crate) unknown: Vec<UnknownCertificate>,
    /// The first receiver that could not be asked.
    failed: Option<anyhow::Error>,
}

impl UnknownCertificates {
    /// Asks every receiver, whatever becomes of the others, and compares with the ledger.
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
                        .context(format!("{url} did not say which certificates it has seen"));
                    // The first failure ends the verb, and says the exit code.
                    if failed.is_some() {
                        output::note(format_args!("{error:#}"));
                    }
                    failed.get_or_insert(error);
                    continue;
                }
            };
            if !seen.complete {
                output::note(format_args!(
                    "{url} has seen more certificates than it remembers: there may be others"
                ));
            }
            for certificate in seen.certificates {
                if known.contains(normal(&certificate.serial).as_str()) {
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

    /// Those that nobody has ended here.
    pub(crate) fn unsettled<'a>(
        &'a self,
        revoked: &[UnknownRevoked],
    ) -> impl Iterator<Item = &'a UnknownCertificate> {
        let settled: HashSet<String> = revoked.iter().map(|row| row.serial.clone()).collect();
        let all = self.unknown.iter();
        all.filter(move |seen| !settled.contains(&seen.serial()))
    }

    /// Who it was that this number was given to.
    pub(crate) fn find(&self, serial: &str) -> Option<&UnknownCertificate> {
        self.unknown.iter().find(|seen| seen.serial() == serial)
    }

    /// That somebody was not asked is an error, once all else is said.
    pub(crate) fn complete(self) -> anyhow::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

/// How certificates name the CAs of this ledger.
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

/// What to do about those that count.
pub(crate) fn advise(unsettled: &[&UnknownCertificate], was_copied: bool) {
    let (ours, others): (Vec<&UnknownCertificate>, Vec<&UnknownCertificate>) =
        unsettled.iter().partition(|seen| seen.of_this_ca);
    if let Some(first) = ours.first() {
        let serial = first.serial();
        let certificates = match ours.len() {
            1 => "1 certificate of this CA was seen".to_owned(),
            many => format!("{many} certificates of this CA were seen"),
        };
        let why = if was_copied {
            "issued after the backup that this CA was restored from: issue to those holders anew"
        } else {
            "and it was never restored: if you know of no other copy of the CA, somebody has its key: `lizctl rotate issuing`"
        };
        output::note(format_args!(
            "{certificates} that this ledger does not know, {why}; end what you do not want with `lizctl revoke --serial {serial} --receiver URL`"
        ));
    }
    if !others.is_empty() {
        output::note(format_args!(
            "{} of another CA, which receivers trust beside this one: what is not wanted is ended by that CA, or by taking it out of their --ca",
            others.len()
        ));
    }
}
