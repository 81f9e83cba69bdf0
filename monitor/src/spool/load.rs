//! Continues with what a backend holds at the start, or sets it aside where it is of another
//! origin.

use super::backend::{BackendContents, BackendError, SpoolBackend};
use super::drop_reason;
use super::event::Event;
use super::kept::Kept;
use super::producer_log::ProducerLog;
use super::queue::Spool;
use super::ranges::Ranges;

impl<B: SpoolBackend> Spool<B> {
    /// Reads what the backend holds, if that was not done yet.
    pub(super) fn load(&mut self) -> Result<(), BackendError> {
        if self.is_loaded {
            return Ok(());
        }
        let mut contents = self.backend.load()?;
        contents.apply_checkpoints();
        let foreign = self.set_foreign_logs_aside(&mut contents)?;
        self.is_loaded = true;
        let is_new = contents.logs.is_empty() || !foreign.is_empty();
        let since_start = std::mem::take(&mut self.logs);
        for found in contents.logs {
            self.stored_bytes += found.bytes;
            let (mut log, lost) = ProducerLog::from_stored(
                found,
                &self.destinations,
                drop_reason::DAMAGED,
                self.keeps(),
            );
            self.count_dropped(lost, drop_reason::DAMAGED);
            log.remember_reports_from(self.kept_clock);
            self.logs.push(log);
        }
        self.logs.extend(foreign);
        self.logs.extend(since_start);
        // If this fails, so does the save before the first record, and that one matters.
        // Checkpoints of finished logs go too.
        let _unimportant = self.save();
        if self.active_log().is_none() {
            let producer = self.start_log();
            if !is_new {
                self.events.push(Event::NewProducer(producer));
            }
        } else {
            let _unimportant = self.write_checkpoints(None, true);
        }
        Ok(())
    }

    /// If any log is of another origin, nothing of what was found is delivered: all of it was
    /// measured there, or is a copy of what was. The logs that are returned only report that to the
    /// receivers.
    fn set_foreign_logs_aside(
        &mut self,
        contents: &mut BackendContents,
    ) -> Result<Vec<ProducerLog>, BackendError> {
        let Some(origin) = self.origin.clone() else {
            return Ok(Vec::new());
        };
        let foreign = contents.logs.iter().find_map(|found| {
            let its_origin = found.state.origin.as_ref()?;
            let why = origin.conflict_with(its_origin)?;
            Some((why, its_origin.host.clone()))
        });
        let Some((why, host)) = foreign else {
            return Ok(Vec::new());
        };
        let mut records = 0;
        let mut logs = Vec::new();
        for found in &contents.logs {
            let mut found = found.clone();
            found.stored = Ranges::default();
            found.state.active = false;
            let (log, waited) =
                ProducerLog::from_stored(found, &self.destinations, why, Kept::nothing());
            records += waited;
            logs.push(log);
        }
        let states: Vec<_> = logs
            .iter()
            .map(|log| log.state(&self.destinations, Some(&origin)))
            .collect();
        let place = self.backend.set_aside(&states)?;
        contents.logs.clear();
        self.dropped_records += records;
        self.events.push(Event::SetAside {
            why,
            host,
            records,
            place,
        });
        Ok(logs)
    }
}
