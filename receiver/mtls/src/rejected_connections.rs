//! Connections that were rejected before their first request: counted by cause, and logged.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::connection_slots::NoConnectionSlot;
use crate::proxy_protocol::ProxyHeaderError;
use crate::rate_limited_log::RateLimitedLog;
use crate::refusal::RefusedCertificate;

/// Why a connection was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionCause {
    /// The client's certificate was rejected.
    Certificate,
    /// The handshake timed out.
    Slow,
    /// No slot is free: the address or the holder is at its connection limit, or the server is at
    /// its total limit.
    TooMany,
    /// The connection had no client certificate, or not yet, and was closed to make room for a
    /// newer one.
    Evicted,
    /// A proxy that must send a PROXY protocol header sent none, or an invalid one.
    ProxyHeader,
    /// Any other handshake failure: not TLS, no common version or cipher suite, a client that does
    /// not trust us, or a client that disconnects.
    Handshake,
}

impl RejectionCause {
    /// All causes, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Certificate,
        Self::Slow,
        Self::TooMany,
        Self::Evicted,
        Self::ProxyHeader,
        Self::Handshake,
    ];

    /// The label used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Slow => "slow",
            Self::TooMany => "too_many",
            Self::Evicted => "evicted",
            Self::ProxyHeader => "proxy_header",
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
        let inner = error.get_ref();
        if inner.is_some_and(|inner| inner.is::<ProxyHeaderError>()) {
            return Self::ProxyHeader;
        }
        match error.kind() {
            _ if refused(error).is_some() => Self::Certificate,
            io::ErrorKind::TimedOut => Self::Slow,
            _ => Self::Handshake,
        }
    }
}

/// Counts all rejected connections and logs some of them.
#[derive(Debug, Default)]
pub struct RejectedConnections {
    counts: [AtomicU64; RejectionCause::ALL.len()],
    log: RateLimitedLog,
}

impl RejectedConnections {
    /// The number of connections rejected so far for this cause.
    pub fn count(&self, cause: RejectionCause) -> u64 {
        self.counts[cause as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn record(&self, address: IpAddr, error: &io::Error) {
        let cause = RejectionCause::of(error);
        self.counts[cause as usize].fetch_add(1, Ordering::Relaxed);
        match cause {
            // Load balancer probes and scanners may connect every second, forever.
            RejectionCause::Handshake => tracing::debug!(%address, %error, "connection ended before its first request"),
            cause => self.log.say(|unsaid| {
                let shown = refused(error).map(|refused| refused.shown.as_str());
                tracing::warn!(%address, cause = cause.as_str(), shown, %error, unsaid, "connection rejected");
            }),
        }
    }
}

/// Whether the handshake failed because of a certificate.
fn refused(error: &io::Error) -> Option<&RefusedCertificate> {
    error.get_ref()?.downcast_ref()
}
