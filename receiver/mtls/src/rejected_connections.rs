//! Connections that were rejected before their first request: counted by cause, and logged.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::connection_slots::NoConnectionSlot;
use crate::rate_limited_log::RateLimitedLog;
use crate::refusal::RefusedCertificate;

/// Why no connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionCause {
    /// The client's certificate is not taken.
    Certificate,
    /// The handshake took too long.
    Slow,
    /// There is no slot: the address or the holder has as many connections as one may, or all have.
    TooMany,
    /// It had no certificate, or not yet, and made room for a newer connection.
    Evicted,
    /// Whatever else ends a handshake: no TLS, no version or suite of ours, a client that does not trust us, or leaves.
    Handshake,
}

impl RejectionCause {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Certificate,
        Self::Slow,
        Self::TooMany,
        Self::Evicted,
        Self::Handshake,
    ];

    /// As it is counted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Slow => "slow",
            Self::TooMany => "too_many",
            Self::Evicted => "evicted",
            Self::Handshake => "handshake",
        }
    }

    fn of(error: &io::Error) -> Self {
        if let Some(no_place) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return match no_place {
                NoConnectionSlot::Evicted => Self::Evicted,
                _ => Self::TooMany,
            };
        }
        match error.kind() {
            _ if refused(error).is_some() => Self::Certificate,
            io::ErrorKind::TimedOut => Self::Slow,
            _ => Self::Handshake,
        }
    }
}

/// Who did not get in: all counted, some told of.
#[derive(Debug, Default)]
pub struct RejectedConnections {
    counts: [AtomicU64; RejectionCause::ALL.len()],
    log: RateLimitedLog,
}

impl RejectedConnections {
    /// How many did not get in so far, for this cause.
    pub fn count(&self, cause: RejectionCause) -> u64 {
        self.counts[cause as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn record(&self, address: IpAddr, error: &io::Error) {
        let cause = RejectionCause::of(error);
        self.counts[cause as usize].fetch_add(1, Ordering::Relaxed);
        match cause {
            // Probes of balancers and scanners: every second, for ever.
            RejectionCause::Handshake => tracing::debug!(%address, %error, "no connection"),
            cause => self.log.say(|unsaid| {
                let shown = refused(error).map(|refused| refused.shown.as_str());
                tracing::warn!(%address, cause = cause.as_str(), shown, %error, unsaid, "turned away");
            }),
        }
    }
}

/// Whether a certificate ended the handshake.
fn refused(error: &io::Error) -> Option<&RefusedCertificate> {
    error.get_ref()?.downcast_ref()
}
