//! A set of numbers from 1 on, as inclusive ranges.

use serde::{Deserialize, Serialize};

/// Sorted, with at least one missing number between neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds these numbers; nothing where `to` is before `from`.
    pub fn insert(&mut self, from: u64, to: u64) {
        if to < from {
            return;
        }
        let begin = self
            .0
            .partition_point(|(_, end)| end.saturating_add(1) < from);
        let end = self
            .0
            .partition_point(|(start, _)| *start <= to.saturating_add(1));
        let (mut low, mut high) = (from, to);
        for (start, end) in &self.0[begin..end] {
            low = low.min(*start);
            high = high.max(*end);
        }
        self.0.splice(begin..end, [(low, high)]);
    }

    /// Removes these numbers; nothing where `to` is before `from`.
    pub fn remove(&mut self, from: u64, to: u64) {
        if to < from {
            return;
        }
        let begin = self.0.partition_point(|(_, end)| *end < from);
        let end = self.0.partition_point(|(start, _)| *start <= to);
        let Some(touched) = self.0.get(begin..end).filter(|ranges| !ranges.is_empty()) else {
            return;
        };
        let (low, high) = (touched[0].0, touched[touched.len() - 1].1);
        let before = (low < from).then(|| (low, from - 1));
        let after = (high > to).then(|| (to + 1, high));
        self.0.splice(begin..end, before.into_iter().chain(after));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lowest number.
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|(from, _)| *from)
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from + 1).sum()
    }

    /// Whether this number is in the set.
    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|(_, end)| *end < number);
        self.0.get(at).is_some_and(|(start, _)| *start <= number)
    }

    /// The ranges from `from` to `to` that are not in the set, ascending.
    pub fn gaps(&self, from: u64, to: u64) -> impl DoubleEndedIterator<Item = (u64, u64)> + use<> {
        let begin = self.0.partition_point(|(_, end)| *end < from);
        let end = self.0.partition_point(|(start, _)| *start <= to);
        let known = self.0.get(begin..end).unwrap_or_default();
        let starts = std::iter::once(from).chain(known.iter().map(|(_, end)| end + 1));
        let ends = known.iter().map(|(start, _)| start.saturating_sub(1));
        let ends = ends.chain(std::iter::once(to));
        let gaps: Vec<_> = starts.zip(ends).filter(|(from, to)| from <= to).collect();
        gaps.into_iter()
    }

    /// The ranges from `from` to `to` that are in the set, ascending.
    pub fn overlap(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let begin = self.0.partition_point(|(_, end)| *end < from);
        let there = self.0[begin..].iter().take_while(|(start, _)| *start <= to);
        there
            .map(|(start, end)| ((*start).max(from), (*end).min(to)))
            .collect()
    }

    /// The end of the range that begins with 1; 0 if 1 is not in the set.
    pub fn contiguous_end(&self) -> u64 {
        match self.0.first() {
            Some((1, end)) => *end,
            _ => 0,
        }
    }

    /// The ranges, ascending.
    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.0
    }
}

impl From<Vec<(u64, u64)>> for Ranges {
    fn from(ranges: Vec<(u64, u64)>) -> Self {
        let mut set = Self::default();
        for (from, to) in ranges {
            set.insert(from, to);
        }
        set
    }
}

impl From<Ranges> for Vec<(u64, u64)> {
    fn from(ranges: Ranges) -> Self {
        ranges.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It behaves like a set of numbers.
        #[test]
        fn as_a_set(changes in proptest::collection::vec((1..40u64, 0..6u64, 0..4u8), 0..40), from in 1..45u64, width in 0..45u64) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (from, width, kind) in changes {
                if kind == 0 {
                    ranges.remove(from, from + width);
                    model.retain(|number| !(from..=from + width).contains(number));
                } else {
                    ranges.insert(from, from + width);
                    model.extend(from..=from + width);
                }
                prop_assert_eq!(ranges.first(), model.first().copied());
                prop_assert_eq!((ranges.count(), ranges.is_empty()), (model.len() as u64, model.is_empty()));
                prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                for number in 1..50 {
                    prop_assert_eq!(ranges.contains(number), model.contains(&number));
                }
            }
            let missing: Vec<u64> = ranges.gaps(from, from + width).flat_map(|(from, to)| from..=to).collect();
            let expected: Vec<u64> = (from..=from + width).filter(|number| !model.contains(number)).collect();
            prop_assert_eq!(missing, expected);
            let there: Vec<u64> = ranges.overlap(from, from + width).into_iter().flat_map(|(from, to)| from..=to).collect();
            let expected: Vec<u64> = (from..=from + width).filter(|number| model.contains(number)).collect();
            prop_assert_eq!(there, expected);
            let through = (1..).take_while(|number| model.contains(number)).last().unwrap_or(0);
            prop_assert_eq!(ranges.contiguous_end(), through);
        }
    }

    #[test]
    fn an_empty_change_changes_nothing() {
        let mut ranges = Ranges::default();
        ranges.insert(3, 2);
        ranges.remove(1, u64::MAX);
        ranges.remove(3, 2);
        assert_eq!(ranges.as_slice(), []);
        assert_eq!(ranges.gaps(5, 4).count(), 0);
    }
}
