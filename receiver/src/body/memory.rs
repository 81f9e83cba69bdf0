//! Memory for bodies and answers, reserved from the budget of all and from the budget of the
//! sender.

use std::sync::Arc;
use std::time::Duration;

use lizmon_mtls::client_quota::BodyMemoryBudgets;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::BodyReadError;

/// Largest small body, on the wire and decompressed: an hour of a monitor that samples once a
/// minute.
pub(super) const SMALL_BYTES_MAX: usize = 64 << 10;
/// How long a compressed body or a large answer waits for memory.
const MEMORY_WAIT: Duration = Duration::from_secs(5);

/// Memory that is reserved until this is dropped.
#[derive(Debug, Default)]
pub struct MemoryReservation {
    pub(super) small: Option<[OwnedSemaphorePermit; 2]>,
    pub(super) large: Option<[OwnedSemaphorePermit; 2]>,
}

impl MemoryReservation {
    /// Memory for a small body, if there is any now.
    pub(super) fn small(
        all: &BodyMemoryBudgets,
        sender: &BodyMemoryBudgets,
        bytes: usize,
    ) -> Result<Self, BodyReadError> {
        let taken = [
            take_now(&all.small, kib(bytes))?,
            take_now(&sender.small, kib(bytes))?,
        ];
        Ok(Self {
            small: Some(taken),
            large: None,
        })
    }

    /// Memory for a large body or a part of it. Waits its turn.
    pub(super) async fn large(
        all: &BodyMemoryBudgets,
        of_sender: OwnedSemaphorePermit,
    ) -> Result<Self, BodyReadError> {
        let kib = u32::try_from(of_sender.num_permits()).unwrap_or(u32::MAX);
        let of_all = take_in_turn(&all.large, kib).await?;
        Ok(Self {
            small: None,
            large: Some([of_all, of_sender]),
        })
    }

    /// The same, and waits for the sender's budget as well: its other requests release some soon.
    pub(super) async fn large_in_turn(
        all: &BodyMemoryBudgets,
        sender: &BodyMemoryBudgets,
        bytes: usize,
    ) -> Result<Self, BodyReadError> {
        // The sender's budget first: a sender that uses it up blocks no other.
        Self::large(all, take_in_turn(&sender.large, kib(bytes)).await?).await
    }

    /// Reserves memory for so many more bytes of a body that then has `total`. A body that is no
    /// longer small moves to the budget for large ones.
    pub(super) async fn grow(
        &mut self,
        all: &BodyMemoryBudgets,
        sender: &BodyMemoryBudgets,
        bytes: usize,
        total: usize,
    ) -> Result<(), BodyReadError> {
        if total <= SMALL_BYTES_MAX {
            self.add(Self::small(all, sender, bytes)?);
            return Ok(());
        }
        let moved = self
            .small
            .as_ref()
            .map_or(0, |[permit, _]| permit.num_permits());
        let wanted = kib(bytes).saturating_add(u32::try_from(moved).unwrap_or(u32::MAX));
        self.add(Self::large(all, take_now(&sender.large, wanted)?).await?);
        self.small = None;
        Ok(())
    }

    /// Keeps memory for so many bytes and releases the rest.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let kib = kib(bytes) as usize;
        for permit in [&mut self.small, &mut self.large]
            .into_iter()
            .flatten()
            .flatten()
        {
            let spare = permit.num_permits().saturating_sub(kib);
            drop(permit.split(spare));
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        for (taken, more) in [(&mut self.small, more.small), (&mut self.large, more.large)] {
            match (taken.as_mut(), more) {
                (_, None) => (),
                (None, more) => *taken = more,
                (Some(taken), Some(more)) => taken
                    .iter_mut()
                    .zip(more)
                    .for_each(|(taken, more)| taken.merge(more)),
            }
        }
    }
}

pub(super) fn take_now(
    memory: &Arc<Semaphore>,
    kib: u32,
) -> Result<OwnedSemaphorePermit, BodyReadError> {
    let taken = memory.clone().try_acquire_many_owned(kib);
    taken.map_err(|_| BodyReadError::OutOfMemory)
}

#[expect(
    clippy::disallowed_methods,
    reason = "enforces a limit that is a named constant or a flag"
)]
async fn take_in_turn(
    memory: &Arc<Semaphore>,
    kib: u32,
) -> Result<OwnedSemaphorePermit, BodyReadError> {
    let taken = tokio::time::timeout(MEMORY_WAIT, memory.clone().acquire_many_owned(kib)).await;
    // The semaphores are never closed: only the wait fails.
    taken
        .ok()
        .and_then(Result::ok)
        .ok_or(BodyReadError::OutOfMemory)
}

pub(super) fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
