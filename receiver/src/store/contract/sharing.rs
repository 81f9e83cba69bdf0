//! What a store must do that several processes use at the same time.

use super::*;
use crate::store::SharedStore;

/// Runs this part of the suite. `open` opens the same store for another process, each time.
pub(crate) fn check_sharing<S: SharedStore>(open: &mut dyn FnMut() -> S) {
    an_owner_keeps_others_out(open);
    what_was_given_up_is_not_committed(open);
    writers_append_side_by_side(open);
    what_others_trimmed_is_loaded_again(open);
    a_cursor_is_where_something_was_read(open);
}

fn cursor_at(cursor: Position) -> ShardChanges {
    ShardChanges {
        cursor,
        ..ShardChanges::default()
    }
}

#[track_caller]
fn assert_fenced(committed: Result<(), StoreError>) {
    assert_eq!(committed.unwrap_err().kind(), ErrorKind::Fenced);
}

fn an_owner_keeps_others_out<S: SharedStore>(open: &mut dyn FnMut() -> S) {
    let (mut one, mut other) = (open(), open());
    let held = fence(&mut one, SHARD);
    assert_eq!(other.acquire(&[SHARD]).unwrap(), []);
    let free = other.acquire(&[SHARD, OTHER]).unwrap();
    assert_eq!(free.len(), 1, "what is free");
    assert_eq!(one.renew(&[held]).unwrap(), [held]);
    one.release(&[held]).unwrap();
    let taken = fence(&mut other, SHARD);
    assert!(held.epoch() < taken.epoch());
    assert_eq!(one.renew(&[held]).unwrap(), []);
    let cursor = one.load(&[SHARD], NOW).unwrap()[0].cursor;
    assert_fenced(one.commit(held, &cursor_at(cursor)));
    other.release(&[taken, free[0]]).unwrap();
}

fn what_was_given_up_is_not_committed<S: SharedStore>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    let held = fence(&mut store, SHARD);
    let cursor = store.load(&[SHARD], NOW).unwrap()[0].cursor;
    store.release(&[held]).unwrap();
    assert_fenced(store.commit(held, &cursor_at(cursor)));
    assert_eq!(store.renew(&[held]).unwrap(), []);
}

fn writers_append_side_by_side<S: SharedStore>(open: &mut dyn FnMut() -> S) {
    let (mut one, mut other, mut reader) = (open(), open(), open());
    let at = reader.load(&[SHARD], NOW).unwrap()[0].cursor;
    let before = journal(&mut reader, SHARD, at).len();
    append(&mut one, SHARD, b"of one").unwrap();
    append(&mut other, SHARD, b"of the other").unwrap();
    append(&mut one, SHARD, b"the second of one").unwrap();
    let read = journal(&mut reader, SHARD, at);
    let groups: Vec<_> = read[before..].iter().map(|(_, group)| &group[..]).collect();
    let expected: [&[u8]; 3] = [b"of one", b"of the other", b"the second of one"];
    assert_eq!(groups, expected);
}

fn what_others_trimmed_is_loaded_again<S: SharedStore>(open: &mut dyn FnMut() -> S) {
    let (mut owner, mut reader) = (open(), open());
    append(&mut owner, SHARD, b"read").unwrap();
    let at = reader.load(&[SHARD], NOW).unwrap()[0].cursor;
    let (read, _) = *journal(&mut reader, SHARD, at).last().unwrap();
    append(&mut owner, SHARD, b"trimmed").unwrap();
    append(&mut owner, SHARD, b"left").unwrap();
    let held = fence(&mut owner, SHARD);
    let cursor = owner.load(&[SHARD], NOW).unwrap()[0].cursor;
    let (last, _) = *journal(&mut owner, SHARD, cursor).last().unwrap();
    owner.commit(held, &cursor_at(last)).unwrap();
    let mut groups = 0;
    let report = reader.read_after(&[(SHARD, read)], &mut |_, _, _| groups += 1);
    assert_eq!((report.rewound, groups), (vec![SHARD], 0));
    let cursor = reader.load(&[SHARD], NOW).unwrap()[0].cursor;
    append(&mut owner, SHARD, b"next").unwrap();
    assert_eq!(journal(&mut reader, SHARD, cursor).len(), 1);
}

/// What stands before a cursor is trimmed, so the owner must have read it.
fn a_cursor_is_where_something_was_read<S: SharedStore>(open: &mut dyn FnMut() -> S) {
    let mut store = open();
    let last = append(&mut store, SHARD, b"last").unwrap();
    let held = fence(&mut store, SHARD);
    let cursor = store.load(&[SHARD], NOW).unwrap()[0].cursor;
    assert_fenced(store.commit(held, &cursor_at(last.next())));
    assert!(!journal(&mut store, SHARD, cursor).is_empty());
    store.commit(held, &cursor_at(last)).unwrap();
}
