//! Points of hosts, as the protocols of others bring them.

use std::collections::BTreeMap;

use lizmon_protocol::name::{Label, NodeName};
use lizmon_protocol::sample::Value;

use crate::authorize::{Ingest, Permit};
use crate::store::record::{PointNumber, Submission};

/// Points of one host, by time and kind.
pub type HostPoints = BTreeMap<PointNumber, Vec<(Label<'static>, Value)>>;

/// Which host a series is of, as it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeriesHost {
    /// One that can exist.
    Named(NodeName),
    /// A text that no host can have as its name: nobody may write for it.
    Impossible(String),
}

impl SeriesHost {
    /// The host that this text names.
    pub fn of(text: &str) -> Self {
        match text.parse() {
            Ok(name) => Self::Named(name),
            Err(_) => Self::Impossible(text.to_owned()),
        }
    }

    /// Its name, if it can exist.
    pub fn name(&self) -> Option<&NodeName> {
        match self {
            Self::Named(name) => Some(name),
            Self::Impossible(_) => None,
        }
    }
}

/// The points of a host as a submission.
pub fn points(permit: &Permit<Ingest>, points: &HostPoints, now: u64) -> Submission {
    let points = points.iter();
    let points = points.map(|(number, values)| (*number, values.as_slice()));
    Submission::of_points(permit.host(), permit.certificate_end(), now, points)
}
