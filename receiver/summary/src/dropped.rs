//! The numbers that a producer dropped, and why.

use std::collections::BTreeMap;

/// Numbers that will never arrive, as disjoint inclusive ranges, each with a reason. The first
/// reason of a number stays: a later insert of the same number changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DroppedSet {
    /// The first number of a range, mapped to its last number and its reason.
    ranges: BTreeMap<u64, (u64, Box<str>)>,
}

impl DroppedSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range of dropped numbers. A range that ends before it starts is ignored.
    ///
    /// ```
    /// let mut dropped = lizmon_summary::DroppedSet::new();
    /// dropped.insert(4, 6, "too old");
    /// dropped.insert(1, 9, "the disk was full");
    /// let ranges: Vec<_> = dropped.iter().collect();
    /// assert_eq!(ranges, [(1, 3, "the disk was full"), (4, 6, "too old"), (7, 9, "the disk was full")]);
    /// ```
    pub fn insert(&mut self, from: u64, to: u64, why: &str) {
        for (gap_from, gap_to) in self.gaps(from.max(1), to) {
            self.add(gap_from, gap_to, why);
        }
    }

    /// Whether [`DroppedSet::insert`] of this range would change the set.
    pub fn would_change(&self, from: u64, to: u64) -> bool {
        !self.gaps(from.max(1), to).is_empty()
    }

    /// The parts of `from..=to` that are not in the set.
    fn gaps(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut next = from;
        let before = self.ranges.range(..from).next_back();
        let within = self
            .ranges
            .range(from..)
            .take_while(|(start, _)| **start <= to);
        for (&start, &(end, _)) in before.into_iter().chain(within) {
            if next < start {
                gaps.push((next, start - 1));
            }
            if end >= to {
                return gaps;
            }
            next = next.max(end + 1);
        }
        if next <= to {
            gaps.push((next, to));
        }
        gaps
    }

    /// Adds a range that does not overlap any other, and merges it with neighbours of the same
    /// reason.
    fn add(&mut self, mut from: u64, mut to: u64, why: &str) {
        if let Some((&start, (end, same))) = self.ranges.range(..from).next_back()
            && end.saturating_add(1) == from
            && **same == *why
        {
            from = start;
        }
        if let Some((end, same)) = self.ranges.get(&to.saturating_add(1))
            && **same == *why
        {
            let joined = to + 1;
            to = *end;
            self.ranges.remove(&joined);
        }
        self.ranges.insert(from, (to, why.into()));
    }

    /// The number of ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The first number, last number and reason of every range, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &str)> {
        self.ranges
            .iter()
            .map(|(from, (to, why))| (*from, *to, &**why))
    }

    /// The ranges without the numbers that have arrived. `received` is disjoint and sorted.
    pub fn without<'a>(
        &'a self,
        received: &'a [(u64, u64)],
    ) -> impl Iterator<Item = (u64, u64, &'a str)> {
        self.iter().flat_map(move |(from, to, why)| {
            subtract(from, to, received)
                .into_iter()
                .map(move |(from, to)| (from, to, why))
        })
    }

    /// The parts of `ranges` that are not in the set.
    pub fn take_out_of(&self, ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
        let given_up: Vec<_> = self.iter().map(|(from, to, _)| (from, to)).collect();
        ranges
            .flat_map(|(from, to)| subtract(from, to, &given_up))
            .collect()
    }
}

/// `from..=to` without the numbers in `others`, which are disjoint and sorted.
fn subtract(from: u64, to: u64, others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut left = Vec::new();
    let mut next = from;
    let first = others.partition_point(|(_, end)| *end < from);
    for &(start, end) in others[first..].iter().take_while(|(start, _)| *start <= to) {
        if next < start {
            left.push((next, start - 1));
        }
        if end >= to {
            return left;
        }
        next = next.max(end + 1);
    }
    if next <= to {
        left.push((next, to));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Compares with a map that has an entry for every number.
        #[test]
        fn the_first_word_stays(ranges in proptest::collection::vec((0..40_u64, 0..12_u64, 0..3_u8), 0..30)) {
            let mut set = DroppedSet::new();
            let mut model: BTreeMap<u64, String> = BTreeMap::new();
            for (from, length, why) in ranges {
                let why = format!("why {why}");
                set.insert(from, from + length, &why);
                (from.max(1)..=from + length).for_each(|number| { model.entry(number).or_insert(why.clone()); });
            }
            let mut numbers = BTreeMap::new();
            let mut last: Option<(u64, String)> = None;
            for (from, to, why) in set.iter() {
                prop_assert!(from <= to);
                if let Some((end, before)) = last {
                    prop_assert!(end < from && (end + 1 < from || before != why), "not joined");
                }
                last = Some((to, why.to_owned()));
                (from..=to).for_each(|number| { numbers.insert(number, why.to_owned()); });
            }
            prop_assert_eq!(numbers, model);
        }

        #[test]
        fn subtracting_leaves_the_rest(from in 1..30_u64, length in 0..30_u64, picks in proptest::collection::btree_set(1..70_u64, 0..40)) {
            let mut others = crate::DeliverySet::new();
            picks.iter().for_each(|number| { others.insert(*number); });
            let left = subtract(from, from + length, others.ranges());
            let numbers: Vec<u64> = left.iter().flat_map(|(from, to)| *from..=*to).collect();
            let expected: Vec<u64> = (from..=from + length).filter(|number| !picks.contains(number)).collect();
            prop_assert_eq!(numbers, expected);
        }
    }

    #[test]
    fn the_greatest_numbers_are_no_trap() {
        let mut set = DroppedSet::new();
        set.insert(u64::MAX, u64::MAX, "a");
        set.insert(1, u64::MAX, "a");
        set.insert(9, 3, "a");
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, u64::MAX, "a")]);
        assert_eq!(set.without(&[(1, u64::MAX)]).count(), 0);
    }
}
