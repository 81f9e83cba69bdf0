//! What `join` and `renew` print about the certificate they obtained.

use lizmon_enrol::Obtained;

use crate::output;

pub(crate) fn show(obtained: &Obtained) -> anyhow::Result<()> {
    output::line(format_args!(
        "{} {}: {}, key {}, until {}",
        obtained.identity.role,
        obtained.identity.name,
        obtained.credentials.cert.display(),
        obtained.credentials.key.display(),
        output::date(obtained.not_after),
    ))
}
