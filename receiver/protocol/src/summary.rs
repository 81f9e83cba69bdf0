//! The summaries readers get. Keys and meaning are fixed: they are what the first lizmon answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Summaries by name: `summary:by-minute:cpu`.
pub type Summaries = BTreeMap<String, Summary>;

/// One series in one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Where the window begins: epoch seconds.
    pub start: u64,
    /// Where the window ends: the receiver's now, epoch seconds.
    pub end: u64,
    /// Width of an interval in seconds.
    #[serde(rename = "timeslice-size-sec")]
    pub timeslice_size_sec: u64,
    /// How many intervals follow.
    #[serde(rename = "average-count")]
    pub average_count: usize,
    /// The intervals that hold samples, oldest first.
    pub averages: Vec<Average>,
}

/// One interval: every sample with `start-sec < epoch <= end-sec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Average {
    /// Just before the first second that counts: epoch seconds.
    #[serde(rename = "start-sec")]
    pub start_sec: u64,
    /// The last second that counts: epoch seconds.
    #[serde(rename = "end-sec")]
    pub end_sec: u64,
    /// Their difference in seconds.
    #[serde(rename = "interval-size-sec")]
    pub interval_size_sec: u64,
    /// How many samples there were.
    #[serde(rename = "num-samples")]
    pub num_samples: u64,
    /// Their mean, rounded to two decimals.
    pub avg: f64,
    /// The least of them.
    pub min: f64,
    /// The greatest of them.
    pub max: f64,
}

/// The answer of `GET /api/perf`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// Every host with samples in a window, by name.
    pub hosts: Vec<Host>,
}

/// Why a host cannot report any more with the certificate it has reported with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HolderState {
    /// It is on a revocation list, or one above it is.
    Revoked,
    /// It has ended.
    Ended,
}

/// One host that reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its node name.
    pub name: String,
    /// The epoch of its newest sample.
    #[serde(rename = "last-epoch")]
    pub last_epoch: u64,
    /// What it reports, by name.
    pub labels: Vec<String>,
    /// When the certificate it last reported with ends: epoch seconds.
    #[serde(rename = "certificate-end")]
    pub certificate_end: u64,
    /// What became of that certificate, where it is not good any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<HolderState>,
    /// Whether it is overdue: nothing has come for the larger of two minutes and three times its recent spacing.
    #[serde(default)]
    pub silent: bool,
    /// When something came from it last, by the receiver's clock: epoch seconds. Older receivers do not tell.
    #[serde(
        rename = "last-received",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub last_received: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let average = Average {
            start_sec: 1_465_001_760,
            end_sec: 1_465_001_820,
            interval_size_sec: 60,
            num_samples: 5,
            avg: 4.98,
            min: 4.8,
            max: 5.1,
        };
        let summary = Summary {
            start: 1_464_998_160,
            end: 1_465_001_814,
            timeslice_size_sec: 60,
            average_count: 1,
            averages: vec![average],
        };
        let golden = concat!(
            r#"{"summary:by-minute:cpu":{"start":1464998160,"end":1465001814,"timeslice-size-sec":60,"average-count":1,"#,
            r#""averages":[{"start-sec":1465001760,"end-sec":1465001820,"interval-size-sec":60,"num-samples":5,"#,
            r#""avg":4.98,"min":4.8,"max":5.1}]}}"#
        );
        let summaries = Summaries::from([("summary:by-minute:cpu".to_owned(), summary)]);
        assert_eq!(serde_json::to_string(&summaries).unwrap(), golden);
        assert_eq!(
            serde_json::from_str::<Summaries>(golden).unwrap(),
            summaries
        );
    }

    #[test]
    fn golden_hosts() {
        let golden = r#"{"hosts":[{"name":"web1","last-epoch":1465001814,"labels":["cpu","mem"],"certificate-end":1472777814,"silent":true,"last-received":1465001815}]}"#;
        let hosts: Hosts = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&hosts).unwrap(), golden);
        // A receiver of before told less.
        let older = golden.replace(r#","last-received":1465001815"#, "");
        let hosts: Hosts = serde_json::from_str(&older).unwrap();
        assert_eq!(serde_json::to_string(&hosts).unwrap(), older);
    }
}
