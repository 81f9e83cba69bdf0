//! What a keep holds at the start: taken up, or set aside where it is another's.

use super::keep::Loaded;
use super::tape::Tape;
use super::{Event, Keep, KeepError, Ranges, Spool, why};

impl<K: Keep> Spool<K> {
    /// Takes up what the keep holds, if that was not done yet.
    pub(super) fn load(&mut self) -> Result<(), KeepError> {
        if self.is_loaded {
            return Ok(());
        }
        let mut loaded = self.keep.load()?;
        loaded.take_up_notes();
        let strangers = self.set_strangers_aside(&mut loaded)?;
        self.is_loaded = true;
        let is_new = loaded.tapes.is_empty();
        let since = std::mem::take(&mut self.tapes);
        for found in loaded.tapes {
            self.held_bytes += found.bytes;
            let (tape, lost) = Tape::found(found, &self.destinations, why::DAMAGED);
            self.count_given_up(lost, why::DAMAGED);
            self.tapes.push(tape);
        }
        let is_new = is_new || !strangers.is_empty();
        self.tapes.extend(strangers);
        self.tapes.extend(since);
        // If this fails, so does it before the first record, and that matters. What has ended goes from the notes too.
        let _unimportant = self.save();
        if self.open_tape().is_none() {
            let producer = self.begin_tape();
            if !is_new {
                self.events.push(Event::NewProducer(producer));
            }
        } else {
            let _unimportant = self.keep.note(&self.notes(None), true);
        }
        Ok(())
    }

    /// Where any tape is of another home, nothing of what was found is delivered: all of it was filled there, or is a copy of what was.
    /// What is left are tapes that tell the receivers so.
    fn set_strangers_aside(&mut self, loaded: &mut Loaded) -> Result<Vec<Tape>, KeepError> {
        let Some(home) = self.home.clone() else {
            return Ok(Vec::new());
        };
        let stranger = loaded.tapes.iter().find_map(|found| {
            let its_home = found.state.home.as_ref()?;
            Some((home.refuses(its_home)?, its_home.host.clone()))
        });
        let Some((why, host)) = stranger else {
            return Ok(Vec::new());
        };
        let mut records = 0;
        let mut tapes = Vec::new();
        for found in &loaded.tapes {
            let mut found = found.clone();
            found.held = Ranges::default();
            found.state.open = false;
            let (tape, waited) = Tape::found(found, &self.destinations, why);
            records += waited;
            tapes.push(tape);
        }
        let states: Vec<_> = tapes
            .iter()
            .map(|tape| tape.state(&self.destinations, Some(&home)))
            .collect();
        let place = self.keep.set_aside(&states)?;
        loaded.tapes.clear();
        self.given_up += records;
        self.events.push(Event::SetAside {
            why,
            host,
            records,
            place,
        });
        Ok(tapes)
    }
}
