//! What is known of a host while a group is judged.

use std::collections::{HashMap, HashSet};

use lizmon_protocol::sample::ProducerId;
use lizmon_summary::{DeliverySet, DroppedSet, Series};

use crate::store::Position;
use crate::summarize::{HostSummaries, ProducerState, ReadMark};

/// What this group has admitted of a host.
#[derive(Default)]
pub(in crate::journal) struct Pending {
    /// New labels of samples.
    pub(super) labels: HashSet<String>,
    /// New labels of points.
    pub(super) series: HashSet<String>,
    /// By producer that sent some in this group, all its numbers: stored and admitted.
    pub(super) numbers: HashMap<ProducerId, DeliverySet>,
    /// The same for dropped numbers.
    pub(super) dropped: HashMap<ProducerId, DroppedSet>,
}

/// What earlier groups have admitted, by host, each until the summaries have been read on to where
/// it was appended. Empty where a group is counted before the next one is judged.
#[derive(Default)]
pub(in crate::journal) struct Unread {
    hosts: HashMap<String, UnreadHost>,
}

/// A host, and where it was appended to last.
struct UnreadHost {
    at: Position,
    /// How often its shard had been loaded again before.
    reloads: u64,
    pending: Pending,
}

impl UnreadHost {
    fn is_unread(&self, read: ReadMark) -> bool {
        self.at > read.through && self.reloads == read.reloads
    }
}

impl Unread {
    pub(in crate::journal) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// What is not in the summaries yet of a host in a shard that was read on so far.
    pub(in crate::journal) fn of(&self, host: &str, read: ReadMark) -> Option<&Pending> {
        let host = self.hosts.get(host)?;
        host.is_unread(read).then_some(&host.pending)
    }

    /// The same, to be added to.
    pub(in crate::journal) fn take(&mut self, host: &str, read: ReadMark) -> Option<Pending> {
        let host = self.hosts.remove(host)?;
        host.is_unread(read).then_some(host.pending)
    }

    /// This was appended at this position, when its shard was read on so far.
    pub(in crate::journal) fn insert(
        &mut self,
        host: String,
        at: Position,
        read: ReadMark,
        pending: Pending,
    ) {
        let reloads = read.reloads;
        let unread = UnreadHost {
            at,
            reloads,
            pending,
        };
        self.hosts.insert(host, unread);
    }

    /// Drops what the summaries have. To be called every second or so.
    pub(in crate::journal) fn prune(&mut self, read: impl Fn(&str) -> ReadMark) {
        self.hosts
            .retain(|host, unread| unread.is_unread(read(host)));
    }
}

/// A host as it is stored, and what this group has admitted of it.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) host: Option<&'a HostSummaries>,
    pub(super) pending: Option<&'a Pending>,
}

impl<'a> Known<'a> {
    pub(super) fn stored(self, producer: &ProducerId) -> Option<&'a ProducerState> {
        self.host?.producers.get(producer)
    }

    /// All numbers of a producer; none if it is unknown.
    pub(super) fn numbers(self, producer: &ProducerId) -> Option<&'a DeliverySet> {
        let waiting = self
            .pending
            .and_then(|pending| pending.numbers.get(producer));
        waiting.or_else(|| Some(&self.stored(producer)?.set))
    }

    /// All that a producer dropped.
    pub(super) fn dropped(self, producer: &ProducerId) -> Option<&'a DroppedSet> {
        let waiting = self
            .pending
            .and_then(|pending| pending.dropped.get(producer));
        waiting.or_else(|| Some(&self.stored(producer)?.dropped))
    }

    /// Whether a sample of this label makes no series, or a point of it no series of points: one of
    /// samples that gets a point becomes one.
    pub(super) fn has_label(self, label: &str, of_points: bool) -> bool {
        let is_stored = |host: &HostSummaries| is_one(host, label, of_points);
        let waits = |pending: &Pending| {
            pending.series.contains(label) || !of_points && pending.labels.contains(label)
        };
        self.host.is_some_and(is_stored) || self.pending.is_some_and(waits)
    }

    /// How many labels there are of points, or of samples.
    pub(super) fn label_count(self, of_points: bool) -> usize {
        let is_of_these = |series: &&Series| series.last_point().is_some() == of_points;
        let stored = self
            .host
            .map_or(0, |host| host.series.values().filter(is_of_these).count());
        let waiting = self
            .pending
            .into_iter()
            .flat_map(|pending| match of_points {
                true => &pending.series,
                false => &pending.labels,
            });
        let is_new = |label: &&String| {
            let is_stored = |host: &HostSummaries| is_one(host, label, of_points);
            !self.host.is_some_and(is_stored)
        };
        stored + waiting.filter(is_new).count()
    }

    pub(super) fn producer_count(self) -> usize {
        let stored = self.host.map_or(0, |host| host.producers.len());
        let waiting = self.pending.into_iter().flat_map(|p| p.numbers.keys());
        stored + waiting.filter(|id| self.stored(id).is_none()).count()
    }
}

/// Whether a host has a series with this label, and if that is asked for one of points.
fn is_one(host: &HostSummaries, label: &str, of_points: bool) -> bool {
    let series = host.series.get(label);
    series.is_some_and(|series| !of_points || series.last_point().is_some())
}
