//! Reads the journals: what stands behind the positions that were read last.
//!
//! A failover may forget the end of a shard, and the server gives the same positions to other
//! entries. So with every read comes the entry that was read last: if it is another one, or gone,
//! the shard is rewound. It comes after what follows it: a commit between the two may trim both.

use std::collections::{BTreeSet, HashMap};

use redis::{Cmd, FromRedisValue, Value};

use super::super::journal::JournalRead;
use super::super::reader::{EntryId, JournalReader};
use super::super::shard::{Position, Shard};
use super::super::signing::{GroupRefusal, GroupVerifier, PublishedKey};
use super::super::writers::Writers;
use super::connection::checked;
use super::entry::{GroupEntry, MalformedEntry};
use super::error::RedisStoreError;
use super::keys;
use super::nodes::Nodes;

/// How many entries of a shard are read at once.
const ENTRIES_MAX: usize = 64;

/// How many published keys of a shard are kept, beside those of the entries at hand. Whoever can
/// write to the servers can publish any number.
const KEYS_MAX: usize = 1_024;

/// The greatest identifier that a server gives. Whoever appended others than `0-N` is no lizmon.
const LAST_ID: &str = "0-18446744073709551615";

/// How far a shard was read, and the keys that are published there.
#[derive(Debug, Default)]
pub(super) struct ShardReader {
    pub(super) journal: JournalReader,
    /// By name.
    keys: HashMap<String, PublishedKey>,
}

/// How many groups were refused, and why.
pub(super) type Refusals = HashMap<GroupRefusal, u64>;

impl ShardReader {
    /// A shard that was loaded at this cursor.
    pub(super) fn at(position: Position, entry: Option<EntryId>, writers: Writers) -> Self {
        Self {
            journal: JournalReader::at(position, entry, writers),
            keys: HashMap::new(),
        }
    }

    /// Asks for what follows, and then for what was read last.
    fn commands(&self, shard: Shard) -> [Cmd; 2] {
        let journal = keys::journal(shard);
        let position = self.journal.position();
        let mut read = redis::cmd("XRANGE");
        let after = format!("(0-{position}");
        let count = ("COUNT", ENTRIES_MAX);
        read.arg(&journal).arg(after).arg(LAST_ID).arg(count);
        let id = format!("0-{position}");
        let mut check = redis::cmd(match self.journal.entry() {
            Some(_) => "XRANGE",
            None => "HGET",
        });
        match self.journal.entry() {
            Some(_) => check.arg(&journal).arg(&id).arg(&id),
            None => check.arg(keys::meta(shard)).arg("cursor"),
        };
        [read, check]
    }

    /// Whether the shard continues where it was read last.
    fn continues(&self, check: Value) -> bool {
        match self.journal.entry() {
            Some(_) => self.journal.continues(last_entry(check), None),
            None => {
                let cursor = Option::<u64>::from_redis_value(check).ok().flatten();
                self.journal.continues(None, cursor.map(Position::new))
            }
        }
    }

    /// Gets the keys that these entries are signed with, as far as they are not known yet, or not
    /// trusted any more: a receiver publishes its key again when its certificate is renewed.
    fn fetch_keys(
        &mut self,
        nodes: &mut Nodes,
        context: &ReadContext<'_>,
        shard: Shard,
        entries: &[ReadEntry],
    ) -> Result<(), RedisStoreError> {
        let ids = entries.iter().flatten().flat_map(|(_, entry)| entry);
        let ids: BTreeSet<_> = ids.map(|entry| &entry.key).collect();
        if self.keys.len() > KEYS_MAX {
            self.keys.retain(|id, _| ids.contains(id));
        }
        let new: Vec<_> = ids
            .into_iter()
            .filter(|id| {
                let key = self.keys.get(*id);
                !key.is_some_and(|key| context.verifier.trusts(context.store, key))
            })
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut get = redis::cmd("HMGET");
        get.arg(keys::keys(shard)).arg(&new);
        let answer = nodes.ask_all(shard, vec![get])?.pop();
        let statements = answer.map(Vec::<Option<String>>::from_redis_value);
        let statements = statements.and_then(Result::ok).unwrap_or_default();
        for (id, statement) in new.into_iter().zip(statements) {
            let key = statement.map(|statement| PublishedKey {
                id: id.clone(),
                statement,
            });
            self.keys.extend(key.map(|key| (id.clone(), key)));
        }
        Ok(())
    }

    /// Takes one entry: gives its group if a trusted receiver signed it for this shard, and it is
    /// new.
    fn take(
        &mut self,
        context: &ReadContext<'_>,
        shard: Shard,
        entry: ReadEntry,
    ) -> Result<Option<(Position, Vec<u8>)>, GroupRefusal> {
        let (position, entry) = entry.map_err(|MalformedEntry| GroupRefusal::Malformed)?;
        self.journal
            .pass(position, entry.as_ref().ok().map(GroupEntry::id));
        let entry = entry.map_err(|MalformedEntry| GroupRefusal::Malformed)?;
        let GroupEntry { writer, number, .. } = entry;
        let message = GroupEntry::message(context.store, shard, writer, number, &entry.group);
        let key = self.keys.get(&entry.key).ok_or(GroupRefusal::UnknownKey)?;
        let (store, signature) = (context.store, &entry.signature);
        context.verifier.verify(store, key, &message, signature)?;
        let is_new = self.journal.writers.is_new(position, writer, number);
        Ok(is_new.then_some((position, entry.group)))
    }
}

type ReadEntry = Result<(Position, Result<GroupEntry, MalformedEntry>), MalformedEntry>;

/// The one entry of an `XRANGE`.
pub(super) fn last_entry(answer: Value) -> Option<EntryId> {
    let Value::Array(entries) = answer else {
        return None;
    };
    let (_, entry) = GroupEntry::read(entries.into_iter().next()?).ok()?;
    entry.ok().as_ref().map(GroupEntry::id)
}

/// Reads one round of the shards named: see [`JournalStore`](super::super::journal::JournalStore).
pub(super) fn read(
    nodes: &mut Nodes,
    context: &ReadContext<'_>,
    readers: &mut HashMap<Shard, ShardReader>,
    after: &[(Shard, Position)],
    each: &mut dyn FnMut(Shard, Position, &[u8]),
    meanwhile: &mut dyn FnMut(&mut Nodes),
) -> (JournalRead, Refusals) {
    let mut report = JournalRead::default();
    let mut refusals = Refusals::new();
    let mut open = after.to_vec();
    while !open.is_empty() {
        let answers = ask(nodes, readers, &open, &mut report);
        let mut more = Vec::new();
        for (shard, check, entries) in answers {
            meanwhile(nodes);
            let Some(reader) = readers.get_mut(&shard) else {
                continue;
            };
            if !reader.continues(check) {
                report.rewound.push(shard);
                continue;
            }
            let entries: Vec<_> = entries.into_iter().map(GroupEntry::read).collect();
            if let Err(error) = reader.fetch_keys(nodes, context, shard, &entries) {
                report.unread.push((shard, error.into()));
                continue;
            }
            let count = entries.len();
            for entry in entries {
                match reader.take(context, shard, entry) {
                    Ok(Some((position, group))) => each(shard, position, &group),
                    Ok(None) => (),
                    Err(refusal) => *refusals.entry(refusal).or_default() += 1,
                }
            }
            if count > 0 {
                report.through.retain(|(of, _)| *of != shard);
                report.through.push((shard, reader.journal.position()));
            }
            if count == ENTRIES_MAX {
                more.push((shard, reader.journal.position()));
            }
        }
        open = more;
    }
    (report, refusals)
}

/// What is needed to check a group.
pub(super) struct ReadContext<'a> {
    /// The store's identifier.
    pub(super) store: &'a str,
    pub(super) verifier: &'a dyn GroupVerifier,
}

fn ask(
    nodes: &mut Nodes,
    readers: &mut HashMap<Shard, ShardReader>,
    open: &[(Shard, Position)],
    report: &mut JournalRead,
) -> Vec<(Shard, Value, Vec<Value>)> {
    let mut requests = HashMap::<_, (Vec<Shard>, Vec<Cmd>)>::new();
    for (shard, position) in open {
        let reader = readers.entry(*shard).or_default();
        if reader.journal.position() != *position {
            *reader = ShardReader::at(*position, None, Writers::default());
        }
        match nodes.primary(*shard) {
            Err(error) => report.unread.push((*shard, error.into())),
            Ok(primary) => {
                let (shards, commands) = requests.entry(primary).or_default();
                shards.push(*shard);
                commands.extend(reader.commands(*shard));
            }
        }
    }
    let (shards, requests): (Vec<_>, Vec<_>) = requests
        .into_iter()
        .map(|(address, (shards, commands))| (shards, (address, commands)))
        .unzip();
    let mut answers = Vec::with_capacity(open.len());
    let received = nodes.exchange(&requests);
    for (((address, _), shards), received) in requests.iter().zip(shards).zip(received) {
        let values = match received {
            Ok(values) => values,
            Err(error) => {
                let unread = shards
                    .into_iter()
                    .map(|shard| (shard, error.clone().into()));
                report.unread.extend(unread);
                continue;
            }
        };
        let mut values = values.into_iter();
        for shard in shards {
            let mut next = || checked(address, values.next().unwrap_or(Value::Nil));
            let both = next().and_then(|entries| Ok((entries, next()?)));
            match both {
                Ok((Value::Array(entries), check)) => answers.push((shard, check, entries)),
                Ok(_) => {
                    let (address, command) = (address.clone(), "XRANGE");
                    let error = RedisStoreError::Answer { address, command };
                    report.unread.push((shard, error.into()));
                }
                Err(error) => {
                    nodes.note(address, &error);
                    report.unread.push((shard, error.into()));
                }
            }
        }
    }
    answers
}
