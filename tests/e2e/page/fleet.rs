//! A store with many hosts, made before the receiver starts.

use lizmon_protocol::name::{Label, NodeName};
use lizmon_protocol::sample::{Epoch, ProducerId, SampleSet, Seq, Value};
use lizmon_receiver::clock::ClockReading;
use lizmon_receiver::journal::{Committer, GroupCommit as _};
use lizmon_receiver::store::record::Submission;
use lizmon_receiver::store::{self, LockedFolder};
use lizmon_receiver::summarize::Summarizer;
use uuid::Uuid;

use crate::harness::World;

/// How many submissions one group has.
const GROUP: usize = 500;

/// A host, and when it sent what.
pub(crate) struct SentHost {
    pub(crate) name: String,
    pub(crate) certificate_end: u64,
    /// Epochs, oldest first, each with a value for every label.
    pub(crate) records: Vec<(u64, Vec<f64>)>,
    pub(crate) labels: Vec<String>,
}

impl SentHost {
    fn submission(&self, number: u128, now: u64) -> Submission {
        let name: NodeName = self.name.parse().expect("a name");
        let producer = ProducerId::new(Uuid::from_u128(number + 1));
        let sets: Vec<_> = self
            .records
            .iter()
            .map(|(_, values)| {
                let values = self.labels.iter().zip(values).map(|(label, value)| {
                    let label = Label::new(label.as_str()).expect("a label");
                    (label, Value::new(*value).expect("a value"))
                });
                SampleSet::new(values.collect())
            })
            .collect();
        let records = self.records.iter().zip(&sets).enumerate();
        let records = records.map(|(at, ((epoch, _), set))| {
            let epoch = Epoch::new(*epoch).expect("an epoch");
            (Seq::new(at as u64 + 1), epoch, set)
        });
        Submission::new(&name, self.certificate_end, Some(producer), now)
            .with_records_and_dropped(records, &[])
    }
}

/// Puts these hosts into the world's store. Nothing else uses it.
pub(crate) fn fill(world: &World, hosts: &[SentHost]) {
    let now = world.clock.now();
    let folder = LockedFolder::lock(&world.data()).expect("a data folder");
    let mut store = store::open(folder, now).expect("a store");
    let summarizer = Summarizer::open(&mut *store, now).expect("a new store");
    let at = ClockReading::of_one(now);
    let mut committer = Committer::new(store, summarizer, at);
    let submissions: Vec<_> = (0..)
        .zip(hosts)
        .map(|(number, host)| {
            let last = host.records.last().map_or(now, |(epoch, _)| *epoch);
            host.submission(number, last)
        })
        .collect();
    for group in submissions.chunks(GROUP) {
        let requests = group.iter().map(|submission| (submission, now));
        for taken in committer.take(requests, at) {
            taken.expect("it is taken");
        }
    }
    committer.finish().expect("it is committed");
}
