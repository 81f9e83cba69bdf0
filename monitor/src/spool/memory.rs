//! A backend in memory: what a monitor without `--spool` uses, and what tests damage at will.

use std::collections::BTreeMap;

use lizmon_protocol::sample::ProducerId;

use super::backend::{
    BackendContents, BackendError, LogChange, LogState, SeqCheckpoint, SpoolBackend, StoredLog,
    StoredRecord, record_bytes,
};
use super::ranges::Ranges;

/// Ends with the process, unless a test saves it by [`MemoryBackend::crash`].
#[derive(Debug, Clone, Default)]
pub struct MemoryBackend {
    /// In the order they were first committed.
    logs: Vec<MemoryLog>,
    checkpoints: Vec<SeqCheckpoint>,
    durable_checkpoints: Vec<SeqCheckpoint>,
    /// What a failed commit may have written.
    in_doubt: Option<Vec<MemoryLog>>,
    /// What was of another host.
    aside: Vec<MemoryLog>,
    faults: Faults,
}

#[derive(Debug, Clone)]
struct MemoryLog {
    state: LogState,
    records: BTreeMap<u64, StoredRecord>,
}

/// What fails from now on. Nothing, unless a test says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Commits fail: there is no free space.
    pub commits: bool,
    /// Checkpoints fail.
    pub checkpoints: bool,
    /// Reads fail.
    pub reads: bool,
}

/// How a process ends that does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// kill -9: what was written is there.
    Killed,
    /// What was not synced is lost.
    PowerFailed,
}

impl MemoryBackend {
    /// Chooses what fails from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// What the next process finds. `in_doubt_is_there` decides on a commit that failed last;
    /// nothing fails any more.
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

    /// Loses a record, as if a bit had flipped in it. Returns whether it was there.
    pub fn damage(&mut self, producer: ProducerId, seq: u64) -> bool {
        let log = self.logs.iter_mut().find(|log| log.is_of(producer));
        log.is_some_and(|log| log.records.remove(&seq).is_some())
    }

    /// Goes back to what was committed at an `earlier` time, as SQLite does where its write-ahead
    /// log is damaged. Checkpoints are stored apart, and stay.
    pub fn roll_back(&mut self, earlier: &Self) {
        self.logs.clone_from(&earlier.logs);
        self.in_doubt = None;
    }

    /// Loses the checkpoints.
    pub fn lose_checkpoints(&mut self) {
        self.checkpoints.clear();
        self.durable_checkpoints.clear();
    }

    /// How many records were of another host, and were set aside last.
    pub fn records_aside(&self) -> usize {
        self.aside.iter().map(|log| log.records.len()).sum()
    }

    /// How many records are stored.
    pub fn records(&self) -> usize {
        self.logs.iter().map(|log| log.records.len()).sum()
    }
}

impl MemoryLog {
    fn new(state: LogState) -> Self {
        Self {
            state,
            records: BTreeMap::new(),
        }
    }

    fn is_of(&self, producer: ProducerId) -> bool {
        self.state.producer == producer
    }
}

impl SpoolBackend for MemoryBackend {
    fn load(&mut self) -> Result<BackendContents, BackendError> {
        if self.faults.reads {
            return Err(fault());
        }
        let to_stored = |log: &MemoryLog| {
            let mut stored = Ranges::default();
            for seq in log.records.keys() {
                stored.insert(*seq, *seq);
            }
            StoredLog {
                state: log.state.clone(),
                stored,
                bytes: log.records.values().map(record_bytes).sum(),
                stored_next: log.state.next,
            }
        };
        Ok(BackendContents {
            logs: self.logs.iter().map(to_stored).collect(),
            checkpoints: self.checkpoints.clone(),
        })
    }

    fn checkpoint(
        &mut self,
        checkpoints: &[SeqCheckpoint],
        durable: bool,
    ) -> Result<(), BackendError> {
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
            .map(|(_, record)| record.clone())
            .take(records_max)
            .collect())
    }

    fn set_aside(&mut self, logs: &[LogState]) -> Result<String, BackendError> {
        if self.faults.commits {
            return Err(BackendError::Full("as the test said".into()));
        }
        self.aside = std::mem::take(&mut self.logs);
        self.logs = logs.iter().cloned().map(MemoryLog::new).collect();
        Ok("memory".to_owned())
    }

    fn is_persistent(&self) -> bool {
        false
    }
}

fn fault() -> BackendError {
    BackendError::Failed("as the test said".into())
}

fn apply(logs: &mut Vec<MemoryLog>, changes: &[LogChange<'_>]) -> u64 {
    let mut freed = 0;
    for change in changes {
        let at = logs.iter().position(|log| log.is_of(change.state.producer));
        if change.is_finished {
            if let Some(at) = at {
                let removed = logs.remove(at).records;
                freed += removed.values().map(record_bytes).sum::<u64>();
            }
            continue;
        }
        let at = at.unwrap_or_else(|| {
            logs.push(MemoryLog::new(change.state.clone()));
            logs.len() - 1
        });
        let log = &mut logs[at];
        log.state.clone_from(&change.state);
        let remaining = log.records.split_off(&change.state.first);
        let removed = std::mem::replace(&mut log.records, remaining);
        freed += removed.values().map(record_bytes).sum::<u64>();
        let append = change.append.iter();
        let append = append.filter(|record| record.seq.get() >= change.state.first);
        log.records
            .extend(append.map(|record| (record.seq.get(), (*record).clone())));
    }
    freed
}
