//! Joining and renewal.

use std::path::PathBuf;

use lizmon_pki::certificate_files::CertificateFiles;
use lizmon_pki::credentials::{Credentials, pinned_tls, unverified_tls};
use lizmon_protocol::enrol::{JoinToken, SIMPLE_ENROLL, SIMPLE_REENROLL};
use lizmon_protocol::name::SpiffeId;
use lizmon_transport::BaseUrl;
use rustls::pki_types::CertificateDer;

use crate::answer::{NewChain, pem};
use crate::ca::{Ca, NewKey, ShownCertificate};
use crate::error::EnrolError;
use crate::root_fingerprint::{RootFingerprint, RootFingerprints};
use crate::roots;

/// What is needed to join.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// Where `liz-ca` is.
    pub url: BaseUrl,
    /// Lets us have one certificate.
    pub token: JoinToken,
    /// The root that we trust.
    pub fingerprint: RootFingerprint,
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
pub async fn join(join: &JoinRequest, now: u64) -> Result<Obtained, EnrolError> {
    let pinned = pinned_root(&join.url, join.fingerprint).await?;
    let root_file = join.folder.join("root.crt");
    roots::refuse_others(&root_file, &pinned)?;
    let name = join.token.name();
    let pair = CertificateFiles {
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

    pair.finish_install()?;
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
    let loaded = credentials.load_for_ca(now)?;
    let pair = CertificateFiles {
        cert: credentials.cert.clone(),
        key: credentials.key.clone(),
    };
    pair.check_apart(&credentials.ca)?;
    pair.check_writable()?;
    let shown = ShownCertificate::new(loaded.own, loaded.anonymous, now);
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
fn next_key(pair: &CertificateFiles) -> Result<(NewKey, bool), EnrolError> {
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
fn installed_key(pair: &CertificateFiles) -> Option<NewKey> {
    NewKey::from_pem(&pair.installed_key().ok()??).ok()
}

fn obtained(chain: NewChain, pair: CertificateFiles, ca: PathBuf, roots_changed: bool) -> Obtained {
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

/// The root with this fingerprint, from whoever answers: it is public, and the fingerprint vouches for it.
async fn pinned_root(
    url: &BaseUrl,
    wanted: RootFingerprint,
) -> Result<CertificateDer<'static>, EnrolError> {
    let tls = unverified_tls().map_err(EnrolError::Tls)?;
    let anyone = Ca::new(url.clone(), tls, None)?;
    let roots = anyone.certificates().await?.roots;
    let found = roots.iter().map(|root| RootFingerprint::of(root)).collect();
    roots
        .into_iter()
        .find(|root| RootFingerprint::of(root) == wanted)
        .ok_or_else(|| EnrolError::Fingerprint {
            url: url.clone(),
            wanted,
            found: RootFingerprints::new(found),
        })
}
