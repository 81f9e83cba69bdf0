//! `revoke` and `sign-crl`, which tell receivers at once.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use lizmon_ca::authority::{Authority, Revocation};
use lizmon_ca::crl::Reason;
use lizmon_ca::error::Error;
use lizmon_ca::ledger::Phase;
use lizmon_ca::profile::{Profile, Serial};
use lizmon_client::Client;
use lizmon_protocol::name::{NodeName, Role};
use lizmon_protocol::problem::Code;

use crate::cli::{self, Context};
use crate::connect::Receivers;
use crate::output;
use crate::seen::{Seen, Unknown};

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Whose certificates
    #[arg(value_name = "NAME", required_unless_present = "serial")]
    name: Option<NodeName>,
    /// As what it was issued: node, reader, operator, receiver or ca
    #[arg(
        long,
        env = "LIZMON_ROLE",
        value_name = "ROLE",
        default_value = "node",
        conflicts_with = "serial"
    )]
    role: Role,
    /// One certificate, as `lizctl list` shows it; an issuing CA's too
    #[arg(
        long,
        env = "LIZMON_SERIAL",
        value_name = "SERIAL",
        conflicts_with = "name"
    )]
    serial: Option<Serial>,
    /// unspecified, key-compromise, superseded, cessation-of-operation or privilege-withdrawn
    #[arg(
        long,
        env = "LIZMON_REASON",
        value_name = "REASON",
        default_value = "unspecified"
    )]
    reason: Reason,
    #[command(flatten)]
    receivers: Receivers,
}

/// `lizctl revoke`.
pub(crate) fn revoke(args: &Revoke, context: &Context) -> anyhow::Result<()> {
    let begin = (context.stopwatch)();
    let now = (context.clock)();
    // Before anything is done: files that cannot be used are a reason to stop.
    let receivers = args.receivers.clients(now)?;
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
        // The receivers may have seen what this ledger does not know.
        Err(error @ (Error::UnknownHolder { .. } | Error::UnknownSerial(_)))
            if !receivers.is_empty() =>
        {
            Some(error)
        }
        Err(error) => return Err(error.into()),
    };
    if receivers.is_empty() {
        output::note(format_args!(
            "receivers that read {} refuse it within a second; to others copy that file, or name them with --receiver",
            authority.files().crl.display(),
        ));
        return Ok(());
    }
    // First what is known, and at once.
    let told = match unknown_here {
        None => tell(&authority, &receivers, context, begin),
        Some(_) => Ok(()),
    };
    // Nobody there would answer who has just ended their own certificate.
    let is_own = |client: &Client| {
        let own = client.identity();
        Some(&own.name) == args.name.as_ref() && own.role == args.role
    };
    if told.is_err() || receivers.iter().any(is_own) {
        return told;
    }
    let seen = Seen::ask(&receivers, &authority, context)?;
    let ended = end_unknown(args, &seen, &authority, now)?;
    match (unknown_here, ended) {
        (Some(error), false) => {
            seen.complete()?;
            Err(error.into())
        }
        (_, true) => tell(&authority, &receivers, context, begin),
        (None, false) => Ok(()),
    }
}

/// Ends what receivers have seen of this holder, or by this number, and the ledger does not know.
fn end_unknown(
    args: &Revoke,
    seen: &Seen,
    authority: &Authority,
    now: u64,
) -> anyhow::Result<bool> {
    let is_meant = |seen: &&Unknown| {
        let identity = &seen.certificate.identity;
        let is_holder = args.name.as_ref() == Some(&identity.name) && args.role == identity.role;
        let asked = args.serial.as_ref().map(Serial::to_string);
        seen.of_this_ca && (is_holder || asked.as_ref() == Some(&seen.serial()))
    };
    let mut ended = false;
    for seen in seen.unknown.iter().filter(is_meant) {
        let serial = seen.serial().parse()?;
        let done = authority.revoke_unknown(&serial, args.reason, now)?;
        if !done.revoked_unknown.is_empty() {
            show(&seen.certificate.identity.to_string(), &done)?;
            ended = true;
        }
    }
    Ok(ended)
}

#[derive(Debug, Args)]
pub(crate) struct SignCrl {
    /// Let the numbers go on from here: the highest that a receiver holds, after a backup was restored
    #[arg(long, env = "LIZMON_ABOVE", value_name = "NUMBER")]
    above: Option<u64>,
    /// How long the lists live from now on; the root's runs to the issuing CA's end
    #[arg(long, env = "LIZMON_CRL_DAYS", value_name = "DAYS", value_parser = cli::days())]
    crl_days: Option<u32>,
    #[command(flatten)]
    receivers: Receivers,
}

/// `lizctl sign-crl`.
pub(crate) fn sign_crl(args: &SignCrl, context: &Context) -> anyhow::Result<()> {
    let begin = (context.stopwatch)();
    let now = (context.clock)();
    let receivers = args.receivers.clients(now)?;
    let authority = context.authority(now)?;
    if let Some(days) = args.crl_days {
        authority.set_crl_days(days)?;
    }
    for crl in authority.sign_crls(args.above, now)? {
        output::line(format_args!(
            "signed number {} of {}, until {}",
            crl.number,
            crl.issuer,
            output::date(crl.next_update)
        ))?;
    }
    tell(&authority, &receivers, context, begin)
}

fn show(who: &str, done: &Revocation) -> anyhow::Result<()> {
    for serial in &done.revoked_unknown {
        output::line(format_args!(
            "revoked the certificate {serial}, which this ledger does not know"
        ))?;
    }
    if done.revoked.is_empty() && done.revoked_unknown.is_empty() {
        output::line(format_args!("{who}: nothing was valid any more"))?;
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

/// Hands the current revocation lists to every receiver, whatever becomes of the others, and says how long after
/// `begin` each had them.
pub(crate) fn tell(
    authority: &Authority,
    receivers: &[Client],
    context: &Context,
    begin: Duration,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let mut failed = None;
    for receiver in receivers {
        match runtime.block_on(hand_over(authority, receiver, context)) {
            Ok(()) => {
                let taken = (context.stopwatch)().saturating_sub(begin);
                output::line(format_args!(
                    "{} has the revocation lists, {} ms after this command began",
                    receiver.url(),
                    taken.as_millis()
                ))?;
            }
            Err(error) => {
                output::note(format_args!("{}: {error:#}", receiver.url()));
                // The first failure says the exit code.
                failed.get_or_insert((receiver.url(), error));
            }
        }
    }
    match failed {
        None => Ok(()),
        Some((url, error)) => Err(error.context(format!(
            "{url} still trusts what it trusted: give it {}, or run this again",
            authority.files().crl.display()
        ))),
    }
}

/// How often lists are signed again for one receiver: once for each CA that there may be in a rotation.
const SIGNED_AGAIN_MAX: usize = 4;

/// Hands the lists to one receiver. Where it holds one with a higher number, which this CA signed and has forgotten, they
/// are signed again beyond that number.
async fn hand_over(
    authority: &Authority,
    receiver: &Client,
    context: &Context,
) -> anyhow::Result<()> {
    for _ in 0..SIGNED_AGAIN_MAX {
        let done = receiver.put_crl(&body(authority)?, (context.clock)()).await;
        let Some(held) = done.as_ref().err().and_then(held_number) else {
            return Ok(done?);
        };
        let above = held.parse().with_context(|| {
            format!("it holds a list with the number {held}, which is higher than this CA can count: replace the CA with `lizctl rotate`")
        })?;
        output::note(format_args!(
            "{} holds a list with the number {held}: signing beyond it",
            receiver.url()
        ));
        for crl in authority.sign_crls(Some(above), (context.clock)())? {
            output::line(format_args!(
                "signed number {} of {}",
                crl.number, crl.issuer
            ))?;
        }
    }
    Ok(receiver
        .put_crl(&body(authority)?, (context.clock)())
        .await?)
}

/// The number that the receiver says it holds, where ours is not higher.
fn held_number(error: &lizmon_client::Error) -> Option<String> {
    match error {
        lizmon_client::Error::Refused {
            problem: Some(problem),
            ..
        } if problem.code == Code::CrlNotNewer => number_in_force(problem.detail.as_deref()?),
        _ => None,
    }
}

/// `41` of "… has number 3, number 41 is in force: …".
fn number_in_force(detail: &str) -> Option<String> {
    let (before, _) = detail.split_once(" is in force")?;
    let (_, number) = before.rsplit_once("number ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.to_owned())
}

/// `crl.pem`, and the certificates of the issuing CAs: in a rotation a receiver may never have seen the next one's, and
/// takes no list of a stranger.
fn body(authority: &Authority) -> anyhow::Result<Vec<u8>> {
    let path = &authority.files().crl;
    let mut body =
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    for ca in authority.generations()? {
        if ca.entry.profile == Profile::Issuing && ca.phase <= Phase::Old {
            body.extend_from_slice(ca.entry.pem.as_bytes());
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::number_in_force;

    #[test]
    fn the_number_that_a_receiver_holds_is_found() {
        let of = |numbers: &str| {
            format!("the list of CN=number 7 has {numbers} in force: sign a new one")
        };
        let cases = [
            (of("number 3, number 41 is"), Some("41")),
            (
                of("number 3, number 1849688400123456 is"),
                Some("1849688400123456"),
            ),
            (
                of("no number, number 730750818665451459101842416358141509827966271487 is"),
                Some("730750818665451459101842416358141509827966271487"),
            ),
            (of("number 3, number x is"), None),
            (of("number 3, number  is"), None),
            ("something else".to_owned(), None),
            (String::new(), None),
        ];
        for (detail, expected) in cases {
            assert_eq!(number_in_force(&detail).as_deref(), expected, "{detail}");
        }
    }
}
