//! The certificate, key and CA of a client: read from files, checked, and read again when the files change.

mod error;
#[cfg(test)]
pub(crate) mod testing;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use lizmon_pki::anchors::{self, Anchors, AnchorsError};
use lizmon_pki::identity::Leaf;
use lizmon_pki::path::{Demand, Fault, Paths, Whose};
use lizmon_pki::pem::{self, PemError};
use lizmon_protocol::name::SpiffeId;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys};

pub use self::error::CredentialsError;
pub(crate) use self::error::Span;
pub(crate) use self::tls::{anonymous_tls, pinned_tls, provider, unverified_tls};
use self::tls::{trusting, with_protocol};
use crate::enrol::lists::ServerLists;
use crate::enrol::pair::Pair;
use crate::refusal::OwnChain;
pub use crate::verify::IdentityError;
use crate::verify::Servers;

/// Where a client's certificate, key and CA stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The client's certificate, followed by the issuing ones.
    pub cert: PathBuf,
    /// The private key to it.
    pub key: PathBuf,
    /// The certificates of the authorities we trust.
    pub ca: PathBuf,
}

/// Credentials that have been read and checked.
pub(crate) struct Loaded {
    pub(crate) identity: SpiffeId,
    /// The second after which the certificate is not good any more.
    pub(crate) not_after: u64,
    /// What a server that trusts the same roots would say against it.
    pub(crate) fault: Option<Fault>,
    /// To ask that again at another time.
    pub(crate) own: OwnChain,
    pub(crate) tls: ClientConfig,
    /// TLS to the same servers without the certificate, for what anyone may ask.
    pub(crate) anonymous: ClientConfig,
}

/// From when until when a certificate is good: epoch seconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

/// What tells one version of the files from the next: changed contents under the same fingerprint would need a write
/// of the same length in place within the clock's grain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint([Option<FileMark>; 3]);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileMark {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Credentials {
    /// Reads and checks everything, at `now` (epoch seconds). Nothing is half taken.
    pub(crate) fn load(&self, lists: &ServerLists, now: u64) -> Result<Loaded, CredentialsError> {
        self.load_for(Servers::All, lists, now)
    }

    /// The same, though the certificate may have ended, or not begun: no server takes it then.
    pub(crate) fn load_whenever(
        &self,
        lists: &ServerLists,
        now: u64,
    ) -> Result<Loaded, CredentialsError> {
        let at = self
            .term()
            .map_or(now, |term| now.min(term.not_after).max(term.not_before));
        self.load(lists, at)
    }

    /// The same, to speak to a `liz-ca` and to nobody else: what a receiver's key may be stolen for, it is not this.
    pub(crate) fn load_for_ca(&self, now: u64) -> Result<Loaded, CredentialsError> {
        self.load_for(Servers::CaAlone, &ServerLists::default(), now)
    }

    /// From when until when the certificate is good, whatever the time.
    pub(crate) fn term(&self) -> Result<Term, CredentialsError> {
        let chain = read_certificates("certificate", &self.cert)?;
        self.read_leaf(&chain[0]).map(|(_, term)| term)
    }

    /// Who the certificate speaks for, whatever the time.
    pub(crate) fn identity(&self) -> Result<SpiffeId, CredentialsError> {
        let chain = read_certificates("certificate", &self.cert)?;
        self.read_leaf(&chain[0]).map(|(identity, _)| identity)
    }

    fn load_for(
        &self,
        servers: Servers,
        lists: &ServerLists,
        now: u64,
    ) -> Result<Loaded, CredentialsError> {
        // What a crash left half done is finished. Where it cannot be, what follows says what is wrong.
        let _settled = Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
        }
        .settle();
        let chain = read_certificates("certificate", &self.cert)?;
        let (identity, term) = self.check_leaf(&chain[0], now)?;
        let key =
            pem::private_key(&read("key", &self.key)?).map_err(in_pem("private key", &self.key))?;
        let provider = Arc::new(provider());
        let anchors = read_roots(&self.ca)?;
        let own = own_chain(&chain, &anchors, &provider, term);
        let fault = own.fault(now);
        // rustls would refuse to show it, in words of its own.
        if let Some(source @ (Fault::CriticalExtension(Whose::Own) | Fault::Malformed(_))) = fault {
            let path = self.cert.clone();
            return Err(CredentialsError::Unusable { path, source });
        }
        let certified =
            CertifiedKey::from_der(chain, key, &provider).map_err(|source| match source {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    CredentialsError::KeyMismatch {
                        key: self.key.clone(),
                        cert: self.cert.clone(),
                    }
                }
                source => CredentialsError::Tls {
                    path: self.key.clone(),
                    source,
                },
            })?;
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let to_them = trusting(&anchors, servers, lists, provider).map_err(in_file(&self.ca))?;
        Ok(Loaded {
            identity,
            not_after: term.not_after,
            fault,
            own,
            anonymous: with_protocol(to_them.clone().with_no_client_auth()),
            tls: with_protocol(to_them.with_client_cert_resolver(resolver)),
        })
    }

    /// What the files look like now. Take it before [`Self::load`]: a change in between then shows at the next look.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint([&self.cert, &self.key, &self.ca].map(|path| FileMark::of(path)))
    }

    fn check_leaf(
        &self,
        leaf: &CertificateDer<'_>,
        now: u64,
    ) -> Result<(SpiffeId, Term), CredentialsError> {
        let path = || self.cert.clone();
        let (identity, term) = self.read_leaf(leaf)?;
        if now > term.not_after {
            let (path, not_after) = (path(), term.not_after);
            return Err(CredentialsError::Expired {
                path,
                not_after,
                now,
            });
        }
        if now < term.not_before {
            let (path, not_before) = (path(), term.not_before);
            return Err(CredentialsError::NotYetValid {
                path,
                not_before,
                now,
            });
        }
        Ok((identity, term))
    }

    fn read_leaf(&self, leaf: &CertificateDer<'_>) -> Result<(SpiffeId, Term), CredentialsError> {
        let in_identity = |source| CredentialsError::Identity {
            path: self.cert.clone(),
            source,
        };
        let leaf = Leaf::read(leaf).map_err(|error| in_identity(error.into()))?;
        let term = Term {
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        };
        Ok((leaf.spiffe_id, term))
    }
}

fn own_chain(
    chain: &[CertificateDer<'static>],
    anchors: &Anchors,
    provider: &CryptoProvider,
    term: Term,
) -> OwnChain {
    let paths = Paths::new(
        &anchors.roots,
        anchors.intermediates.clone(),
        Vec::new(),
        Demand::Nothing,
        provider.signature_verification_algorithms.all,
    );
    OwnChain {
        chain: chain.to_vec(),
        paths,
        term: (term.not_before, term.not_after),
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, CredentialsError> {
    std::fs::read(path).map_err(|source| CredentialsError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })
}

/// The authorities of a file. One that did not sign itself helps to build chains, and is not trusted for itself.
fn read_roots(path: &Path) -> Result<Anchors, CredentialsError> {
    const WHAT: &str = "CA certificate";
    anchors::read(&read(WHAT, path)?).map_err(|error| match error {
        AnchorsError::Pem(error) => in_pem(WHAT, path)(error),
        source => CredentialsError::Anchors {
            path: path.to_owned(),
            source,
        },
    })
}

/// What is wrong with a PEM file.
fn in_pem(what: &'static str, path: &Path) -> impl Fn(PemError) -> CredentialsError {
    move |source| {
        let path = path.to_owned();
        match source {
            PemError::Absent { .. } => CredentialsError::Absent { what, path },
            source => CredentialsError::Damaged { what, path, source },
        }
    }
}

fn in_file(path: &Path) -> impl Fn(rustls::Error) -> CredentialsError {
    move |source| CredentialsError::Tls {
        path: path.to_owned(),
        source,
    }
}

/// All certificates of a PEM file, at least one.
fn read_certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    pem::certificates(&read(what, path)?).map_err(in_pem(what, path))
}

impl FileMark {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Self {
            modified: metadata.modified().ok(),
            len: metadata.len(),
            inode,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Leaf, Pki};
    use super::*;

    const NODE: &str = "spiffe://lizmon.internal/node/web1";

    struct Files {
        dir: tempfile::TempDir,
        pki: Pki,
        leaf: Leaf,
    }

    impl Files {
        fn new() -> Self {
            let pki = Pki::new("root");
            let leaf = pki.issue(&[NODE]);
            let files = Self {
                dir: tempfile::tempdir().unwrap(),
                pki,
                leaf,
            };
            files.write("cert", &files.leaf.certificate.pem());
            files.write("key", &files.leaf.key.serialize_pem());
            files.write("ca", &files.pki.certificate.pem());
            files
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.dir.path().join(name), text).unwrap();
        }

        fn credentials(&self) -> Credentials {
            let at = |name| self.dir.path().join(name);
            Credentials {
                cert: at("cert"),
                key: at("key"),
                ca: at("ca"),
            }
        }

        fn check(&self, now: u64, expected: Result<(), &[&str]>) {
            let got = self.credentials().load(&ServerLists::default(), now);
            match (got, expected) {
                (Ok(_), Ok(())) => (),
                (Err(error), Err(parts)) => {
                    let text = error.to_string();
                    for part in parts {
                        assert!(text.contains(part), "{text}: should say {part:?}");
                    }
                }
                (got, expected) => panic!("got {:?}, expected {expected:?}", got.err()),
            }
        }
    }

    #[test]
    fn good_files_say_who_and_until_when() {
        let files = Files::new();
        let lists = ServerLists::default();
        let loaded = files.credentials().load(&lists, Pki::NOW).unwrap();
        assert_eq!(loaded.identity.to_string(), NODE);
        assert_eq!(loaded.not_after, 1_798_675_200);
    }

    #[test]
    fn bad_files_are_named() {
        let other = Pki::new("root").issue(&[NODE]);
        let pem = other.certificate.pem();
        let cases: &[(&str, Option<&str>, &[&str])] = &[
            ("cert", None, &["cannot read the certificate", "cert`"]),
            ("key", None, &["cannot read the key", "key`"]),
            ("ca", None, &["cannot read the CA certificate", "ca`"]),
            ("cert", Some(""), &["there is no certificate in", "cert`"]),
            ("key", Some("x"), &["there is no private key in", "key`"]),
            ("ca", Some("x"), &["there is no CA certificate in", "ca`"]),
            ("cert", Some(&pem[..200]), &["cannot be used", "cert`"]),
            ("cert", Some(&pem), &["does not belong", "key`", "cert`"]),
            (
                "key",
                Some(&other.key.serialize_pem()),
                &["does not belong"],
            ),
        ];
        for (name, text, parts) in cases {
            let files = Files::new();
            match text {
                Some(text) => files.write(name, text),
                None => std::fs::remove_file(files.dir.path().join(name)).unwrap(),
            }
            files.check(Pki::NOW, Err(parts));
        }
    }

    #[test]
    fn a_certificate_of_another_house_is_refused() {
        let files = Files::new();
        let stranger = files.pki.issue(&[]);
        files.write("cert", &stranger.certificate.pem());
        files.write("key", &stranger.key.serialize_pem());
        files.check(Pki::NOW, Err(&["is not one of lizmon's", "cert`"]));
    }

    #[test]
    fn the_time_is_checked() {
        const END: u64 = 1_798_675_200;
        const BEGIN: u64 = 1_767_225_600;
        let cases: &[(u64, Result<(), &[&str]>)] = &[
            (BEGIN - 1, Err(&["only in 1 second", "clock"])),
            (BEGIN, Ok(())),
            (END, Ok(())),
            (END + 1, Err(&["expired 1 second ago"])),
            (END + 86_400 * 3, Err(&["expired 3 days ago", "cert`"])),
        ];
        let files = Files::new();
        for (now, expected) in cases {
            files.check(*now, *expected);
        }
    }

    /// A machine that boots in another year samples and waits: its clock is set right a minute later.
    #[test]
    fn a_lasting_client_starts_whenever() {
        let files = Files::new();
        for now in [1, Pki::NOW - 30 * 86_400, Pki::NOW, Pki::NOW + 400 * 86_400] {
            let url: crate::BaseUrl = "https://localhost:8443".parse().unwrap();
            let lasting =
                crate::Client::lasting(url, &files.credentials(), ServerLists::default(), now);
            assert!(lasting.is_ok(), "{now}: {:?}", lasting.err());
        }
    }

    #[test]
    fn a_changed_file_changes_the_fingerprint() {
        let files = Files::new();
        let credentials = files.credentials();
        let before = credentials.fingerprint();
        assert_eq!(before, credentials.fingerprint());
        for name in ["cert", "key", "ca"] {
            let before = credentials.fingerprint();
            // A rename, as lizctl does it: another inode, whatever the clock says.
            let fresh = files.dir.path().join("fresh");
            std::fs::copy(files.dir.path().join(name), &fresh).unwrap();
            std::fs::rename(fresh, files.dir.path().join(name)).unwrap();
            assert_ne!(before, credentials.fingerprint(), "{name}");
        }
    }

    /// New files are checked before any of them is used; until all are good the client goes on with the last good ones,
    /// and looks again.
    #[test]
    fn a_client_takes_new_files_together_or_not_at_all() {
        let files = Files::new();
        let url: crate::BaseUrl = "https://localhost:8443".parse().unwrap();
        let mut client = crate::Client::new(url, &files.credentials(), Pki::NOW).unwrap();
        let held = client.identity().clone();
        let next = files.pki.issue(&[NODE]);
        let other = files.pki.issue(&["spiffe://lizmon.internal/node/web2"]);
        let (key, ended) = (next.key.serialize_pem(), Pki::NOW + 366 * 86_400);
        // What is written, and when which answer comes.
        type Step<'a> = (&'a str, &'a [(&'a str, String)], u64, Option<bool>);
        let foreign = Pki::new("another house").issue(&[NODE]);
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
                "somebody else's pair",
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
            assert_eq!(client.reload(now).ok(), expected, "{story}");
            assert_eq!(*client.identity(), held, "{story}");
        }
    }
}
