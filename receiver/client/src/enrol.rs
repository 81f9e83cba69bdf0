//! Certificates over the network: joining with a token, and renewal with the certificate one has. RFC 7030, by `liz-ca`.
//!
//! ```text
//! join:   cacerts, unverified --fingerprint fits?--> TLS to exactly that root --> cacerts, token + request --> pair, root.crt
//! renew:  TLS by the current pair ------------------------------------------> cacerts, request ----------> pair, root.crt
//! ```
//!
//! Nothing is trusted before the fingerprint fits, and the token is sent to nobody who does not prove to be the `ca` of that
//! root. The key is made here and never leaves. What comes back is checked before a file is touched.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `answer` | certificates out of PKCS #7, and whether they are what was asked for |
//! | [`pair`] | certificate and key on disk, replaced as a pair |
//! | `parts` | a file's certificates and key replaced, what else it holds kept |
//! | `roots` | the file of roots, brought to what the CA trusts |
//! | [`schedule`] | when renewal is due: pure |
//! | [`renewer`] | renews for as long as a program runs |
//! | [`lists`] | revocation lists: fetched, and held against servers |

mod answer;
mod fingerprint;
pub mod lists;
pub mod pair;
mod parts;
pub mod renewer;
mod roots;
pub mod schedule;

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lizmon_protocol::enrol::{
    CACERTS, JoinToken, MEDIA_TYPE_REQUEST, SIMPLE_ENROLL, SIMPLE_REENROLL,
};
use lizmon_protocol::name::SpiffeId;
use lizmon_protocol::problem;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_TYPE;
use rustls::pki_types::CertificateDer;

use self::answer::{AnswerFlaw, CaCertificates, NewChain, pem, read_certificates};
pub use self::fingerprint::{Fingerprint, Fingerprints, MalformedFingerprint};
use self::pair::{FileError, Pair, SharedFile};
use crate::base_url::BaseUrl;
use crate::client::{ask_clock, http_client, retry_after};
use crate::credentials::{Credentials, pinned_tls, unverified_tls};
use crate::error::{Error, Seen, word_for};
use crate::refusal::OwnChain;

/// No answer with certificates is greater: a hundred of them.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What a refusal's text is cut to.
const TEXT_CHARS_MAX: usize = 400;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Nothing came back, or our own files are no good.
    #[error(transparent)]
    Exchange(#[from] Error),
    /// The CA will not.
    #[error("{url} {}: {text} (HTTP {status})", word_for(*status))]
    Refused {
        /// Which CA.
        url: BaseUrl,
        /// The HTTP status.
        status: u16,
        /// What it says.
        text: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It is the other server of ours.
    #[error(
        "{url} is a receiver, not liz-ca: liz-ca listens on a port of its own, 8444 unless told otherwise"
    )]
    IsReceiver {
        /// Which server.
        url: BaseUrl,
    },
    /// The root that was asked for is not the one of this CA.
    #[error(
        "{url} is not the CA with the fingerprint {wanted}, its roots have {found}: nothing was sent; \
         compare with `lizctl join-token` or `lizctl init-ca` on the CA, and mind the port"
    )]
    Fingerprint {
        /// Which CA.
        url: BaseUrl,
        /// What was given.
        wanted: Fingerprint,
        /// What is there.
        found: Fingerprints,
    },
    /// What came back is not what was asked for.
    #[error("the answer of {url} is not believed: {flaw}")]
    Answer {
        /// Which CA.
        url: BaseUrl,
        /// Why.
        flaw: AnswerFlaw,
    },
    /// Another CA's root is where ours would be written.
    #[error("`{}` is another CA's root: choose another folder with --out", .0.display())]
    OtherRoot(PathBuf),
    /// Two of the files are one, and renewal would write one part over the other.
    #[error(transparent)]
    Shared(#[from] SharedFile),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up with this root")]
    Tls(#[source] rustls::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system's random generator failed.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
}

impl EnrolError {
    /// Whether it is about who we are: asking again as the same will not help.
    pub fn is_refusal_of_us(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 401 | 403),
            Self::Exchange(error) => error.is_refusal_of_us(),
            _ => false,
        }
    }

    /// When the CA wants to be asked again, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether it is for a person to mend, here or at the CA, and a CA that is asked again soon can do nothing about it: what it
    /// gives cannot be used, or not be kept.
    pub fn is_for_long(&self) -> bool {
        matches!(
            self,
            Self::Answer { .. } | Self::File(_) | Self::Shared(_) | Self::OtherRoot(_)
        )
    }

    fn is_too_often(&self) -> bool {
        matches!(self, Self::Refused { status: 429, .. })
    }

    /// Whether the CA has decided: nothing that was sent can have been granted.
    fn is_decided(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if (400..500).contains(status) && *status != 408)
    }
}

/// What is needed to join.
#[derive(Debug, Clone)]
pub struct Join {
    /// Where `liz-ca` is.
    pub url: BaseUrl,
    /// Lets us have one certificate.
    pub token: JoinToken,
    /// The root that we trust.
    pub fingerprint: Fingerprint,
    /// Where NAME.crt, NAME.key and root.crt go. It must exist.
    pub folder: PathBuf,
}

/// A new certificate that has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obtained {
    /// Who it speaks for.
    pub identity: SpiffeId,
    /// Its first second, and of all that is above it: by a clock that is behind the CA's it may be to come.
    pub not_before: u64,
    /// Its last second.
    pub not_after: u64,
    /// Its files.
    pub credentials: Credentials,
    /// Whether the file of roots has changed.
    pub roots_changed: bool,
}

/// Joins: three files, ready for a program of ours. After a failure in the middle the same call goes on with the same key, so
/// that a token whose answer was lost is not lost; where all was done already, it finds that out and changes nothing.
pub async fn join(join: &Join, now: u64) -> Result<Obtained, EnrolError> {
    let pinned = pinned_root(&join.url, join.fingerprint).await?;
    let root_file = join.folder.join("root.crt");
    roots::refuse_others(&root_file, &pinned)?;
    let name = join.token.name();
    let pair = Pair {
        cert: join.folder.join(format!("{name}.crt")),
        key: join.folder.join(format!("{name}.key")),
    };
    pair.check_apart(&root_file)?;
    let tls = pinned_tls(&pinned).map_err(EnrolError::Tls)?;
    let ca = Ca::new(join.url.clone(), tls, None)?;
    // Again, now from one who has proven to be that root's: there may be a second root.
    let mut certificates = ca.certificates().await?;
    if !certificates.roots.contains(&pinned) {
        certificates.roots.push(pinned);
    }

    pair.settle()?;
    let (key, is_new) = next_key(&pair)?;
    let enroll = async |key: &NewKey| {
        let request = ca.post(SIMPLE_ENROLL, key);
        let request = request.basic_auth(name, Some(join.token.as_str()));
        ca.leaf(request).await
    };
    let (leaf, key) = match enroll(&key).await {
        Err(error) if is_new && error.is_decided() => {
            pair.drop_waiting_key();
            let Some(key) = installed_key(&pair).filter(|_| error.is_refusal_of_us()) else {
                return Err(error);
            };
            // The token may be the one that gave us what is here already: with the same key the CA says so.
            match enroll(&key).await {
                Ok(leaf) => (leaf, key),
                Err(_) => return Err(error),
            }
        }
        leaf => (leaf?, key),
    };
    let chain = ca.check(&certificates, leaf, &key, now, |id| id.name == *name)?;
    let roots_changed = roots::write(&root_file, &certificates.roots)?;
    pair.install(&pem(&chain.chain), &key.pem)?;
    Ok(obtained(chain, pair, root_file, roots_changed))
}

/// Renews: asks as who we are for the next certificate with a new key, and replaces the pair. Roots that the CA has come to
/// trust since, or trusts no more, are learned.
///
/// The key is on disk before the CA is asked. Whatever fails after that, now or after a restart, the next call asks with the
/// same key, for which the CA gives the same certificate again.
pub async fn renew(
    url: &BaseUrl,
    credentials: &Credentials,
    now: u64,
) -> Result<Obtained, EnrolError> {
    let loaded = credentials.load_for_ca(now).map_err(Error::from)?;
    let pair = Pair {
        cert: credentials.cert.clone(),
        key: credentials.key.clone(),
    };
    pair.check_apart(&credentials.ca)?;
    pair.check_writable()?;
    let shown = Shown::new(loaded.own, loaded.anonymous, now);
    let ca = Ca::new(url.clone(), loaded.tls, Some(shown))?;
    let certificates = ca.certificates().await?;
    roots::check_writable(&credentials.ca, &certificates.roots)?;
    let (key, _) = next_key(&pair)?;
    let leaf = match ca.leaf(ca.post(SIMPLE_REENROLL, &key)).await {
        Err(error) if error.is_decided() && !error.is_too_often() => {
            pair.drop_waiting_key();
            return Err(error);
        }
        leaf => leaf?,
    };
    let chain = ca.check(&certificates, leaf, &key, now, |id| *id == loaded.identity)?;
    // First the roots: the new chain may lead to a new one.
    let roots_changed = roots::write(&credentials.ca, &certificates.roots)?;
    pair.install(&pem(&chain.chain), &key.pem)?;
    show_new(url, credentials, now.max(chain.not_before)).await;
    Ok(obtained(chain, pair, credentials.ca.clone(), roots_changed))
}

/// The key that waits for its certificate since an attempt that was cut short, or a new one that waits now. Whether it is new.
fn next_key(pair: &Pair) -> Result<(NewKey, bool), EnrolError> {
    let waiting = pair.waiting_key()?;
    if let Some(Ok(key)) = waiting.map(|pem| NewKey::from_pem(&pem)) {
        return Ok((key, false));
    }
    let key = NewKey::generate()?;
    pair.stage_key(&key.pem)?;
    Ok((key, true))
}

/// Shows the new certificate to the CA, which ends the one before when it sees that the new one is in use. Where that
/// fails nothing is lost: the next renewal shows it too.
async fn show_new(url: &BaseUrl, credentials: &Credentials, now: u64) {
    let Ok(loaded) = credentials.load_for_ca(now) else {
        return;
    };
    if let Ok(ca) = Ca::new(url.clone(), loaded.tls, None) {
        let _ = ca.certificates().await;
    }
}

/// The key of a pair that is in its place.
fn installed_key(pair: &Pair) -> Option<NewKey> {
    NewKey::from_pem(&pair.installed_key().ok()??).ok()
}

fn obtained(chain: NewChain, pair: Pair, ca: PathBuf, roots_changed: bool) -> Obtained {
    Obtained {
        identity: chain.identity,
        not_before: chain.not_before,
        not_after: chain.not_after,
        credentials: Credentials {
            cert: pair.cert,
            key: pair.key,
            ca,
        },
        roots_changed,
    }
}

/// A key that was made here, and its signing request.
struct NewKey {
    pem: String,
    spki: Vec<u8>,
    request: Vec<u8>,
}

impl NewKey {
    fn generate() -> Result<Self, EnrolError> {
        Self::new(&KeyPair::generate()?)
    }

    /// The one key in a text that may hold a chain as well.
    fn from_pem(pem: &str) -> Result<Self, EnrolError> {
        let key = lizmon_pki::pem::private_key(pem.as_bytes());
        let key = key.map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Self::new(&KeyPair::try_from(&key)?)
    }

    /// The request says nothing but the key: the CA would not listen.
    fn new(pair: &KeyPair) -> Result<Self, EnrolError> {
        let request = CertificateParams::default().serialize_request(pair)?;
        Ok(Self {
            pem: pair.serialize_pem(),
            spki: pair.subject_public_key_info(),
            request: request.der().to_vec(),
        })
    }
}

/// The root with this fingerprint, from whoever answers: it is public, and the fingerprint vouches for it.
async fn pinned_root(
    url: &BaseUrl,
    wanted: Fingerprint,
) -> Result<CertificateDer<'static>, EnrolError> {
    let tls = unverified_tls().map_err(EnrolError::Tls)?;
    let anyone = Ca::new(url.clone(), tls, None)?;
    let roots = anyone.certificates().await?.roots;
    let found = roots.iter().map(|root| Fingerprint::of(root)).collect();
    roots
        .into_iter()
        .find(|root| Fingerprint::of(root) == wanted)
        .ok_or_else(|| EnrolError::Fingerprint {
            url: url.clone(),
            wanted,
            found: Fingerprints::new(found),
        })
}

/// A `liz-ca`, reached over TLS of some kind.
struct Ca {
    url: BaseUrl,
    http: reqwest::Client,
    shown: Option<Shown>,
}

/// The certificate that is shown to it.
struct Shown {
    own: OwnChain,
    anonymous: rustls::ClientConfig,
    now: u64,
}

impl Shown {
    fn new(own: OwnChain, anonymous: rustls::ClientConfig, now: u64) -> Self {
        Self {
            own,
            anonymous,
            now,
        }
    }
}

impl Ca {
    fn new(
        url: BaseUrl,
        tls: rustls::ClientConfig,
        shown: Option<Shown>,
    ) -> Result<Self, EnrolError> {
        let http =
            http_client(tls).map_err(|error| Error::from_transport(&url, error, Seen::default))?;
        Ok(Self { url, http, shown })
    }

    async fn failed(&self, error: reqwest::Error) -> Error {
        let Some(shown) = &self.shown else {
            return Error::from_transport(&self.url, error, Seen::default);
        };
        let mut error = Error::from_transport(&self.url, error, || shown.own.seen(shown.now));
        ask_clock(&mut error, &self.url, &shown.anonymous).await;
        error
    }

    async fn certificates(&self) -> Result<CaCertificates, EnrolError> {
        let body = self.send(self.http.get(self.at(CACERTS))).await?;
        CaCertificates::read(&body).map_err(|flaw| self.flawed(flaw))
    }

    fn post(&self, path: &str, key: &NewKey) -> RequestBuilder {
        self.http
            .post(self.at(path))
            .header(CONTENT_TYPE, MEDIA_TYPE_REQUEST)
            .body(STANDARD.encode(&key.request))
    }

    /// The one certificate that a request is answered with.
    async fn leaf(&self, request: RequestBuilder) -> Result<CertificateDer<'static>, EnrolError> {
        let found = read_certificates(&self.send(request).await?);
        let found = found.map_err(|flaw| self.flawed(flaw))?;
        match <[_; 1]>::try_from(found) {
            Ok([leaf]) => Ok(leaf),
            Err(other) => Err(self.flawed(AnswerFlaw::Count(other.len()))),
        }
    }

    fn check(
        &self,
        certificates: &CaCertificates,
        leaf: CertificateDer<'static>,
        key: &NewKey,
        now: u64,
        id: impl Fn(&SpiffeId) -> bool,
    ) -> Result<NewChain, EnrolError> {
        certificates
            .chain_of(leaf, id, &key.spki, now)
            .map_err(|flaw| self.flawed(flaw))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>, EnrolError> {
        self.send_for(request, ANSWER_BYTES_MAX).await
    }

    /// The same for an answer of at most so many bytes.
    async fn send_for(
        &self,
        request: RequestBuilder,
        bytes_max: usize,
    ) -> Result<Vec<u8>, EnrolError> {
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.failed(error).await.into()),
        };
        let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
        // Of the two only a receiver speaks RFC 9457.
        if is_problem(&response) {
            let url = self.url.clone();
            return Err(EnrolError::IsReceiver { url });
        }
        let mut body = Vec::new();
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(self.failed(error).await.into()),
            };
            if body.len() + chunk.len() > bytes_max {
                return Err(self.flawed(AnswerFlaw::TooLarge(bytes_max)));
            }
            body.extend_from_slice(&chunk);
        }
        if status == 200 {
            return Ok(body);
        }
        Err(EnrolError::Refused {
            url: self.url.clone(),
            status,
            text: one_line(&body),
            retry_after,
        })
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn flawed(&self, flaw: AnswerFlaw) -> EnrolError {
        EnrolError::Answer {
            url: self.url.clone(),
            flaw,
        }
    }
}

fn is_problem(response: &reqwest::Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(problem::MEDIA_TYPE.as_bytes()))
}

/// A stranger's words, safe to print on a terminal.
fn one_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words
        .join(" ")
        .chars()
        .take(TEXT_CHARS_MAX)
        .filter(|character| !character.is_control())
        .collect();
    if line.is_empty() {
        "no more is said: is it a liz-ca?".to_owned()
    } else {
        line
    }
}
