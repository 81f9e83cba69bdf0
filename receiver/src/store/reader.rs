//! How far one shard of a shared journal was read, and whether it continues there.
//!
//! A failover may forget the end of a shard, and the store then gives the same positions to other
//! entries. So whoever reads on, or commits what was read, compares what stands at the position
//! that was read last with what stood there.

use uuid::Uuid;

use super::shard::Position;
use super::writers::Writers;

/// What identifies an entry, whatever its position.
///
/// The attempt is part of it: a group that was appended again after a failover may get the position
/// that it had before, with other entries before it than were read there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryId {
    /// A receiver's run.
    pub(super) writer: Uuid,
    /// Of the group among those that the writer appended to this shard, from 1.
    pub(super) number: u64,
    /// How often it had been sent before.
    pub(super) attempt: u8,
}

/// How far a shard was read.
#[derive(Debug, Default)]
pub(super) struct JournalReader {
    position: Position,
    /// What stands there; none at the start, and where no entry of ours stands.
    entry: Option<EntryId>,
    pub(super) writers: Writers,
}

impl JournalReader {
    /// A shard that was loaded at this cursor.
    pub(super) fn at(position: Position, entry: Option<EntryId>, writers: Writers) -> Self {
        Self {
            position,
            entry,
            writers,
        }
    }

    /// The position that was read last.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// What stood there.
    pub(super) fn entry(&self) -> Option<EntryId> {
        self.entry
    }

    /// What must stand at the cursor of a commit, if that is known: where the cursor is what was
    /// read last.
    pub(super) fn entry_at(&self, cursor: Position) -> Option<EntryId> {
        self.entry.filter(|_| self.position == cursor)
    }

    /// Whether the shard continues where it was read last: by what stands there now, and by the
    /// cursor of its last commit. Both as they are after what follows was read.
    pub(super) fn continues(
        &self,
        stands_there: Option<EntryId>,
        cursor: Option<Position>,
    ) -> bool {
        match self.entry {
            Some(entry) => stands_there == Some(entry),
            // Whatever was committed is behind what was read.
            None => cursor.is_none_or(|cursor| cursor <= self.position),
        }
    }

    /// The next entry stands at this position. Whatever it is, what follows is found by its
    /// position.
    pub(super) fn pass(&mut self, position: Position, entry: Option<EntryId>) {
        self.position = position;
        self.entry = entry;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: EntryId = EntryId {
        writer: Uuid::from_bytes([1; 16]),
        number: 7,
        attempt: 0,
    };

    #[test]
    fn a_journal_continues_where_the_same_entry_stands() {
        let at = Position::new(5);
        let reader = JournalReader::at(at, Some(READ), Writers::default());
        assert!(reader.continues(Some(READ), None));
        assert!(!reader.continues(None, None), "forgotten, or trimmed");
        let other = EntryId { number: 8, ..READ };
        assert!(!reader.continues(Some(other), None));
        let again = EntryId { attempt: 1, ..READ };
        assert!(
            !reader.continues(Some(again), None),
            "others may be before it"
        );
        assert_eq!(reader.entry_at(at), Some(READ));
        assert_eq!(reader.entry_at(at.next()), None);
    }

    #[test]
    fn without_an_entry_the_cursor_tells() {
        let reader = JournalReader::at(Position::new(5), None, Writers::default());
        let continues = |cursor| reader.continues(None, cursor);
        assert!(continues(None) && continues(Some(Position::new(5))));
        assert!(!continues(Some(Position::new(6))));
    }
}
