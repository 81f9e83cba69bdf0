//! Pushes the CRLs of this CA to receivers.

use std::time::Duration;

use anyhow::Context as _;
use lizmon_ca::authority::Authority;
use lizmon_ca::ledger::Phase;
use lizmon_ca::pki::Profile;
use lizmon_client::Client;
use lizmon_protocol::problem::Code;

use crate::context::Context;
use crate::{output, runtime};

/// Pushes the current CRLs to every receiver, even if some fail, and prints how long after `begin`
/// each had them.
pub(crate) fn push(
    authority: &Authority,
    receivers: &[Client],
    context: &Context,
    begin: Duration,
) -> anyhow::Result<()> {
    let runtime = runtime::current_thread()?;
    let mut failed = None;
    for receiver in receivers {
        match runtime.block_on(push_to(authority, receiver, context.clock)) {
            Ok(()) => {
                let taken = (context.stopwatch)().saturating_sub(begin);
                output::line(format_args!(
                    "{} has the CRLs, {} ms after this command began",
                    receiver.url(),
                    taken.as_millis()
                ))?;
            }
            Err(error) => {
                output::note(format_args!("{}: {error:#}", receiver.url()));
                // The first failure sets the exit code.
                failed.get_or_insert((receiver.url(), error));
            }
        }
    }
    match failed {
        None => Ok(()),
        Some((url, error)) => Err(error.context(format!(
            "{url} does not have the new CRLs: give it {}, or run this command again",
            authority.files().crl.display()
        ))),
    }
}

/// How often the CRLs are signed again for one receiver: once per CA that can exist in a rotation.
const SIGN_AGAIN_MAX: usize = 4;

/// Pushes the CRLs to one receiver. Where the receiver holds a CRL with a higher number (signed by
/// this CA before it was restored from a backup), the CRLs are signed again with numbers above it.
pub(crate) async fn push_to(
    authority: &Authority,
    receiver: &Client,
    clock: fn() -> u64,
) -> anyhow::Result<()> {
    for _ in 0..SIGN_AGAIN_MAX {
        let done = receiver.put_crl(&body(authority)?, clock()).await;
        let Some(held) = done.as_ref().err().and_then(held_number) else {
            return Ok(done?);
        };
        let above = held.parse().with_context(|| {
            format!("it holds a CRL with number {held}, which is higher than this CA can count: replace the CA with `lizctl rotate`")
        })?;
        output::note(format_args!(
            "{} holds a CRL with number {held}: signing above it",
            receiver.url()
        ));
        for crl in authority.sign_crls(Some(above), clock())? {
            output::line(format_args!(
                "signed number {} of {}",
                crl.number, crl.issuer
            ))?;
        }
    }
    Ok(receiver.put_crl(&body(authority)?, clock()).await?)
}

/// The CRL number that the receiver holds, if it refused ours because it is not higher.
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

/// `crl.pem` and the certificates of the issuing CAs: in a rotation a receiver may not have seen
/// the next one's certificate yet, and it refuses a CRL whose signer it does not know.
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
    fn parses_the_crl_number_in_a_refusal() {
        let of = |numbers: &str| {
            format!("the CRL of CN=number 7 has {numbers} in force: sign a new one")
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
