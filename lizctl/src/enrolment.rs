//! What `join` and `renew` say of the certificate they got.

use lizmon_client::enrol::Obtained;

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
