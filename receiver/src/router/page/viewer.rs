//! Who sees pages, and what pages are made of.

use lizmon_mtls::identity::Identity;
use lizmon_mtls::trust::Trust;
use lizmon_pki::date::ApproxDuration;
use lizmon_protocol::problem::Code;

use super::super::problem::Rejection;
use super::super::state::ReceiverState;
use crate::view::PageSources;

pub(super) fn sources<'a>(app: &'a ReceiverState, trust: &'a Trust, now: u64) -> PageSources<'a> {
    PageSources {
        table: &app.table,
        holders: &app.holders,
        seen: &app.seen,
        alarms: app.alarms.board(),
        history: &app.history,
        trust,
        now,
        sample_now: (app.sample_clock)(),
    }
}

/// A warning that the viewer's own certificate ends: one that is renewed never gets so far.
pub(super) fn own_end(viewer: &Identity, now: u64) -> Option<String> {
    let life = viewer.not_after.saturating_sub(viewer.not_before);
    let left = viewer.not_after.saturating_sub(now);
    (left < life / 6).then(|| {
        format!(
            "your certificate ends in {}: renew it with `lizctl renew`, or get a new one",
            ApproxDuration(left)
        )
    })
}

pub(super) fn no_certificate() -> Rejection {
    Rejection::from(Code::CertificateMismatch)
        .with_detail("present a reader's or an operator's certificate")
}
