//! A row of the journal: the groups of several shards that were made durable together, and which
//! rows are still needed.
//!
//! ```text
//! row      section…
//! section  shard u16 | length of the group u32 | group
//! ```
//!
//! All shards take their positions from the rows: one row, and one sync, serves them all. Numbers
//! are little-endian.

use super::super::shard::{Position, Shard, ShardCount};

/// Encodes groups as a row.
pub(super) fn encode(groups: &[(Shard, &[u8])], row: &mut Vec<u8>) {
    row.clear();
    for (shard, group) in groups {
        let length = u32::try_from(group.len()).unwrap_or(u32::MAX);
        row.extend_from_slice(&shard.number().to_le_bytes());
        row.extend_from_slice(&length.to_le_bytes());
        row.extend_from_slice(group);
    }
}

/// The groups of a row: `None` behind the last one that is whole.
pub(super) fn sections(mut row: &[u8]) -> impl Iterator<Item = Option<(Shard, &[u8])>> {
    std::iter::from_fn(move || {
        if row.is_empty() {
            return None;
        }
        let section = split(row);
        row = section.map_or(&[], |(_, rest)| rest);
        Some(section.map(|(section, _)| section))
    })
}

type Section<'a> = (Shard, &'a [u8]);

fn split(row: &[u8]) -> Option<(Section<'_>, &[u8])> {
    let (shard, rest) = row.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (group, rest) = rest.split_at_checked(length)?;
    Some(((Shard::new(u16::from_le_bytes(*shard)), group), rest))
}

/// Which rows of the journal hold groups that their shard's cursor has not passed: rows before all
/// of these can go.
#[derive(Debug, Clone)]
pub(super) struct Backlog {
    shards: Vec<ShardBacklog>,
    /// Whether rows of earlier times are in it as well; until then nothing may go.
    is_complete: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct ShardBacklog {
    first: Option<Position>,
    last: Position,
}

impl Backlog {
    /// That of a journal of which nothing is known but whether it is empty.
    pub(super) fn new(count: ShardCount, is_empty: bool) -> Self {
        Self {
            shards: vec![ShardBacklog::default(); count.get()],
            is_complete: is_empty,
        }
    }

    /// Everything in the journal has been added.
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// A group of this shard is at this position, behind its cursor.
    pub(super) fn add(&mut self, shard: Shard, position: Position) {
        if let Some(backlog) = self.shards.get_mut(shard.index()) {
            backlog.first.get_or_insert(position);
            backlog.last = backlog.last.max(position);
        }
    }

    /// The last position through which no shard needs any row; `last` is the last position that was
    /// used.
    pub(super) fn trim_through(&self, last: Position) -> Position {
        if !self.is_complete {
            return Position::START;
        }
        let before = |position: Position| Position::new(position.get().saturating_sub(1));
        let needed = self.shards.iter().filter_map(|backlog| backlog.first);
        needed.min().map_or(last, before)
    }

    /// The shard's cursor is there.
    pub(super) fn commit(&mut self, shard: Shard, cursor: Position) {
        if let Some(backlog) = self.shards.get_mut(shard.index()) {
            let first = backlog.first.map(|first| first.max(cursor.next()));
            backlog.first = first.filter(|first| *first <= backlog.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    const A: Shard = Shard::new(0);
    const B: Shard = Shard::new(3);

    fn at(number: u64) -> Position {
        Position::new(number)
    }

    #[test]
    fn what_was_encoded_is_read_and_what_is_cut_off_is_not() {
        let mut row = vec![9; 9];
        encode(&[(A, b"one"), (B, b""), (A, b"three")], &mut row);
        let read: Option<Vec<_>> = sections(&row).collect();
        assert_eq!(read.unwrap(), [(A, &b"one"[..]), (B, b""), (A, b"three")]);
        for cut in (1..row.len()).filter(|cut| ![9, 15].contains(cut)) {
            assert_eq!(sections(&row[..cut]).last(), Some(None), "cut at {cut}");
        }
        assert_eq!(sections(b"").count(), 0);
    }

    #[test]
    fn a_row_goes_when_no_shard_needs_it() {
        let count = ShardCount::new(NonZeroU16::new(4).unwrap());
        let mut backlog = Backlog::new(count, true);
        assert_eq!(backlog.trim_through(at(7)), at(7));
        for (shard, position) in [(A, 8), (B, 8), (B, 9), (A, 11)] {
            backlog.add(shard, at(position));
        }
        let through = |backlog: &Backlog, shard, cursor| {
            let mut backlog = backlog.clone();
            backlog.commit(shard, at(cursor));
            backlog.trim_through(at(11)).get()
        };
        assert_eq!(through(&backlog, A, 11), 7, "the other one needs row 8");
        assert_eq!(through(&backlog, B, 9), 7);
        backlog.commit(B, at(8));
        assert_eq!(through(&backlog, A, 11), 8);
        backlog.commit(A, at(8));
        assert_eq!(through(&backlog, B, 9), 8, "row 9 to 11");
        backlog.commit(A, at(11));
        assert_eq!(through(&backlog, B, 9), 11);
        assert_eq!(through(&backlog, B, 8), 8);
    }

    #[test]
    fn nothing_goes_of_a_journal_that_was_not_read() {
        let count = ShardCount::new(NonZeroU16::new(4).unwrap());
        let mut backlog = Backlog::new(count, false);
        backlog.add(A, at(9));
        backlog.commit(A, at(9));
        assert_eq!(backlog.trim_through(at(9)), Position::START);
        backlog.complete();
        assert_eq!(backlog.trim_through(at(9)), at(9));
    }
}
