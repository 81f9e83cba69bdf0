//! A connection's stream that ends itself when no request has come for too long.
//!
//! HTTP/2 has no idle timeout of its own in hyper, and pings are not work: what counts is requests.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::limits::Place;

/// When a connection last had a request.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    in_flight: AtomicU32,
    /// Milliseconds after `opened`.
    last_end: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            opened: Instant::now(),
            in_flight: AtomicU32::new(0),
            last_end: AtomicU64::new(0),
        }
    }

    /// Notes that a request began; dropping the value notes that it ended.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// When the connection will have been idle for `timeout`, if no request comes.
    fn idle_deadline(&self, timeout: Duration) -> Instant {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Instant::now() + timeout;
        }
        self.opened + Duration::from_millis(self.last_end.load(Ordering::Relaxed)) + timeout
    }
}

/// One request being worked on.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let millis = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_end.store(millis, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// A stream that ends when it has been idle too long, and gives its place back when dropped.
    #[derive(Debug)]
    pub struct IdleStream<S> {
        #[pin]
        inner: S,
        #[pin]
        timer: Sleep,
        timeout: Duration,
        activity: Arc<Activity>,
        _place: Place,
    }
}

impl<S> IdleStream<S> {
    pub(crate) fn new(inner: S, timeout: Duration, activity: Arc<Activity>, place: Place) -> Self {
        let timer = tokio::time::sleep_until(activity.idle_deadline(timeout));
        Self {
            inner,
            timer,
            timeout,
            activity,
            _place: place,
        }
    }

    /// Ready with an error once the connection has been idle for too long; else wakes the task when it may have been.
    fn poll_idle(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut this = self.project();
        loop {
            ready!(this.timer.as_mut().poll(cx));
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

    fn or_idle<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_idle(cx).map(Err),
        }
    }
}

use std::future::Future as _;

impl<S: AsyncRead> AsyncRead for IdleStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.as_mut().project().inner.poll_read(cx, buf);
        self.or_idle(cx, polled)
    }
}

impl<S: AsyncWrite> AsyncWrite for IdleStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.as_mut().project().inner.poll_write(cx, buf);
        self.or_idle(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.as_mut().project().inner.poll_write_vectored(cx, bufs);
        self.or_idle(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.as_mut().project().inner.poll_flush(cx);
        self.or_idle(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.as_mut().project().inner.poll_shutdown(cx);
        self.or_idle(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Addresses;
    use tokio::io::AsyncReadExt;

    const TIMEOUT: Duration = Duration::from_secs(120);

    fn idle_stream() -> (
        IdleStream<tokio::io::DuplexStream>,
        tokio::io::DuplexStream,
        Arc<Activity>,
    ) {
        let (near, far) = tokio::io::duplex(64);
        let activity = Arc::new(Activity::new());
        let place = Arc::new(Addresses::default())
            .take("127.0.0.1".parse().unwrap(), 1)
            .unwrap();
        (
            IdleStream::new(near, TIMEOUT, activity.clone(), place),
            far,
            activity,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_ends_at_its_timeout() {
        let (stream, _far, _activity) = idle_stream();
        let before = Instant::now();
        let error = Box::pin(stream).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed().as_secs(), TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_flight_keeps_it_and_then_the_time_counts_anew() {
        let (stream, _far, activity) = idle_stream();
        let before = Instant::now();
        let in_flight = activity.begin();
        let work = async {
            tokio::time::sleep(Duration::from_secs(300)).await;
            drop(in_flight);
            std::future::pending::<()>().await
        };
        let mut stream = Box::pin(stream);
        tokio::select! {
            result = stream.read_u8() => assert!(result.is_err()),
            () = work => (),
        }
        let secs = before.elapsed().as_secs();
        assert!((420..=421).contains(&secs), "{secs}");
    }
}
