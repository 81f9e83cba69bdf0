//! `revoke`: revokes certificates, and pushes the CRLs to receivers.

use clap::Args;
use lizmon_ca::Error;
use lizmon_ca::authority::{Authority, Revocation, RevokeError};
use lizmon_ca::pki::{Reason, Serial};
use lizmon_client::Client;
use lizmon_protocol::name::{NodeName, Role};

use crate::context::Context;
use crate::flags::connection::ReceiversFlags;
use crate::unknown_certificates::{UnknownCertificate, UnknownCertificates};
use crate::{crl_push, output};

/// Revoke all certificates of a holder, or one, and push the CRLs to receivers
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl revoke web1 --reason key-compromise\n  \
                  lizctl revoke alice --role reader --receiver https://r1:8443 --receiver https://r2:8443 \\\n    \
                  --cert certs/operators/olga.crt --key certs/operators/olga.key --ca certs/root.crt\n  \
                  lizctl revoke --serial 5f0e6a0c7a3b4c5d8e9f00112233aabb"
)]
pub(crate) struct RevokeArgs {
    /// Name of the holder
    #[arg(value_name = "NAME", required_unless_present = "serial")]
    name: Option<NodeName>,
    /// Role of the holder: node, reader, operator, receiver, ca, summarizer or proxy
    #[arg(
        long,
        env = "LIZMON_ROLE",
        value_name = "ROLE",
        default_value = "node",
        conflicts_with = "serial"
    )]
    role: Role,
    /// Serial number of one certificate, as `lizctl list` shows it; also of an issuing CA
    #[arg(
        long,
        env = "LIZMON_SERIAL",
        value_name = "SERIAL",
        conflicts_with = "name"
    )]
    serial: Option<Serial>,
    /// Reason: unspecified, key-compromise, superseded, cessation-of-operation or
    /// privilege-withdrawn
    #[arg(
        long,
        env = "LIZMON_REASON",
        value_name = "REASON",
        default_value = "unspecified"
    )]
    reason: Reason,
    #[command(flatten)]
    receivers: ReceiversFlags,
}

/// `lizctl revoke`.
pub(crate) fn run(args: &RevokeArgs, context: &Context) -> anyhow::Result<()> {
    let begin = (context.stopwatch)();
    let now = (context.clock)();
    // First of all: stop if the certificate files cannot be used.
    let receivers = args.receivers.0.clients(context)?;
    let authority = context.authority(now)?;
    let (who, done) = match (&args.name, &args.serial) {
        (Some(name), _) => (
            format!("{} {name}", args.role),
            authority.revoke_holder(args.role, name, args.reason, now),
        ),
        (None, Some(serial)) => (
            format!("the certificate {serial}"),
            authority.revoke(serial, args.reason, now),
        ),
        (None, None) => return Err(crate::failure::Exit::Usage.into()),
    };
    let unknown_here = match done {
        Ok(done) => {
            show(&who, &done)?;
            None
        }
        // Receivers may have seen certificates that this ledger does not know.
        Err(
            error
            @ Error::Revoke(RevokeError::UnknownHolder { .. } | RevokeError::UnknownSerial(_)),
        ) if !receivers.is_empty() => Some(error),
        Err(error) => return Err(error.into()),
    };
    if receivers.is_empty() {
        output::note(format_args!(
            "receivers that read {} refuse it within a second; copy that file to others, or name them with --receiver",
            authority.files().crl.display(),
        ));
        return Ok(());
    }
    // Push what is known before asking for more.
    let pushed = match unknown_here {
        None => crl_push::push(&authority, &receivers, context, begin),
        Some(_) => Ok(()),
    };
    // Receivers no longer answer an operator who has just revoked their own certificate.
    let is_own = |client: &Client| {
        let own = client.identity();
        Some(&own.name) == args.name.as_ref() && own.role == args.role
    };
    if pushed.is_err() || receivers.iter().any(is_own) {
        return pushed;
    }
    let seen = UnknownCertificates::query(&receivers, &authority, context)?;
    let revoked = revoke_unknown(args, &seen, &authority, now)?;
    match (unknown_here, revoked) {
        (Some(error), false) => {
            seen.finish()?;
            Err(error.into())
        }
        (_, true) => crl_push::push(&authority, &receivers, context, begin),
        (None, false) => Ok(()),
    }
}

/// Revokes certificates of this holder, or with this serial, that receivers have seen and the
/// ledger does not know.
fn revoke_unknown(
    args: &RevokeArgs,
    seen: &UnknownCertificates,
    authority: &Authority,
    now: u64,
) -> anyhow::Result<bool> {
    let is_meant = |seen: &&UnknownCertificate| {
        let identity = &seen.certificate.identity;
        let is_holder = args.name.as_ref() == Some(&identity.name) && args.role == identity.role;
        let asked = args.serial.as_ref().map(Serial::to_string);
        seen.of_this_ca && (is_holder || asked.as_ref() == Some(&seen.serial()))
    };
    let mut revoked = false;
    for seen in seen.unknown.iter().filter(is_meant) {
        let serial = seen.serial().parse()?;
        let done = authority.revoke_unknown(&serial, args.reason, now)?;
        if !done.revoked_unknown.is_empty() {
            show(&seen.certificate.identity.to_string(), &done)?;
            revoked = true;
        }
    }
    Ok(revoked)
}

fn show(who: &str, done: &Revocation) -> anyhow::Result<()> {
    for serial in &done.revoked_unknown {
        output::line(format_args!(
            "revoked the certificate {serial}, which this ledger does not know"
        ))?;
    }
    if done.revoked.is_empty() && done.revoked_unknown.is_empty() {
        output::line(format_args!("{who}: no certificate was valid"))?;
    }
    for entry in &done.revoked {
        output::line(format_args!(
            "revoked {} {}: serial {}",
            entry.profile, entry.name, entry.serial
        ))?;
    }
    if done.tokens_withdrawn > 0 {
        let plural = if done.tokens_withdrawn == 1 { "" } else { "s" };
        output::line(format_args!(
            "withdrew {} join token{plural}",
            done.tokens_withdrawn
        ))?;
    }
    for crl in &done.crls {
        output::line(format_args!(
            "signed number {} of {}",
            crl.number, crl.issuer
        ))?;
    }
    Ok(())
}
