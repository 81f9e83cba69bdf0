//! What is known of a submission's records as a whole.

use std::ops::RangeInclusive;

/// What is known of a submission's records as a whole, so that they are not read again for it. Made
/// while they are encoded, or read from the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    /// How many records there are.
    count: u64,
    /// Number of the first and of the last.
    first: u64,
    last: u64,
    is_ascending: bool,
    epochs: (u64, u64),
    has_same_labels: bool,
}

impl Default for Outline {
    fn default() -> Self {
        Self {
            count: 0,
            first: 0,
            last: 0,
            is_ascending: true,
            epochs: (u64::MAX, 0),
            has_same_labels: true,
        }
    }
}

impl Outline {
    /// Adds a record, with its number or 0. `has_same_labels` says whether it has the labels of the
    /// one before, in the same order.
    pub(super) fn add(&mut self, seq: u64, epoch: u64, has_same_labels: bool) {
        if self.count == 0 {
            self.first = seq;
        } else {
            self.has_same_labels &= has_same_labels;
        }
        self.is_ascending &= seq > self.last;
        self.count += 1;
        self.last = seq;
        let (least, greatest) = self.epochs;
        self.epochs = (least.min(epoch), greatest.max(epoch));
    }

    /// Whether all records have the same labels, in the same order.
    pub fn has_same_labels(&self) -> bool {
        self.has_same_labels
    }

    /// The least and the greatest epoch; none without a record.
    pub fn epochs(&self) -> Option<(u64, u64)> {
        (self.count > 0).then_some(self.epochs)
    }

    /// The numbers from the first to the last, if each is greater than the one before.
    pub fn ascending(&self) -> Option<RangeInclusive<u64>> {
        (self.count > 0 && self.is_ascending).then_some(self.first..=self.last)
    }

    /// The same if none is left out.
    pub fn run(&self) -> Option<RangeInclusive<u64>> {
        let ascending = self.ascending()?;
        (ascending.end() - ascending.start() == self.count - 1).then_some(ascending)
    }
}
