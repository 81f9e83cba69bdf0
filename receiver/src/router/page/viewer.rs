//! Who sees pages, and what pages are made of.

use lizmon_mtls::trust::Trust;
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

pub(super) fn no_certificate() -> Rejection {
    Rejection::from(Code::CertificateMismatch)
        .with_detail("present a reader's or an operator's certificate")
}
