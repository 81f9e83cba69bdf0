//! A keep in memory: what a monitor without `--spool` has, and what tests break at will.

use std::collections::BTreeMap;

use lizmon_protocol::sample::ProducerId;

use super::keep::{Change, Found, Keep, KeepError, Kept, Loaded, Note, TapeState};
use super::ranges::Ranges;

/// Ends with the process, unless a test takes it through [`Memory::crash`].
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// In the order they were first committed.
    tapes: Vec<Tape>,
    notes: Vec<Note>,
    durable_notes: Vec<Note>,
    /// What a failed commit has left behind.
    in_doubt: Option<Vec<Tape>>,
    /// What was another host's.
    aside: Vec<Tape>,
    faults: Faults,
}

#[derive(Debug, Clone)]
struct Tape {
    state: TapeState,
    records: BTreeMap<u64, Kept>,
}

/// What goes wrong from now on. Nothing, unless a test says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Each commit says that there is no room.
    pub commits: bool,
    /// Notes are refused, too.
    pub notes: bool,
    /// Nothing can be read.
    pub reads: bool,
}

/// How a process ends that does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// kill -9: what was written is there.
    Killed,
    /// What was not synced is gone.
    PowerFailed,
}

impl Memory {
    /// Chooses what goes wrong from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// What the next process finds. `in_doubt_is_there` decides on a commit that had failed last; nothing fails any more.
    pub fn crash(mut self, crash: Crash, in_doubt_is_there: bool) -> Self {
        if let Some(tapes) = self.in_doubt.take()
            && in_doubt_is_there
        {
            self.tapes = tapes;
        }
        if crash == Crash::PowerFailed {
            self.notes.clone_from(&self.durable_notes);
        }
        self.faults = Faults::default();
        self
    }

    /// Loses a record as a flipped bit would. Whether it was there.
    pub fn damage(&mut self, producer: ProducerId, seq: u64) -> bool {
        let tape = self.tapes.iter_mut().find(|tape| tape.is_of(producer));
        tape.is_some_and(|tape| tape.records.remove(&seq).is_some())
    }

    /// Goes back to what was committed at an `earlier` time, as SQLite does before a damaged part of its log. Notes are apart.
    pub fn roll_back(&mut self, earlier: &Self) {
        self.tapes.clone_from(&earlier.tapes);
        self.in_doubt = None;
    }

    /// Loses the notes.
    pub fn lose_notes(&mut self) {
        self.notes.clear();
        self.durable_notes.clear();
    }

    /// How many records were another host's, and set aside last.
    pub fn records_aside(&self) -> usize {
        self.aside.iter().map(|tape| tape.records.len()).sum()
    }

    /// How many records are held.
    pub fn records(&self) -> usize {
        self.tapes.iter().map(|tape| tape.records.len()).sum()
    }
}

impl Tape {
    fn is_of(&self, producer: ProducerId) -> bool {
        self.state.producer == producer
    }
}

impl Keep for Memory {
    fn load(&mut self) -> Result<Loaded, KeepError> {
        if self.faults.reads {
            return Err(fault());
        }
        let found = |tape: &Tape| {
            let mut held = Ranges::default();
            for seq in tape.records.keys() {
                held.insert(*seq, *seq);
            }
            Found {
                state: tape.state.clone(),
                held,
                bytes: tape.records.values().map(Kept::bytes).sum(),
                kept_next: tape.state.next,
            }
        };
        Ok(Loaded {
            tapes: self.tapes.iter().map(found).collect(),
            notes: self.notes.clone(),
        })
    }

    fn note(&mut self, notes: &[Note], durable: bool) -> Result<(), KeepError> {
        if self.faults.notes {
            return Err(fault());
        }
        self.notes = notes.to_vec();
        if durable {
            self.durable_notes = notes.to_vec();
        }
        Ok(())
    }

    fn commit(&mut self, changes: &[Change<'_>]) -> Result<u64, KeepError> {
        if self.faults.commits {
            let mut tapes = self.tapes.clone();
            apply(&mut tapes, changes);
            self.in_doubt = Some(tapes);
            return Err(KeepError::Full("as the test said".into()));
        }
        self.in_doubt = None;
        Ok(apply(&mut self.tapes, changes))
    }

    fn read(
        &mut self,
        producer: ProducerId,
        from: u64,
        to: u64,
        records_max: usize,
    ) -> Result<Vec<Kept>, KeepError> {
        if self.faults.reads {
            return Err(fault());
        }
        let tape = self.tapes.iter().find(|tape| tape.is_of(producer));
        let records = tape
            .filter(|_| from <= to)
            .into_iter()
            .flat_map(|tape| tape.records.range(from..=to));
        Ok(records
            .map(|(_, kept)| kept.clone())
            .take(records_max)
            .collect())
    }

    fn set_aside(&mut self, tapes: &[TapeState]) -> Result<String, KeepError> {
        if self.faults.commits {
            return Err(KeepError::Full("as the test said".into()));
        }
        let empty = |state: &TapeState| Tape {
            state: state.clone(),
            records: BTreeMap::new(),
        };
        self.aside = std::mem::take(&mut self.tapes);
        self.tapes = tapes.iter().map(empty).collect();
        Ok("memory".to_owned())
    }

    fn is_lasting(&self) -> bool {
        false
    }
}

fn fault() -> KeepError {
    KeepError::Failed("as the test said".into())
}

fn apply(tapes: &mut Vec<Tape>, changes: &[Change<'_>]) -> u64 {
    let mut freed = 0;
    for change in changes {
        let at = tapes
            .iter()
            .position(|tape| tape.is_of(change.state.producer));
        if change.ended {
            if let Some(at) = at {
                freed += tapes
                    .remove(at)
                    .records
                    .values()
                    .map(Kept::bytes)
                    .sum::<u64>();
            }
            continue;
        }
        let at = at.unwrap_or_else(|| {
            tapes.push(Tape {
                state: change.state.clone(),
                records: BTreeMap::new(),
            });
            tapes.len() - 1
        });
        let tape = &mut tapes[at];
        tape.state.clone_from(&change.state);
        let kept = tape.records.split_off(&change.state.first);
        let forgotten = std::mem::replace(&mut tape.records, kept);
        freed += forgotten.values().map(Kept::bytes).sum::<u64>();
        let append = change
            .append
            .iter()
            .filter(|kept| kept.seq >= change.state.first);
        tape.records
            .extend(append.map(|kept| (kept.seq, (*kept).clone())));
    }
    freed
}
