//! Constants of the format.

/// The version of the format.
pub(super) const VERSION: u8 = 1;
/// Version and checksum of a group.
pub(super) const HEAD_BYTES: usize = 5;
/// A producer numbered the records.
pub(super) const HAS_PRODUCER: u8 = 1;
/// Samples ahead of the time at which the records were received are removed.
pub(super) const REMOVES_AHEAD: u8 = 2;
/// The producer sends the records again because they were lost here.
pub(super) const IS_REPAIR: u8 = 4;
/// A document follows the dropped ranges.
pub(super) const HAS_DOCUMENT: u8 = 8;
/// The records are points: see [`PointNumber`](super::PointNumber).
pub(super) const HAS_POINTS: u8 = 16;
/// A label of so many bytes or more has its length behind this.
pub(super) const LONG_LABEL: u8 = u8::MAX;
/// Number, epoch and count of values of a record.
pub(super) const RECORD_HEAD_BYTES: usize = 18;
