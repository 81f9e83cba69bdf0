//! Which shards take no more samples for now: decided by what their servers said last, and by what
//! was appended since. Pure.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::{MemberRole, ServerReading, Shard, ShardCount, ShardReading, StoreReading};

/// What was full takes samples again so many percent below its mark, so that it does not change all
/// the time.
const HYSTERESIS_PERCENT: u64 = 5;
/// The journal of one shard has at most so much of its server's memory: a shard that nobody commits
/// leaves the others some.
const JOURNAL_PERCENT: u64 = 50;
/// What is appended takes up to so much memory, in percent of its bytes.
const MEMORY_PERCENT: u64 = 150;
/// What an entry of a journal takes up beside its group.
const ENTRY_BYTES: u64 = 300;

/// The high-water mark of a shared store, and whether its servers are above it.
#[derive(Debug)]
pub struct HighWater {
    levels: Mutex<Levels>,
}

#[derive(Debug)]
struct Levels {
    percent: u64,
    /// How many processes append, so how much of what is appended is not ours.
    receivers: u64,
    servers: Vec<ServerLevel>,
    shards: Vec<ShardLevel>,
}

/// How full something is, of which we know what it was a moment ago.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    used: u64,
    /// What our appends had come to when `used` was asked for.
    appended_then: u64,
    is_full: bool,
}

#[derive(Debug)]
struct ServerLevel {
    name: String,
    shards: Vec<Shard>,
    limit: Option<u64>,
    level: Level,
}

#[derive(Debug, Clone, Copy, Default)]
struct ShardLevel {
    server: Option<usize>,
    /// What our appends have come to.
    appended: u64,
    level: Level,
}

/// What our appends had come to at one moment, by shard.
#[derive(Debug, Clone)]
pub(super) struct AppendedThen(Vec<u64>);

/// Something that takes no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Full {
    /// A server.
    Server {
        name: String,
        used: u64,
        limit: u64,
        /// Below so many percent it takes samples again.
        again: u64,
    },
    /// The journal of a shard.
    Journal { shard: Shard, used: u64, limit: u64 },
}

impl Full {
    /// What it is, whatever its numbers.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Server { name, .. } => name.clone(),
            Self::Journal { shard, .. } => format!("the journal of shard {}", shard.number()),
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: &u64| bytes >> 20;
        let what = self.name();
        let refused = "samples are answered 503 overloaded until summarizers have caught up";
        match self {
            Self::Server {
                used, limit, again, ..
            } => write!(
                f,
                "{what} uses {} of {} MiB: {refused}, and it uses less than {again} %",
                mib(used),
                mib(limit)
            ),
            Self::Journal { used, limit, .. } => write!(
                f,
                "{what} takes up {} of its server's {} MiB: {refused}",
                mib(used),
                mib(limit)
            ),
        }
    }
}

impl Level {
    /// Whether it is above the mark now that our appends have come to `appended`.
    fn judge(&mut self, appended: u64, receivers: u64, mark: u64, mark_again: u64) -> bool {
        let new = appended.saturating_sub(self.appended_then);
        let new = in_memory(new).saturating_mul(receivers);
        let now = self.used.saturating_add(new);
        self.is_full = now >= if self.is_full { mark_again } else { mark };
        self.is_full
    }
}

/// What so many bytes take up.
fn in_memory(bytes: u64) -> u64 {
    bytes.saturating_mul(MEMORY_PERCENT) / 100
}

fn share(of: u64, percent: u64) -> u64 {
    of / 100 * percent
}

impl HighWater {
    /// Nothing is known of the servers yet: everything is taken.
    pub fn new(percent: u8, shards: ShardCount) -> Self {
        Self {
            levels: Mutex::new(Levels {
                percent: percent.into(),
                receivers: 1,
                servers: Vec::new(),
                shards: shards.all().map(|_| ShardLevel::default()).collect(),
            }),
        }
    }

    /// Whether each of these requests is taken, with so many bytes for its shard, if those before
    /// it are.
    pub fn admit(&self, requests: impl Iterator<Item = (Shard, usize)>) -> Vec<bool> {
        let mut levels = self.lock();
        let before = levels.appended();
        let taken = requests
            .map(|(shard, bytes)| {
                let is_taken = !levels.is_full(shard);
                if is_taken {
                    levels.add(shard, bytes as u64);
                }
                is_taken
            })
            .collect();
        // It counts once it is appended.
        levels.set_appended(&before);
        taken
    }

    /// A group of so many bytes was appended, or may have been.
    pub fn appended(&self, shard: Shard, bytes: usize) {
        self.lock().add(shard, ENTRY_BYTES + bytes as u64);
    }

    /// The server of this shard has refused a group because it has no memory left.
    pub fn has_no_memory(&self, shard: Shard) {
        let mut levels = self.lock();
        let server = levels.shards.get(shard.index());
        let server = server.and_then(|shard| shard.server);
        if let Some(server) = server.and_then(|at| levels.servers.get_mut(at)) {
            server.level.is_full = true;
            server.level.used = server.level.used.max(server.limit.unwrap_or(0));
        }
    }

    /// To be noted before the servers are asked.
    pub(super) fn appended_then(&self) -> AppendedThen {
        AppendedThen(self.lock().appended())
    }

    /// Takes up what the servers said. What is full now.
    pub(super) fn note(&self, reading: &StoreReading, then: &AppendedThen) -> Vec<Full> {
        let mut levels = self.lock();
        let receivers = reading.members.iter();
        let mut receivers = receivers.filter(|(role, _)| *role == MemberRole::Receiver);
        levels.receivers = match receivers.next() {
            Some((_, count)) => (*count).max(1),
            None => levels.receivers,
        };
        for server in &reading.servers {
            levels.note_server(server, then);
        }
        levels.forget_unused_servers();
        for shard in &reading.shards {
            levels.note_shard(shard, then);
        }
        levels.full()
    }

    fn lock(&self) -> MutexGuard<'_, Levels> {
        // Each number that a panic left is valid by itself.
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Levels {
    fn appended(&self) -> Vec<u64> {
        self.shards.iter().map(|shard| shard.appended).collect()
    }

    fn set_appended(&mut self, appended: &[u64]) {
        for (shard, appended) in self.shards.iter_mut().zip(appended) {
            shard.appended = *appended;
        }
    }

    fn add(&mut self, shard: Shard, bytes: u64) {
        if let Some(shard) = self.shards.get_mut(shard.index()) {
            shard.appended = shard.appended.saturating_add(bytes);
        }
    }

    fn note_server(&mut self, reading: &ServerReading, then: &AppendedThen) {
        let of_name = |server: &ServerLevel| server.name == reading.name;
        let at = self.servers.iter().position(of_name);
        let at = at.unwrap_or_else(|| {
            self.servers.push(ServerLevel {
                name: reading.name.clone(),
                shards: Vec::new(),
                limit: None,
                level: Level::default(),
            });
            self.servers.len() - 1
        });
        // A failover gives shards another server.
        for server in &mut self.servers {
            server
                .shards
                .retain(|shard| !reading.shards.contains(shard));
        }
        let then = reading.shards.iter().map(|shard| then.of(*shard)).sum();
        let server = &mut self.servers[at];
        server.shards.clone_from(&reading.shards);
        server.limit = reading.limit_bytes;
        server.level.used = reading.used_bytes;
        server.level.appended_then = then;
    }

    fn forget_unused_servers(&mut self) {
        self.servers.retain(|server| !server.shards.is_empty());
        for (at, server) in self.servers.iter().enumerate() {
            for shard in &server.shards {
                if let Some(shard) = self.shards.get_mut(shard.index()) {
                    shard.server = Some(at);
                }
            }
        }
    }

    fn note_shard(&mut self, reading: &ShardReading, then: &AppendedThen) {
        let known = self.shards.get_mut(reading.shard.index());
        if let (Some(shard), Some(bytes)) = (known, reading.journal_bytes) {
            shard.level.used = bytes;
            shard.level.appended_then = then.of(reading.shard);
        }
    }

    /// Whether a shard takes no more, or its server does not.
    fn is_full(&mut self, shard: Shard) -> bool {
        let Some(at) = self
            .shards
            .get(shard.index())
            .and_then(|shard| shard.server)
        else {
            return false;
        };
        self.is_server_full(at) || self.is_journal_full(shard, at)
    }

    fn is_server_full(&mut self, at: usize) -> bool {
        let (percent, receivers) = (self.percent, self.receivers);
        let percent_again = self.percent_again();
        let Some(server) = self.servers.get_mut(at) else {
            return false;
        };
        let Some(limit) = server.limit else {
            return false;
        };
        let ours = server.shards.iter();
        let ours = ours.filter_map(|shard| self.shards.get(shard.index()));
        let appended = ours.map(|shard| shard.appended).sum();
        let mark = share(limit, percent);
        server
            .level
            .judge(appended, receivers, mark, share(limit, percent_again))
    }

    fn percent_again(&self) -> u64 {
        self.percent.saturating_sub(HYSTERESIS_PERCENT)
    }

    fn is_journal_full(&mut self, shard: Shard, server: usize) -> bool {
        let limit = self.servers.get(server).and_then(|server| server.limit);
        let shard = self.shards.get_mut(shard.index());
        let (Some(limit), Some(shard)) = (limit, shard) else {
            return false;
        };
        let mark = share(limit, JOURNAL_PERCENT);
        let again = share(limit, JOURNAL_PERCENT - HYSTERESIS_PERCENT);
        let appended = shard.appended;
        shard.level.judge(appended, self.receivers, mark, again)
    }

    fn full(&mut self) -> Vec<Full> {
        let mut full = Vec::new();
        for at in 0..self.servers.len() {
            if self.is_server_full(at) {
                let server = &self.servers[at];
                full.push(Full::Server {
                    name: server.name.clone(),
                    used: server.level.used,
                    limit: server.limit.unwrap_or(0),
                    again: self.percent_again(),
                });
            }
        }
        for shard in (0..self.shards.len()).map(|at| Shard::new(at as u16)) {
            let level = self.shards[shard.index()];
            if let Some(server) = level.server
                && self.is_journal_full(shard, server)
            {
                full.push(Full::Journal {
                    shard,
                    used: level.level.used,
                    limit: self.servers[server].limit.unwrap_or(0),
                });
            }
        }
        full
    }
}

impl AppendedThen {
    fn of(&self, shard: Shard) -> u64 {
        self.0.get(shard.index()).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
