//! CRLs, by the store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use lizmon_mtls::rate_limited_log::RateLimitedLog;
use lizmon_mtls::revocation::{Crl, CrlRefused, in_words};
use lizmon_mtls::trust::{ExportedCrl, TrustError, TrustReader, TrustWriter};
use lizmon_pki::pem;
use rustls_pki_types::CertificateDer;

use crate::store::{SharedTrust, StoreError};

/// After how long a CRL that was not accepted is tried again: seconds. Its time may have come.
const TRY_AGAIN_SECS: u64 = 60;

/// Adds the CRLs in force to those of the store, and takes those that are newer there.
pub struct CrlExchange {
    writer: Arc<Mutex<TrustWriter>>,
    trust: TrustReader,
    /// Those in force, and in which trust.
    own: (u64, Vec<ExportedCrl>),
    /// Those that were not accepted: by which trust, and when.
    refused: HashMap<String, (u64, u64)>,
    log: RateLimitedLog,
}

impl fmt::Debug for CrlExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrlExchange of {:?}", self.trust)
    }
}

/// What became of a CRL of the store.
enum Taken {
    /// It is in force.
    InForce,
    /// A newer one is in force.
    Superseded,
    /// It cannot be used here; perhaps elsewhere, or later.
    Refused(String),
    /// It is not what its name says.
    Misnamed,
}

impl CrlExchange {
    /// Nothing is exchanged yet.
    pub fn new(writer: Arc<Mutex<TrustWriter>>, trust: TrustReader) -> Self {
        Self {
            writer,
            trust,
            own: (0, Vec::new()),
            refused: HashMap::new(),
            log: RateLimitedLog::default(),
        }
    }

    /// Once. Blocks while the store is asked, and while a CRL is verified and kept on disk.
    pub fn exchange(&mut self, store: &mut dyn SharedTrust, now: u64) -> Result<(), StoreError> {
        let names = store.crl_names()?;
        self.export();
        // Where ours cannot be added, those of others are taken all the same.
        let mut added = Ok(());
        for crl in &self.own.1 {
            if !names.contains(&crl.name) {
                added = added.and(store.add_crl(&crl.name, &crl.pem));
            }
        }
        self.refused.retain(|name, _| names.contains(name));
        for name in names {
            if self.is_settled(&name, now) {
                continue;
            }
            let Some(pem) = store.crl(&name)? else {
                continue;
            };
            match self.take(&name, &pem) {
                Ok(Taken::InForce) => {
                    self.export();
                    if !self.is_settled(&name, now) {
                        self.refuse(name, now);
                    }
                }
                Ok(Taken::Superseded) => store.remove_crl(&name)?,
                Ok(Taken::Misnamed) => {
                    tracing::error!(
                        name = %name.escape_debug(),
                        "the store has something else in a CRL's place, which no receiver wrote: removing it"
                    );
                    store.remove_crl(&name)?;
                }
                Ok(Taken::Refused(why)) => {
                    self.log.say(|unsaid| {
                        tracing::warn!(unsaid, "a CRL of the store is not accepted: {why}");
                    });
                    self.refuse(name, now);
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "a CRL of the store cannot be put in force");
                    self.refuse(name, now);
                }
            }
        }
        added
    }

    /// What is in force now.
    fn export(&mut self) {
        let trust = self.trust.current();
        if self.own.0 != trust.generation() {
            self.own = (trust.generation(), trust.exported_crls());
        }
    }

    /// Whether nothing else would come of it than before.
    fn is_settled(&self, name: &str, now: u64) -> bool {
        let is_refused = |(generation, at): &(u64, u64)| {
            *generation == self.own.0 && (*at..at + TRY_AGAIN_SECS).contains(&now)
        };
        self.own.1.iter().any(|crl| crl.name == name)
            || self.refused.get(name).is_some_and(is_refused)
    }

    fn refuse(&mut self, name: String, now: u64) {
        self.refused.insert(name, (self.own.0, now));
    }

    fn take(&self, name: &str, pem: &[u8]) -> Result<Taken, TrustError> {
        let (mut crls, _unusable) = Crl::read_usable(pem);
        crls.retain(|crl| ExportedCrl::name_of(crl) == name);
        if crls.is_empty() {
            return Ok(Taken::Misnamed);
        }
        let authorities: Vec<_> = pem::sections(pem)
            .filter_map(Result::ok)
            .filter(|section| section.kind == pem::PemKind::Certificate)
            .map(|section| CertificateDer::from(section.der))
            .collect();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let update = writer.add_fetched_crls(crls, &authorities)?;
        if let Some(trust) = update.trust {
            tracing::info!(
                generation = trust.generation(),
                crls = in_words(trust.crls()),
                "CRLs of another receiver in force"
            );
            return Ok(Taken::InForce);
        }
        Ok(match update.refused.into_iter().next() {
            None => Taken::InForce,
            Some(CrlRefused::NotNewer {
                is_concurrent: false,
                ..
            }) => Taken::Superseded,
            Some(why) => Taken::Refused(why.to_string()),
        })
    }
}
