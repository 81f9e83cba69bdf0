//! What arrived.

use std::cmp::Reverse;

use lizmon_page::delivery::{DeliveryPage, PRODUCERS_PER_PAGE, ProducerArrivals};
use lizmon_page::frame::Paging;
use lizmon_page::host::DeliverySums;
use lizmon_protocol::delivery::{ACKNOWLEDGED, BEFORE_ASKED, BEFORE_DATA};

use super::sources::PageSources;
use crate::authorize::{Permit, ViewPage};
use crate::summarize::ProducerState;

/// What arrived of the hosts whose names are like this.
pub(crate) fn delivery(
    permit: &Permit<ViewPage>,
    sources: PageSources<'_>,
    search: String,
    page: u64,
) -> DeliveryPage {
    let wanted = search.to_ascii_lowercase();
    let mut rows = Vec::new();
    for shard in sources.table.shards() {
        for (name, host) in shard.iter() {
            let is_wanted = name.to_ascii_lowercase().contains(&wanted);
            if !is_wanted || !permit.shows(name, host.tags()) {
                continue;
            }
            let row = |producer, sums, last_taken| ProducerArrivals {
                host: name.to_string(),
                producer,
                sums,
                last_taken,
            };
            if host.producers.is_empty() {
                rows.push(row(None, DeliverySums::default(), host.last_received));
            }
            rows.extend(host.producers.iter().map(|(id, producer)| {
                let sums = sums_of(producer);
                row(Some(id.to_string()), sums, producer.last_taken)
            }));
        }
    }
    // Those that lost something first.
    rows.sort_by(|a, b| {
        let order = |row: &ProducerArrivals| Reverse(row.sums.lost);
        let names = || (&a.host, &a.producer).cmp(&(&b.host, &b.producer));
        order(a).cmp(&order(b)).then_with(names)
    });
    let mut sums = DeliverySums::default();
    for row in &rows {
        add(&mut sums, row.sums);
    }
    let paging = Paging::new(page, PRODUCERS_PER_PAGE, rows.len() as u64);
    let rows = rows.into_iter().skip(paging.first()).take(paging.size());
    DeliveryPage {
        search,
        now: sources.sample_now,
        sums,
        paging,
        rows: rows.collect(),
    }
}

/// Adds what arrived of one producer.
pub(super) fn add(all: &mut DeliverySums, one: DeliverySums) {
    all.received = all.received.saturating_add(one.received);
    all.lost = all.lost.saturating_add(one.lost);
    all.duplicate = all.duplicate.saturating_add(one.duplicate);
    all.dropped = all.dropped.saturating_add(one.dropped);
    all.repaired = all.repaired.saturating_add(one.repaired);
}

/// What arrived of a producer, as `lizctl audit` adds it up.
pub(super) fn sums_of(producer: &ProducerState) -> DeliverySums {
    let missing = producer.dropped.take_out_of(producer.set.missing());
    let dropped = producer.dropped.without(producer.set.ranges());
    let dropped = dropped.filter(|(.., why)| {
        !matches!(*why, BEFORE_ASKED | BEFORE_DATA) && !why.starts_with(ACKNOWLEDGED)
    });
    DeliverySums {
        received: producer.set.received(),
        lost: numbers_in(missing.into_iter()),
        duplicate: producer.duplicate,
        dropped: numbers_in(dropped.map(|(from, to, _)| (from, to))),
        repaired: producer.repaired,
    }
}

fn numbers_in(ranges: impl Iterator<Item = (u64, u64)>) -> u64 {
    ranges.fold(0, |sum: u64, (from, to)| {
        sum.saturating_add(to.saturating_sub(from).saturating_add(1))
    })
}
