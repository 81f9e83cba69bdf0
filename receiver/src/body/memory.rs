//! Memory for bodies and answers: reserved of all there is, and of what each holder may have.

use std::sync::Arc;
use std::time::Duration;

use lizmon_mtls::pace::BodyRooms;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::BodyReadError;

/// Largest small body, as it travels and unpacked: an hour of a monitor that samples once a minute.
pub(super) const SMALL_BYTES_MAX: usize = 64 << 10;
/// How long a packed body waits for memory to be unpacked in, and a large answer for memory to be made in.
const MEMORY_WAIT: Duration = Duration::from_secs(5);

/// MemoryReservation that is taken until this is dropped, of all and of the sender.
#[derive(Debug, Default)]
pub struct MemoryReservation {
    pub(super) small: Option<[OwnedSemaphorePermit; 2]>,
    pub(super) large: Option<[OwnedSemaphorePermit; 2]>,
}

impl MemoryReservation {
    /// MemoryReservation for a small body, if there is any at this moment.
    pub(super) fn small(
        all: &BodyRooms,
        sender: &BodyRooms,
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

    /// MemoryReservation for a large body or a part of it, waited for behind others who want such memory.
    pub(super) async fn large(
        all: &BodyRooms,
        of_sender: OwnedSemaphorePermit,
    ) -> Result<Self, BodyReadError> {
        let kib = u32::try_from(of_sender.num_permits()).unwrap_or(u32::MAX);
        let of_all = take_in_turn(&all.large, kib).await?;
        Ok(Self {
            small: None,
            large: Some([of_all, of_sender]),
        })
    }

    /// The same, where the sender's own is waited for as well: others of its requests give it back in a moment.
    pub(super) async fn large_in_turn(
        all: &BodyRooms,
        sender: &BodyRooms,
        bytes: usize,
    ) -> Result<Self, BodyReadError> {
        // The sender's own first: who fills that keeps nobody else waiting.
        Self::large(all, take_in_turn(&sender.large, kib(bytes)).await?).await
    }

    /// Takes memory for so many bytes more of a body that then has `total` of them. One that is not small any more moves.
    pub(super) async fn grow(
        &mut self,
        all: &BodyRooms,
        sender: &BodyRooms,
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

    /// Keeps so much of the memory, and gives the rest of it back.
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

async fn take_in_turn(
    memory: &Arc<Semaphore>,
    kib: u32,
) -> Result<OwnedSemaphorePermit, BodyReadError> {
    let taken = tokio::time::timeout(MEMORY_WAIT, memory.clone().acquire_many_owned(kib)).await;
    // The semaphores are never closed: what fails is the wait.
    taken
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| BodyReadError::OutOfMemory)
}

pub(super) fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
