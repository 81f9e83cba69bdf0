//! The intervals of one tier of a series.

use std::collections::VecDeque;

use crate::aggregate::Aggregate;
use crate::window::{TIERS, Tier};

/// One interval of one tier, in the form that a store keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The exclusive start of the interval: epoch seconds, a multiple of the tier's width.
    pub start: u64,
    /// The number of samples.
    pub count: u64,
    /// The sum, added in order of arrival.
    pub sum: f64,
    /// The minimum.
    pub min: f64,
    /// The maximum.
    pub max: f64,
}

/// The intervals of one tier.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Ring {
    /// The interval number of the first cell, counted from 1970. Has no meaning without cells.
    oldest: u64,
    cells: VecDeque<Aggregate>,
    /// Bit `slot` is set if the cell in that slot has changed.
    dirty: u64,
}

/// All slots of a ring fit into the mask of changed slots.
const _: () = {
    let mut index = 0;
    while index < TIERS.len() {
        assert!(TIERS[index].kept <= u64::BITS as usize);
        index += 1;
    }
};

impl Ring {
    pub(super) fn newest(&self) -> Option<u64> {
        Some(self.oldest + (self.cells.len() as u64).checked_sub(1)?)
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = (u64, &Aggregate)> {
        self.oldest_first().rev()
    }

    pub(super) fn oldest_first(&self) -> impl DoubleEndedIterator<Item = (u64, &Aggregate)> {
        let cells = self.cells.iter().enumerate();
        cells.map(|(at, aggregate)| (self.oldest + at as u64, aggregate))
    }

    /// Adds a sample, unless the interval is too old. `evicted` gets the intervals that leave.
    pub(super) fn add(
        &mut self,
        interval: u64,
        value: f64,
        tier: &Tier,
        evicted: &mut dyn FnMut(Bucket),
    ) {
        if let Some(aggregate) = self.entry(interval, tier, evicted) {
            aggregate.add(value);
            self.dirty |= bit(interval, tier);
        }
    }

    /// The cell of this interval, created if necessary; `None` if the interval is too old. The
    /// caller must fill the cell. Each loop runs at most `kept` times, and usually not at all.
    pub(super) fn entry(
        &mut self,
        interval: u64,
        tier: &Tier,
        evicted: &mut dyn FnMut(Bucket),
    ) -> Option<&mut Aggregate> {
        let kept = tier.kept as u64;
        if self
            .newest()
            .is_some_and(|newest| interval + kept <= newest)
        {
            return None;
        }
        let pushed_out = |oldest| oldest + kept <= interval;
        while let Some(front) = self.cells.front()
            && (front.is_empty() || pushed_out(self.oldest))
        {
            if !front.is_empty() {
                evicted(bucket(self.oldest, front, tier));
            }
            self.dirty &= !bit(self.oldest, tier);
            self.cells.pop_front();
            self.oldest += 1;
        }
        if self.cells.is_empty() {
            self.oldest = interval;
        }
        while interval < self.oldest {
            self.make_room(tier);
            self.cells.push_front(Aggregate::EMPTY);
            self.oldest -= 1;
        }
        let at = (interval - self.oldest) as usize;
        while at >= self.cells.len() {
            self.make_room(tier);
            self.cells.push_back(Aggregate::EMPTY);
        }
        self.cells.get_mut(at)
    }

    pub(super) fn cut(&mut self, from: u64, tier: &Tier) -> u64 {
        let mut samples = 0;
        while let Some(newest) = self.newest() {
            let is_empty = self.cells.back().is_none_or(Aggregate::is_empty);
            if !is_empty && newest * tier.width_secs < from {
                break;
            }
            samples += self.cells.pop_back().map_or(0, |cell| cell.count());
            self.dirty &= !bit(newest, tier);
        }
        if self.cells.is_empty() {
            self.oldest = 0;
        }
        samples
    }

    /// Doubles the capacity, up to the tier's `kept`, so that a full ring wastes no memory.
    fn make_room(&mut self, tier: &Tier) {
        let len = self.cells.len();
        if len == self.cells.capacity() {
            self.cells.reserve_exact(len.clamp(1, tier.kept - len));
        }
    }

    /// The memory of the cells in bytes.
    pub(super) fn cell_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Aggregate>()
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty != 0
    }

    pub(super) fn clear_dirty(&mut self) {
        self.dirty = 0;
    }

    pub(super) fn mark_all(&mut self, tier: &Tier) {
        let there = self.oldest_first().filter(|(_, cell)| !cell.is_empty());
        self.dirty = there.fold(0, |dirty, (interval, _)| dirty | bit(interval, tier));
    }

    /// The intervals with samples, oldest first, and whether each has changed.
    pub(super) fn filled(&self, tier: &'static Tier) -> impl Iterator<Item = (Bucket, bool)> {
        self.oldest_first()
            .filter(|(_, aggregate)| !aggregate.is_empty())
            .map(|(interval, aggregate)| {
                let is_changed = self.dirty & bit(interval, tier) != 0;
                (bucket(interval, aggregate, tier), is_changed)
            })
    }
}

fn bucket(interval: u64, aggregate: &Aggregate, tier: &Tier) -> Bucket {
    Bucket {
        start: interval * tier.width_secs,
        count: aggregate.count(),
        sum: aggregate.sum(),
        min: aggregate.min(),
        max: aggregate.max(),
    }
}

fn bit(interval: u64, tier: &Tier) -> u64 {
    1 << tier.slot_of_interval(interval)
}
