//! Joins a CA, and renews certificates.

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

/// The parameters of a join.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// The URL of `liz-ca`.
    pub url: BaseUrl,
    /// The one-time token that authorizes one certificate.
    pub token: JoinToken,
    /// The fingerprint of the trusted root.
    pub fingerprint: RootFingerprint,
    /// The directory for NAME.crt, NAME.key and root.crt. It must exist.
    pub folder: PathBuf,
}

/// A new certificate that has been written to disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obtained {
    /// The identity in the certificate.
    pub identity: SpiffeId,
    /// The first second at which the whole chain is valid. It is in the future if the local clock
    /// is behind the CA's.
    pub not_before: u64,
    /// The last second at which the certificate is valid.
    pub not_after: u64,
    /// The files that were written.
    pub credentials: Credentials,
    /// Whether the file of roots has changed.
    pub roots_changed: bool,
}

/// Joins a CA, and writes the three files of a client. After a failure, call it again: it uses the
/// same key, so that the token still works if its answer was lost. If the join was already
/// complete, it detects that and changes nothing.
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
    // Fetch the roots again, now from a verified server: the CA may have a second root.
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
        Err(error) if is_new && error.is_final() => {
            pair.drop_waiting_key();
            let Some(key) = installed_key(&pair).filter(|_| error.is_identity_refused()) else {
                return Err(error);
            };
            // The token may have been used for the installed pair. The CA accepts it again with the
            // same key.
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

/// Renews a certificate: authenticates with the current certificate, requests the next one with a
/// new key, and replaces the pair. Also adds new roots of the CA to the file of roots, and removes
/// those that the CA no longer trusts.
///
/// The key is written to disk before the request. After a failure or a restart, the next call uses
/// the same key, and the CA returns the same certificate again.
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
        Err(error) if error.is_final() && !error.is_rate_limited() => {
            pair.drop_waiting_key();
            return Err(error);
        }
        leaf => leaf?,
    };
    let chain = ca.check(&certificates, leaf, &key, now, |id| *id == loaded.identity)?;
    // Write the roots first: the new chain may lead to a new root.
    let roots_changed = roots::write(&credentials.ca, &certificates.roots)?;
    pair.install(&pem(&chain.chain), &key.pem)?;
    show_new(url, credentials, now.max(chain.not_before)).await;
    Ok(obtained(chain, pair, credentials.ca.clone(), roots_changed))
}

/// Returns the key that an interrupted attempt left without a certificate, or stages a new key. The
/// flag tells whether the key is new.
fn next_key(pair: &CertificateFiles) -> Result<(NewKey, bool), EnrolError> {
    let waiting = pair.waiting_key()?;
    if let Some(Ok(key)) = waiting.map(|pem| NewKey::from_pem(&pem)) {
        return Ok((key, false));
    }
    let key = NewKey::generate()?;
    pair.stage_key(&key.pem)?;
    Ok((key, true))
}

/// Presents the new certificate to the CA. The CA retires the old one when it sees that the new one
/// is in use. A failure is harmless: the next renewal presents the new certificate too.
async fn show_new(url: &BaseUrl, credentials: &Credentials, now: u64) {
    let Ok(loaded) = credentials.load_for_ca(now) else {
        return;
    };
    if let Ok(ca) = Ca::new(url.clone(), loaded.tls, None) {
        let _ = ca.certificates().await;
    }
}

/// The installed key of a pair.
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

/// Fetches the root with this fingerprint, without verifying the server. The root is public, and
/// the fingerprint authenticates it.
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
