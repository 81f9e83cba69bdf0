//! What depends on what was taken before: known numbers, epochs of those that are not, a host's labels and producers.
//!
//! An [`Admission`] judges the requests of one group in their order. What it has admitted but what is not durable yet
//! is kept beside the summaries, and thrown away with it: a group that fails leaves no trace.

use std::collections::{HashMap, HashSet};

use lizmon_protocol::problem::{Code, ValueError};
use lizmon_protocol::sample::{ERRORS_SHOWN_MAX, ProducerId, Seq};
use lizmon_summary::window::Refused;
use lizmon_summary::{AHEAD_SECS_MAX, DeliverySet, DroppedSet, TIERS, accepts};

use crate::problem::Rejection;
use crate::store::record::{RecordView, Submission, SubmissionView};
use crate::summarize::{Host, Summaries};

/// Most labels of one host.
pub const HOST_LABELS_MAX: usize = 1_000;
/// Most producers of one host that are remembered at once.
pub const HOST_PRODUCERS_MAX: usize = 64;
/// Most ranges of one producer's numbers: one more than it has gaps.
pub const PRODUCER_RANGES_MAX: usize = 1_024;

/// Whether a submission says anything that was not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Novelty {
    /// At least one record is new.
    New,
    /// Every record came before.
    Known,
}

/// The judgement of one group.
pub(super) struct Admission<'s> {
    summaries: &'s Summaries,
    pending: HashMap<String, Pending>,
}

/// What of a host was admitted in this group.
#[derive(Default)]
struct Pending {
    labels: HashSet<String>,
    producers: HashMap<ProducerId, DeliverySet>,
    dropped: HashMap<ProducerId, DroppedSet>,
}

impl<'s> Admission<'s> {
    pub(super) fn new(summaries: &'s Summaries) -> Self {
        Self {
            summaries,
            pending: HashMap::new(),
        }
    }

    /// Admits a whole submission, or refuses all of it.
    pub(super) fn admit(
        &mut self,
        submission: &Submission,
        now: u64,
    ) -> Result<Novelty, Rejection> {
        let view = submission
            .view()
            .map_err(|_| Rejection::from(Code::InternalError))?;
        let hosts = self.summaries.shard_with(view.host);
        let host = hosts.get(view.host);
        let pending = self.pending.get(view.host);
        let fresh = Fresh::of(&view, host, pending);
        fresh.check_epochs(&view, now)?;
        fresh.check_producer(&view, host, pending, now)?;
        let labels = fresh.check_labels(&view, host, pending, now)?;
        let says_nothing =
            (fresh.is_empty() || view.is_empty()) && !news_of_dropped(&view, host, pending, now)?;
        let novelty = if says_nothing {
            Novelty::Known
        } else {
            Novelty::New
        };
        fresh.note(&view, labels, &mut self.pending);
        Ok(novelty)
    }
}

/// Which records of a submission are new: all, or those with these places in it.
enum Fresh {
    All,
    Some(HashSet<usize>),
}

impl Fresh {
    fn of(view: &SubmissionView<'_>, host: Option<&Host>, pending: Option<&Pending>) -> Self {
        let Some(producer) = view.producer else {
            return Self::All;
        };
        let stored = host
            .and_then(|host| host.producers.get(&producer))
            .map(|producer| &producer.set);
        let waiting = pending.and_then(|pending| pending.producers.get(&producer));
        let mut seen_here = HashSet::new();
        let is_new = |seq: Seq| {
            !stored.is_some_and(|set| set.contains(seq.get()))
                && !waiting.is_some_and(|set| set.contains(seq.get()))
        };
        let fresh: HashSet<usize> = view
            .records()
            .enumerate()
            .filter_map(|(at, record)| Some((at, record.seq?)))
            .filter(|(_, seq)| is_new(*seq) && seen_here.insert(*seq))
            .map(|(at, _)| at)
            .collect();
        if fresh.len() == view.len() {
            Self::All
        } else {
            Self::Some(fresh)
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Some(fresh) if fresh.is_empty())
    }

    fn records<'a>(
        &'a self,
        view: &SubmissionView<'a>,
    ) -> impl Iterator<Item = (usize, RecordView<'a>)> {
        view.records()
            .enumerate()
            .filter(move |(at, _)| match self {
                Self::All => true,
                Self::Some(fresh) => fresh.contains(at),
            })
    }

    /// A known number is recognised before its epoch is judged; the others must be within the window.
    fn check_epochs(&self, view: &SubmissionView<'_>, now: u64) -> Result<(), Rejection> {
        let mut errors = Vec::new();
        let mut code = None;
        for (at, record) in self.records(view) {
            let Err(refused) = accepts(record.epoch, now) else {
                continue;
            };
            code.get_or_insert(match refused {
                Refused::TooOld => Code::EpochTooOld,
                Refused::InFuture => Code::EpochInFuture,
            });
            if errors.len() < ERRORS_SHOWN_MAX {
                errors.push(ValueError {
                    record: Some(at),
                    label: None,
                    reason: reason_of(refused, record.epoch, now),
                });
            }
        }
        match code {
            Some(code) => Err(Rejection::from(code).with_errors(errors, now)),
            None => Ok(()),
        }
    }

    fn check_producer(
        &self,
        view: &SubmissionView<'_>,
        host: Option<&Host>,
        pending: Option<&Pending>,
        now: u64,
    ) -> Result<(), Rejection> {
        let Some(producer) = view.producer else {
            return Ok(());
        };
        let stored = host.and_then(|host| host.producers.get(&producer));
        let waiting = pending.and_then(|pending| pending.producers.get(&producer));
        if stored.is_none() && waiting.is_none() && !self.is_empty() {
            let others = host.map_or(0, |host| host.producers.len());
            let new = |pending: &Pending| {
                pending
                    .producers
                    .keys()
                    .filter(|id| !host.is_some_and(|host| host.producers.contains_key(*id)))
                    .count()
            };
            if others + pending.map_or(0, new) >= HOST_PRODUCERS_MAX {
                return Err(invalid(
                    format!(
                        "the host has {HOST_PRODUCERS_MAX} producers already: keep the spool, or wait a day for one to be forgotten"
                    ),
                    now,
                ));
            }
        }
        let ranges = stored.map_or(0, |producer| producer.set.ranges().len())
            + waiting.map_or(0, |set| set.ranges().len());
        // Only where it may matter are the ranges really counted.
        if ranges + view.len() <= PRODUCER_RANGES_MAX {
            return Ok(());
        }
        let mut set = stored
            .map(|producer| producer.set.clone())
            .unwrap_or_default();
        let before = set.ranges().len();
        for (from, to) in waiting.into_iter().flat_map(|set| set.ranges()) {
            (*from..=*to).for_each(|seq| {
                set.insert(seq);
            });
        }
        // In order, so that gaps are filled on the way; and no further than could ever come to fit.
        let mut numbers: Vec<u64> = self
            .records(view)
            .filter_map(|(_, record)| Some(record.seq?.get()))
            .collect();
        numbers.sort_unstable();
        for number in numbers {
            set.insert(number);
            if set.ranges().len() > 2 * PRODUCER_RANGES_MAX.max(before) {
                break;
            }
        }
        // Whoever is at the limit may still fill gaps.
        if set.ranges().len() > PRODUCER_RANGES_MAX.max(before) {
            return Err(invalid(
                format!(
                    "the producer's numbers would have more than {PRODUCER_RANGES_MAX} ranges: send the missing ones first, or begin a new spool"
                ),
                now,
            ));
        }
        Ok(())
    }

    /// The labels that the host does not have yet, if it may have them.
    fn check_labels(
        &self,
        view: &SubmissionView<'_>,
        host: Option<&Host>,
        pending: Option<&Pending>,
        now: u64,
    ) -> Result<HashSet<String>, Rejection> {
        let mut new = HashSet::new();
        for (_, record) in self.records(view) {
            for (label, _) in record.values() {
                let is_known = host.is_some_and(|host| host.series.contains_key(label))
                    || pending.is_some_and(|pending| pending.labels.contains(label));
                if !is_known && !new.contains(label) {
                    new.insert(label.to_owned());
                }
            }
        }
        let known = host.map_or(0, |host| host.series.len())
            + pending.map_or(0, |pending| pending.labels.len());
        if !new.is_empty() && known + new.len() > HOST_LABELS_MAX {
            let reason = format!(
                "the host has {known} labels, {} more would be over {HOST_LABELS_MAX}",
                new.len()
            );
            let errors = new.iter().take(ERRORS_SHOWN_MAX);
            let errors = errors.map(|label| ValueError {
                record: None,
                label: Some(label.clone()),
                reason: reason.clone(),
            });
            return Err(Rejection::from(Code::TooManyLabels).with_errors(errors.collect(), now));
        }
        Ok(new)
    }

    fn note(
        &self,
        view: &SubmissionView<'_>,
        labels: HashSet<String>,
        pending: &mut HashMap<String, Pending>,
    ) {
        if labels.is_empty() && view.producer.is_none() {
            return;
        }
        let pending = pending.entry(view.host.to_owned()).or_default();
        pending.labels.extend(labels);
        if let Some(producer) = view.producer {
            if view.dropped().next().is_some() {
                let set = pending.dropped.entry(producer).or_default();
                view.dropped()
                    .for_each(|(from, to, why)| set.insert(from, to, why));
            }
            let set = pending.producers.entry(producer).or_default();
            for (_, record) in self.records(view) {
                set.insert(record.seq.map_or(0, Seq::get));
            }
        }
    }
}

/// Whether the submission gives up numbers of which that was not known; or a refusal, if it would be too many ranges.
fn news_of_dropped(
    view: &SubmissionView<'_>,
    host: Option<&Host>,
    pending: Option<&Pending>,
    now: u64,
) -> Result<bool, Rejection> {
    let Some(id) = view.producer else {
        return Ok(false);
    };
    let stored = host
        .and_then(|host| host.producers.get(&id))
        .map(|producer| &producer.dropped);
    let waiting = pending.and_then(|pending| pending.dropped.get(&id));
    let is_news = |(from, to, _): &(u64, u64, &str)| {
        stored.is_none_or(|set| set.would_change(*from, *to))
            && waiting.is_none_or(|set| set.would_change(*from, *to))
    };
    let news: Vec<_> = view.dropped().filter(is_news).collect();
    let before = stored.map_or(0, DroppedSet::len) + waiting.map_or(0, DroppedSet::len);
    // Only where it may matter are the ranges really joined.
    if before + news.len() > PRODUCER_RANGES_MAX {
        let mut after = stored.cloned().unwrap_or_default();
        let known = waiting.into_iter().flat_map(DroppedSet::iter);
        for (from, to, why) in known.chain(news.iter().copied()) {
            after.insert(from, to, why);
        }
        if after.len() > PRODUCER_RANGES_MAX.max(stored.map_or(0, DroppedSet::len)) {
            return Err(invalid(
                format!(
                    "the producer would have given up more than {PRODUCER_RANGES_MAX} ranges: join neighbours under one reason"
                ),
                now,
            ));
        }
    }
    Ok(!news.is_empty())
}

fn reason_of(refused: Refused, epoch: u64, now: u64) -> String {
    /// An epoch so far ahead is not a wrong clock but another unit: the year 2286 in seconds.
    const MILLISECONDS_FROM: u64 = 10_000_000_000;
    match refused {
        Refused::TooOld => {
            let start = TIERS
                .iter()
                .map(|tier| tier.window_start(now))
                .min()
                .unwrap_or(0);
            format!("the epoch {epoch} is not after {start}, where the last day begins")
        }
        Refused::InFuture if epoch >= MILLISECONDS_FROM => {
            format!("the epoch {epoch} is not in seconds: were milliseconds meant?")
        }
        Refused::InFuture => {
            format!(
                "the epoch {epoch} is {} s ahead of {now}, at most {AHEAD_SECS_MAX} s are allowed: set the clock",
                epoch - now
            )
        }
    }
}

fn invalid(reason: String, now: u64) -> Rejection {
    let error = ValueError {
        record: None,
        label: None,
        reason,
    };
    Rejection::from(Code::InvalidValues).with_errors(vec![error], now)
}
