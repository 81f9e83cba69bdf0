//! What the thread of a group's member does.

use std::time::Duration;

use super::GroupMember;
use crate::clock::Clocks;
use crate::periodic::Periodic;
use crate::store::StoreError;

/// After how many readings leases, shares and commits are due: a second.
const READINGS_BETWEEN: u32 = 20;

/// A [`GroupMember`] that reads on, and keeps its share. At the end it commits everything, and gives
/// up its shards.
#[derive(Debug)]
pub struct GroupWork {
    member: GroupMember,
    readings: u32,
}

impl GroupWork {
    /// The work of this member.
    pub fn new(member: GroupMember) -> Self {
        Self {
            member,
            readings: 0,
        }
    }
}

impl Periodic for GroupWork {
    const NAME: &'static str = "summaries";
    const EVERY: Duration = Duration::from_millis(50);

    fn act(&mut self, clocks: &Clocks) {
        self.member.read_on((clocks.wall)());
        if self.readings.is_multiple_of(READINGS_BETWEEN) {
            self.member.maintain(clocks.read());
        }
        self.readings = self.readings.wrapping_add(1);
    }

    fn finish(self) -> Result<(), StoreError> {
        self.member.finish()
    }
}
