//! How much a spool holds, and for how long.

/// Most bytes of records on disk: at the usual two labels, ten days of one a second.
pub const DISK_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of records where they are kept in memory: some six hours at one a second.
pub const MEMORY_BYTES_MAX: u64 = 1536 << 10;
/// Most bytes of records that wait in memory for a disk that fails: as many as without a disk.
pub const UNSAVED_BYTES_MAX: u64 = MEMORY_BYTES_MAX;
/// No receiver accepts older records: its longest window is a day, rounded down to a whole hour.
pub const AGE_SECS_MAX: u64 = 25 * 3600;
/// A full backend is tried again with the next record: it fails at once.
pub const FULL_RETRY_SECS: u64 = 1;
/// A backend that fails is tried again after this long: it may block for a while before it fails.
pub const FAILED_RETRY_SECS: u64 = 10;
/// A receiver keeps 1,024 ranges of a producer's numbers: before there are that many gaps, new
/// records get a new producer.
pub const GAPS_MAX: u32 = 512;
/// Logs that still wait to be delivered: half the producers that a receiver keeps of one host.
/// Beyond it the oldest is dropped.
pub const PRODUCER_LOGS_MAX: usize = 32;

/// Acknowledged records may take this part of the spool's limit.
pub const KEPT_PART: u64 = 4;
/// How long acknowledged records are kept, if `--keep-acknowledged` does not say: longer than a
/// failover takes to be noticed and answered.
pub const KEEP_SECS: u64 = 600;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Most bytes of records in the backend.
    pub bytes_max: u64,
    /// Most bytes of records that the backend has not stored.
    pub unsaved_bytes_max: u64,
    /// Older records are dropped.
    pub age_secs_max: u64,
    /// How long acknowledged records are kept, so that they can be sent again to a receiver that
    /// loses them; 0 if they are not.
    pub keep_secs: u64,
}

impl SpoolLimits {
    /// So many bytes in the backend, and the usual values for the rest. What is acknowledged is not
    /// kept.
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            unsaved_bytes_max: UNSAVED_BYTES_MAX,
            age_secs_max: AGE_SECS_MAX,
            keep_secs: 0,
        }
    }

    /// The same, and what is acknowledged is kept for so long.
    pub const fn keeping(self, keep_secs: u64) -> Self {
        Self { keep_secs, ..self }
    }

    /// Most bytes of records that are only kept.
    pub const fn kept_bytes_max(&self) -> u64 {
        self.bytes_max / KEPT_PART
    }
}
