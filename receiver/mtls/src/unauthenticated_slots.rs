//! Slots for connections without a known holder: those in the TLS handshake, and those without a
//! client certificate. If all slots are taken, a new connection evicts the one that has been silent
//! for longest, so a client that only holds slots locks out no other client.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

/// A fixed number of slots.
#[derive(Debug)]
pub(crate) struct UnauthenticatedSlots {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Ordered by last activity: the first entry has been silent for longest.
    by_age: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Taken {
    fn insert(&mut self, evict: oneshot::Sender<()>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_age.insert(number, evict);
        number
    }
}

/// One slot. Dropping it frees the slot. As a future, it resolves when the slot is evicted.
#[derive(Debug)]
pub(crate) struct UnauthenticatedSlot {
    slots: Arc<UnauthenticatedSlots>,
    number: u64,
    /// `None` after the eviction was reported.
    evicted: Option<oneshot::Receiver<()>>,
}

impl UnauthenticatedSlots {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: Mutex::default(),
        })
    }

    /// The number of slots in use.
    pub(crate) fn taken(&self) -> usize {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.by_age.len()
    }

    /// Takes a slot. If all slots are in use, evicts another connection.
    pub(crate) fn take(self: &Arc<Self>) -> UnauthenticatedSlot {
        let (evict, evicted) = oneshot::channel();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.by_age.len() >= self.max
            && let Some((_, evict)) = taken.by_age.pop_first()
        {
            // The evicted task is notified and ends. If it ends at this moment anyway, that is
            // fine.
            let _ended_by_itself = evict.send(());
        }
        let number = taken.insert(evict);
        drop(taken);
        UnauthenticatedSlot {
            slots: self.clone(),
            number,
            evicted: Some(evicted),
        }
    }
}

impl UnauthenticatedSlot {
    /// Records activity. A handshake that makes progress is not evicted for a new one, however many
    /// arrive. Otherwise no handshake would complete while a whole fleet reconnects.
    pub(crate) fn touch(&mut self) {
        let mut taken = self
            .slots
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(evict) = taken.by_age.remove(&self.number) {
            self.number = taken.insert(evict);
        }
    }

    /// Whether the eviction was reported already.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.is_none()
    }
}

impl Future for UnauthenticatedSlot {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(evicted) = &mut self.evicted {
            // The sender is dropped only after it has sent, or together with the slot.
            let _told = ready!(Pin::new(evicted).poll(cx));
            self.evicted = None;
        }
        Poll::Ready(())
    }
}

impl Drop for UnauthenticatedSlot {
    fn drop(&mut self) {
        let mut taken = self
            .slots
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(slot: &mut UnauthenticatedSlot) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(slot).poll(&mut cx).is_ready()
    }

    #[test]
    fn who_was_silent_for_longest_makes_room() {
        let slots = UnauthenticatedSlots::new(2);
        let (mut first, mut second) = (slots.take(), slots.take());
        let mut third = slots.take();
        assert!(is_evicted(&mut first) && !is_evicted(&mut second) && !is_evicted(&mut third));
        second.touch();
        // An evicted slot is no longer in the map and is not freed a second time.
        first.touch();
        drop(first);
        let fourth = slots.take();
        assert!(!is_evicted(&mut second) && is_evicted(&mut third));
        drop(fourth);
        assert_eq!(slots.taken(), 1);
        let _fifth = slots.take();
        assert!(!is_evicted(&mut second), "there was a slot");
    }
}
