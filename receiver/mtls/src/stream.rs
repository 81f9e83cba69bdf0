//! A connection's stream. It closes when it has been idle for too long, or when its slot is needed.
//!
//! hyper has no idle timeout for HTTP/2, and pings do not count as activity. Only requests and
//! bytes of their responses do.

use std::future::Future as _;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::activity::ConnectionActivity;
use crate::connection_slots::{AddressSlot, ClientSlot, NoConnectionSlot};
use crate::rejected_connections::RejectedConnections;
use crate::unauthenticated_slots::UnauthenticatedSlot;

/// How many more incoming bytes to read after the last response, and for how long. If a connection
/// closes with unread bytes, the system resets it, and the response is lost.
const LINGER_BYTES_MAX: usize = 1 << 20;
const LINGER_TIMEOUT: Duration = Duration::from_millis(500);

/// The slot that a connection holds in addition to its address slot, until it closes.
#[derive(Debug)]
pub(crate) enum PeerSlot {
    /// A slot without a client certificate. It can be evicted, and its lifetime is limited.
    Anonymous {
        slot: UnauthenticatedSlot,
        lifetime: Duration,
        address: IpAddr,
        rejected: Arc<RejectedConnections>,
    },
    /// A slot of a holder.
    OfHolder(#[expect(dead_code, reason = "given back when it is dropped")] ClientSlot),
}

pin_project! {
    /// A stream that closes when it is idle for too long, and frees its slots when dropped.
    #[derive(Debug)]
    pub struct IdleStream<S> {
        #[pin]
        inner: S,
        #[pin]
        timer: Sleep,
        // Whom the timer wakes.
        woken: Option<Waker>,
        timeout: Duration,
        activity: Arc<ConnectionActivity>,
        _place: AddressSlot,
        held: PeerSlot,
        // How many more bytes to read after the last response.
        linger: Option<usize>,
    }
}

impl<S> IdleStream<S> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the deadline is the connection's own"
    )]
    pub(crate) fn new(
        inner: S,
        timeout: Duration,
        activity: Arc<ConnectionActivity>,
        slot: AddressSlot,
        held: PeerSlot,
    ) -> Self {
        let timer = tokio::time::sleep_until(activity.idle_deadline(timeout));
        Self {
            inner,
            timer,
            woken: None,
            timeout,
            activity,
            _place: slot,
            held,
            linger: None,
        }
    }

    /// Ready with an error once the connection has been idle for too long. Otherwise wakes the task
    /// when that may be the case.
    fn poll_idle(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut this = self.project();
        // Usually it is, and a poll would say no more.
        let is_set = this
            .woken
            .as_ref()
            .is_some_and(|woken| woken.will_wake(cx.waker()));
        if is_set && !this.timer.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            // Without budget the timer only says that it is pending, and wakes nobody.
            let has_budget = tokio::task::coop::has_budget_remaining();
            if this.timer.as_mut().poll(cx).is_pending() {
                *this.woken = has_budget.then(|| cx.waker().clone());
                return Poll::Pending;
            }
            let deadline = this.activity.idle_deadline(*this.timeout);
            if deadline <= this.timer.deadline() {
                return Poll::Ready(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the connection was idle for too long",
                ));
            }
            this.timer.as_mut().reset(deadline);
        }
    }

    /// Ready with an error once a connection without a client certificate reaches its maximum
    /// lifetime or is evicted, even if it is busy.
    fn poll_evicted(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Error> {
        let this = self.project();
        let PeerSlot::Anonymous {
            slot,
            lifetime,
            address,
            rejected,
        } = this.held
        else {
            return Poll::Pending;
        };
        let was_evicted = slot.is_evicted();
        if Pin::new(slot).poll(cx).is_ready() {
            let error = io::Error::from(NoConnectionSlot::Evicted);
            if !was_evicted {
                rejected.record(*address, &error);
            }
            return Poll::Ready(error);
        }
        if this.activity.age() < *lifetime {
            return Poll::Pending;
        }
        let why = "a connection without a certificate has a short maximum age";
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, why))
    }

    fn poll_end(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.as_mut().poll_evicted(cx) {
            Poll::Pending => self.poll_idle(cx),
            evicted => evicted,
        }
    }

    fn or_idle<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_end(cx).map(Err),
        }
    }

    fn or_idle_sent(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = polled {
            self.activity.note_sent();
        }
        self.or_idle(cx, polled)
    }
}

impl<S: AsyncRead> IdleStream<S> {
    /// Reads and discards incoming data, within limits.
    fn poll_linger(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.as_mut().poll_evicted(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut this = self.project();
        let mut has_come = this.linger.is_none();
        let left = this.linger.get_or_insert(LINGER_BYTES_MAX);
        let mut bytes = [0; 4096];
        while *left > 0 {
            let mut buf = ReadBuf::new(&mut bytes);
            match this.inner.as_mut().poll_read(cx, &mut buf) {
                Poll::Pending => {
                    if has_come {
                        let until = Instant::now() + LINGER_TIMEOUT;
                        *this.woken = None;
                        this.timer.as_mut().reset(until);
                    }
                    return this.timer.poll(cx);
                }
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    *left = left.saturating_sub(buf.filled().len());
                    has_come = true;
                }
                Poll::Ready(_ended) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead> AsyncRead for IdleStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.as_mut().poll_evicted(cx) {
            return Poll::Ready(Err(error));
        }
        let polled = self.as_mut().project().inner.poll_read(cx, buf);
        if let (Poll::Ready(Ok(())), PeerSlot::Anonymous { slot, .. }) =
            (&polled, self.as_mut().project().held)
        {
            slot.touch();
        }
        self.or_idle(cx, polled)
    }
}

impl<S: AsyncRead + AsyncWrite> AsyncWrite for IdleStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.as_mut().project().inner.poll_write(cx, buf);
        self.or_idle_sent(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.as_mut().project().inner.poll_write_vectored(cx, bufs);
        self.or_idle_sent(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.as_mut().project().inner.poll_flush(cx);
        self.or_idle(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            let polled = self.as_mut().project().inner.poll_shutdown(cx);
            ready!(self.as_mut().or_idle(cx, polled))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "these tests run on tokio's paused clock"
)]
mod tests {
    use http::Version;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::client_quota::ClientQuota;
    use crate::connection_slots::AddressSlots;
    use crate::limits::Limits;
    use crate::unauthenticated_slots::UnauthenticatedSlots;

    const TIMEOUT: Duration = Duration::from_secs(120);
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    type Ours = Pin<Box<IdleStream<DuplexStream>>>;

    fn stream(
        activity: ConnectionActivity,
        held: PeerSlot,
    ) -> (Ours, DuplexStream, Arc<ConnectionActivity>) {
        let (near, far) = duplex(64);
        let activity = Arc::new(activity);
        let slot = Arc::new(AddressSlots::default()).take(HERE, 1).unwrap();
        let stream = IdleStream::new(near, TIMEOUT, activity.clone(), slot, held);
        (Box::pin(stream), far, activity)
    }

    fn of_holder() -> (Ours, DuplexStream, Arc<ConnectionActivity>) {
        let limits = Limits::default();
        let quota = Arc::new(ClientQuota::new(&limits));
        let slot = ClientSlot::take(&quota, &Arc::default(), &limits).unwrap();
        stream(
            ConnectionActivity::of_holder(quota, Duration::MAX),
            PeerSlot::OfHolder(slot),
        )
    }

    fn unauthenticated(
        slots: &Arc<UnauthenticatedSlots>,
        lifetime: Duration,
    ) -> (
        Ours,
        DuplexStream,
        Arc<ConnectionActivity>,
        Arc<RejectedConnections>,
    ) {
        let rejected = Arc::new(RejectedConnections::default());
        let held = PeerSlot::Anonymous {
            slot: slots.take(),
            lifetime,
            address: HERE,
            rejected: rejected.clone(),
        };
        let (stream, far, activity) = stream(ConnectionActivity::unauthenticated(), held);
        (stream, far, activity, rejected)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_ends_at_its_timeout() {
        let (mut stream, _far, _activity) = of_holder();
        let before = Instant::now();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed().as_secs(), TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_flight_keeps_it_and_then_the_time_counts_anew() {
        let (mut stream, _far, activity) = of_holder();
        let before = Instant::now();
        let in_flight = activity.begin(Version::HTTP_11);
        let work = async {
            tokio::time::sleep(Duration::from_secs(300)).await;
            drop(in_flight);
            std::future::pending::<()>().await
        };
        tokio::select! {
            result = stream.read_u8() => assert!(result.is_err()),
            () = work => (),
        }
        let secs = before.elapsed().as_secs();
        assert!((420..=421).contains(&secs), "{secs}");
    }

    /// A large response over a slow link may take longer than the idle timeout. A client that does
    /// not read keeps its connection no longer than the idle timeout.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_gets_on_keeps_it() {
        let (mut stream, mut far, activity) = of_holder();
        let sending = activity.begin(Version::HTTP_11).into_sending();
        for _ in 0..10 {
            stream.write_all(&[0; 64]).await.unwrap();
            tokio::time::sleep(TIMEOUT / 2).await;
            far.read_exact(&mut [0; 64]).await.unwrap();
        }
        stream.write_all(&[0; 64]).await.unwrap();
        let before = Instant::now();
        assert!(
            stream.write_all(&[0; 64]).await.is_err(),
            "the peer does not read"
        );
        assert_eq!(before.elapsed().as_secs(), TIMEOUT.as_secs());
        drop(sending);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_certificate_it_does_not_last() {
        let slots = UnauthenticatedSlots::new(1);
        let lifetime = Duration::from_secs(100);
        let (mut stream, mut far, activity, _) = unauthenticated(&slots, lifetime);
        let in_flight = activity.begin(Version::HTTP_11);
        assert!(!activity.is_at_its_end());
        // Even if it is busy.
        for second in 0..100 {
            far.write_all(b"x").await.unwrap();
            assert!(stream.read_u8().await.is_ok(), "{second}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(activity.is_at_its_end());
        far.write_all(b"x").await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(in_flight);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_certificate_it_makes_room() {
        let slots = UnauthenticatedSlots::new(1);
        let (mut stream, _far, activity, rejected) = unauthenticated(&slots, TIMEOUT);
        let _in_flight = activity.begin(Version::HTTP_11);
        let newer = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _seat = slots.take();
            std::future::pending::<()>().await
        };
        tokio::select! {
            read = stream.read_u8() => assert!(read.is_err()),
            () = newer => (),
        }
        assert!(stream.read_u8().await.is_err(), "and stays ended");
        let count = rejected.count(crate::rejected_connections::RejectionCause::Evicted);
        assert_eq!(count, 1, "counted once");
    }

    /// The last response arrives even if the client is still sending. The server waits only for a
    /// limited time.
    #[tokio::test(start_paused = true)]
    async fn a_close_waits_for_what_is_on_its_way() {
        let slots = UnauthenticatedSlots::new(1);
        for (bytes, ends, millis) in [(1_000, true, 0), (1_000, false, 500), (4 << 20, true, 0)] {
            let (mut stream, mut far, _, _) = unauthenticated(&slots, TIMEOUT);
            let before = Instant::now();
            let send = async {
                let _cut_or_not = far.write_all(&vec![0; bytes]).await;
                if !ends {
                    std::future::pending::<()>().await;
                }
                drop(far);
            };
            let close = async {
                stream.shutdown().await.unwrap();
                drop(stream);
            };
            tokio::pin!(send);
            tokio::select! {
                () = close => (),
                () = async { (&mut send).await; std::future::pending().await } => (),
            }
            assert_eq!(before.elapsed().as_millis(), millis, "{bytes} {ends}");
        }
    }
}
