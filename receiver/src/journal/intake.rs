//! From requests to a group: admits each, collects what was admitted by shard, appends it.

use std::collections::HashMap;
use std::sync::Arc;

use lizmon_mtls::rate_limited_log::RateLimitedLog;

use super::admission::{Admission, Admitted, Dedup, EpochMarks, Pending, Unread};
use super::error::AdmissionError;
use crate::clock::{ClockStatus, ClockVerdict};
use crate::store::record::{ShardGroups, Submission};
use crate::store::{Position, Shard, ShardCount, StoreError};
use crate::summarize::{ReadMark, SummaryTable};

/// What becomes of a submission whose records are all known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownRecords {
    /// It is only counted.
    Skip,
    /// It is appended: the process that counts it may be another one.
    Append,
}

/// The groups of one append, and what is needed to fill them.
pub(super) struct Intake {
    groups: ShardGroups,
    marks: EpochMarks,
    known: KnownRecords,
    count: ShardCount,
    /// What this group has admitted, by host, and how far its shard was read on then.
    pending: HashMap<String, (ReadMark, Pending)>,
    unread: Unread,
    pub(super) clock_status: Arc<ClockStatus>,
    /// While nothing can be stored every group fails, and the log may be on the same disk.
    unstored: RateLimitedLog,
    /// While the clock is not known to be steady, every request may be refused.
    unsteady: RateLimitedLog,
}

/// A request, and whether it is admitted.
pub(super) type AdmissionVerdict<'a> = (&'a Submission, Result<Admitted, AdmissionError>);

impl Intake {
    pub(super) fn new(count: ShardCount, known: KnownRecords) -> Self {
        Self {
            groups: ShardGroups::new(count),
            marks: EpochMarks::default(),
            known,
            count,
            pending: HashMap::new(),
            unread: Unread::default(),
            clock_status: Arc::default(),
            unstored: RateLimitedLog::default(),
            unsteady: RateLimitedLog::default(),
        }
    }

    /// Admits or refuses each request as a whole, in order.
    pub(super) fn admit<'a>(
        &mut self,
        table: &SummaryTable,
        requests: impl Iterator<Item = (&'a Submission, u64)>,
        clock: ClockVerdict,
    ) -> Vec<AdmissionVerdict<'a>> {
        let mut admission = Admission::new(table, clock, &mut self.marks, &mut self.unread);
        let mut verdicts = Vec::with_capacity(requests.size_hint().0);
        for (submission, now) in requests {
            let verdict = admission.admit(submission, now);
            match &verdict {
                Ok(Admitted { shard, dedup, .. }) => match (dedup, self.known) {
                    (Dedup::New, _) | (Dedup::Known, KnownRecords::Append) => {
                        self.groups.group(*shard).push(submission);
                    }
                    (Dedup::NewRemovingAhead, _) => {
                        self.groups.group(*shard).push_removing_ahead(submission);
                    }
                    (Dedup::Known, KnownRecords::Skip) => (),
                },
                Err(AdmissionError::ClockUnsteady { .. }) => {
                    self.clock_status.has_refused();
                    let steady_secs = clock.steady_secs;
                    self.unsteady.say(|unsaid| {
                        tracing::warn!(
                            steady_secs,
                            unsaid,
                            "samples refused: the clock is not known to be steady yet"
                        );
                    });
                }
                Err(_) => (),
            }
            verdicts.push((submission, verdict));
        }
        let pending = admission.into_pending();
        if matches!(self.known, KnownRecords::Append) {
            let marked = |(host, pending): (String, Pending)| {
                let read = table.read_mark(table.shard_of(&host));
                (host, (read, pending))
            };
            self.pending.extend(pending.into_iter().map(marked));
        }
        verdicts
    }

    /// Forgets what the summaries have. To be called every second or so.
    pub(super) fn prune(&mut self, table: &SummaryTable) {
        self.unread
            .prune(|host| table.read_mark(table.shard_of(host)));
    }

    /// What was admitted, to be appended and given back.
    pub(super) fn take_groups(&mut self) -> ShardGroups {
        std::mem::take(&mut self.groups)
    }

    /// Takes the groups back, emptied, after so many requests. For each shard that has some, its
    /// position; none if it could not be made durable.
    pub(super) fn put_back(
        &mut self,
        mut groups: ShardGroups,
        requests: usize,
        appended: Vec<Result<Position, StoreError>>,
    ) -> Vec<(Shard, Option<Position>)> {
        if let Some(error) = appended.iter().find_map(|result| result.as_ref().err()) {
            let error = error as &dyn std::error::Error;
            self.unstored.say(|unsaid| {
                tracing::error!(error, requests, unsaid, "the journal cannot be written")
            });
        }
        let positions = appended.into_iter().map(Result::ok);
        let positions: Vec<_> = groups.shards().iter().copied().zip(positions).collect();
        self.keep_pending(&positions);
        groups.clear();
        self.groups = groups;
        positions
    }

    /// Where another thread or process counts it, what was appended is not in the summaries when
    /// the next group is judged: limits and numbers hold for it all the same.
    fn keep_pending(&mut self, positions: &[(Shard, Option<Position>)]) {
        for (host, (read, pending)) in self.pending.drain() {
            let shard = self.count.shard_of(&host);
            if let Some(Some(at)) = position_in(positions, shard) {
                self.unread.insert(host, at, read, pending);
            }
        }
    }
}

/// Where the group of this shard was appended, `Some(None)` if it could not be. The positions are in
/// the order of their shards.
pub(super) fn position_in(
    positions: &[(Shard, Option<Position>)],
    shard: Shard,
) -> Option<Option<Position>> {
    let found = positions.binary_search_by_key(&shard, |(of, _)| *of);
    positions.get(found.ok()?).map(|(_, position)| *position)
}

/// Appends groups, if there are any: the results are in the order of their shards.
pub(super) fn append(
    groups: &mut ShardGroups,
    append: impl FnOnce(&[(Shard, &[u8])]) -> Vec<Result<Position, StoreError>>,
) -> Vec<Result<Position, StoreError>> {
    let sealed = groups.seal();
    match sealed.is_empty() {
        true => Vec::new(),
        false => append(&sealed),
    }
}
