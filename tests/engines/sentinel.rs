//! A primary, its replicas, and three Sentinels that watch them.

use crate::config::NodePart;
use crate::node::{EngineNode, line_of};
use crate::settings::EngineSettings;
use crate::wait::{ensure, wait_until};

/// The name by which the Sentinels know the primary.
pub const MONITORED_NAME: &str = "lizmon";

const SENTINELS: usize = 3;
const QUORUM: usize = 2;
/// With 500 ms a busy machine fails over twice.
const DOWN_AFTER_MILLIS: u32 = 2_000;
const FAILOVER_TIMEOUT_MILLIS: u32 = 10_000;

/// A primary with replicas, and three Sentinels of which two must agree. Failovers take about
/// four seconds; a former primary that is restarted becomes a replica about ten seconds later.
#[derive(Debug)]
pub struct SentinelGroup {
    nodes: Vec<EngineNode>,
    sentinels: Vec<EngineNode>,
}

impl SentinelGroup {
    /// Starts a primary with this many replicas, and Sentinels that know all of them. Sentinels
    /// have no password, only TLS.
    #[track_caller]
    pub fn start(settings: &EngineSettings, replicas: usize) -> Self {
        let primary = EngineNode::start(settings);
        let primary_port = primary.address().port();
        let replica = NodePart::Replica { primary_port };
        let mut nodes = vec![primary];
        nodes.extend((0..replicas).map(|_| EngineNode::start_as(settings, &replica)));
        nodes[0].wait_until_replicated(replicas);

        let lines = monitoring(settings, primary_port);
        let unguarded = EngineSettings {
            password: None,
            ..settings.clone()
        };
        let sentinel = NodePart::Sentinel { lines };
        let sentinels = (0..SENTINELS).map(|_| EngineNode::start_as(&unguarded, &sentinel));
        let group = Self {
            nodes,
            sentinels: sentinels.collect(),
        };
        group.wait_until_known();
        group
    }

    /// All servers; the first was the primary at the start.
    pub fn nodes(&self) -> &[EngineNode] {
        &self.nodes
    }

    /// The Sentinels.
    pub fn sentinels(&self) -> &[EngineNode] {
        &self.sentinels
    }

    /// The primary that the Sentinels agree on.
    #[track_caller]
    pub fn primary(&self) -> &EngineNode {
        wait_until("the Sentinels agree", || self.agreed())
    }

    /// Waits until another than this is the primary, and says so itself.
    #[track_caller]
    pub fn wait_for_failover(&self, from: &EngineNode) -> &EngineNode {
        wait_until("the Sentinels have failed over", || {
            let primary = self.agreed()?;
            ensure(primary.address() != from.address(), || {
                format!("{} is the primary still", from.address())
            })?;
            let role = primary.try_cli(&["ROLE"])?;
            ensure(role.starts_with("master"), || role)?;
            Ok(primary)
        })
    }

    /// Waits until all servers that are up follow one primary and have all that it has; that
    /// primary.
    #[track_caller]
    pub fn wait_until_whole(&self) -> &EngineNode {
        wait_until("all servers follow the primary", || {
            let primary = self.agreed()?;
            let others = self.nodes.iter().filter(|node| node.runs()).count() - 1;
            primary.has_replicated_to(others)?;
            Ok(primary)
        })
    }

    /// Waits until each Sentinel has found the others and all replicas.
    #[track_caller]
    fn wait_until_known(&self) {
        let known = format!("slaves={},sentinels={SENTINELS}", self.nodes.len() - 1);
        wait_until("the Sentinels know each other", || {
            for sentinel in &self.sentinels {
                let info = sentinel.try_cli(&["INFO", "sentinel"])?;
                let line = line_of(&info, "master0");
                ensure(line.contains("status=ok") && line.ends_with(&known), || {
                    line
                })?;
            }
            Ok(())
        });
    }

    fn agreed(&self) -> Result<&EngineNode, String> {
        let mut answers = Vec::new();
        for sentinel in self.sentinels.iter().filter(|node| node.runs()) {
            answers.push(sentinel.try_cli(&[
                "SENTINEL",
                "get-master-addr-by-name",
                MONITORED_NAME,
            ])?);
        }
        answers.dedup();
        let [answer] = &answers[..] else {
            return Err(format!("they name {answers:?}"));
        };
        let port = answer.lines().nth(1).unwrap_or_default();
        let mut nodes = self.nodes.iter();
        let named = nodes.find(|node| node.address().port().to_string() == port);
        named.ok_or_else(|| format!("no node of ours is {answer}"))
    }
}

fn monitoring(settings: &EngineSettings, primary_port: u16) -> Vec<String> {
    let name = MONITORED_NAME;
    let mut lines = vec![
        format!(
            "sentinel monitor {name} {} {primary_port} {QUORUM}",
            settings.address
        ),
        format!("sentinel down-after-milliseconds {name} {DOWN_AFTER_MILLIS}"),
        format!("sentinel failover-timeout {name} {FAILOVER_TIMEOUT_MILLIS}"),
    ];
    if let Some(password) = &settings.password {
        lines.push(format!("sentinel auth-pass {name} {password}"));
    }
    lines
}
