//! The sequence numbers of a producer that have arrived.

use std::ops::RangeInclusive;

/// The numbers received from one producer, which numbers its records from 1.
///
/// They are stored as sorted inclusive ranges, with at least one missing number between neighbours.
/// A number that follows the highest one takes constant time; any other takes a binary search. The
/// caller limits the number of ranges.
///
/// ```
/// use lizmon_summary::DeliverySet;
/// let mut set = DeliverySet::new();
/// assert!(set.insert(1) && set.insert(4) && !set.insert(1));
/// assert_eq!(set.missing().collect::<Vec<_>>(), [(2, 3)]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliverySet {
    ranges: Vec<(u64, u64)>,
    received: u64,
}

/// No received numbers can have these ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImpossibleRanges;

impl std::fmt::Display for ImpossibleRanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the ranges are not ascending, disjoint and at least 1")
    }
}

impl std::error::Error for ImpossibleRanges {}

/// The position of a number relative to the ranges.
enum Place {
    /// Inside a range.
    Inside,
    /// Adjacent to the end of the range before `at`, to the start of the range at `at`, to both or
    /// to neither.
    Outside {
        at: usize,
        joins_before: bool,
        joins_after: bool,
    },
}

impl DeliverySet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A set from the stored output of [`DeliverySet::ranges`].
    pub fn from_ranges(
        ranges: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<Self, ImpossibleRanges> {
        let mut set = Self::new();
        for (from, to) in ranges {
            let apart = set
                .highest()
                .is_none_or(|last| from > last.saturating_add(1));
            if !apart || from == 0 || to < from {
                return Err(ImpossibleRanges);
            }
            set.received += to - from + 1;
            set.ranges.push((from, to));
        }
        Ok(set)
    }

    /// Adds a number and returns whether it is new. 0 is not a valid number, so it is never new.
    pub fn insert(&mut self, number: u64) -> bool {
        let Place::Outside {
            at,
            joins_before,
            joins_after,
        } = self.place(number)
        else {
            return false;
        };
        if number == 0 {
            return false;
        }
        match (joins_before, joins_after) {
            (true, true) => {
                let (_, to) = self.ranges.remove(at);
                self.ranges[at - 1].1 = to;
            }
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
        self.received += 1;
        true
    }

    /// Adds numbers that follow each other. Takes constant time behind the highest one.
    ///
    /// ```
    /// use lizmon_summary::DeliverySet;
    /// let mut set = DeliverySet::new();
    /// set.insert_run(4..=9);
    /// set.insert_run(7..=12);
    /// assert_eq!((set.ranges(), set.received()), (&[(4, 12)][..], 9));
    /// ```
    pub fn insert_run(&mut self, mut run: RangeInclusive<u64>) {
        let highest = self.highest().unwrap_or(0);
        while *run.start() <= highest
            && let Some(number) = run.next()
        {
            self.insert(number);
        }
        if let Some(first) = run.next()
            && self.insert(first)
            && let Some((_, to)) = self.ranges.last_mut()
        {
            self.received += run.end() - first;
            *to = *run.end();
        }
    }

    /// Whether this number has arrived.
    pub fn contains(&self, number: u64) -> bool {
        matches!(self.place(number), Place::Inside)
    }

    /// The number of distinct numbers that have arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The highest number that has arrived.
    pub fn highest(&self) -> Option<u64> {
        self.ranges.last().map(|(_, to)| *to)
    }

    /// The numbers that have arrived, as disjoint inclusive ranges in ascending order.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// The missing numbers below the highest one, as inclusive ranges in ascending order.
    pub fn missing(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends_before = std::iter::once(0).chain(self.ranges.iter().map(|(_, to)| *to));
        ends_before
            .zip(&self.ranges)
            .map(|(before, (from, _))| (before + 1, from - 1))
            .filter(|(from, to)| from <= to)
    }

    fn place(&self, number: u64) -> Place {
        let at = match self.ranges.last() {
            Some((from, _)) if number >= *from => self.ranges.len(),
            _ => self.ranges.partition_point(|(from, _)| *from <= number),
        };
        let before = at.checked_sub(1).map(|before| self.ranges[before].1);
        if before.is_some_and(|to| number <= to) {
            return Place::Inside;
        }
        Place::Outside {
            at,
            joins_before: before.is_some_and(|to| to + 1 == number),
            joins_after: self
                .ranges
                .get(at)
                .is_some_and(|(from, _)| number + 1 == *from),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn joins_and_gaps() {
        let mut set = DeliverySet::new();
        for (number, new, ranges) in [
            (5, true, vec![(5, 5)]),
            (5, false, vec![(5, 5)]),
            (7, true, vec![(5, 5), (7, 7)]),
            (6, true, vec![(5, 7)]),
            (1, true, vec![(1, 1), (5, 7)]),
            (4, true, vec![(1, 1), (4, 7)]),
            (2, true, vec![(1, 2), (4, 7)]),
            (3, true, vec![(1, 7)]),
            (0, false, vec![(1, 7)]),
            (u64::MAX, true, vec![(1, 7), (u64::MAX, u64::MAX)]),
            (u64::MAX, false, vec![(1, 7), (u64::MAX, u64::MAX)]),
        ] {
            assert_eq!(set.insert(number), new, "{number}");
            assert_eq!(set.ranges(), ranges, "{number}");
        }
        assert_eq!(set.missing().collect::<Vec<_>>(), [(8, u64::MAX - 1)]);
    }

    #[test]
    fn impossible_ranges_are_refused() {
        for ranges in [
            vec![(0, 3)],
            vec![(3, 2)],
            vec![(1, 3), (4, 5)],
            vec![(1, 3), (2, 5)],
            vec![(5, 6), (1, 2)],
            vec![(1, u64::MAX), (1, 1)],
        ] {
            assert_eq!(DeliverySet::from_ranges(ranges), Err(ImpossibleRanges));
        }
    }

    proptest! {
        #[test]
        fn a_run_is_its_numbers(
            numbers in prop::collection::vec(1_u64..60, 0..30),
            runs in prop::collection::vec((1_u64..60, 0_u64..20), 0..8),
        ) {
            let mut set = DeliverySet::new();
            for number in numbers {
                set.insert(number);
            }
            let mut one_by_one = set.clone();
            for (first, more) in runs {
                set.insert_run(first..=first + more);
                for number in first..=first + more {
                    one_by_one.insert(number);
                }
                prop_assert_eq!(&set, &one_by_one);
            }
        }

        #[test]
        fn is_a_set(numbers in prop::collection::vec(1_u64..60, 0..200)) {
            let (mut set, mut model) = (DeliverySet::new(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(set.insert(number), model.insert(number));
                prop_assert_eq!(set.received(), model.len() as u64);
                prop_assert_eq!(set.highest(), model.last().copied());
            }
            for number in 0..62 {
                prop_assert_eq!(set.contains(number), model.contains(&number));
            }
            let missing: Vec<_> = set.missing().flat_map(|(from, to)| from..=to).collect();
            let highest = model.last().copied().unwrap_or(0);
            let expected: Vec<_> = (1..highest).filter(|n| !model.contains(n)).collect();
            prop_assert_eq!(missing, expected);
            prop_assert_eq!(DeliverySet::from_ranges(set.ranges().iter().copied()), Ok(set));
        }
    }
}
