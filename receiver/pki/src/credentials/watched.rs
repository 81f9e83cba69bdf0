//! Credentials that are reloaded when their files change.

use rustls::ClientConfig;

use super::error::CredentialsError;
use super::loading::{CredentialStamps, Credentials, LoadedCredentials};
use crate::server_crls::ServerCrls;

/// The credentials in use, and the stamps of their files.
pub struct WatchedCredentials {
    credentials: Credentials,
    stamps: CredentialStamps,
    crls: ServerCrls,
    crls_version: u64,
    current: LoadedCredentials,
}

impl WatchedCredentials {
    /// Loads and checks the credentials. No server is rejected as revoked.
    pub fn new(credentials: &Credentials, now: u64) -> Result<Self, CredentialsError> {
        Self::with(credentials, ServerCrls::default(), |crls| {
            credentials.load(crls, now)
        })
    }

    /// For a long-running program. A server that one of these CRLs revokes is rejected. Accepts a
    /// certificate that has expired or is not valid yet, although no server accepts it:
    /// [`reload`](Self::reload) picks up new CRLs and files.
    pub fn lasting(
        credentials: &Credentials,
        crls: ServerCrls,
        now: u64,
    ) -> Result<Self, CredentialsError> {
        Self::with(credentials, crls, |crls| {
            credentials.load_at_any_time(crls, now)
        })
    }

    fn with(
        credentials: &Credentials,
        crls: ServerCrls,
        load: impl FnOnce(&ServerCrls) -> Result<LoadedCredentials, CredentialsError>,
    ) -> Result<Self, CredentialsError> {
        let (stamps, crls_version) = (credentials.stamps(), crls.version());
        let current = load(&crls)?;
        Ok(Self {
            credentials: credentials.clone(),
            stamps,
            crls,
            crls_version,
            current,
        })
    }

    /// The credentials in use.
    pub fn current(&self) -> &LoadedCredentials {
        &self.current
    }

    /// Reloads the files if they have changed: all of them, or none if one cannot be used. `apply`
    /// installs the new TLS configuration. It is also called if only the CRLs have changed. Returns
    /// whether new files are in use.
    pub fn reload(
        &mut self,
        now: u64,
        apply: impl FnOnce(&ClientConfig) -> Result<(), CredentialsError>,
    ) -> Result<bool, CredentialsError> {
        let stamps = self.credentials.stamps();
        let crls_version = self.crls.version();
        if stamps == self.stamps && crls_version == self.crls_version {
            return Ok(false);
        }
        let loaded = self.credentials.load(&self.crls, now)?;
        let path = || self.credentials.cert.clone();
        if loaded.identity != self.current.identity {
            return Err(CredentialsError::IdentityChanged {
                path: path(),
                held: Box::new(self.current.identity.clone()),
                found: Box::new(loaded.identity),
            });
        }
        if let Some(source) = &loaded.fault
            && self.current.fault.is_none()
            && now <= self.current.not_after
        {
            let (path, source) = (path(), source.clone());
            return Err(CredentialsError::NoBetter { path, source });
        }
        apply(&loaded.tls)?;
        self.current = loaded;
        self.crls_version = crls_version;
        let are_new = stamps != self.stamps;
        self.stamps = stamps;
        Ok(are_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Files, NODE, Pki};

    /// A machine may boot with a wrong clock that is corrected a minute later. It collects samples
    /// in the meantime.
    #[test]
    fn lasting_credentials_start_at_any_time() {
        let files = Files::new();
        for now in [1, Pki::NOW - 30 * 86_400, Pki::NOW, Pki::NOW + 400 * 86_400] {
            let lasting =
                WatchedCredentials::lasting(&files.credentials(), ServerCrls::default(), now);
            assert!(lasting.is_ok(), "{now}: {:?}", lasting.err());
        }
    }

    /// New files are checked before any of them is used. Until all are valid, the last valid ones
    /// stay in use, and each reload reads the files again.
    #[test]
    fn a_client_takes_new_files_together_or_not_at_all() {
        let files = Files::new();
        let mut client = WatchedCredentials::new(&files.credentials(), Pki::NOW).unwrap();
        let held = client.current().identity.clone();
        let next = files.pki.issue(&[NODE]);
        let other = files.pki.issue(&["spiffe://lizmon.internal/node/web2"]);
        let (key, ended) = (next.key.serialize_pem(), Pki::NOW + 366 * 86_400);
        // What is written, the time of the reload, and its result.
        type Step<'a> = (&'a str, &'a [(&'a str, String)], u64, Option<bool>);
        let foreign = Pki::new("another CA").issue(&[NODE]);
        let steps: [Step<'_>; 9] = [
            ("nothing new", &[], Pki::NOW, Some(false)),
            ("the new key alone", &[("key", key)], Pki::NOW, None),
            ("still that", &[], Pki::NOW, None),
            (
                "the certificate too",
                &[("cert", next.certificate.pem())],
                Pki::NOW,
                Some(true),
            ),
            (
                "another holder's pair",
                &[
                    ("cert", other.certificate.pem()),
                    ("key", other.key.serialize_pem()),
                ],
                Pki::NOW,
                None,
            ),
            (
                "ours by another CA",
                &[
                    ("cert", foreign.certificate.pem()),
                    ("key", foreign.key.serialize_pem()),
                ],
                Pki::NOW,
                None,
            ),
            ("still that", &[], Pki::NOW, None),
            (
                "ours again, but ended",
                &[
                    ("cert", next.certificate.pem()),
                    ("key", next.key.serialize_pem()),
                ],
                ended,
                None,
            ),
            ("and good", &[], Pki::NOW, Some(true)),
        ];
        for (story, writes, now, expected) in steps {
            for (name, text) in writes {
                files.write(name, text);
            }
            assert_eq!(client.reload(now, |_| Ok(())).ok(), expected, "{story}");
            assert_eq!(client.current().identity, held, "{story}");
        }
    }
}
