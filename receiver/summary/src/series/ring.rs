//! The intervals of one tier of a series.
//!
//! ```text
//! oldest ─> | packed: those that samples no longer come for | open: the newest, or all |
//! ```
//!
//! A sample for an interval among the packed ones, which is rare, opens all of them;
//! [`Ring::pack`] packs all but the newest again.

use crate::aggregate::Aggregate;
use crate::packing::{Unpacker, pack_count, pack_number};
use crate::window::{EpochInterval, TIERS, Tier};

/// How many of the newest cells [`Ring::pack`] leaves open: a sample that is a little late finds its
/// interval among them.
const OPEN_CELLS: usize = 2;

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
#[derive(Debug, Clone, Default)]
pub(super) struct Ring {
    /// The interval number of the first cell, counted from 1970. Has no meaning without cells.
    oldest: u64,
    /// The first cells, one behind the other: see [`pack_cell`].
    packed: Box<[u8]>,
    /// How many there are in `packed`.
    packed_cells: usize,
    /// The cells behind them.
    open: Vec<Aggregate>,
    /// Bit `slot` is set if the cell in that slot has changed.
    dirty: u64,
}

/// Rings with the same contents are equal, whatever is packed of each.
impl PartialEq for Ring {
    fn eq(&self, other: &Self) -> bool {
        self.oldest == other.oldest
            && self.dirty == other.dirty
            && self.oldest_first().eq(other.oldest_first())
    }
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
    fn len(&self) -> usize {
        self.packed_cells + self.open.len()
    }

    pub(super) fn newest(&self) -> Option<u64> {
        Some(self.oldest + (self.len() as u64).checked_sub(1)?)
    }

    /// Unpacks only if more than the open cells are asked for.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (u64, Aggregate)> {
        let open = self.open.iter().rev().copied();
        let packed = std::iter::once_with(|| self.packed().collect::<Vec<_>>());
        let cells = open.chain(packed.flat_map(|cells| cells.into_iter().rev()));
        let intervals = (self.oldest..self.oldest + self.len() as u64).rev();
        intervals.zip(cells)
    }

    pub(super) fn oldest_first(&self) -> impl Iterator<Item = (u64, Aggregate)> {
        (self.oldest..).zip(self.packed().chain(self.open.iter().copied()))
    }

    /// The intervals with samples from this one on, oldest first.
    pub(super) fn each_from(&self, first: u64, mut each: impl FnMut(u64, &Aggregate)) {
        let mut interval = self.oldest;
        let mut next = |cell: &Aggregate| {
            if interval >= first && !cell.is_empty() {
                each(interval, cell);
            }
            interval += 1;
        };
        let mut unpacker = Unpacker(&self.packed);
        for _ in 0..self.packed_cells {
            let Some(cell) = unpack_cell(&mut unpacker) else {
                break;
            };
            next(&cell);
        }
        self.open.iter().for_each(next);
    }

    fn packed(&self) -> impl Iterator<Item = Aggregate> {
        let mut unpacker = Unpacker(&self.packed);
        (0..self.packed_cells).map_while(move |_| unpack_cell(&mut unpacker))
    }

    /// Adds a sample, unless the interval is too old. `evicted` gets the intervals that leave.
    pub(super) fn add(
        &mut self,
        interval: EpochInterval,
        value: f64,
        tier: &Tier,
        evicted: &mut dyn FnMut(Bucket),
    ) {
        let EpochInterval { number, bit } = interval;
        // Usually it is among the open ones, and nothing is too old.
        let open_from = self.oldest + self.packed_cells as u64;
        let place = number.checked_sub(open_from).map(|at| at as usize);
        let cell = match place.filter(|at| *at < self.open.len()) {
            Some(at) => self.open.get_mut(at),
            None => self.entry(number, tier, evicted),
        };
        if let Some(aggregate) = cell {
            aggregate.add(value);
            self.dirty |= bit;
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
        if self
            .newest()
            .is_some_and(|newest| interval + tier.kept as u64 <= newest)
        {
            return None;
        }
        if interval < self.oldest + self.packed_cells as u64 {
            self.unpack();
        }
        self.evict(interval, tier, evicted);
        if self.len() == 0 {
            self.oldest = interval;
        }
        if interval < self.oldest {
            let missing = (self.oldest - interval) as usize;
            let gap = std::iter::repeat_n(Aggregate::EMPTY, missing);
            self.open.splice(..0, gap);
            self.oldest = interval;
        }
        let at = (interval - self.oldest) as usize - self.packed_cells;
        while at >= self.open.len() {
            self.make_room(tier);
            self.open.push(Aggregate::EMPTY);
        }
        self.open.get_mut(at)
    }

    /// Removes the cells that have no place beside this interval, and empty ones behind them.
    fn evict(&mut self, interval: u64, tier: &Tier, evicted: &mut dyn FnMut(Bucket)) {
        let kept = tier.kept as u64;
        let is_in_place = |oldest: u64| oldest + kept > interval;
        if is_in_place(self.oldest) {
            // The first cell is never empty.
            return;
        }
        let mut leaves = |oldest: u64, cell: &Aggregate| {
            let leaves = cell.is_empty() || !is_in_place(oldest);
            if leaves && !cell.is_empty() {
                evicted(bucket(oldest, cell, tier));
            }
            leaves
        };
        let mut unpacker = Unpacker(&self.packed);
        let mut left = unpacker.0.len();
        let (mut oldest, mut gone) = (self.oldest, 0);
        while gone < self.packed_cells
            && unpack_cell(&mut unpacker).is_none_or(|cell| leaves(oldest, &cell))
        {
            left = unpacker.0.len();
            (oldest, gone) = (oldest + 1, gone + 1);
        }
        self.packed_cells -= gone;
        if gone > 0 {
            self.packed = Box::from(&self.packed[self.packed.len() - left..]);
        }
        if self.packed_cells == 0 {
            let is_left = |cell: &&Aggregate| {
                let leaves = leaves(oldest, cell);
                oldest += u64::from(leaves);
                leaves
            };
            let gone = self.open.iter().take_while(is_left).count();
            self.open.drain(..gone);
        }
        (self.oldest..oldest).for_each(|interval| self.dirty &= !bit(interval, tier));
        self.oldest = oldest;
    }

    /// Opens all cells.
    fn unpack(&mut self) {
        if self.packed_cells > 0 {
            let cells = self.packed().chain(self.open.iter().copied()).collect();
            self.open = cells;
            self.packed = Box::default();
            self.packed_cells = 0;
        }
    }

    /// Packs all cells but the newest.
    pub(super) fn pack(&mut self) {
        let cells = self.open.len().saturating_sub(OPEN_CELLS);
        if cells == 0 {
            return;
        }
        let mut packed = std::mem::take(&mut self.packed).into_vec();
        self.open
            .drain(..cells)
            .for_each(|cell| pack_cell(&cell, &mut packed));
        self.open.shrink_to(OPEN_CELLS);
        self.packed = packed.into_boxed_slice();
        self.packed_cells += cells;
    }

    pub(super) fn cut(&mut self, from: u64, tier: &Tier) -> u64 {
        self.unpack();
        let mut samples = 0;
        while let Some(newest) = self.newest() {
            let is_empty = self.open.last().is_none_or(Aggregate::is_empty);
            if !is_empty && newest * tier.width_secs < from {
                break;
            }
            samples += self.open.pop().map_or(0, |cell| cell.count());
            self.dirty &= !bit(newest, tier);
        }
        if self.open.is_empty() {
            self.oldest = 0;
        }
        samples
    }

    /// Doubles the capacity, up to the tier's `kept`, so that a full ring wastes no memory.
    fn make_room(&mut self, tier: &Tier) {
        let len = self.open.len();
        if len == self.open.capacity() {
            let left = tier.kept.saturating_sub(len).max(1);
            self.open.reserve_exact(len.clamp(1, left));
        }
    }

    /// The memory of the cells in bytes.
    pub(super) fn cell_bytes(&self) -> usize {
        self.packed.len() + self.open.capacity() * size_of::<Aggregate>()
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
                (bucket(interval, &aggregate, tier), is_changed)
            })
    }

    /// Appends it: the number of cells, the number of the first, and each; nothing but a zero if it is
    /// empty.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        pack_count(self.len() as u64, bytes);
        if self.len() > 0 {
            pack_count(self.oldest, bytes);
            bytes.extend_from_slice(&self.packed);
            self.open.iter().for_each(|cell| pack_cell(cell, bytes));
        }
    }

    /// The ring that was encoded; `None` if no samples can have made it.
    pub(super) fn decode(unpacker: &mut Unpacker<'_>, tier: &Tier) -> Option<Self> {
        let len = usize::try_from(unpacker.count()?).ok()?;
        if len == 0 {
            return Some(Self::default());
        }
        let oldest = unpacker.count()?;
        let end = oldest.checked_add(len as u64)?;
        if len > tier.kept || end.checked_mul(tier.width_secs).is_none() {
            return None;
        }
        let packed_cells = len.saturating_sub(OPEN_CELLS);
        let cells = unpacker.0;
        let mut is_first_empty = false;
        for nth in 0..packed_cells {
            is_first_empty |= unpack_cell(unpacker)?.is_empty() && nth == 0;
        }
        let packed = Box::from(&cells[..cells.len() - unpacker.0.len()]);
        let open = (packed_cells..len).map(|_| unpack_cell(unpacker));
        let open = open.collect::<Option<Vec<_>>>()?;
        let is_last_empty = open.last().is_some_and(Aggregate::is_empty);
        let is_first_open_empty = open.first().is_some_and(Aggregate::is_empty);
        let is_padded =
            is_first_empty || is_last_empty || (packed_cells == 0 && is_first_open_empty);
        (!is_padded).then_some(Self {
            oldest,
            packed,
            packed_cells,
            open,
            dirty: 0,
        })
    }
}

/// Count, sum, minimum and maximum; of an empty cell a zero alone.
fn pack_cell(cell: &Aggregate, bytes: &mut Vec<u8>) {
    pack_count(cell.count(), bytes);
    if !cell.is_empty() {
        for number in [cell.sum(), cell.min(), cell.max()] {
            pack_number(number, bytes);
        }
    }
}

fn unpack_cell(unpacker: &mut Unpacker<'_>) -> Option<Aggregate> {
    match unpacker.count()? {
        0 => Some(Aggregate::EMPTY),
        count => {
            let (sum, min) = (unpacker.number()?, unpacker.number()?);
            Aggregate::from_parts(count, sum, min, unpacker.number()?)
        }
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
