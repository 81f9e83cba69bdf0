//! Connections whose holder is not known: those in the TLS handshake, and those without a certificate. There are so many
//! slots for them, and where all are taken the one of which nothing was heard for longest makes room for the next: whoever
//! only holds slots keeps nobody out.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

/// So many connections that nobody has to answer for.
#[derive(Debug)]
pub(crate) struct UnauthenticatedSlots {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By when they were last heard of: the first has been silent for longest.
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

/// One slot, free again when it is dropped. As a future it is ready when it has to be given up.
#[derive(Debug)]
pub(crate) struct UnauthenticatedSlot {
    slots: Arc<UnauthenticatedSlots>,
    number: u64,
    /// None once it was told.
    evicted: Option<oneshot::Receiver<()>>,
}

impl UnauthenticatedSlots {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: Mutex::default(),
        })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.by_age.len()
    }

    /// A slot: another's, where all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> UnauthenticatedSlot {
        let (evict, evicted) = oneshot::channel();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.by_age.len() >= self.max
            && let Some((_, evict)) = taken.by_age.pop_first()
        {
            // Its task is told and ends with it. If that task ends at this moment, so much the better.
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
    /// Something was heard of whoever has it. A handshake that gets on is not cut for one that begins, however many of them
    /// come: else nobody would finish while a whole fleet comes back.
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

    /// Whether it was told already that it has to be given up.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.is_none()
    }
}

impl Future for UnauthenticatedSlot {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(evicted) = &mut self.evicted {
            // The sender is only dropped once it has told, or with the slot.
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
        // Whoever was evicted is not there any more, and gives no slot back a second time.
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
