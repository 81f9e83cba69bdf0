//! The alarms of one shard's hosts, while this process commits the shard.

use std::collections::{HashMap, HashSet};

use lizmon_alarms::board::{AlarmBoard, BoardEntry};
use lizmon_alarms::channel::{Accepted, NoticeQueues};
use lizmon_alarms::judge::{Observed, Round, RuleVerdict};
use lizmon_alarms::rules::{Rule, RuleKind, RuleSet};
use lizmon_alarms::sight::{BlindTime, Sight, StoredSight};
use lizmon_alarms::silence::Silence;
use lizmon_alarms::state::{AlarmState, HostAlarms};
use serde::{Deserialize, Serialize};

use super::matcher::{self, Matcher};
use super::observe::{self, Closed, HostLook};
use crate::store::{DocumentKind, Shard, StateStore, StoreError};
use crate::summarize::{HostMap, HostSummaries, Summarizer};

/// How long after its end an interval is judged: what was sampled at its end is there by then.
const GRACE_SECS: u64 = 10;
/// How often it is stored that the receiver sees.
const STORE_SIGHT_EVERY_SECS: u64 = 60;
/// How many bytes the names of hosts with alarms have in the shard's document.
const NAMES_BYTES_MAX: usize = 8 << 10;

/// Tells one time of owning a shard, with what was loaded, from another.
pub(super) type Ownership = (u64, u64);

/// The document of a shard.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct ShardDocument {
    /// When its owner last saw.
    sight: Option<StoredSight>,
    /// The hosts with alarms, for who does not own the shard.
    hosts: Vec<String>,
    /// Whose the next are.
    own_name: String,
    /// The receiver's own alarms.
    own: HostAlarms,
}

/// The alarms of one shard's hosts.
#[derive(Debug, Default)]
pub(super) struct ShardAlarms {
    generation: Option<Ownership>,
    hosts: HashMap<Box<str>, HostAlarms>,
    /// The receiver's own, and its name.
    own: HostAlarms,
    own_name: String,
    pub(super) sight: Sight,
    sight_stored_at: u64,
    /// The last time at which it was judged: in rounds of the rules.
    slot: u64,
    /// The last intervals that were judged.
    judged: Closed,
    /// Which channel's run has which notice in its queue.
    in_flight: HashMap<(String, String), u64>,
    /// Whether something must be committed before it is told, or because it was.
    pub(super) needs_commit: bool,
}

/// What all shards are judged by.
pub(super) struct Judges<'a> {
    pub(super) matcher: &'a mut Matcher,
    pub(super) now: u64,
    /// By when hosts end; none if none may end now.
    pub(super) expiry: Option<u64>,
    pub(super) sees_since: u64,
    pub(super) own_name: &'a str,
    pub(super) shards: usize,
}

impl ShardAlarms {
    /// Somebody else commits the shard.
    pub(super) fn leave(&mut self, shard: Shard, board: &AlarmBoard) {
        if self.generation.is_some() {
            *self = Self::default();
            board.replace(shard.number(), Vec::new());
        }
    }

    /// Reads what is stored, if it was not read since the shard was loaded.
    pub(super) fn load(
        &mut self,
        summarizer: &Summarizer,
        shard: Shard,
        generation: Ownership,
        own_name: &str,
    ) {
        if self.generation == Some(generation) {
            return;
        }
        let stored = summarizer.shard_documents(shard).get(DocumentKind::Alarms);
        let stored = stored.and_then(|body| serde_json::from_slice::<ShardDocument>(body).ok());
        let ShardDocument { sight, own, .. } = stored.unwrap_or_default();
        let hosts = summarizer.shard_hosts(shard);
        let read = hosts.iter().filter_map(|(name, host)| {
            let body = host.documents.get(DocumentKind::Alarms)?;
            match HostAlarms::from_bytes(body) {
                Ok(alarms) => Some((name.clone(), alarms)),
                Err(error) => {
                    tracing::error!(host = &**name, %error, "the stored alarms of a host cannot be read: those that still hold are raised again");
                    None
                }
            }
        });
        *self = Self {
            generation: Some(generation),
            hosts: read.collect(),
            own,
            own_name: own_name.to_owned(),
            sight: Sight::restore(sight),
            ..Self::default()
        };
    }

    /// A channel has accepted a notice.
    pub(super) fn accepted(&mut self, summarizer: &mut Summarizer, shard: Shard, told: &Accepted) {
        let key = (told.notice.clone(), told.channel.clone());
        self.in_flight.remove(&key);
        if self.own.accepted(&told.notice, &told.channel) {
            self.store_own(summarizer, shard);
            self.needs_commit = true;
        }
        let Some(alarms) = self.hosts.get_mut(&*told.host) else {
            return;
        };
        if alarms.accepted(&told.notice, &told.channel) {
            store(summarizer, &told.host, alarms);
            self.needs_commit = true;
        }
    }

    /// Says once that the receiver was blind.
    pub(super) fn tell_blind(
        &mut self,
        summarizer: &mut Summarizer,
        shard: Shard,
        blind: &BlindTime,
        judges: &Judges<'_>,
    ) {
        let rules = judges.matcher.rules().clone();
        let is_it = |rule: &&Rule| matches!(rule.kind, RuleKind::ReceiverBlind);
        let secs = blind.to.saturating_sub(blind.from);
        for rule in rules.rules.iter().filter(is_it) {
            if secs < rule.for_secs || !rule.hosts.matches(judges.own_name) {
                continue;
            }
            let observed = Observed {
                verdict: RuleVerdict::Breached,
                value: secs as f64,
                from: blind.from,
                to: blind.to,
            };
            tracing::warn!(
                rule = rule.name,
                secs,
                why = blind.why,
                "no alarm was raised for a while"
            );
            self.own.tell_event(
                &round(&rules, judges, false),
                judges.own_name,
                rule,
                observed,
                blind.why,
            );
            self.needs_commit = true;
        }
        self.store_own(summarizer, shard);
    }

    /// Stores now and then that it sees.
    pub(super) fn store_sight(&mut self, summarizer: &mut Summarizer, shard: Shard, now: u64) {
        if now.abs_diff(self.sight_stored_at) >= STORE_SIGHT_EVERY_SECS {
            self.sight_stored_at = now;
            self.store_own(summarizer, shard);
        }
    }

    fn store_own(&mut self, summarizer: &mut Summarizer, shard: Shard) {
        let mut bytes = 0;
        let names = self
            .hosts
            .iter()
            .filter(|(_, alarms)| !alarms.alarms.is_empty());
        let names = names.map(|(name, _)| name.to_string()).take_while(|name| {
            bytes += name.len() + 3;
            bytes <= NAMES_BYTES_MAX
        });
        let mut document = ShardDocument {
            sight: self.sight.stored(),
            hosts: names.collect(),
            own_name: self.own_name.clone(),
            own: std::mem::take(&mut self.own),
        };
        document.own.notices.truncate(8);
        let body = serde_json::to_vec(&document).unwrap_or_default();
        self.own = document.own;
        summarizer.set_shard_document(shard, DocumentKind::Alarms, &body);
    }

    /// Whether its turn has come: shards are spread over the time between two rounds.
    fn is_due(&mut self, shard: Shard, judges: &Judges<'_>) -> bool {
        let every = judges.matcher.rules().every_secs.max(1);
        let offset = shard.index() as u64 * every / judges.shards.max(1) as u64;
        let slot = (judges.now + every - offset) / every;
        std::mem::replace(&mut self.slot, slot) != slot
    }

    /// The intervals that have closed since the last time, while it saw.
    fn closed(&mut self, judges: &Judges<'_>) -> Closed {
        let ended = |width: u64| {
            let settled = judges.now.saturating_sub(GRACE_SECS);
            let end = settled - settled % width;
            (end > judges.sees_since).then_some(end)
        };
        let closed = Closed {
            minute: ended(60),
            hour: ended(3_600),
        };
        let before = std::mem::replace(&mut self.judged, closed);
        let is_new = |end: Option<u64>, before: Option<u64>| end.filter(|_| end > before);
        Closed {
            minute: is_new(closed.minute, before.minute),
            hour: is_new(closed.hour, before.hour),
        }
    }

    /// Judges every host, if it is time to.
    pub(super) fn judge(
        &mut self,
        summarizer: &mut Summarizer,
        shard: Shard,
        judges: &mut Judges<'_>,
        board: &AlarmBoard,
    ) {
        if !self.is_due(shard, judges) {
            return;
        }
        let look = HostLook {
            now: judges.now,
            expiry: judges.expiry,
            sees_since: judges.sees_since,
            closed: self.closed(judges),
        };
        let names_before = self.hosts.len();
        let mut changed = HashSet::new();
        let mut entries = self.own_entries(judges.own_name);
        {
            let hosts = summarizer.shard_hosts(shard);
            self.end_missing(&hosts, judges);
            for (name, host) in hosts.iter() {
                if self.judge_host(name, host, look, judges) {
                    changed.insert(name.clone());
                }
                if let Some(alarms) = self.hosts.get(name) {
                    entries.extend(entries_of(name, host, alarms, judges.now));
                }
            }
        }
        for name in &changed {
            if let Some(alarms) = self.hosts.get_mut(&**name) {
                store(summarizer, name, alarms);
                if alarms.is_empty() {
                    self.hosts.remove(&**name);
                }
            }
        }
        if self.hosts.len() != names_before || !changed.is_empty() {
            self.store_own(summarizer, shard);
        }
        board.replace(shard.number(), entries);
    }

    /// Says whether there is something to store.
    fn judge_host(
        &mut self,
        name: &str,
        host: &HostSummaries,
        look: HostLook,
        judges: &mut Judges<'_>,
    ) -> bool {
        if look.expiry.is_some_and(|expiry| host.is_over(expiry)) {
            return self.end_host(name, host, judges);
        }
        let rules = judges.matcher.rules().clone();
        let known = self.hosts.remove(name);
        let is_known = known.is_some();
        let mut alarms = known.unwrap_or_default();
        let silenced_until = silenced_until(host, look.now);
        let round = round(&rules, judges, silenced_until.is_some());
        let mut has_changed =
            is_known && alarms.keep_channels(|channel| rules.channels.contains_key(channel));
        if silenced_until.is_none() && alarms.end_silence() {
            has_changed = true;
            self.needs_commit = true;
        }
        if silenced_until.is_some() {
            has_changed |= self.hold(&mut alarms);
        }
        let notices = alarms.notices.len();
        for rule in rules.rules.iter().filter(|rule| judges_hosts(rule)) {
            if rule.hosts.matches(name)
                && let Some(observed) = observe::of_host(host, rule, look)
            {
                has_changed |= alarms.observe(&round, name, rule, "", observed);
            }
        }
        if look.closed != Closed::default() {
            for (label, series) in &host.series {
                for at in judges.matcher.of_label(label) {
                    let Some(rule) = rules.rules.get(usize::from(*at)) else {
                        continue;
                    };
                    let RuleKind::Label(of_label) = &rule.kind else {
                        continue;
                    };
                    if rule.hosts.matches(name)
                        && let Some(observed) = observe::of_series(series, of_label, look.closed)
                    {
                        has_changed |= alarms.observe(&round, name, rule, label, observed);
                    }
                }
            }
            let is_meant =
                |rule: &Rule, label: &str| rule.hosts.matches(name) && matcher::judges(rule, label);
            has_changed |= is_known && alarms.settle(&round, is_meant);
        }
        self.needs_commit |= alarms.notices.len() > notices;
        if is_known || !alarms.is_empty() {
            self.hosts.insert(name.into(), alarms);
        }
        has_changed
    }

    /// A host of which nothing has come for so long that it is forgotten: its alarms end, and it stays
    /// until that was told.
    fn end_host(&mut self, name: &str, host: &HostSummaries, judges: &Judges<'_>) -> bool {
        let Some(alarms) = self.hosts.get_mut(name) else {
            return false;
        };
        let rules = judges.matcher.rules();
        let is_silenced = silenced_until(host, judges.now).is_some();
        let mut has_changed = alarms.keep_channels(|name| rules.channels.contains_key(name));
        has_changed |= !is_silenced && alarms.end_silence();
        has_changed |= !alarms.alarms.is_empty();
        alarms.end_all(&round(rules, judges, is_silenced));
        self.needs_commit |= has_changed;
        has_changed
    }

    /// Whatever no channel was given before the host was silenced waits for the end of that, too.
    fn hold(&self, alarms: &mut HostAlarms) -> bool {
        let mut has_changed = false;
        for notice in alarms.notices.iter_mut().filter(|notice| !notice.held) {
            let key = |channel: &String| (notice.id.clone(), channel.clone());
            let mut given = notice.to.iter().map(key);
            if !given.any(|key| self.in_flight.contains_key(&key)) {
                notice.held = true;
                has_changed = true;
            }
        }
        has_changed
    }

    /// Hosts that the store has lost: their alarms end, which cannot be stored any more.
    fn end_missing(&mut self, hosts: &HostMap, judges: &Judges<'_>) {
        let rules = judges.matcher.rules().clone();
        let round = round(&rules, judges, false);
        self.hosts.retain(|name, alarms| {
            if hosts.contains_key(name) {
                return true;
            }
            alarms.end_all(&round);
            !alarms.notices.is_empty()
        });
    }

    /// Puts what waits into the channels' queues, as far as they take it.
    pub(super) fn tell(&mut self, queues: &dyn NoticeQueues, own_name: &str) {
        let mut full = HashSet::new();
        let hosts = self.hosts.iter().map(|(name, alarms)| (&**name, alarms));
        for (host, alarms) in hosts.chain([(own_name, &self.own)]) {
            for notice in alarms.notices.iter().filter(|notice| !notice.held) {
                for channel in &notice.to {
                    let Some(run) = queues.run_of(channel) else {
                        continue;
                    };
                    let key = (notice.id.clone(), channel.clone());
                    if full.contains(channel) || self.in_flight.get(&key) == Some(&run) {
                        continue;
                    }
                    match queues.send(channel, host, notice) {
                        true => drop(self.in_flight.insert(key, run)),
                        // Those behind it must not overtake it.
                        false => drop(full.insert(channel.clone())),
                    }
                }
            }
        }
    }

    fn own_entries(&self, own_name: &str) -> Vec<BoardEntry> {
        let entry = |alarm: &lizmon_alarms::state::Alarm| BoardEntry {
            host: own_name.to_owned(),
            alarm: alarm.clone(),
            silenced_until: None,
            is_held: false,
        };
        self.own.alarms.iter().map(entry).collect()
    }
}

fn judges_hosts(rule: &Rule) -> bool {
    !matches!(rule.kind, RuleKind::Label(_) | RuleKind::ReceiverBlind)
}

fn round<'a>(rules: &'a RuleSet, judges: &Judges<'_>, is_silenced: bool) -> Round<'a> {
    Round {
        rules,
        now: judges.now,
        sees_since: judges.sees_since,
        is_silenced,
    }
}

fn store(summarizer: &mut Summarizer, host: &str, alarms: &mut HostAlarms) {
    if alarms.is_empty() {
        summarizer.set_document(host, DocumentKind::Alarms, b"");
        return;
    }
    let (body, left_out) = alarms.to_bytes();
    if left_out > 0 {
        tracing::error!(host, left_out, "a host has more alarms than can be kept");
    }
    summarizer.set_document(host, DocumentKind::Alarms, &body);
}

/// Until when an operator has silenced the host.
pub(super) fn silenced_until(host: &HostSummaries, now: u64) -> Option<u64> {
    let body = host.documents.get(DocumentKind::Silence)?;
    Silence::from_bytes(body).ok()?.until(now)
}

pub(super) fn entries_of(
    name: &str,
    host: &HostSummaries,
    alarms: &HostAlarms,
    now: u64,
) -> Vec<BoardEntry> {
    let silenced_until = silenced_until(host, now);
    let is_held = |alarm: &lizmon_alarms::state::Alarm| {
        let mut held = alarms.notices.iter().filter(|notice| notice.held);
        held.any(|notice| notice.alarm == alarm.id && notice.state == AlarmState::Firing)
    };
    let shown = alarms.alarms.iter().filter(|alarm| {
        // What only was pending is kept for how often it fired before.
        alarm.state != AlarmState::Resolved || alarm.judged > 0
    });
    let entry = |alarm: &lizmon_alarms::state::Alarm| BoardEntry {
        host: name.to_owned(),
        alarm: alarm.clone(),
        silenced_until,
        is_held: is_held(alarm),
    };
    shown.map(entry).collect()
}

/// What another process has stored of a shard's alarms.
pub(super) fn stored_entries(
    summarizer: &Summarizer,
    store: &mut dyn StateStore,
    shard: Shard,
    now: u64,
) -> Result<Vec<BoardEntry>, StoreError> {
    let own = store.documents(shard, &[""], DocumentKind::Alarms)?;
    let own = own.into_iter().flatten().next();
    let own = own.and_then(|body| serde_json::from_slice::<ShardDocument>(&body).ok());
    let Some(ShardDocument {
        hosts: names,
        own,
        own_name,
        ..
    }) = own
    else {
        return Ok(Vec::new());
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bodies = store.documents(shard, &names, DocumentKind::Alarms)?;
    let hosts = summarizer.shard_hosts(shard);
    let of_hosts = names.iter().zip(bodies).filter_map(|(name, body)| {
        let alarms = HostAlarms::from_bytes(&body?).ok()?;
        Some(entries_of(name, hosts.get(*name)?, &alarms, now))
    });
    let own = own.alarms.into_iter().map(|alarm| BoardEntry {
        host: own_name.clone(),
        alarm,
        silenced_until: None,
        is_held: false,
    });
    Ok(own.chain(of_hosts.flatten()).collect())
}
