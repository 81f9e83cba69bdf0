//! Answers what a series was further back: its hours and days, from memory and from the store.
//!
//! Memory is read first. An hour goes from its ring to the history and never back, so what is no
//! longer in memory is in the store by then; what is in both is counted once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lizmon_protocol::history::{History, HistoryRange, HistoryTier, INTERVALS_MAX};
use lizmon_protocol::summary::Average;
use lizmon_summary::{AHEAD_SECS_MAX, Aggregate, BY_HOUR_TIER, Bucket, TIERS};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::authorize::{Permit, ReadHost, ReadSeries};
use crate::store::history::{Chunk, ChunkKey, ChunkQuery, DaySummary};
use crate::store::{HistoryReader, HistoryRetention, StoreError};
use crate::summarize::SummaryTable;

/// Two more chunks than intervals: the first and the last may have none within the range.
const CHUNKS_MAX: usize = INTERVALS_MAX + 3;

/// How many questions the store is asked at the same time: it has other work.
const READS_MAX: usize = 4;
/// How long one waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// What reads the history of a store, and for how long it is kept.
#[derive(Debug)]
pub struct Histories {
    reader: Box<dyn HistoryReader>,
    retention: HistoryRetention,
    turns: Arc<Semaphore>,
}

impl Histories {
    /// The history that this reads.
    pub fn new(reader: Box<dyn HistoryReader>, retention: HistoryRetention) -> Self {
        Self {
            reader,
            retention,
            turns: Arc::new(Semaphore::new(READS_MAX)),
        }
    }

    /// The turn to read, for as long as this is kept; none if too many wait for theirs.
    #[expect(clippy::disallowed_methods, reason = "limits how long a query waits")]
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turn = self.turns.clone().acquire_owned();
        tokio::time::timeout(TURN_WAIT, turn).await.ok()?.ok()
    }

    /// One page of the intervals of a series; `None` if nothing at all is known of the host. Blocks
    /// while the store is read.
    pub fn read(
        &self,
        permit: &Permit<ReadHost>,
        table: &SummaryTable,
        label: &str,
        range: &HistoryRange,
        now: u64,
    ) -> Result<Option<History>, StoreError> {
        self.of_series(table, permit.host().as_str(), label, range, now)
    }

    /// For how long intervals are kept.
    pub fn retention(&self) -> &HistoryRetention {
        &self.retention
    }

    /// The first [`INTERVALS_MAX`] intervals of a series with an end in `after < end <= until`, the
    /// oldest first, whether it is known or not. Blocks while the store is read.
    pub fn buckets(
        &self,
        _permit: &Permit<ReadSeries>,
        table: &SummaryTable,
        (host, label): (&str, &str),
        tier: HistoryTier,
        (after, until): (u64, u64),
        now: u64,
    ) -> Result<Vec<Bucket>, StoreError> {
        // An interval with an epoch after this one ends after it.
        let span = Span {
            from: after,
            to: until,
        };
        let is_in_memory =
            tier == HistoryTier::ByHour && after >= TIERS[BY_HOUR_TIER].window_start(now);
        let mut found = Intervals::default();
        match is_in_memory {
            true => {
                let hours = hours_in_memory(table, host, label);
                hours.iter().for_each(|hour| found.add_hour(hour));
            }
            false => found = self.of_span(table, (host, label), tier, span, now)?,
        }
        let kept = self.kept(tier, span, now);
        let ended = found
            .buckets(tier, kept)
            .filter(|bucket| bucket.start.saturating_add(tier.width_secs()) <= until);
        Ok(ended.take(INTERVALS_MAX).collect())
    }

    fn of_series(
        &self,
        table: &SummaryTable,
        host: &str,
        label: &str,
        range: &HistoryRange,
        now: u64,
    ) -> Result<Option<History>, StoreError> {
        let is_in_memory = table.shard_with(host).contains_key(host);
        let span = Span::of(range);
        let found = self.of_span(table, (host, label), range.tier, span, now)?;
        let shard = table.shard_of(host);
        if found.is_empty()
            && !is_in_memory
            && !self.reader.knows(shard, host, &self.retention, now)?
        {
            return Ok(None);
        }
        let as_of = table.as_of(shard, now);
        let kept = self.kept(range.tier, span, now);
        Ok(Some(found.page(range.tier, kept, as_of)))
    }

    /// The intervals of a series, and some around them.
    fn of_span(
        &self,
        table: &SummaryTable,
        (host, label): (&str, &str),
        tier: HistoryTier,
        span: Span,
        now: u64,
    ) -> Result<Intervals, StoreError> {
        let hours = hours_in_memory(table, host, label);
        let mut found = Intervals::default();
        self.add_stored(&mut found, table, (host, label), tier, span, now)?;
        match tier {
            HistoryTier::ByHour => hours.iter().for_each(|hour| found.add_hour(hour)),
            HistoryTier::ByDay if self.retention.days_secs > 0 => {
                hours.iter().for_each(|hour| found.add_to_day(hour));
            }
            // Of the first day some hours are gone.
            HistoryTier::ByDay => (),
        }
        Ok(found)
    }

    /// What is shown of a span. The ring may hold hours that have ended, of a series that nothing was
    /// added to since. If nothing is kept longer than there, all of it is shown.
    fn kept(&self, tier: HistoryTier, span: Span, now: u64) -> Span {
        let ended_by = match self.retention.secs(tier) {
            0 => 0,
            secs => now.saturating_sub(secs),
        };
        Span {
            from: span.from.max(ended_by),
            ..span
        }
    }

    fn add_stored(
        &self,
        found: &mut Intervals,
        table: &SummaryTable,
        (host, label): (&str, &str),
        tier: HistoryTier,
        span: Span,
        now: u64,
    ) -> Result<(), StoreError> {
        let span = Span {
            from: span.from.max(self.retention.ended_by(tier, now)),
            // A clock that was ahead may have left something that a cut has still to remove.
            to: span.to.min(now.saturating_add(AHEAD_SECS_MAX)),
        };
        if span.from >= span.to {
            return Ok(());
        }
        let query = ChunkQuery {
            shard: table.shard_of(host),
            host,
            label,
            tier,
            from: span.from,
            to: span.to,
            chunks_max: CHUNKS_MAX,
        };
        for (start, bytes) in self.reader.chunks(&query)? {
            let key = ChunkKey {
                host,
                label,
                tier,
                start,
            };
            match Chunk::decode(&key, &bytes) {
                Some(chunk) => found.add_chunk(&chunk, tier, span),
                None => found.damaged.push((start, key.end())),
            }
        }
        Ok(())
    }
}

fn hours_in_memory(table: &SummaryTable, host: &str, label: &str) -> Vec<Bucket> {
    let hosts = table.shard_with(host);
    let hours = hosts.get(host).map(|host| host.hours(label));
    hours.unwrap_or_default()
}

/// What is asked for: intervals with an epoch in `from < epoch <= to`.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: u64,
    to: u64,
}

impl Span {
    fn of(range: &HistoryRange) -> Self {
        Self {
            from: range.from.map_or(0, |from| from.secs()),
            to: range.to.map_or(u64::MAX, |to| to.secs()),
        }
    }

    fn has(&self, start: u64, width_secs: u64) -> bool {
        start < self.to && start.saturating_add(width_secs) > self.from
    }
}

/// Intervals by start.
#[derive(Debug, Default)]
struct Intervals {
    found: BTreeMap<u64, DaySummary>,
    damaged: Vec<(u64, u64)>,
}

impl Intervals {
    fn is_empty(&self) -> bool {
        self.found.is_empty() && self.damaged.is_empty()
    }

    fn add_chunk(&mut self, chunk: &Chunk, tier: HistoryTier, span: Span) {
        let intervals = chunk.intervals();
        let inside = intervals.filter(|day| span.has(day.bucket.start, tier.width_secs()));
        self.found
            .extend(inside.map(|interval| (interval.bucket.start, *interval)));
    }

    /// The same hour may be there already: as it was when it left its ring, or the ring's, which
    /// has as many samples or more.
    fn add_hour(&mut self, hour: &Bucket) {
        let hour = DaySummary {
            hours: 0,
            bucket: *hour,
        };
        let found = self.found.entry(hour.bucket.start).or_insert(hour);
        if hour.bucket.count > found.bucket.count {
            *found = hour;
        }
    }

    fn add_to_day(&mut self, hour: &Bucket) {
        let start = DaySummary::start_of(hour.start);
        match self.found.get_mut(&start) {
            Some(day) => day.add(hour),
            None => {
                self.found.insert(start, DaySummary::of(hour));
            }
        }
    }

    fn buckets(self, tier: HistoryTier, span: Span) -> impl Iterator<Item = Bucket> {
        let intervals = self.found.into_values().map(|interval| interval.bucket);
        intervals.filter(move |bucket| span.has(bucket.start, tier.width_secs()))
    }

    fn page(mut self, tier: HistoryTier, span: Span, as_of: Option<u64>) -> History {
        let width = tier.width_secs();
        let damaged = std::mem::take(&mut self.damaged);
        let mut intervals = self.buckets(tier, span);
        let page: Vec<_> = intervals.by_ref().take(INTERVALS_MAX).collect();
        let last = page.last().map(|bucket| bucket.start.saturating_add(width));
        let is_last_page = intervals.next().is_none();
        History {
            intervals: page
                .iter()
                .filter_map(|bucket| average(bucket, width))
                .collect(),
            next: last.filter(|_| !is_last_page),
            damaged,
            as_of,
        }
    }
}

/// As it is in a summary. Every bucket that was stored has samples.
fn average(bucket: &Bucket, width: u64) -> Option<Average> {
    let Bucket {
        start,
        count,
        sum,
        min,
        max,
    } = *bucket;
    let aggregate = Aggregate::from_parts(count, sum, min, max)?;
    Some(Average {
        start_sec: start,
        end_sec: start.saturating_add(width),
        interval_size_sec: width,
        num_samples: aggregate.count(),
        avg: aggregate.avg(),
        min,
        max,
    })
}

#[cfg(test)]
mod tests;
