//! The answer to a remote read: each series of a query with its points.

use prost::Message as _;

use super::find::{self, Found, TooMany};
use super::message::{LabelPair, Query, QueryResult, ReadRequest, SamplePair, TimeSeries};
use super::naming::{HOST, METRIC, Named, STAT};
use super::points::{BY_MINUTE_TIER, Points};
use super::selector::{self, Selector, SelectorError};
use crate::authorize::{Permit, ReadSeries};
use crate::history::Histories;
use crate::protobuf::{MessageError, decode};
use crate::store::StoreError;
use crate::summarize::SummaryTable;
use lizmon_protocol::history::INTERVALS_MAX;
use lizmon_summary::{Bucket, TIERS};

/// Most queries of one request. Prometheus sends one.
pub const QUERIES_MAX: usize = 16;
/// Most fields of a request: matchers and labels of aggregations.
const FIELDS_MAX: usize = 10_000;
/// Largest answer before it is packed: some 400,000 points.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Most series of one request for which the store is asked: each takes it a fraction of a
/// millisecond.
pub const STORED_SERIES_MAX: usize = 5_000;
/// Size of a point as it is sent, and of a series without its points: about.
const POINT_BYTES: usize = 20;
const SERIES_BYTES: usize = 200;

/// Why a remote read is not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The body is no such request.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// There are too many queries.
    #[error("a request has at most {QUERIES_MAX} queries")]
    TooManyQueries,
    /// One of them is not valid.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// It means too many series.
    #[error(transparent)]
    TooManySeries(#[from] TooMany),
    /// It means too many for which the store would be asked.
    #[error(
        "there are more than {STORED_SERIES_MAX} such series, and further back than a day each is read from the store: ask for less"
    )]
    TooManyStoredSeries,
    /// They have too many points.
    #[error("the answer would have more than {ANSWER_BYTES_MAX} bytes: ask for less")]
    TooLarge,
    /// The history cannot be read.
    #[error("the history cannot be read")]
    Store(#[from] StoreError),
}

/// A request that was read.
#[derive(Debug)]
pub struct ReadQueries {
    queries: Vec<(Query, Selector)>,
}

impl ReadQueries {
    /// The request in a body.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let ReadRequest { queries, .. } = decode(bytes, FIELDS_MAX)?;
        if queries.len() > QUERIES_MAX {
            return Err(ReadError::TooManyQueries);
        }
        let matchers = queries.iter().map(|query| query.matchers.as_slice());
        let selectors = selector::selectors(matchers)?;
        let queries = queries.into_iter().zip(selectors).collect();
        Ok(Self { queries })
    }

    /// The host, if all queries are about one alone.
    pub fn only_host(&self) -> Option<&str> {
        let mut hosts = self
            .queries
            .iter()
            .map(|(_, selector)| selector.only_host());
        let first = hosts.next()??;
        hosts.all(|host| host == Some(first)).then_some(first)
    }

    /// Finds the series.
    pub fn find(
        self,
        permit: &Permit<ReadSeries>,
        table: &SummaryTable,
        histories: &Histories,
        now: u64,
    ) -> Result<Answerable, ReadError> {
        let mut answerable = Answerable {
            queries: Vec::new(),
            needs_store: false,
            bytes_about: 0,
        };
        let (mut series_count, mut stored) = (0, 0);
        for (query, selector) in self.queries {
            let points = Points::of(&query, histories.retention(), now);
            let stats: Vec<_> = Stat::meant_by(&selector).collect();
            let mut series = Vec::new();
            if points.count() > 0 && !stats.is_empty() {
                series = find::series(permit, table, &selector, now)?;
            }
            series_count += series.len() * stats.len();
            if series_count > find::SERIES_MAX {
                return Err(TooMany.into());
            }
            if points.needs_store(now) {
                stored += series.len();
                answerable.needs_store |= !series.is_empty();
            }
            let points_of_one = usize::try_from(points.count()).unwrap_or(usize::MAX);
            let bytes_of_one =
                SERIES_BYTES.saturating_add(POINT_BYTES.saturating_mul(points_of_one));
            answerable.bytes_about += (series.len() * stats.len())
                .saturating_mul(bytes_of_one)
                .min(ANSWER_BYTES_MAX);
            answerable.queries.push(SeriesOfQuery {
                points,
                stats,
                series,
            });
        }
        match stored > STORED_SERIES_MAX {
            true => Err(ReadError::TooManyStoredSeries),
            false => Ok(answerable),
        }
    }
}

/// A request whose series are known.
#[derive(Debug)]
pub struct Answerable {
    queries: Vec<SeriesOfQuery>,
    needs_store: bool,
    bytes_about: usize,
}

/// One query's series, what of each, and when.
#[derive(Debug)]
struct SeriesOfQuery {
    points: Points,
    stats: Vec<Stat>,
    series: Vec<Found>,
}

impl Answerable {
    /// Whether the store is asked.
    pub fn needs_store(&self) -> bool {
        self.needs_store
    }

    /// Memory that the answer takes while it is made: about.
    pub fn bytes_about(&self) -> usize {
        // It is there twice, while it is packed.
        2 * self.bytes_about.min(ANSWER_BYTES_MAX)
    }

    /// The answer, packed. Blocks while the store is read.
    pub fn answer(
        self,
        permit: &Permit<ReadSeries>,
        table: &SummaryTable,
        histories: &Histories,
        now: u64,
    ) -> Result<Vec<u8>, ReadError> {
        let source = Source {
            permit,
            table,
            histories,
            now,
        };
        let mut answer = EncodedAnswer::default();
        let mut bytes_left = ANSWER_BYTES_MAX;
        for query in &self.queries {
            let result = source.result(query, bytes_left)?;
            bytes_left -= result.len();
            answer.results.push(result);
        }
        let mut encoder = snap::raw::Encoder::new();
        let encoded = answer.encode_to_vec();
        drop(answer);
        encoder
            .compress_vec(&encoded)
            .map_err(|_| ReadError::TooLarge)
    }
}

/// A [`ReadResponse`](super::message::ReadResponse) of results that are encoded already.
#[derive(Clone, PartialEq, prost::Message)]
struct EncodedAnswer {
    #[prost(bytes = "vec", repeated, tag = "1")]
    results: Vec<Vec<u8>>,
}

/// Where points come from.
struct Source<'a> {
    permit: &'a Permit<ReadSeries>,
    table: &'a SummaryTable,
    histories: &'a Histories,
    now: u64,
}

impl Source<'_> {
    /// A [`QueryResult`], encoded: one series after the other, so that no more of them are in memory.
    fn result(&self, query: &SeriesOfQuery, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        let mut encoded = Vec::new();
        for found in &query.series {
            let buckets = self.buckets(found, &query.points)?;
            if buckets.is_empty() {
                continue;
            }
            for stat in &query.stats {
                // Results one behind the other are one with all of their series.
                let one = QueryResult {
                    timeseries: vec![stat.of(found, &buckets)],
                };
                if encoded.len() + one.encoded_len() > bytes_max {
                    return Err(ReadError::TooLarge);
                }
                one.encode_raw(&mut encoded);
            }
        }
        Ok(encoded)
    }

    /// The intervals of a series, by their end, with that.
    fn buckets(&self, found: &Found, points: &Points) -> Result<Vec<(u64, Bucket)>, StoreError> {
        let mut all = Vec::new();
        let of_series = (&*found.host, &*found.label);
        for (tier, ends) in points.of_history() {
            let width = tier.width_secs();
            let mut after = ends.after;
            while after < ends.until {
                let span = (after, ends.until);
                let page = self.histories.buckets(
                    self.permit,
                    self.table,
                    of_series,
                    tier,
                    span,
                    self.now,
                )?;
                let is_last = page.len() < INTERVALS_MAX;
                all.extend(page.iter().map(|bucket| (bucket.start + width, *bucket)));
                after = match all.last() {
                    Some((end, _)) if !is_last => *end,
                    _ => ends.until,
                };
            }
        }
        if !points.minutes.is_empty() {
            let hosts = self.table.shard_with(&found.host);
            let series = hosts
                .get(&found.host)
                .and_then(|host| host.series.get(&found.label));
            let width = TIERS[BY_MINUTE_TIER].width_secs;
            let minutes = series.into_iter().flat_map(|series| series.intervals());
            let minutes = minutes
                .filter(|(tier, ..)| *tier == BY_MINUTE_TIER)
                .map(|(_, bucket, _)| (bucket.start + width, bucket));
            all.extend(minutes.filter(|(end, _)| points.minutes.has(*end)));
        }
        Ok(all)
    }
}

/// What values are of the samples of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stat {
    /// Their average, as the plain series.
    Plain,
    Avg,
    Min,
    Max,
    Sum,
    Count,
}

impl Stat {
    const ALL: [Self; 6] = [
        Self::Plain,
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::Sum,
        Self::Count,
    ];

    /// Of each series those that a selector means.
    pub(super) fn meant_by(selector: &Selector) -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter();
        all.filter(|stat| selector.has_stat(stat.name()))
    }

    /// As the label says it.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Avg => Some("avg"),
            Self::Min => Some("min"),
            Self::Max => Some("max"),
            Self::Sum => Some("sum"),
            Self::Count => Some("count"),
        }
    }

    fn value(self, bucket: &Bucket) -> f64 {
        match self {
            // As it is: whoever averages averages shall not add up what was rounded.
            Self::Plain | Self::Avg => bucket.sum / bucket.count as f64,
            Self::Min => bucket.min,
            Self::Max => bucket.max,
            Self::Sum => bucket.sum,
            Self::Count => bucket.count as f64,
        }
    }

    fn of(self, found: &Found, buckets: &[(u64, Bucket)]) -> TimeSeries {
        let samples = buckets.iter().map(|(end, bucket)| SamplePair {
            value: self.value(bucket),
            timestamp: i64::try_from(end.saturating_mul(1_000)).unwrap_or(i64::MAX),
        });
        TimeSeries {
            labels: labels_of(&found.host, &found.label, self)
                .into_iter()
                .map(|(name, value)| LabelPair { name, value })
                .collect(),
            samples: samples.collect(),
            ..TimeSeries::default()
        }
    }
}

/// All labels of a series, by name.
pub(super) fn labels_of(host: &str, label: &str, stat: Stat) -> Vec<(String, String)> {
    let named = Named::of(label);
    let own = named.labels.iter().map(|(name, value)| (*name, &**value));
    let ours = [(METRIC, &*named.metric), (HOST, host)];
    let stat = stat.name().map(|stat| (STAT, stat));
    let mut all: Vec<_> = ours.into_iter().chain(stat).chain(own).collect();
    all.sort_unstable();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    all.into_iter().map(owned).collect()
}

#[cfg(test)]
mod tests;
