//! The events of `GET /api/live`: `text/event-stream` of the HTML standard.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::summary::Average;

/// The type of an event with summaries.
pub const SUMMARIES: &str = "summaries";

/// The data of an event: hosts of which something came since the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveSummaries {
    /// The receiver's time: epoch seconds.
    pub now: u64,
    /// The hosts, by name.
    pub hosts: Vec<LiveHost>,
}

/// A host, and the newest minute of each of its labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LiveHost {
    /// The host's node name.
    pub name: String,
    /// When something came from it last, by the receiver's clock: epoch seconds.
    pub last_received: u64,
    /// Whether the host is overdue.
    pub silent: bool,
    /// The newest minute of each label.
    pub newest: BTreeMap<String, Average>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let golden = concat!(
            r#"{"now":1465001815,"hosts":[{"name":"web1","last-received":1465001814,"silent":false,"newest":"#,
            r#"{"cpu":{"start-sec":1465001760,"end-sec":1465001820,"interval-size-sec":60,"#,
            r#""num-samples":5,"avg":4.98,"min":4.8,"max":5.1}}}]}"#
        );
        let event: LiveSummaries = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), golden);
    }
}
