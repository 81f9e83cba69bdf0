//! An entry of a shard's stream: one group, and who appended it.
//!
//! ```text
//! w  writer: UUID, 16 bytes     a receiver's run
//! n  number: decimal            of the group among those that the writer appended to this shard, from 1
//! k  key: text                  which key signed it
//! s  signature: bytes           over store, shard, writer, number and group
//! g  group: bytes               as record.rs encodes it
//! a  attempt: decimal           how often it had been sent before; absent from the first
//! ```

use redis::{Cmd, FromRedisValue, Value};
use uuid::Uuid;

use super::super::reader::EntryId;
use super::super::shard::{Position, Shard};
use super::keys;

/// What a signature is over begins with this, so that it is none over anything else.
const CONTEXT: &[u8] = b"lizmon group 1\0";

/// A group as it stands in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupEntry {
    pub(super) writer: Uuid,
    pub(super) number: u64,
    pub(super) key: String,
    pub(super) signature: Vec<u8>,
    pub(super) group: Vec<u8>,
    pub(super) attempt: u8,
}

/// Why an entry is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an entry that lizmon writes")]
pub(super) struct MalformedEntry;

impl GroupEntry {
    /// What identifies it.
    pub(super) fn id(&self) -> EntryId {
        EntryId {
            writer: self.writer,
            number: self.number,
            attempt: self.attempt,
        }
    }

    /// What is signed.
    pub(super) fn message(
        store: &str,
        shard: Shard,
        writer: Uuid,
        number: u64,
        group: &[u8],
    ) -> Vec<u8> {
        let store = store.as_bytes();
        let mut message = Vec::with_capacity(CONTEXT.len() + store.len() + 27 + group.len());
        message.extend_from_slice(CONTEXT);
        message.push(store.len() as u8);
        message.extend_from_slice(store);
        message.extend_from_slice(&shard.number().to_le_bytes());
        message.extend_from_slice(writer.as_bytes());
        message.extend_from_slice(&number.to_le_bytes());
        message.extend_from_slice(group);
        message
    }

    /// Appends it. The server numbers the entries (`0-*`, from Redis 7.0), so there may be many
    /// writers.
    pub(super) fn append(&self, shard: Shard) -> Cmd {
        let mut command = redis::cmd("XADD");
        command
            .arg(keys::journal(shard))
            .arg("0-*")
            .arg("w")
            .arg(self.writer.as_bytes().as_slice())
            .arg("n")
            .arg(self.number)
            .arg("k")
            .arg(&self.key)
            .arg("s")
            .arg(&self.signature)
            .arg("g")
            .arg(&self.group);
        if self.attempt > 0 {
            command.arg("a").arg(self.attempt);
        }
        command
    }

    /// Reads `[id, [field, value, …]]`.
    pub(super) fn read(
        value: Value,
    ) -> Result<(Position, Result<Self, MalformedEntry>), MalformedEntry> {
        let (id, fields) = <(String, Vec<(Vec<u8>, Vec<u8>)>)>::from_redis_value(value)
            .map_err(|_| MalformedEntry)?;
        let position = position(&id).ok_or(MalformedEntry)?;
        Ok((position, Self::of_fields(fields)))
    }

    fn of_fields(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self, MalformedEntry> {
        let mut fields = fields.into_iter();
        let mut field = |name: &[u8]| {
            let (found, value) = fields.next().ok_or(MalformedEntry)?;
            if found == name {
                Ok(value)
            } else {
                Err(MalformedEntry)
            }
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| MalformedEntry);
        let entry = Self {
            writer: Uuid::from_slice(&field(b"w")?).map_err(|_| MalformedEntry)?,
            number: text(field(b"n")?)?.parse().map_err(|_| MalformedEntry)?,
            key: text(field(b"k")?)?,
            signature: field(b"s")?,
            group: field(b"g")?,
            attempt: 0,
        };
        match (fields.next(), fields.next()) {
            (None, _) => Ok(entry),
            (Some((name, attempt)), None) if name == b"a" => {
                let attempt = text(attempt)?.parse().map_err(|_| MalformedEntry)?;
                Ok(Self { attempt, ..entry })
            }
            (Some(_), _) => Err(MalformedEntry),
        }
    }
}

/// The position of `0-N`.
pub(super) fn position(id: &str) -> Option<Position> {
    let number = id.strip_prefix("0-")?.parse().ok()?;
    Some(Position::new(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    fn read(id: &str, fields: &[(&[u8], &[u8])]) -> Result<(u64, bool), MalformedEntry> {
        let fields = fields
            .iter()
            .flat_map(|(name, value)| [bulk(name), bulk(value)]);
        let value = Value::Array(vec![bulk(id.as_bytes()), Value::Array(fields.collect())]);
        GroupEntry::read(value).map(|(position, entry)| (position.get(), entry.is_ok()))
    }

    #[test]
    fn entries_are_read_exactly() {
        let good: [(&[u8], &[u8]); 5] = [
            (b"w", &[7; 16]),
            (b"n", b"3"),
            (b"k", b"kid"),
            (b"s", b"sig"),
            (b"g", b""),
        ];
        assert_eq!(read("0-5", &good), Ok((5, true)));
        let again = |attempt| [&good[..], &[(&b"a"[..], attempt)]].concat();
        assert_eq!(read("0-5", &again(b"1")), Ok((5, true)));
        for id in ["5-0", "0-", "0-x", "", "0-18446744073709551616"] {
            assert_eq!(read(id, &good), Err(MalformedEntry), "{id}");
        }
        let changed = |at: usize, to: (&'static [u8], &'static [u8])| {
            let mut fields = good.to_vec();
            fields[at] = to;
            fields
        };
        for fields in [
            good[..4].to_vec(),
            [&good[..], &[(&b"x"[..], &b"1"[..])]].concat(),
            again(b"x"),
            [&again(b"1")[..], &again(b"1")[5..]].concat(),
            changed(0, (b"w", b"short")),
            changed(1, (b"n", b"-1")),
            changed(2, (b"k", b"\xff")),
            changed(3, (b"S", b"sig")),
            Vec::new(),
        ] {
            assert_eq!(read("0-5", &fields), Ok((5, false)), "{fields:?}");
        }
    }

    #[test]
    fn a_signature_is_for_one_place() {
        let message = |store: &str, shard: u16, writer: u8, number: u64, group: &[u8]| {
            GroupEntry::message(
                store,
                Shard::new(shard),
                Uuid::from_bytes([writer; 16]),
                number,
                group,
            )
        };
        let all = [
            message("a", 1, 1, 1, b"x"),
            message("b", 1, 1, 1, b"x"),
            message("a", 2, 1, 1, b"x"),
            message("a", 1, 2, 1, b"x"),
            message("a", 1, 1, 2, b"x"),
            message("a", 1, 1, 1, b"y"),
            message("", 1, 1, 1, b"ax"),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
