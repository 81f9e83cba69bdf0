//! Why records are dropped, in the words that receivers are told.

/// They are too old for any receiver.
pub const TOO_OLD: &str = "too old to be accepted";
/// Newer ones needed the space.
pub const SPOOL_FULL: &str = "the spool was full";
/// The disk failed, and memory had no more space.
pub const DISK_FAILED: &str = "the disk failed for too long";
/// They were on a damaged part of the disk, or were never written to it.
pub const DAMAGED: &str = "no longer on the disk";
/// They are of a host by another name, and set aside.
pub const OTHER_HOST: &str = "other_host";
/// They were measured on another machine by the same name, and set aside.
pub const OTHER_MACHINE: &str = "other_machine";
/// They were done before this receiver was one of the destinations.
pub const BEFORE_ASKED: &str = lizmon_protocol::delivery::BEFORE_ASKED;
/// The receiver had them, and has lost them: its data was reset or restored.
pub const BEFORE_DATA: &str = lizmon_protocol::delivery::BEFORE_DATA;
