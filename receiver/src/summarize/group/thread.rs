//! What the thread of a group's member does.

use std::time::Duration;

use super::GroupMember;
use crate::clock::Clocks;
use crate::periodic::Periodic;
use crate::store::StoreError;

/// A [`GroupMember`] that reads on, and keeps its share. At the end it commits everything, and
/// gives up its shards.
#[derive(Debug)]
pub struct GroupWork {
    member: GroupMember,
    /// The second in which leases, shares and commits were seen to last: of the monotonic clock.
    maintained_at: Option<u64>,
    /// When it read last: epoch seconds.
    read_at: u64,
}

impl GroupWork {
    /// The work of this member.
    pub fn new(member: GroupMember) -> Self {
        Self {
            member,
            maintained_at: None,
            read_at: 0,
        }
    }
}

impl Periodic for GroupWork {
    const NAME: &'static str = "summaries";
    const EVERY: Duration = Duration::from_millis(50);

    fn act(&mut self, clocks: &Clocks) {
        self.read_at = (clocks.wall)();
        self.member.read_on(self.read_at);
        // However long it took to read or to load: leases end by the servers' clock.
        let second = Some((clocks.monotonic)());
        if self.maintained_at != second {
            self.maintained_at = second;
            self.member.maintain(clocks.read());
        }
    }

    fn finish(mut self) -> Result<(), StoreError> {
        // What was appended since then is committed as well.
        self.member.read_on(self.read_at);
        self.member.finish()
    }
}
