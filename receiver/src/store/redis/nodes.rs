//! The servers: which one is the primary of a shard, and a connection to each.
//!
//! Connections are this store's own and are used by one thread, for `WAIT` counts what its own
//! connection wrote. A command goes to one primary and is not sent again here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue, Value};

use super::super::shard::{Shard, ShardCount};
use super::config::{Address, RedisConfig, StoreDurability};
use super::connection::{ServerConnection, checked};
use super::error::RedisStoreError;
use super::info::{EngineInfo, EngineMode};
use super::judge::Requirements;
use super::keys;

/// For how long a server that did not answer is not asked again.
const DOWN: Duration = Duration::from_millis(500);
/// The longest such time. It is twice as long each time for a server that accepts connections and
/// does not answer: each attempt costs the others' shards the time until it is given up.
const DOWN_MAX: Duration = Duration::from_secs(4);

/// A server that did not answer.
#[derive(Debug)]
struct DownServer {
    since: Instant,
    /// For how long it is not asked.
    pause: Duration,
}

/// What kind of servers they are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    /// One server.
    Single,
    /// A master and its replicas, watched by Sentinels.
    Sentinel { master: String },
    /// Redis Cluster.
    Cluster,
}

/// The servers of a store.
#[derive(Debug)]
pub(super) struct Nodes {
    config: RedisConfig,
    mode: Mode,
    /// By shard, its primary.
    primaries: Vec<Option<Address>>,
    /// By shard, its slot. Known in a cluster.
    slots: Vec<u16>,
    /// Which primary has which slots, and the slots of keys that belong to no shard.
    ranges: Vec<(u16, u16, Address)>,
    key_slots: HashMap<String, u16>,
    connections: HashMap<Address, ServerConnection>,
    down: HashMap<Address, DownServer>,
    /// How many connections were opened.
    opened: u64,
    /// Whether the primaries may have changed.
    is_stale: bool,
}

impl Nodes {
    /// Finds out what the servers are. Nothing is known of shards yet.
    pub(super) fn open(config: RedisConfig) -> Result<Self, RedisStoreError> {
        let mut nodes = Self {
            mode: Mode::Single,
            primaries: Vec::new(),
            slots: Vec::new(),
            ranges: Vec::new(),
            key_slots: HashMap::new(),
            connections: HashMap::new(),
            down: HashMap::new(),
            opened: 0,
            is_stale: true,
            config,
        };
        nodes.mode = nodes.of_any_seed(|nodes, seed| nodes.find_mode(seed))?;
        Ok(nodes)
    }

    fn find_mode(&mut self, seed: &Address) -> Result<Mode, RedisStoreError> {
        let info = self.ask(seed, redis::cmd("INFO").arg("server"))?;
        let info = String::from_redis_value(info).unwrap_or_default();
        let address = seed.clone();
        let engine = EngineInfo::parse(&info).map_err(|_| RedisStoreError::Answer {
            address: address.clone(),
            command: "INFO",
        })?;
        match (engine.mode, self.config.url.master.clone()) {
            (EngineMode::Sentinel, Some(master)) => Ok(Mode::Sentinel { master }),
            (EngineMode::Sentinel, None) => Err(RedisStoreError::NoMasterName { address }),
            (_, Some(name)) => Err(RedisStoreError::NotASentinel { address, name }),
            (EngineMode::Cluster, None) => Ok(Mode::Cluster),
            (EngineMode::Standalone, None) => Ok(Mode::Single),
        }
    }

    /// Where they are, and how they are reached.
    pub(super) fn config(&self) -> &RedisConfig {
        &self.config
    }

    /// From now on there are so many shards.
    pub(super) fn set_shards(&mut self, count: ShardCount) {
        self.primaries = vec![None; count.get()];
        self.is_stale = true;
    }

    /// Whether shards may have different primaries.
    pub(super) fn is_cluster(&self) -> bool {
        self.mode == Mode::Cluster
    }

    /// How many replicas must have a group before it is acknowledged.
    pub(super) fn replicas_min(&self) -> u32 {
        let default = u32::from(self.is_cluster());
        self.config.replicas_min.unwrap_or(default)
    }

    /// What the operator asks of the servers.
    pub(super) fn requirements(&self) -> Requirements {
        Requirements {
            min_replicas: self.replicas_min(),
            is_durable_by_service: self.config.durability == StoreDurability::Service,
        }
    }

    /// The primary of the keys without a shard, and all primaries there are.
    pub(super) fn primaries(&mut self) -> Result<Vec<Address>, RedisStoreError> {
        match self.mode.clone() {
            Mode::Cluster => {
                let ranges = self.of_any_seed(Self::slot_ranges)?;
                let mut all: Vec<_> = ranges.into_iter().map(|(_, _, address)| address).collect();
                all.sort();
                all.dedup();
                Ok(all)
            }
            Mode::Single => Ok(self.config.url.hosts.iter().take(1).cloned().collect()),
            Mode::Sentinel { master } => {
                let primary = self.of_any_seed(|nodes, seed| nodes.master(seed, &master))?;
                Ok(vec![primary])
            }
        }
    }

    /// The primary of a key that belongs to no shard.
    pub(super) fn primary_of_key(&mut self, key: &str) -> Result<Address, RedisStoreError> {
        if self.is_stale {
            self.refresh()?;
        }
        let no_primary = RedisStoreError::NoPrimary { shard: 0 };
        if self.mode != Mode::Cluster {
            let of_all = self.primaries.first().cloned().flatten();
            let primary = of_all.map_or_else(|| self.primaries(), |primary| Ok(vec![primary]))?;
            return primary.into_iter().next().ok_or(no_primary);
        }
        let slot = match self.key_slots.get(key) {
            Some(slot) => *slot,
            None => self.of_any_seed(|nodes, seed| nodes.slot(seed, key))?,
        };
        // The names of these keys are few, and none comes from outside.
        self.key_slots.insert(key.to_owned(), slot);
        let primary = primary_of_slot(&self.ranges, slot);
        self.is_stale |= primary.is_none();
        primary.ok_or(no_primary)
    }

    /// The primary of a shard.
    pub(super) fn primary(&mut self, shard: Shard) -> Result<Address, RedisStoreError> {
        if self.is_stale {
            self.refresh()?;
        }
        let primary = self.primaries.get(shard.index()).cloned().flatten();
        // A cluster that is failing over has none for a while.
        self.is_stale |= primary.is_none();
        primary.ok_or(RedisStoreError::NoPrimary {
            shard: shard.number(),
        })
    }

    /// Connects to this server, if that is not so already. The connection's number: each has its
    /// own.
    pub(super) fn connect(&mut self, address: &Address) -> Result<u64, RedisStoreError> {
        match self.connection(address) {
            Ok(connection) => Ok(connection.number()),
            Err(error) => {
                self.note(address, &error);
                Err(error)
            }
        }
    }

    /// Sends each server its commands, then receives all answers. For each server its answers, of
    /// which some may be errors, or why there are none.
    pub(super) fn exchange(
        &mut self,
        requests: &[(Address, Vec<Cmd>)],
    ) -> Vec<Result<Vec<Value>, RedisStoreError>> {
        let sent: Vec<_> = requests
            .iter()
            .map(|(address, commands)| self.connection(address)?.send(commands))
            .collect();
        let received = requests.iter().zip(sent);
        received
            .map(|((address, commands), sent)| {
                let received = match (sent, self.connections.get_mut(address)) {
                    (Ok(()), Some(connection)) => connection.receive(commands.len()),
                    (Ok(()), None) => Err(RedisStoreError::Down {
                        address: address.clone(),
                    }),
                    (Err(error), _) => Err(error),
                };
                match &received {
                    Ok(_) => drop(self.down.remove(address)),
                    Err(error) => self.note(address, error),
                }
                received
            })
            .collect()
    }

    /// One command, to one server.
    pub(super) fn ask(
        &mut self,
        address: &Address,
        command: &Cmd,
    ) -> Result<Value, RedisStoreError> {
        let asked = match self.connection(address) {
            Ok(connection) => connection.ask(command),
            Err(error) => Err(error),
        };
        if let Err(error) = &asked {
            self.note(address, error);
        }
        asked
    }

    /// Several commands to the primary of a shard. None may fail.
    pub(super) fn ask_all(
        &mut self,
        shard: Shard,
        commands: Vec<Cmd>,
    ) -> Result<Vec<Value>, RedisStoreError> {
        let address = self.primary(shard)?;
        let request = [(address.clone(), commands)];
        let values = self.exchange(&request).pop().unwrap_or(Ok(Vec::new()))?;
        let values: Result<Vec<_>, _> = values
            .into_iter()
            .map(|value| checked(&address, value))
            .collect();
        if let Err(error) = &values {
            self.note(&address, error);
        }
        values
    }

    /// A script on the primary of a shard.
    pub(super) fn run(
        &mut self,
        shard: Shard,
        script: &redis::ScriptInvocation<'_>,
    ) -> Result<Value, RedisStoreError> {
        let address = self.primary(shard)?;
        self.run_at(&address, script)
    }

    /// A script on this server.
    pub(super) fn run_at(
        &mut self,
        address: &Address,
        script: &redis::ScriptInvocation<'_>,
    ) -> Result<Value, RedisStoreError> {
        let run = match self.connection(address) {
            Ok(connection) => connection.run(script),
            Err(error) => Err(error),
        };
        if let Err(error) = &run {
            self.note(address, error);
        }
        run
    }

    /// Draws the conclusions from an error: what is closed, and whether roles may have changed.
    #[expect(clippy::disallowed_methods, reason = "paces attempts to connect")]
    pub(super) fn note(&mut self, address: &Address, error: &RedisStoreError) {
        self.is_stale |= error.is_topology();
        if let RedisStoreError::Connection { .. } = error {
            self.connections.remove(address);
            let before = self.down.get(address).map(|down| down.pause);
            let pause = match before.filter(|_| error.is_timeout()) {
                Some(before) => (2 * before).min(DOWN_MAX),
                None => DOWN,
            };
            let since = Instant::now();
            self.down
                .insert(address.clone(), DownServer { since, pause });
        }
    }

    fn connection(&mut self, address: &Address) -> Result<&mut ServerConnection, RedisStoreError> {
        if self
            .connections
            .get(address)
            .is_some_and(|open| !open.is_open())
        {
            self.connections.remove(address);
        }
        if !self.connections.contains_key(address) {
            if let Some(down) = self.down.get(address)
                && down.since.elapsed() < down.pause
            {
                let address = address.clone();
                return Err(RedisStoreError::Down { address });
            }
            self.opened += 1;
            let opened = ServerConnection::open(&self.config, address, self.opened)?;
            tracing::debug!(address = %opened.address(), "connected to Redis");
            self.connections.insert(address.clone(), opened);
        }
        self.connections
            .get_mut(address)
            .ok_or_else(|| RedisStoreError::Down {
                address: address.clone(),
            })
    }

    /// Asks for the primaries of all shards again.
    fn refresh(&mut self) -> Result<(), RedisStoreError> {
        let count = self.primaries.len();
        if self.mode != Mode::Cluster {
            let primary = self.primaries()?.into_iter().next();
            self.primaries = vec![primary; count];
            self.is_stale = false;
            return Ok(());
        }
        if self.slots.len() != count {
            self.slots = self.of_any_seed(|nodes, seed| {
                let key = |at: usize| keys::journal(Shard::new(at as u16));
                (0..count).map(|at| nodes.slot(seed, &key(at))).collect()
            })?;
        }
        self.ranges = self.of_any_seed(Self::slot_ranges)?;
        let slots = self.slots.iter();
        let of_slot = |slot: &u16| primary_of_slot(&self.ranges, *slot);
        self.primaries = slots.map(of_slot).collect();
        self.is_stale = false;
        Ok(())
    }

    /// The first server's answer that is none of a failure. A cluster's other nodes are asked after
    /// those of the configuration, which may all have been replaced.
    fn of_any_seed<T>(
        &mut self,
        mut of: impl FnMut(&mut Self, &Address) -> Result<T, RedisStoreError>,
    ) -> Result<T, RedisStoreError> {
        let mut seeds = self.config.url.hosts.clone();
        if self.mode == Mode::Cluster {
            let known = self.primaries.iter().flatten();
            seeds.extend(
                known
                    .filter(|known| !seeds.contains(known))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            seeds.dedup();
        }
        let mut first_error = None;
        for seed in &seeds {
            match of(self, seed) {
                Ok(found) => return Ok(found),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or(RedisStoreError::NoPrimary { shard: 0 }))
    }

    fn slot(&mut self, seed: &Address, key: &str) -> Result<u16, RedisStoreError> {
        let answer = self.ask(seed, redis::cmd("CLUSTER").arg("KEYSLOT").arg(key))?;
        u16::from_redis_value(answer).map_err(|_| RedisStoreError::Answer {
            address: seed.clone(),
            command: "CLUSTER KEYSLOT",
        })
    }

    fn slot_ranges(&mut self, seed: &Address) -> Result<Vec<(u16, u16, Address)>, RedisStoreError> {
        let answer = self.ask(seed, redis::cmd("CLUSTER").arg("SLOTS"))?;
        let ranges: Option<Vec<_>> = Vec::<Vec<Value>>::from_redis_value(answer)
            .ok()
            .and_then(|ranges| ranges.iter().map(|range| slot_range(range, seed)).collect());
        ranges.ok_or_else(|| RedisStoreError::Answer {
            address: seed.clone(),
            command: "CLUSTER SLOTS",
        })
    }

    fn master(&mut self, seed: &Address, name: &str) -> Result<Address, RedisStoreError> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let answer = self.ask(seed, &command)?;
        let found = Option::<(String, u16)>::from_redis_value(answer)
            .ok()
            .flatten();
        let (host, port) = found.ok_or_else(|| RedisStoreError::NoMaster {
            name: name.to_owned(),
        })?;
        Ok(Address { host, port })
    }
}

/// `[first, last, [host, port, …], replicas…]`. A host without a name is the one that was asked.
fn slot_range(range: &[Value], asked: &Address) -> Option<(u16, u16, Address)> {
    let [first, last, Value::Array(primary), ..] = range else {
        return None;
    };
    let number = |value: &Value| u16::from_redis_value_ref(value).ok();
    let host = Option::<String>::from_redis_value_ref(primary.first()?).ok()?;
    let host = host.filter(|host| !host.is_empty() && host != "?");
    let address = Address {
        host: host.unwrap_or_else(|| asked.host.clone()),
        port: number(primary.get(1)?)?,
    };
    Some((number(first)?, number(last)?, address))
}

fn primary_of_slot(ranges: &[(u16, u16, Address)], slot: u16) -> Option<Address> {
    let range = ranges
        .iter()
        .find(|(first, last, _)| (*first..=*last).contains(&slot));
    range.map(|(_, _, address)| address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_ranges_are_understood() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let asked = Address {
            host: "10.0.0.9".to_owned(),
            port: 7000,
        };
        let check = |host: Value, expected: &str| {
            let primary = Value::Array(vec![host, Value::Int(7001), text("an id")]);
            let range = [Value::Int(0), Value::Int(5460), primary];
            let (first, last, address) = slot_range(&range, &asked).unwrap();
            assert_eq!((first, last), (0, 5460));
            assert_eq!(address.to_string(), expected);
        };
        check(text("10.0.0.1"), "10.0.0.1:7001");
        check(text(""), "10.0.0.9:7001");
        check(Value::Nil, "10.0.0.9:7001");
        assert_eq!(slot_range(&[Value::Int(0)], &asked), None);
        let ranges = [(0, 5, asked.clone()), (7, 9, asked.clone())];
        assert_eq!(primary_of_slot(&ranges, 5), Some(asked));
        assert_eq!(primary_of_slot(&ranges, 6), None);
    }
}
