//! Connections whose holder is not known: those in the TLS handshake, and those without a certificate. There are so many
//! seats for them, and where all are taken the oldest makes room for the next: whoever only holds seats keeps nobody out.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// So many connections that nobody has to answer for.
#[derive(Debug)]
pub(crate) struct Seats {
    max: usize,
    /// A seat that was taken a shorter time ago makes no room: its holder had no time to do anything with it.
    kept_for: Duration,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by_age: BTreeMap<u64, Sitting>,
}

#[derive(Debug)]
struct Sitting {
    since: Instant,
    evict: oneshot::Sender<()>,
}

/// One seat, free again when it is dropped. As a future it is ready when it has to be given up.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    /// None once it was told.
    evicted: Option<oneshot::Receiver<()>>,
}

impl Seats {
    pub(crate) fn new(max: usize, kept_for: Duration) -> Arc<Self> {
        Arc::new(Self {
            max,
            kept_for,
            taken: Mutex::default(),
        })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.by_age.len()
    }

    /// A seat, if there is one, or if the oldest may be evicted.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Seat> {
        let now = Instant::now();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.by_age.len() >= self.max {
            let oldest = taken.by_age.first_entry()?;
            if now.saturating_duration_since(oldest.get().since) < self.kept_for {
                return None;
            }
            // Its task is told and ends with it. If that task ends at this moment, so much the better.
            let _ended_by_itself = oldest.remove().evict.send(());
        }
        let (evict, evicted) = oneshot::channel();
        let number = taken.next;
        taken.next += 1;
        taken.by_age.insert(number, Sitting { since: now, evict });
        Some(Seat {
            seats: self.clone(),
            number,
            evicted: Some(evicted),
        })
    }
}

impl Seat {
    /// Whether it was told already that it has to be given up.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.is_none()
    }
}

impl Future for Seat {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(evicted) = &mut self.evicted {
            // The sender is only dropped once it has told, or with the seat.
            let _told = ready!(Pin::new(evicted).poll(cx));
            self.evicted = None;
        }
        Poll::Ready(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self
            .seats
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT_FOR: Duration = Duration::from_secs(1);

    async fn is_evicted(seat: &mut Seat) -> bool {
        tokio::time::timeout(Duration::ZERO, seat).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room() {
        let seats = Seats::new(2, KEPT_FOR);
        let mut first = seats.take().unwrap();
        let mut second = seats.take().unwrap();
        assert!(seats.take().is_none(), "both were taken a moment ago");
        tokio::time::advance(KEPT_FOR).await;
        let mut third = seats.take().unwrap();
        assert!(is_evicted(&mut first).await);
        assert!(!is_evicted(&mut second).await && !is_evicted(&mut third).await);
        // Whoever was evicted gives no seat back a second time.
        drop(first);
        let _fourth = seats.take().unwrap();
        assert!(is_evicted(&mut second).await && !is_evicted(&mut third).await);
        assert!(seats.take().is_none());
        drop(third);
        assert!(seats.take().is_some(), "a seat that was given back");
    }
}
