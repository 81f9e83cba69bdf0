//! Records that are not delivered yet: numbered, bounded, and read by each destination at its own pace.
//!
//! ```text
//! push -> tape: 1 2 3 … next      one producer's numbers; new records go on the open one
//!           │ destination A: settled 1-7, 9
//!           │ destination B: settled 1-2
//!           └ Keep: note, commit, read      where it is kept: disk, memory, or a test's
//! ```
//!
//! What holds:
//!
//! - A number is never given twice, whatever the disk does: it may be sent only once it cannot be given again.
//! - A record is forgotten when every destination has settled it: it was delivered, or given up and counted.
//! - What is given up is reported to the destination that misses it, with the reason, until that says it knows.
//! - Oldest go first when the spool is full, and when they are so old that no receiver takes them.
//! - While the disk takes nothing, records are kept in memory, sent from there, and go to the disk as soon as it has room. Their
//!   numbers are noted, which needs no room, so that after a crash they are reported. Only where not even that can be
//!   written, a crash takes them without a word.

mod bounds;
pub mod disk;
mod home;
pub mod keep;
mod known;
mod loading;
mod lot;
pub mod memory;
mod ranges;
mod settling;
mod tape;
#[cfg(test)]
mod tests;

pub use home::{Home, Machine};
pub use keep::{Keep, KeepError};
pub use ranges::Ranges;

use lizmon_protocol::sample::{
    Dropped, Epoch, IdempotencyKey, ProducerId, Record, SAFE_INTEGER_MAX, SampleSet, Seq,
};

pub(crate) use self::bounds::Steadiness;
use self::keep::{Change, NOTES_MAX, Note};
use self::tape::{Kind, Tape};

/// Most bytes of records on disk: at the usual two labels, ten days of one a second.
pub const DISK_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of records where they are kept in memory: some six hours at one a second.
pub const MEMORY_BYTES_MAX: u64 = 1536 << 10;
/// What is kept in memory for a disk that takes nothing: as much as without one.
pub const TAIL_BYTES_MAX: u64 = MEMORY_BYTES_MAX;
/// No receiver takes older ones: its longest window is a day, rounded down to a whole hour.
pub const AGE_SECS_MAX: u64 = 25 * 3600;
/// A keep that is full is tried again with the next record: it says so at once.
pub const FULL_RETRY_SECS: u64 = 1;
/// A keep that fails is left alone for so long: it may take its time to say so, while nothing is measured.
pub const FAILED_RETRY_SECS: u64 = 10;
/// A receiver keeps 1,024 ranges of a producer's numbers: before that many gaps, new records get a new producer.
pub const GAPS_MAX: u32 = 512;
/// Tapes that still wait to be delivered: half the producers that a receiver keeps of one host. Beyond it the oldest is given up.
pub const TAPES_MAX: usize = 32;

/// Why records are given up, in the words that receivers are told.
pub mod why {
    /// They are too old for any receiver.
    pub const OLD: &str = "too old to be taken";
    /// Newer ones needed the room.
    pub const FULL: &str = "the spool was full";
    /// The disk took nothing, and memory had no more room.
    pub const DISK: &str = "the disk took nothing for too long";
    /// They were on a damaged part of the disk, or never got there.
    pub const DAMAGED: &str = "not on the disk any more";
    /// They are of a host by another name, and set aside.
    pub const OTHER_HOST: &str = "other_host";
    /// They were measured on another machine by the same name, and set aside.
    pub const OTHER_MACHINE: &str = "other_machine";
    /// They were settled before this receiver was among those to publish to.
    pub const BEFORE: &str = lizmon_protocol::delivery::BEFORE_ASKED;
    /// The receiver had them, and has lost them: its data began anew, or is older than it was.
    pub const GONE: &str = lizmon_protocol::delivery::BEFORE_DATA;
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of records in the keep.
    pub bytes_max: u64,
    /// Most bytes of records that the keep has not taken.
    pub tail_bytes_max: u64,
    /// Older records are given up.
    pub age_secs_max: u64,
}

impl Limits {
    /// So many bytes in the keep, and the rest as usual.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            tail_bytes_max: TAIL_BYTES_MAX,
            age_secs_max: AGE_SECS_MAX,
        }
    }
}

/// Records for one destination. Until they are settled they will be read again.
#[derive(Debug, Clone, PartialEq)]
pub struct Lot {
    /// Who numbered them.
    pub producer: ProducerId,
    /// Ascending.
    pub records: Vec<Record<'static>>,
    /// What the destination has not been told yet.
    pub dropped: Vec<Dropped>,
}

/// Something that a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// So many records were given up, for at least one destination.
    GivenUp {
        /// How many.
        records: u64,
        /// One of [`why`].
        why: &'static str,
    },
    /// The keep takes nothing from now on.
    Trouble(String),
    /// What is kept cannot be read at present.
    Unreadable(String),
    /// The keep works again.
    Mended,
    /// Tapes were found from which it cannot be told which number comes next: new records have a new producer.
    NewProducer(ProducerId),
    /// A destination knew numbers that were never sent to it: somebody else has them too. New records have a new producer.
    KnownNumbers {
        /// Its URL.
        destination: String,
        /// How many records are sent to it again, under new numbers.
        records: u64,
    },
    /// What was found is not this host's, or not this machine's. It is not delivered, and new records have a new producer.
    SetAside {
        /// [`why::OTHER_HOST`] or [`why::OTHER_MACHINE`].
        why: &'static str,
        /// Whose it is.
        host: String,
        /// How many records waited there.
        records: u64,
        /// Where they are now.
        place: String,
    },
}

/// The keep takes nothing.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    /// When it was tried last, epoch seconds.
    tried_at: u64,
    /// How long it is left alone.
    retry_secs: u64,
}

/// Everything that is not delivered yet.
pub struct Spool<K> {
    keep: K,
    limits: Limits,
    home: Option<Home>,
    /// URLs.
    destinations: Vec<String>,
    new_producer: Box<dyn FnMut() -> ProducerId + Send>,
    /// Oldest first; one of them is open once the keep was read, and one may be spare.
    tapes: Vec<Tape>,
    /// Whether it is known what the keep holds.
    is_loaded: bool,
    /// What records in the keep cost.
    held_bytes: u64,
    trouble: Option<Trouble>,
    steadiness: Steadiness,
    saved_at: u64,
    /// What was said about a keep that cannot be read, so that it is said once.
    unreadable: Option<String>,
    events: Vec<Event>,
    given_up: u64,
}

impl<K: Keep> Spool<K> {
    /// Goes on with what is kept, as soon as that can be read. `new_producer` gives another unique one each time.
    pub fn open(
        keep: K,
        destinations: Vec<String>,
        limits: Limits,
        new_producer: impl FnMut() -> ProducerId + Send + 'static,
    ) -> Self {
        Self::open_at(None, keep, destinations, limits, new_producer)
    }

    /// The same where it is known whose records these are: what is another's is set aside.
    pub fn open_at(
        home: Option<Home>,
        keep: K,
        destinations: Vec<String>,
        limits: Limits,
        new_producer: impl FnMut() -> ProducerId + Send + 'static,
    ) -> Self {
        let mut spool = Self {
            keep,
            limits,
            home,
            destinations,
            new_producer: Box::new(new_producer),
            tapes: Vec::new(),
            is_loaded: false,
            held_bytes: 0,
            trouble: None,
            steadiness: Steadiness::default(),
            saved_at: 0,
            unreadable: None,
            events: Vec::new(),
            given_up: 0,
        };
        if let Err(error) = spool.load() {
            spool.begin_trouble(&error, 0);
        }
        spool
    }

    /// Takes a record, for every destination. It is in the keep, or where that fails in memory, when this returns. Its number, and whose that is:
    /// while the keep takes nothing at all, that of a producer in memory.
    pub fn push(
        &mut self,
        epoch: Epoch,
        values: &SampleSet<'_>,
        now: u64,
    ) -> Option<IdempotencyKey> {
        // A set of ours is a map of texts to finite numbers: there is no such set that cannot be written.
        let values = serde_json::to_vec(values).ok()?.into_boxed_slice();
        self.push_for(None, epoch, values, now)
    }

    /// The same for one destination alone, or for all.
    fn push_for(
        &mut self,
        only: Option<usize>,
        epoch: Epoch,
        values: Box<[u8]>,
        now: u64,
    ) -> Option<IdempotencyKey> {
        let is_due = self.is_due(now);
        if is_due && let Err(error) = self.load() {
            self.begin_trouble(&error, now);
        }
        self.tapes.retain(|tape| tape.is_dirty || !tape.has_ended());
        self.drop_old(now);
        self.change_tape_if_due(now);
        let at = match self.open_tape() {
            // Before the record is written: a write that fails may be found all the same after a crash.
            Some(open) => match self.keep.note(&self.notes(Some(open)), !is_due) {
                Ok(()) => open,
                Err(error) => {
                    self.begin_trouble(&error, now);
                    self.spare_tape()
                }
            },
            None => self.spare_tape(),
        };
        let seq = self.tapes[at].append(epoch.secs(), values);
        if let Some(only) = only {
            let places = self.tapes[at].places.iter_mut().enumerate();
            for (_, other) in places.filter(|(place, _)| *place != only) {
                other.settle(seq, seq);
            }
        }
        let is_number_safe = self.tapes[at].kind == Kind::Spare
            || !is_due
            || self.try_save(now)
            || self.keep.note(&self.notes(None), true).is_ok();
        if is_number_safe {
            self.tapes[at].sendable_below = self.tapes[at].next;
        }
        let producer = self.tapes[at].producer;
        self.bound_tail(at);
        self.drop_beyond_room(now);
        let seq = Seq::new(seq)?;
        Some(IdempotencyKey { producer, seq })
    }

    /// Writes down how far everyone is, if that was not done in this second.
    pub fn save_if_due(&mut self, now: u64) {
        if self.trouble.is_none() && self.saved_at != now {
            self.try_save(now);
        }
    }

    /// Writes down how far everyone is. Without it, a record that was delivered may be sent again after a crash, and is known then.
    pub fn save(&mut self) -> Result<(), KeepError> {
        self.load()?;
        let changes: Vec<Change<'_>> = self
            .tapes
            .iter()
            .filter(|tape| tape.is_dirty)
            .map(|tape| Change {
                state: tape.state(&self.destinations, self.home.as_ref()),
                ended: tape.has_ended(),
                append: tape.tail.iter().collect(),
            })
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let freed = self.keep.commit(&changes)?;
        self.held_bytes = self.held_bytes.saturating_sub(freed);
        for tape in &mut self.tapes {
            self.held_bytes += tape.tail_bytes();
            tape.saved();
        }
        Ok(())
    }

    /// How many records this destination has not settled.
    pub fn pending(&self, destination: usize) -> u64 {
        let pending = self.tapes.iter().map(|tape| tape.pending(destination));
        pending.sum()
    }

    /// How many records were given up since the start, summed over the reasons.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// What records in the keep cost, by [`keep::Kept::bytes`].
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// What happened since the last time.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Who numbers new records; none before the keep could be read.
    pub fn producer(&self) -> Option<ProducerId> {
        self.open_tape().map(|at| self.tapes[at].producer)
    }

    /// The destinations, by their URLs.
    pub fn destinations(&self) -> &[String] {
        &self.destinations
    }

    /// Where it is kept.
    pub fn keep(&self) -> &K {
        &self.keep
    }

    /// Where it is kept, to break it.
    pub fn keep_mut(&mut self) -> &mut K {
        &mut self.keep
    }

    /// Ends it, as a crash would: nothing more is written.
    pub fn into_keep(self) -> K {
        self.keep
    }

    /// Saves, and sees whether the keep works. Whether it does.
    fn try_save(&mut self, now: u64) -> bool {
        self.saved_at = now;
        match self.save() {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    self.events.push(Event::Mended);
                }
                true
            }
            Err(error) => {
                self.begin_trouble(&error, now);
                false
            }
        }
    }

    /// Whether the keep is to be tried.
    fn is_due(&self, now: u64) -> bool {
        self.trouble
            .is_none_or(|trouble| now.abs_diff(trouble.tried_at) >= trouble.retry_secs)
    }

    fn begin_trouble(&mut self, error: &KeepError, now: u64) {
        let retry_secs = match error {
            KeepError::Full(_) => FULL_RETRY_SECS,
            KeepError::Failed(_) => FAILED_RETRY_SECS,
        };
        let trouble = Trouble {
            tried_at: now,
            retry_secs,
        };
        if self.trouble.replace(trouble).is_none() {
            self.events.push(Event::Trouble(error.to_string()));
        }
    }

    /// The numbers that are taken and that the keep may not know of: always the open tape's, for a keep may come back older
    /// than it was. With one more of the tape that is about to take a record.
    fn notes(&self, about_to_take: Option<usize>) -> Vec<Note> {
        let open = self.open_tape();
        let unsaved = (0..self.tapes.len())
            .filter(|at| Some(*at) != open && self.tapes[*at].has_unsaved_numbers());
        let noted = open.into_iter().chain(unsaved);
        noted
            .take(NOTES_MAX)
            .map(|at| Note {
                producer: self.tapes[at].producer,
                next: self.tapes[at].next + u64::from(about_to_take == Some(at)),
            })
            .collect()
    }

    /// New records get a new producer before its gaps are more than a receiver keeps, and before it has no more numbers.
    fn change_tape_if_due(&mut self, now: u64) {
        let Some(at) = self.open_tape() else {
            return;
        };
        let tape = &mut self.tapes[at];
        let gaps = tape.places.iter().map(|place| place.gaps).max();
        let is_due = gaps.unwrap_or(0) >= GAPS_MAX || tape.next >= SAFE_INTEGER_MAX;
        // In trouble it can wait: what is more than a receiver keeps, it refuses until later.
        if is_due {
            self.change_tape(at, now);
        }
    }

    /// Ends the open tape and begins another, if the keep takes that now.
    fn change_tape(&mut self, at: usize, now: u64) {
        if self.trouble.is_some() {
            return;
        }
        let tape = &mut self.tapes[at];
        tape.kind = Kind::Closed;
        tape.is_dirty = true;
        if self.try_save(now) {
            self.begin_tape();
        } else {
            self.tapes[at].kind = Kind::Open;
        }
    }

    fn begin_tape(&mut self) -> ProducerId {
        let producer = (self.new_producer)();
        let tape = Tape::new(producer, Kind::Open, self.destinations.len());
        self.tapes.push(tape);
        // Durably, so that a power failure leaves some note of this tape: the tape itself knows the rest then. If this
        // fails, so does the note before the first record, and that matters.
        let _unimportant = self.keep.note(&self.notes(None), true);
        producer
    }

    /// There always is one once the keep was read.
    fn open_tape(&self) -> Option<usize> {
        let open = |tape: &Tape| tape.kind == Kind::Open;
        self.tapes.iter().position(open)
    }

    /// One for the whole process, so that it does not use up producers.
    fn spare_tape(&mut self) -> usize {
        let spare = |tape: &Tape| tape.kind == Kind::Spare;
        self.tapes.iter().position(spare).unwrap_or_else(|| {
            let producer = (self.new_producer)();
            let tape = Tape::new(producer, Kind::Spare, self.destinations.len());
            self.tapes.push(tape);
            self.tapes.len() - 1
        })
    }

    fn tape_of(&mut self, producer: ProducerId) -> Option<&mut Tape> {
        self.tapes.iter_mut().find(|tape| tape.producer == producer)
    }

    fn count_given_up(&mut self, records: u64, why: &'static str) {
        if records == 0 {
            return;
        }
        self.given_up += records;
        match self.events.last_mut() {
            Some(Event::GivenUp {
                records: known,
                why: said,
            }) if *said == why => *known += records,
            _ => self.events.push(Event::GivenUp { records, why }),
        }
    }
}
