//! A keep in memory: what a monitor without `--spool` has, and what tests break at will.

use std::collections::BTreeMap;

use lizmon_protocol::sample::ProducerId;

use super::backend::{
    BackendContents, BackendError, LogChange, LogState, SeqCheckpoint, SpoolBackend, StoredLog,
    StoredRecord,
};
use super::ranges::Ranges;

/// Ends with the process, unless a test takes it through [`MemoryBackend::crash`].
#[derive(Debug, Clone, Default)]
pub struct MemoryBackend {
    /// In the order they were first committed.
    logs: Vec<ProducerLog>,
    checkpoints: Vec<SeqCheckpoint>,
    durable_checkpoints: Vec<SeqCheckpoint>,
    /// What a failed commit has left behind.
    in_doubt: Option<Vec<ProducerLog>>,
    /// What was another host's.
    aside: Vec<ProducerLog>,
    faults: Faults,
}

#[derive(Debug, Clone)]
struct ProducerLog {
    state: LogState,
    records: BTreeMap<u64, StoredRecord>,
}

/// What goes wrong from now on. Nothing, unless a test says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Each commit says that there is no room.
    pub commits: bool,
    /// Notes are refused, too.
    pub checkpoints: bool,
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

impl MemoryBackend {
    /// Chooses what goes wrong from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// What the next process finds. `in_doubt_is_there` decides on a commit that had failed last; nothing fails any more.
    pub fn crash(mut self, crash: Crash, in_doubt_is_there: bool) -> Self {
        if let Some(logs) = self.in_doubt.take()
            && in_doubt_is_there
        {
            self.logs = logs;
        }
        if crash == Crash::PowerFailed {
            self.checkpoints.clone_from(&self.durable_checkpoints);
        }
        self.faults = Faults::default();
        self
    }

    /// Loses a record as a flipped bit would. Whether it was there.
    pub fn damage(&mut self, producer: ProducerId, seq: u64) -> bool {
        let log = self.logs.iter_mut().find(|log| log.is_of(producer));
        log.is_some_and(|log| log.records.remove(&seq).is_some())
    }

    /// Goes back to what was committed at an `earlier` time, as SQLite does before a damaged part of its log. Notes are apart.
    pub fn roll_back(&mut self, earlier: &Self) {
        self.logs.clone_from(&earlier.logs);
        self.in_doubt = None;
    }

    /// Loses the notes.
    pub fn lose_checkpoints(&mut self) {
        self.checkpoints.clear();
        self.durable_checkpoints.clear();
    }

    /// How many records were another host's, and set aside last.
    pub fn records_aside(&self) -> usize {
        self.aside.iter().map(|log| log.records.len()).sum()
    }

    /// How many records are stored.
    pub fn records(&self) -> usize {
        self.logs.iter().map(|log| log.records.len()).sum()
    }
}

impl ProducerLog {
    fn is_of(&self, producer: ProducerId) -> bool {
        self.state.producer == producer
    }
}

impl SpoolBackend for MemoryBackend {
    fn load(&mut self) -> Result<BackendContents, BackendError> {
        if self.faults.reads {
            return Err(fault());
        }
        let found = |log: &ProducerLog| {
            let mut stored = Ranges::default();
            for seq in log.records.keys() {
                stored.insert(*seq, *seq);
            }
            StoredLog {
                state: log.state.clone(),
                stored,
                bytes: log.records.values().map(StoredRecord::bytes).sum(),
                stored_next: log.state.next,
            }
        };
        Ok(BackendContents {
            logs: self.logs.iter().map(found).collect(),
            checkpoints: self.checkpoints.clone(),
        })
    }

    fn note(&mut self, checkpoints: &[SeqCheckpoint], durable: bool) -> Result<(), BackendError> {
        if self.faults.checkpoints {
            return Err(fault());
        }
        self.checkpoints = checkpoints.to_vec();
        if durable {
            self.durable_checkpoints = checkpoints.to_vec();
        }
        Ok(())
    }

    fn commit(&mut self, changes: &[LogChange<'_>]) -> Result<u64, BackendError> {
        if self.faults.commits {
            let mut logs = self.logs.clone();
            apply(&mut logs, changes);
            self.in_doubt = Some(logs);
            return Err(BackendError::Full("as the test said".into()));
        }
        self.in_doubt = None;
        Ok(apply(&mut self.logs, changes))
    }

    fn read(
        &mut self,
        producer: ProducerId,
        from: u64,
        to: u64,
        records_max: usize,
    ) -> Result<Vec<StoredRecord>, BackendError> {
        if self.faults.reads {
            return Err(fault());
        }
        let log = self.logs.iter().find(|log| log.is_of(producer));
        let records = log
            .filter(|_| from <= to)
            .into_iter()
            .flat_map(|log| log.records.range(from..=to));
        Ok(records
            .map(|(_, kept)| kept.clone())
            .take(records_max)
            .collect())
    }

    fn set_aside(&mut self, logs: &[LogState]) -> Result<String, BackendError> {
        if self.faults.commits {
            return Err(BackendError::Full("as the test said".into()));
        }
        let empty = |state: &LogState| ProducerLog {
            state: state.clone(),
            records: BTreeMap::new(),
        };
        self.aside = std::mem::take(&mut self.logs);
        self.logs = logs.iter().map(empty).collect();
        Ok("memory".to_owned())
    }

    fn is_persistent(&self) -> bool {
        false
    }
}

fn fault() -> BackendError {
    BackendError::Failed("as the test said".into())
}

fn apply(logs: &mut Vec<ProducerLog>, changes: &[LogChange<'_>]) -> u64 {
    let mut freed = 0;
    for change in changes {
        let at = logs.iter().position(|log| log.is_of(change.state.producer));
        if change.ended {
            if let Some(at) = at {
                freed += logs
                    .remove(at)
                    .records
                    .values()
                    .map(StoredRecord::bytes)
                    .sum::<u64>();
            }
            continue;
        }
        let at = at.unwrap_or_else(|| {
            logs.push(ProducerLog {
                state: change.state.clone(),
                records: BTreeMap::new(),
            });
            logs.len() - 1
        });
        let log = &mut logs[at];
        log.state.clone_from(&change.state);
        let kept = log.records.split_off(&change.state.first);
        let forgotten = std::mem::replace(&mut log.records, kept);
        freed += forgotten.values().map(StoredRecord::bytes).sum::<u64>();
        let append = change
            .append
            .iter()
            .filter(|kept| kept.seq >= change.state.first);
        log.records
            .extend(append.map(|kept| (kept.seq, (*kept).clone())));
    }
    freed
}
