//! A Cluster: primaries that share 16,384 slots, each with replicas.

use std::collections::BTreeMap;

use crate::config::NodePart;
use crate::node::{EngineNode, line_of};
use crate::settings::EngineSettings;
use crate::wait::{ensure, wait_until};

/// Slots of every Cluster.
pub const SLOTS: u16 = 16_384;

/// A Cluster. Failovers take about three seconds.
#[derive(Debug)]
pub struct EngineCluster {
    nodes: Vec<EngineNode>,
}

impl EngineCluster {
    /// Starts this many primaries with equal shares of the slots, each with this many replicas, and
    /// waits until all nodes agree that the Cluster is whole and all replicas follow.
    #[track_caller]
    pub fn start(settings: &EngineSettings, primaries: usize, replicas_each: usize) -> Self {
        let count = primaries * (1 + replicas_each);
        Self::start_each(&vec![settings.clone(); count], primaries)
    }

    /// The same, with settings for each node: first those of the primaries, then those of the
    /// replicas, one for each primary in turn.
    #[track_caller]
    pub fn start_each(settings: &[EngineSettings], primaries: usize) -> Self {
        let nodes = settings
            .iter()
            .map(|settings| EngineNode::start_as(settings, &NodePart::ClusterNode));
        let cluster = Self {
            nodes: nodes.collect(),
        };
        cluster.share_slots(primaries);
        cluster.meet();
        cluster.follow(primaries);
        cluster.wait_until_whole();
        cluster
    }

    /// All nodes: first those that were primaries at the start, then the replicas, one for each
    /// primary in turn.
    pub fn nodes(&self) -> &[EngineNode] {
        &self.nodes
    }

    /// The slot of a key.
    #[track_caller]
    pub fn slot_of(&self, key: &str) -> u16 {
        let slot = self.any_running().cli(&["CLUSTER", "KEYSLOT", key]);
        slot.parse().expect("a slot")
    }

    /// The primary of a slot, as more than half of the running nodes see it.
    #[track_caller]
    pub fn primary_of(&self, slot: u16) -> &EngineNode {
        wait_until("the nodes agree on a primary", || self.agreed(slot))
    }

    /// The replicas that follow this primary.
    #[track_caller]
    pub fn replicas_of(&self, primary: &EngineNode) -> Vec<&EngineNode> {
        let view = View::of(self.any_running()).expect("a running node answers");
        let mut entries = view.entries.iter();
        let Some(of) = entries.find(|entry| entry.port == primary.address().port()) else {
            return Vec::new();
        };
        let followers = view.entries.iter().filter(|entry| entry.follows == of.id);
        followers
            .filter_map(|entry| self.by_port(entry.port))
            .collect()
    }

    /// Waits until another than this is the primary of the slot, says so itself, and all running
    /// nodes call the Cluster whole.
    #[track_caller]
    pub fn wait_for_failover(&self, slot: u16, from: &EngineNode) -> &EngineNode {
        wait_until("the Cluster has failed over", || {
            let primary = self.agreed(slot)?;
            ensure(primary.address() != from.address(), || {
                format!("{} is the primary still", from.address())
            })?;
            let role = primary.try_cli(&["ROLE"])?;
            ensure(role.starts_with("master"), || role)?;
            self.all_call_it_whole()?;
            Ok(primary)
        })
    }

    /// Waits until every running node calls the Cluster whole, each replica is in step with its
    /// primary, and all nodes see the same primaries.
    #[track_caller]
    pub fn wait_until_whole(&self) {
        wait_until("the Cluster is whole", || {
            self.all_call_it_whole()?;
            let mut views = Vec::new();
            for node in self.running() {
                let info = node.try_cli(&["INFO", "replication"])?;
                let link = line_of(&info, "master_link_status");
                ensure(matches!(&*link, "" | "up"), || info)?;
                views.push(View::of(node)?.roles());
            }
            views.dedup();
            ensure(views.len() == 1, || format!("they see {views:?}"))
        });
    }

    /// Those that are up and not paused.
    pub fn running(&self) -> impl Iterator<Item = &EngineNode> {
        self.nodes.iter().filter(|node| node.runs())
    }

    #[track_caller]
    fn any_running(&self) -> &EngineNode {
        self.running().next().expect("a node runs")
    }

    fn by_port(&self, port: u16) -> Option<&EngineNode> {
        let mut nodes = self.nodes.iter();
        nodes.find(|node| node.address().port() == port)
    }

    #[track_caller]
    fn share_slots(&self, primaries: usize) {
        let bound = |index: usize| usize::from(SLOTS) * index / primaries;
        for (index, node) in self.nodes[..primaries].iter().enumerate() {
            let (first, last) = (bound(index).to_string(), (bound(index + 1) - 1).to_string());
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
    }

    /// Waits until every node knows every other.
    #[track_caller]
    fn meet(&self) {
        let first = &self.nodes[0];
        for node in &self.nodes[1..] {
            let (ip, port) = (
                node.address().ip().to_string(),
                node.address().port().to_string(),
            );
            first.cli(&["CLUSTER", "MEET", &ip, &port, &node.bus_port().to_string()]);
        }
        wait_until("the nodes meet", || {
            for node in &self.nodes {
                let view = View::of(node)?;
                let known = view.entries.iter().filter(|entry| entry.is_known());
                ensure(known.count() == self.nodes.len(), || format!("{view:?}"))?;
            }
            Ok(())
        });
    }

    #[track_caller]
    fn follow(&self, primaries: usize) {
        let (primaries, replicas) = self.nodes.split_at(primaries);
        for (replica, primary) in replicas.iter().zip(primaries.iter().cycle()) {
            let id = primary.cli(&["CLUSTER", "MYID"]);
            replica.cli(&["CLUSTER", "REPLICATE", &id]);
        }
    }

    fn all_call_it_whole(&self) -> Result<(), String> {
        for node in self.running() {
            let info = node.try_cli(&["CLUSTER", "INFO"])?;
            ensure(line_of(&info, "cluster_state") == "ok", || info)?;
        }
        Ok(())
    }

    fn agreed(&self, slot: u16) -> Result<&EngineNode, String> {
        let mut votes: BTreeMap<u16, usize> = BTreeMap::new();
        for node in self.running() {
            // One that has just been killed, or is starting, has no vote.
            if let Ok(view) = View::of(node)
                && let Some(port) = view.primary_of(slot)
            {
                *votes.entry(port).or_default() += 1;
            }
        }
        let voters = self.running().count();
        let most = votes.iter().find(|(_, count)| **count * 2 > voters);
        let port = most.map(|(port, _)| *port);
        port.and_then(|port| self.by_port(port))
            .ok_or_else(|| format!("{voters} nodes name as primary of slot {slot}: {votes:?}"))
    }
}

/// `CLUSTER NODES` of one node.
#[derive(Debug)]
struct View {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: String,
    port: u16,
    flags: Vec<String>,
    /// The id of its primary, or `-`.
    follows: String,
    /// First and last, of a primary.
    slots: Vec<(u16, u16)>,
}

impl View {
    fn of(node: &EngineNode) -> Result<Self, String> {
        let text = node.try_cli(&["CLUSTER", "NODES"])?;
        let entries: Option<Vec<Entry>> = text.lines().map(Entry::parse).collect();
        Ok(Self {
            entries: entries.ok_or(text)?,
        })
    }

    fn primary_of(&self, slot: u16) -> Option<u16> {
        let has_slot = |entry: &&Entry| {
            let mut ranges = entry.slots.iter();
            entry.is_primary() && ranges.any(|(first, last)| (*first..=*last).contains(&slot))
        };
        self.entries.iter().find(has_slot).map(|entry| entry.port)
    }

    /// Each node's id with that of its primary, in the order of ids.
    fn roles(&self) -> Vec<(String, String)> {
        let role = |entry: &Entry| (entry.id.clone(), entry.follows.clone());
        let mut roles: Vec<_> = self.entries.iter().map(role).collect();
        roles.sort();
        roles
    }
}

impl Entry {
    /// `ID IP:PORT@BUS[,NAME] FLAGS PRIMARY PING PONG EPOCH LINK [SLOTS…]`
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, address, flags, follows, _, _, _, _, slots @ ..] = &words[..] else {
            return None;
        };
        let (socket, _) = address.split_once('@')?;
        let (_, port) = socket.rsplit_once(':')?;
        // `[SLOT->-ID]` is a slot that moves.
        let slots = slots.iter().filter(|slots| !slots.starts_with('['));
        let slots = slots.map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        Some(Self {
            id: (*id).to_owned(),
            port: port.parse().ok()?,
            flags: flags.split(',').map(str::to_owned).collect(),
            follows: (*follows).to_owned(),
            slots: slots.collect::<Option<_>>()?,
        })
    }

    fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|has| has == flag)
    }

    fn is_known(&self) -> bool {
        !self.has_flag("handshake") && !self.has_flag("noaddr")
    }

    fn is_primary(&self) -> bool {
        self.has_flag("master") && !self.has_flag("fail")
    }
}
