//! The summaries that readers get. Keys and meaning are fixed: they are compatible with the first
//! lizmon.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::name::Tag;

/// Summaries by name, such as `summary:by-minute:cpu`.
pub type Summaries = BTreeMap<String, Summary>;

/// One series in one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The start of the window: epoch seconds.
    pub start: u64,
    /// The end of the window, which is the receiver's current time: epoch seconds.
    pub end: u64,
    /// The width of an interval in seconds.
    #[serde(rename = "timeslice-size-sec")]
    pub timeslice_size_sec: u64,
    /// The number of intervals in the list.
    #[serde(rename = "average-count")]
    pub average_count: usize,
    /// The intervals that hold samples, oldest first.
    pub averages: Vec<Average>,
    /// When the summaries were last read from a store that several processes share, if that is more
    /// than a moment ago: epoch seconds. What was acknowledged after that may be missing.
    #[serde(rename = "as-of", default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<u64>,
}

/// One interval: all samples with `start-sec < epoch <= end-sec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Average {
    /// The exclusive start of the interval: epoch seconds.
    #[serde(rename = "start-sec")]
    pub start_sec: u64,
    /// The inclusive end of the interval: epoch seconds.
    #[serde(rename = "end-sec")]
    pub end_sec: u64,
    /// The difference between the end and the start in seconds.
    #[serde(rename = "interval-size-sec")]
    pub interval_size_sec: u64,
    /// The number of samples.
    #[serde(rename = "num-samples")]
    pub num_samples: u64,
    /// The mean of the samples, rounded to two decimals.
    pub avg: f64,
    /// The minimum of the samples.
    pub min: f64,
    /// The maximum of the samples.
    pub max: f64,
}

/// The response of `GET /api/perf`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hosts {
    /// Every host with samples in a window, by name.
    pub hosts: Vec<Host>,
    /// The patterns of names and the tags that the caller's certificate is limited to, if it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// When the summaries were last read from a store that several processes share, if that is more
    /// than a moment ago: epoch seconds. What was acknowledged after that may be missing.
    #[serde(rename = "as-of", default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<u64>,
}

/// Why a host can no longer report with the certificate that it last used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HolderState {
    /// The certificate or an authority above it is on a CRL.
    Revoked,
    /// The certificate has expired.
    Ended,
}

/// One host that reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The host's node name.
    pub name: String,
    /// The epoch of the host's newest sample.
    #[serde(rename = "last-epoch")]
    pub last_epoch: u64,
    /// The host's labels, by name.
    pub labels: Vec<String>,
    /// The expiry of the certificate that the host last reported with: epoch seconds.
    #[serde(rename = "certificate-end")]
    pub certificate_end: u64,
    /// Why that certificate is no longer valid, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<HolderState>,
    /// Whether the host is overdue: its last report is older than two minutes and older than three
    /// times its recent interval between reports.
    #[serde(default)]
    pub silent: bool,
    /// The time of the host's last report by the receiver's clock: epoch seconds. Older receivers
    /// do not send this.
    #[serde(
        rename = "last-received",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub last_received: Option<u64>,
    /// What the machine is, as its monitor says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// The tags in its certificate.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<Tag>,
    /// The averages of the newest minutes of `cpu`, `load-1`, `mem` and `swap`, and of the fullest
    /// `disk-used:…` and `disk-inodes:…`, where they are measured. Older receivers do not send this.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub newest: BTreeMap<String, f64>,
    /// The whole hours of the last day without samples, after the first hour that has some: from an
    /// exclusive start to an inclusive end, in epoch seconds.
    #[serde(
        rename = "silent-hours",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub silent_hours: Vec<(u64, u64)>,
    /// Once a gateway has reported the host: who has in the last week, as `ROLE/NAME`, and when last,
    /// to a minute: epoch seconds.
    #[serde(
        rename = "reported-by",
        default,
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub reported_by: BTreeMap<String, u64>,
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
            as_of: None,
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
        let golden = r#"{"hosts":[{"name":"web1","last-epoch":1465001814,"labels":["cpu","mem"],"certificate-end":1472777814,"silent":true,"last-received":1465001815,"newest":{"cpu":4.98},"silent-hours":[[1464980400,1464998400]]}]}"#;
        let hosts: Hosts = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&hosts).unwrap(), golden);
        // An older receiver sends fewer fields.
        let (older, _) = golden.split_once(r#","last-received""#).unwrap();
        let older = format!("{older}}}]}}");
        let hosts: Hosts = serde_json::from_str(&older).unwrap();
        assert_eq!(serde_json::to_string(&hosts).unwrap(), older);
    }
}
