//! Asks every primary how much memory it has left, and how far its shards are behind.
//!
//! Nothing here takes a server long: `INFO memory` and `XLEN` look up numbers, and `MEMORY USAGE`
//! looks at a few nodes of a stream.

use std::collections::BTreeMap;

use redis::{Cmd, FromRedisValue, Value};

use super::super::error::StoreError;
use super::super::members::MemberRole;
use super::super::shard::{Position, Shard, ShardCount};
use super::super::watch::{Look, ServerReading, ShardReading, StoreReading, StoreWatch};
use super::config::{Address, RedisConfig};
use super::connection::checked;
use super::error::RedisStoreError;
use super::info::MemoryInfo;
use super::keys;
use super::nodes::Nodes;

/// How many nodes of a journal its size is estimated by.
const SAMPLES: u32 = 20;
/// How many answers there are for each shard.
const SHARD_ANSWERS: usize = 3;

/// Connections to look through.
#[derive(Debug)]
pub(super) struct RedisWatch {
    nodes: Nodes,
    shards: ShardCount,
}

impl RedisWatch {
    /// Connects to the servers of a store with so many shards.
    pub(super) fn open(config: RedisConfig, shards: ShardCount) -> Result<Self, StoreError> {
        let mut nodes = Nodes::open(config)?;
        nodes.set_shards(shards);
        Ok(Self { nodes, shards })
    }

    fn read(&mut self, what: Look) -> Result<StoreReading, RedisStoreError> {
        let mut reading = StoreReading::default();
        let mut by_server = BTreeMap::<Address, Vec<Shard>>::new();
        let mut failure = None;
        for shard in self.shards.all() {
            match self.nodes.primary(shard) {
                Ok(primary) => by_server.entry(primary).or_default().push(shard),
                Err(error) => failure = Some(error),
            }
        }
        let requests: Vec<_> = by_server
            .iter()
            .map(|(address, shards)| (address.clone(), commands(shards, what)))
            .collect();
        let answers = self.nodes.exchange(&requests);
        for ((address, shards), answers) in by_server.into_iter().zip(answers) {
            let answers = answers.and_then(|answers| ServerAnswers::read(&address, answers));
            match answers {
                Err(error) => failure = Some(error),
                Ok(answers) => {
                    let of_shards = answers.shards(&address, &shards);
                    for read in of_shards {
                        match read {
                            Ok(shard) => reading.shards.push(shard),
                            Err(error) => self.nodes.note(&address, &error),
                        }
                    }
                    reading.servers.push(answers.server(&address, shards));
                }
            }
        }
        if let (true, Some(error)) = (reading.servers.is_empty(), failure) {
            return Err(error);
        }
        reading.shards.sort_by_key(|shard| shard.shard);
        if what == Look::Everything {
            reading.members = self.members();
        }
        Ok(reading)
    }

    /// None of those whose server does not answer.
    fn members(&mut self) -> Vec<(MemberRole, u64)> {
        let mut counts = Vec::new();
        for role in [MemberRole::Receiver, MemberRole::Summarizer] {
            if let Ok(count) = self.count_members(role) {
                counts.push((role, count));
            }
        }
        counts
    }

    fn count_members(&mut self, role: MemberRole) -> Result<u64, RedisStoreError> {
        let key = keys::members(role.name());
        let address = self.nodes.primary_of_key(&key)?;
        let mut values = redis::cmd("HVALS");
        values.arg(&key);
        let request = [(address.clone(), vec![redis::cmd("TIME"), values])];
        let answers = self.nodes.exchange(&request).pop();
        let answers = answers.unwrap_or(Ok(Vec::new()))?;
        let mut answers = answers.into_iter();
        let now = millis(&address, &mut answers)?;
        let until: Vec<String> = next(&address, "HVALS", &mut answers)?;
        // Until when it is there, and what it says.
        let ends = until.iter().filter_map(|value| value.split(' ').next());
        let there = ends.filter(|end| end.parse::<u64>().is_ok_and(|end| end > now));
        Ok(there.count() as u64)
    }
}

impl StoreWatch for RedisWatch {
    fn look(&mut self, what: Look) -> Result<StoreReading, StoreError> {
        Ok(self.read(what)?)
    }
}

fn commands(shards: &[Shard], what: Look) -> Vec<Cmd> {
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let mut commands = vec![info];
    if what == Look::Memory {
        return commands;
    }
    commands.push(redis::cmd("TIME"));
    for shard in shards {
        let mut length = redis::cmd("XLEN");
        length.arg(keys::journal(*shard));
        let mut meta = redis::cmd("HMGET");
        meta.arg(keys::meta(*shard)).arg("until").arg("cursor");
        let mut size = redis::cmd("MEMORY");
        size.arg("USAGE").arg(keys::journal(*shard));
        size.arg("SAMPLES").arg(SAMPLES);
        commands.extend([length, meta, size]);
    }
    commands
}

/// What one server answered.
struct ServerAnswers {
    memory: MemoryInfo,
    /// Its clock; none if it was not asked for shards.
    now: Option<u64>,
    of_shards: Vec<Value>,
}

impl ServerAnswers {
    fn read(address: &Address, answers: Vec<Value>) -> Result<Self, RedisStoreError> {
        let mut answers = answers.into_iter();
        let info: String = next(address, "INFO", &mut answers)?;
        let memory = MemoryInfo::parse(&info).ok_or_else(|| unknown(address, "INFO"))?;
        let now = match answers.len() {
            0 => None,
            _ => Some(millis(address, &mut answers)?),
        };
        Ok(Self {
            memory,
            now,
            of_shards: answers.collect(),
        })
    }

    fn shards(
        &self,
        address: &Address,
        shards: &[Shard],
    ) -> Vec<Result<ShardReading, RedisStoreError>> {
        let Some(now) = self.now else {
            return Vec::new();
        };
        let answers = self.of_shards.chunks(SHARD_ANSWERS);
        let each = shards.iter().zip(answers);
        each.map(|(shard, answers)| of_shard(address, *shard, now, answers))
            .collect()
    }

    fn server(self, address: &Address, shards: Vec<Shard>) -> ServerReading {
        ServerReading {
            name: address.to_string(),
            shards,
            used_bytes: self.memory.counted_bytes(),
            limit_bytes: self.memory.limit_bytes(),
        }
    }
}

fn of_shard(
    address: &Address,
    shard: Shard,
    now: u64,
    answers: &[Value],
) -> Result<ShardReading, RedisStoreError> {
    let mut answers = answers.iter().cloned();
    let length: u64 = next(address, "XLEN", &mut answers)?;
    let (until, cursor): (Option<u64>, Option<u64>) = next(address, "HMGET", &mut answers)?;
    // Not allowed to every user, and nothing hangs on it alone.
    let size: Option<u64> = next(address, "MEMORY USAGE", &mut answers).ok().flatten();
    let cursor = cursor.unwrap_or(0);
    Ok(ShardReading {
        shard,
        cursor: Position::new(cursor),
        // The entry at the cursor stays: readers recognise the journal by it.
        waiting_groups: length.saturating_sub(u64::from(cursor > 0)),
        journal_bytes: size,
        is_owned: until.is_some_and(|until| until > now),
    })
}

/// The server's clock.
fn millis(
    address: &Address,
    answers: &mut impl Iterator<Item = Value>,
) -> Result<u64, RedisStoreError> {
    let (secs, micros): (u64, u64) = next(address, "TIME", answers)?;
    Ok(secs * 1_000 + micros / 1_000)
}

fn next<T: FromRedisValue>(
    address: &Address,
    command: &'static str,
    answers: &mut impl Iterator<Item = Value>,
) -> Result<T, RedisStoreError> {
    let value = checked(address, answers.next().unwrap_or(Value::Nil))?;
    T::from_redis_value(value).map_err(|_| unknown(address, command))
}

fn unknown(address: &Address, command: &'static str) -> RedisStoreError {
    RedisStoreError::Answer {
        address: address.clone(),
        command,
    }
}
