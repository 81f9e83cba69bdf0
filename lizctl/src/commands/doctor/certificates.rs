//! Certificates and CRLs in files: whose, until when, and whether a receiver would accept them.

use std::path::Path;

use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_ca::pki::verify::{Trusted, VerifyError, verify};
use lizmon_client::{BaseUrl, CredentialsError};
use lizmon_pki::credentials::LoadedCredentials;
use lizmon_pki::crl::{Crl, CrlStatus};
use lizmon_pki::date::{ApproxDuration, rfc3339};
use lizmon_pki::error_chain::in_one_line;
use lizmon_pki::server_crls::ServerCrls;

use super::report::{Report, Subject};
use super::target::Target;

/// A CA that ends sooner than this must be rotated: that takes days in a fleet.
const AUTHORITY_END_SECS: u64 = 30 * 86_400;

/// Checks certificate, key and roots, and loads them. The certificate may have ended: servers can
/// be asked without it.
pub(super) fn check(target: &Target, now: u64, report: &mut Report) -> Option<LoadedCredentials> {
    check_authorities(target, now, report);
    let credentials = target.credentials()?;
    let crls = ServerCrls::default();
    let loaded = match credentials.load_at_any_time(&crls, now) {
        Ok(loaded) => loaded,
        // Reported with the files.
        Err(CredentialsError::Unreadable { .. }) => return None,
        Err(error) => {
            report.failed(
                Subject::Certificate,
                code_of(&error),
                in_one_line(&error),
                "the message names the file: put the right one there, or join again with a token",
            );
            return None;
        }
    };
    report.identify(&loaded.identity);
    let (shown, end) = (credentials.cert.display(), rfc3339(loaded.not_after));
    match credentials.validity() {
        Ok(validity) if now > validity.not_after => report.failed(
            Subject::Certificate,
            "expired",
            format_args!(
                "{shown} has ended {} ago, on {end}",
                ApproxDuration(now - validity.not_after)
            ),
            "join again with a token, or issue a new one with lizctl; if the date is right, set this machine's clock",
        ),
        Ok(validity) if now < validity.not_before => report.failed(
            Subject::Certificate,
            "not-yet-valid",
            format_args!(
                "{shown} begins only in {}, on {}",
                ApproxDuration(validity.not_before - now),
                rfc3339(validity.not_before)
            ),
            "set this machine's clock, or the CA's, whichever is wrong",
        ),
        // liz-ca's certificates are renewed at two thirds of their life.
        Ok(validity) if is_late(validity.not_before, validity.not_after, now) => report.warning(
            Subject::Certificate,
            "not-renewed",
            format_args!(
                "{shown} ends in {}, on {end}, and was not renewed",
                ApproxDuration(validity.not_after - now)
            ),
            "see the daemon's log for why, or renew it by hand: lizctl renew",
        ),
        _ => match loaded.fault.as_ref() {
            Some(fault) => report.failed(
                Subject::Certificate,
                "not-of-these-roots",
                format_args!("{shown}: {fault}"),
                "put the root of the CA that issued it into the file of roots, or have one issued by that CA",
            ),
            None => report.ok(
                Subject::Certificate,
                format_args!("{shown} belongs to its key, is of these roots, and ends on {end}"),
            ),
        },
    }
    Some(loaded)
}

fn code_of(error: &CredentialsError) -> &'static str {
    match error {
        CredentialsError::KeyMismatch { .. } => "key-of-another",
        _ => "unusable",
    }
}

/// How clients reach a server that shows this certificate: by its first name.
pub(super) fn own_url(cert: &Path, port: u16) -> Option<BaseUrl> {
    let items = inspect(&std::fs::read(cert).ok()?).ok()?;
    let names = items.into_iter().find_map(|item| match item {
        Item::Certificate {
            names, ca: false, ..
        } => Some(names),
        _ => None,
    })?;
    let name = names.into_iter().next()?;
    let host = match name.contains(':') {
        true => format!("[{name}]"),
        false => name,
    };
    format!("https://{host}:{port}").parse().ok()
}

/// Past five sixths of its life, a certificate was not renewed: as the receiver's health judges.
fn is_late(begin: u64, end: u64, now: u64) -> bool {
    now > end.saturating_sub(end.saturating_sub(begin) / 6)
}

/// The CAs in the files: the root, and those behind the certificate.
fn check_authorities(target: &Target, now: u64, report: &mut Report) {
    let mut seen = Vec::new();
    for file in target.ca.iter().chain(&target.cert) {
        let items = std::fs::read(file)
            .ok()
            .and_then(|bytes| inspect(&bytes).ok());
        for item in items.into_iter().flatten() {
            let Item::Certificate {
                subject,
                not_after,
                ca: true,
                sha256,
                ..
            } = item
            else {
                continue;
            };
            if seen.contains(&sha256) {
                continue;
            }
            seen.push(sha256);
            check_authority(file, &subject, not_after, now, report);
        }
    }
}

fn check_authority(file: &Path, subject: &str, not_after: u64, now: u64, report: &mut Report) {
    let (shown, end) = (file.display(), rfc3339(not_after));
    let remedy =
        "replace the CA step by step: lizctl rotate issuing --next, lizctl rotate root --next";
    if now > not_after {
        report.failed(
            Subject::Certificate,
            "authority-expired",
            format_args!("{subject} in {shown} has ended on {end}"),
            remedy,
        );
    } else if not_after - now < AUTHORITY_END_SECS {
        report.warning(
            Subject::Certificate,
            "authority-ends",
            format_args!("{subject} in {shown} ends on {end}, and all that it signed"),
            remedy,
        );
    }
}

/// Checks the file of CRLs, and the certificate by it.
pub(super) fn check_crl_file(target: &Target, now: u64, report: &mut Report) {
    let Some(file) = &target.crl else {
        return;
    };
    // A file that cannot be read was reported with the other files.
    let Ok(pem) = std::fs::read(file) else {
        return;
    };
    check_crls(&pem, &file.display().to_string(), now, report);
    check_revocation(&pem, target, now, report);
}

/// Checks the age of CRLs.
pub(super) fn check_crls(pem: &[u8], place: &str, now: u64, report: &mut Report) {
    let (crls, unusable) = Crl::read_usable(pem);
    for why in unusable {
        report.failed(
            Subject::Crl,
            "crl-unusable",
            format_args!("{place}: {why}"),
            "copy certs/crl.pem of the CA's folder there",
        );
    }
    if crls.is_empty() {
        return report.failed(
            Subject::Crl,
            "no-crl",
            format_args!("{place} has no CRL in it"),
            "copy certs/crl.pem of the CA's folder there",
        );
    }
    let statuses = || crls.iter().map(Crl::status);
    let late = statuses().filter(|crl| crl.is_due(now));
    let is_late = late.map(|crl| report_late(crl, place, now, report)).count() > 0;
    if !is_late && let Some(first) = statuses().map(|crl| crl.next_update).min() {
        report.ok(
            Subject::Crl,
            format_args!(
                "{place}: {} CRLs, the first ends on {}",
                crls.len(),
                rfc3339(first)
            ),
        );
    }
}

fn report_late(crl: &CrlStatus, place: &str, now: u64, report: &mut Report) {
    const REMEDY: &str = "is liz-ca running? Any lizctl command on the CA's folder, such as lizctl sign-crl, signs a new one";
    let (issuer, end) = (&crl.issuer, rfc3339(crl.next_update));
    if now > crl.next_update {
        report.failed(
            Subject::Crl,
            "crl-expired",
            format_args!("{place}: the CRL of {issuer} has ended on {end}: receivers refuse everyone three days after that"),
            REMEDY,
        );
    } else {
        report.warning(
            Subject::Crl,
            "crl-old",
            format_args!("{place}: the CRL of {issuer} is past half its life, and ends on {end}"),
            REMEDY,
        );
    }
}

/// Whether a receiver with these CRLs would refuse the certificate.
pub(super) fn check_revocation(crls_pem: &[u8], target: &Target, now: u64, report: &mut Report) {
    let (Some(cert), Some(ca)) = (&target.cert, &target.ca) else {
        return;
    };
    let (Ok(chain), Ok(roots)) = (std::fs::read(cert), std::fs::read(ca)) else {
        return;
    };
    let trusted = Trusted {
        roots_pem: &roots,
        crls_pem,
    };
    if let Err(VerifyError::Revoked(what)) = verify(&chain, trusted, now) {
        report.failed(
            Subject::Certificate,
            "revoked",
            format_args!("{}: {what} is revoked", cert.display()),
            "have a new one issued: lizctl join-token NAME on the CA's machine, then lizctl join here",
        );
    }
}
