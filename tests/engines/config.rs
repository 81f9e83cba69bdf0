//! The text of a redis.conf or sentinel.conf.

use crate::port::NodePorts;
use crate::settings::{EngineSettings, Fsync};

/// What a server is besides its settings.
#[derive(Debug, Clone)]
pub(crate) enum NodePart {
    /// On its own, or a primary that replicas follow.
    Single,
    /// Of the primary at this port.
    Replica { primary_port: u16 },
    /// One of a Cluster.
    ClusterNode,
    /// A Sentinel; these are the lines about what it monitors.
    Sentinel { lines: Vec<String> },
}

/// The whole file.
pub(crate) fn config_text(settings: &EngineSettings, part: &NodePart, ports: &NodePorts) -> String {
    let mut lines = listening(settings, ports);
    match part {
        NodePart::Sentinel { lines: monitored } => lines.extend(monitored.iter().cloned()),
        NodePart::Single => lines.extend(storing(settings)),
        NodePart::Replica { primary_port } => {
            lines.extend(storing(settings));
            lines.push(format!("replicaof {} {primary_port}", settings.address));
        }
        NodePart::ClusterNode => {
            lines.extend(storing(settings));
            lines.extend(clustered(settings, ports));
        }
    }
    if !matches!(part, NodePart::Sentinel { .. }) {
        lines.extend(settings.lines.iter().cloned());
    }
    lines.push(String::new());
    lines.join("\n")
}

fn listening(settings: &EngineSettings, ports: &NodePorts) -> Vec<String> {
    let mut lines = vec![
        format!("bind {}", settings.address),
        "protected-mode no".to_owned(),
        "daemonize no".to_owned(),
        "logfile \"\"".to_owned(),
        "dir .".to_owned(),
    ];
    let port = ports.port;
    match &settings.tls {
        None => lines.push(format!("port {port}")),
        Some(tls) => lines.extend([
            "port 0".to_owned(),
            format!("tls-port {port}"),
            format!("tls-cert-file {}", tls.cert.display()),
            format!("tls-key-file {}", tls.key.display()),
            format!("tls-ca-cert-file {}", tls.ca.display()),
            format!("tls-auth-clients {}", yes_no(tls.needs_client_certificate)),
            "tls-replication yes".to_owned(),
        ]),
    }
    lines
}

fn storing(settings: &EngineSettings) -> Vec<String> {
    let appendfsync = match settings.fsync {
        Fsync::Always => "always",
        Fsync::EverySecond | Fsync::NoAppendOnlyFile => "everysec",
    };
    let has_file = settings.fsync != Fsync::NoAppendOnlyFile;
    let mut lines = vec![
        "save \"\"".to_owned(),
        format!("appendonly {}", yes_no(has_file)),
        format!("appendfsync {appendfsync}"),
        format!("maxmemory {}", settings.maxmemory_bytes),
        format!("maxmemory-policy {}", settings.maxmemory_policy),
        // Replicas that have just started are served at once, not after five seconds.
        "repl-diskless-sync-delay 0".to_owned(),
        "repl-ping-replica-period 1".to_owned(),
        "enable-debug-command local".to_owned(),
    ];
    if let Some(password) = &settings.password {
        lines.push(format!("requirepass {password}"));
        lines.push(format!("masterauth {password}"));
    }
    lines.extend(settings.users.iter().map(|rules| format!("user {rules}")));
    lines
}

/// Failovers within about three seconds, by a replica however long it has been without its primary;
/// replicas stay with the primary they were given.
fn clustered(settings: &EngineSettings, ports: &NodePorts) -> Vec<String> {
    let mut lines = vec![
        "cluster-enabled yes".to_owned(),
        "cluster-config-file nodes.conf".to_owned(),
        format!("cluster-port {}", ports.bus_port),
        "cluster-node-timeout 2000".to_owned(),
        "cluster-replica-validity-factor 0".to_owned(),
        "cluster-allow-replica-migration no".to_owned(),
    ];
    if settings.tls.is_some() {
        lines.push("tls-cluster yes".to_owned());
    }
    lines
}

fn yes_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
