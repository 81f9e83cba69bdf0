//! What a keep holds at the start: taken up, or set aside where it is another's.

use super::backend::BackendContents;
use super::producer_log::ProducerLog;
use super::{BackendError, Event, Ranges, Spool, SpoolBackend, drop_reason};

impl<K: SpoolBackend> Spool<K> {
    /// Takes up what the keep holds, if that was not done yet.
    pub(super) fn load(&mut self) -> Result<(), BackendError> {
        if self.is_loaded {
            return Ok(());
        }
        let mut loaded = self.backend.load()?;
        loaded.apply_checkpoints();
        let strangers = self.set_foreign_logs_aside(&mut loaded)?;
        self.is_loaded = true;
        let is_new = loaded.logs.is_empty();
        let since = std::mem::take(&mut self.logs);
        for found in loaded.logs {
            self.stored_bytes += found.bytes;
            let (log, lost) =
                ProducerLog::from_stored(found, &self.destinations, drop_reason::DAMAGED);
            self.count_dropped(lost, drop_reason::DAMAGED);
            self.logs.push(log);
        }
        let is_new = is_new || !strangers.is_empty();
        self.logs.extend(strangers);
        self.logs.extend(since);
        // If this fails, so does it before the first record, and that matters. What has ended goes from the notes too.
        let _unimportant = self.save();
        if self.active_log().is_none() {
            let producer = self.start_log();
            if !is_new {
                self.events.push(Event::NewProducer(producer));
            }
        } else {
            let _unimportant = self.backend.note(&self.checkpoints(None), true);
        }
        Ok(())
    }

    /// Where any tape is of another home, nothing of what was found is delivered: all of it was filled there, or is a copy of what was.
    /// What is left are tapes that tell the receivers so.
    fn set_foreign_logs_aside(
        &mut self,
        loaded: &mut BackendContents,
    ) -> Result<Vec<ProducerLog>, BackendError> {
        let Some(origin) = self.origin.clone() else {
            return Ok(Vec::new());
        };
        let stranger = loaded.logs.iter().find_map(|found| {
            let its_home = found.state.origin.as_ref()?;
            Some((origin.conflict_with(its_home)?, its_home.host.clone()))
        });
        let Some((why, host)) = stranger else {
            return Ok(Vec::new());
        };
        let mut records = 0;
        let mut logs = Vec::new();
        for found in &loaded.logs {
            let mut found = found.clone();
            found.stored = Ranges::default();
            found.state.active = false;
            let (log, waited) = ProducerLog::from_stored(found, &self.destinations, why);
            records += waited;
            logs.push(log);
        }
        let states: Vec<_> = logs
            .iter()
            .map(|log| log.state(&self.destinations, Some(&origin)))
            .collect();
        let place = self.backend.set_aside(&states)?;
        loaded.logs.clear();
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
