//! The activity on a connection: its requests in progress, and when it was last in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::Version;
use tokio::time::Instant;

use crate::client_quota::ClientQuota;
use crate::limits::{
    ANONYMOUS_LAST_ANSWER_AFTER, REQUESTS_AT_ONCE_ANONYMOUS_MAX, REQUESTS_AT_ONCE_PER_HOLDER_MAX,
};

/// No request has begun.
const NO_PROTOCOL: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// The activity on a connection.
#[derive(Debug)]
pub(crate) struct ConnectionActivity {
    opened: Instant,
    /// The age after which the next response is the last.
    last_answer_after: Duration,
    /// Whether the server stops.
    is_stopping: AtomicBool,
    /// The protocol of its requests.
    protocol: AtomicU8,
    /// The quota of the holder; `None` without a client certificate.
    holder: Option<Arc<ClientQuota>>,
    /// The number of requests in progress.
    working: AtomicU32,
    /// The number of responses that are being sent.
    sending: AtomicU32,
    /// When a request last ended or a response last made progress: milliseconds after `opened`.
    last: AtomicU64,
}

impl ConnectionActivity {
    pub(crate) fn unauthenticated() -> Self {
        Self {
            opened: Instant::now(),
            last_answer_after: ANONYMOUS_LAST_ANSWER_AFTER,
            is_stopping: AtomicBool::new(false),
            protocol: AtomicU8::new(NO_PROTOCOL),
            holder: None,
            working: AtomicU32::new(0),
            sending: AtomicU32::new(0),
            last: AtomicU64::new(0),
        }
    }

    pub(crate) fn of_holder(quota: Arc<ClientQuota>, last_answer_after: Duration) -> Self {
        Self {
            holder: Some(quota),
            last_answer_after,
            ..Self::unauthenticated()
        }
    }

    /// Marks the start of a request. Dropping the value marks that its response is sent.
    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> InFlightRequest {
        self.begin_of(self.holder.clone(), version)
    }

    /// The same for a request that counts as this holder's.
    pub(crate) fn begin_of(
        self: &Arc<Self>,
        holder: Option<Arc<ClientQuota>>,
        version: Version,
    ) -> InFlightRequest {
        let protocol = if version < Version::HTTP_2 {
            HTTP1
        } else {
            HTTP2
        };
        self.protocol.store(protocol, Ordering::Relaxed);
        self.working.fetch_add(1, Ordering::Relaxed);
        if let Some(holder) = &holder {
            holder.begin_work();
        }
        InFlightRequest {
            activity: self.clone(),
            holder,
            is_sending: false,
        }
    }

    /// Whether a request has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.protocol.load(Ordering::Relaxed) != NO_PROTOCOL
    }

    /// Whether requests are HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.protocol.load(Ordering::Relaxed) == HTTP2
    }

    /// From now on the next response is the last.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the next response is the last: the connection is too old, or the server stops.
    pub(crate) fn is_at_its_end(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed) || self.age() > self.last_answer_after
    }

    /// How long until the next response is the last.
    pub(crate) fn time_left(&self) -> Duration {
        self.last_answer_after.saturating_sub(self.age())
    }

    /// How long the connection has been open.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    fn in_flight(&self) -> u32 {
        self.working.load(Ordering::Relaxed) + self.sending.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        let millis = u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    /// Records that bytes were sent. Counts as activity if a response is being sent.
    pub(crate) fn note_sent(&self) {
        if self.sending.load(Ordering::Relaxed) > 0 {
            self.touch();
        }
    }

    /// When the connection reaches the idle `timeout` if no request arrives.
    pub(crate) fn idle_deadline(&self, timeout: Duration) -> Instant {
        if self.working.load(Ordering::Relaxed) > 0 {
            return Instant::now() + timeout;
        }
        self.opened + Duration::from_millis(self.last.load(Ordering::Relaxed)) + timeout
    }
}

/// A request in progress, or its response while it is sent.
#[derive(Debug)]
pub(crate) struct InFlightRequest {
    activity: Arc<ConnectionActivity>,
    /// The quota of its sender; `None` without a client certificate.
    holder: Option<Arc<ClientQuota>>,
    is_sending: bool,
}

impl InFlightRequest {
    /// The response is ready and is sent from now on.
    pub(crate) fn into_sending(mut self) -> Self {
        self.activity.sending.fetch_add(1, Ordering::Relaxed);
        self.activity.working.fetch_sub(1, Ordering::Relaxed);
        self.activity.touch();
        self.is_sending = true;
        self
    }

    /// Whether its response must say that it is the last on its connection. In HTTP/2 the
    /// connection says so itself (RFC 9113 section 6.8).
    pub(crate) fn is_last(&self) -> bool {
        !self.activity.is_http2() && self.activity.is_at_its_end()
    }

    /// Whether the client exceeds its limit of requests in progress.
    pub(crate) fn is_over_limit(&self) -> bool {
        match &self.holder {
            None => self.activity.in_flight() > REQUESTS_AT_ONCE_ANONYMOUS_MAX,
            Some(holder) => holder.in_work() > REQUESTS_AT_ONCE_PER_HOLDER_MAX,
        }
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.activity.touch();
        let count = match self.is_sending {
            true => &self.activity.sending,
            false => &self.activity.working,
        };
        count.fetch_sub(1, Ordering::Relaxed);
        if let Some(holder) = &self.holder {
            holder.end_work();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::limits::Limits;

    #[test]
    fn requests_at_and_over_what_a_sender_may_have_in_flight() {
        let unauthenticated = Arc::new(ConnectionActivity::unauthenticated());
        let quota = Arc::new(ClientQuota::new(&Limits {
            requests_per_second_max: NonZeroU32::MIN,
            ..Limits::default()
        }));
        // Two connections of one holder.
        let of_holder = || ConnectionActivity::of_holder(quota.clone(), Duration::MAX);
        let [one, two] = [(); 2].map(|()| Arc::new(of_holder()));
        for (connections, max) in [
            (
                [&unauthenticated, &unauthenticated],
                REQUESTS_AT_ONCE_ANONYMOUS_MAX,
            ),
            ([&one, &two], REQUESTS_AT_ONCE_PER_HOLDER_MAX),
        ] {
            let begun = |at: u32| connections[at as usize % 2].begin(Version::HTTP_11);
            let mut held: Vec<_> = (0..max).map(begun).collect();
            assert!(held.iter().all(|in_flight| !in_flight.is_over_limit()));
            assert!(begun(0).is_over_limit());
            let answered = held.pop().unwrap().into_sending();
            let again = begun(1);
            assert!(again.is_over_limit(), "an answer that is sent counts");
            drop((answered, again));
            assert!(!begun(1).is_over_limit());
        }
    }
}
