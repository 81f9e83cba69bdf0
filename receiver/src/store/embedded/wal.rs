//! Reads SQLite's write-ahead log (WAL) frame by frame.
//!
//! SQLite reads a WAL up to the first frame with a wrong checksum and silently ignores the rest:
//! after a crash that is where writing ended. A flipped bit in the middle loses every later
//! transaction, though each was synced and acknowledged. This module detects that, and can still
//! read the rest. The format is SQLite's:
//! <https://sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use super::files;

const HEAD_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 24;
/// The magic number of a WAL with checksums over big-endian words; that of other machines differs
/// in the last bit.
const MAGIC_BIG_ENDIAN: u32 = 0x377f_0683;
/// Every database of ours has pages of this size.
pub(super) const PAGE_BYTES: usize = 4096;

/// The current part of a WAL.
#[derive(Debug)]
pub(super) struct Wal {
    bytes: Vec<u8>,
    /// Complete frames up to the last current one: later ones are remains of earlier contents.
    frames: usize,
    /// The salts of the header and of each current frame.
    salts: [u32; 2],
    /// How many of them SQLite reads: up to the last complete transaction.
    read: usize,
    /// How many are intact from the first one on.
    sound: usize,
}

/// Which frames are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frames {
    /// Those that SQLite reads: complete transactions without a gap.
    Read,
    /// All that are intact by themselves.
    Whole,
}

impl Wal {
    /// Reads the WAL beside a database; `None` if there is none, or if it is empty.
    pub(super) fn open(database: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(files::with(database, files::WAL)) {
            Ok(bytes) => Ok(Self::parse(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let mut log = Self {
            bytes,
            frames: 0,
            salts: [0; 2],
            read: 0,
            sound: 0,
        };
        let complete = log.bytes.len().saturating_sub(HEAD_BYTES) / (FRAME_HEAD_BYTES + PAGE_BYTES);
        if complete == 0 {
            return None;
        }
        let head_is_whole = log.checksum([0, 0], &log.bytes[..24]) == log.pair(24);
        let of_frame = |log: &Self, frame| log.pair(log.at(frame) + 8);
        let first_whole = (1..complete).find(|frame| log.is_whole(*frame));
        log.salts = match head_is_whole {
            true => log.pair(16),
            // In every frame as well: in the first one that follows from another.
            false => of_frame(&log, first_whole.unwrap_or(0)),
        };
        log.frames = (0..complete)
            .rev()
            .find(|frame| of_frame(&log, *frame) == log.salts)
            .map_or(0, |last| last + 1);
        let is_sound = |frame: &usize| {
            head_is_whole && of_frame(&log, *frame) == log.salts && log.is_whole(*frame)
        };
        log.sound = (0..log.frames).take_while(is_sound).count();
        log.read = (0..log.sound)
            .rev()
            .find(|frame| log.word(log.at(*frame) + 4) != 0)
            .map_or(0, |commit| commit + 1);
        (log.frames > 0).then_some(log)
    }

    /// What is wrong, if a current frame is not intact.
    pub(super) fn fault(&self) -> Option<String> {
        let Self { frames, sound, .. } = self;
        (sound < frames).then(|| format!("the WAL is damaged at page {} of {frames}", sound + 1))
    }

    /// Writes the pages of these frames into a copy of the database.
    pub(super) fn apply(&self, frames: Frames, copy: &Path) -> io::Result<()> {
        let mut copy = OpenOptions::new().write(true).open(copy)?;
        let last = match frames {
            Frames::Read => self.read,
            Frames::Whole => self.frames,
        };
        for frame in (0..last).filter(|frame| self.is_whole(*frame)) {
            let at = self.at(frame);
            let Some(page) = u64::from(self.word(at)).checked_sub(1) else {
                continue;
            };
            copy.seek(SeekFrom::Start(page * PAGE_BYTES as u64))?;
            let page = at + FRAME_HEAD_BYTES;
            copy.write_all(&self.bytes[page..page + PAGE_BYTES])?;
        }
        Ok(())
    }

    /// Whether a frame's checksum continues that of the frame before it.
    fn is_whole(&self, frame: usize) -> bool {
        let at = self.at(frame);
        let before = match frame.checked_sub(1) {
            Some(before) => self.pair(self.at(before) + 16),
            None => self.pair(24),
        };
        let head = self.checksum(before, &self.bytes[at..at + 8]);
        let page = &self.bytes[at + FRAME_HEAD_BYTES..at + FRAME_HEAD_BYTES + PAGE_BYTES];
        self.checksum(head, page) == self.pair(at + 16)
    }

    fn at(&self, frame: usize) -> usize {
        HEAD_BYTES + frame * (FRAME_HEAD_BYTES + PAGE_BYTES)
    }

    fn word(&self, at: usize) -> u32 {
        self.bytes[at..]
            .first_chunk()
            .map_or(0, |word| u32::from_be_bytes(*word))
    }

    fn pair(&self, at: usize) -> [u32; 2] {
        [self.word(at), self.word(at + 4)]
    }

    fn checksum(&self, [mut first, mut second]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
        let word = match self.word(0) == MAGIC_BIG_ENDIAN {
            true => u32::from_be_bytes,
            false => u32::from_le_bytes,
        };
        let (words, _) = bytes.as_chunks::<4>();
        let (pairs, _) = words.as_chunks::<2>();
        for [one, two] in pairs {
            first = first.wrapping_add(word(*one)).wrapping_add(second);
            second = second.wrapping_add(word(*two)).wrapping_add(first);
        }
        [first, second]
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// A database whose rows are all in its log: three transactions after the one that made the
    /// table.
    fn logged(folder: &Path) -> (Connection, std::path::PathBuf) {
        let file = folder.join("lizmon.db");
        let database = Connection::open(&file).unwrap();
        database.pragma_update(None, "journal_mode", "WAL").unwrap();
        database.execute_batch("CREATE TABLE t(a)").unwrap();
        for row in 0..3 {
            database
                .execute("INSERT INTO t VALUES (?1)", [row])
                .unwrap();
        }
        (database, file)
    }

    #[test]
    fn a_sound_log_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let (database, file) = logged(folder.path());
        let log = Wal::open(&file).unwrap().unwrap();
        assert_eq!(log.fault(), None);
        assert_eq!((log.read, log.sound), (log.frames, log.frames));
        // What is left of earlier times is not of the present.
        database
            .pragma(None, "wal_checkpoint", "RESTART", |_| Ok(()))
            .unwrap();
        database.execute("INSERT INTO t VALUES (9)", []).unwrap();
        let later = Wal::open(&file).unwrap().unwrap();
        assert_eq!(later.fault(), None);
        assert!(
            later.frames < log.frames,
            "{} of {}",
            later.frames,
            log.frames
        );
    }

    /// The story: one flipped bit, and every transaction after it was gone without a word.
    #[test]
    fn every_flipped_bit_is_found_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (_database, file) = logged(folder.path());
        let good = std::fs::read(files::with(&file, files::WAL)).unwrap();
        let frames = Wal::parse(good.clone()).unwrap().frames;
        for at in (8..good.len()).step_by(7) {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            let log = Wal::parse(flipped).unwrap();
            let in_salts = log.frames < frames;
            assert!(log.fault().is_some() || in_salts, "byte {at}");
            let whole = (0..log.frames).filter(|frame| log.is_whole(*frame)).count();
            assert!(whole + 2 >= log.frames, "byte {at}: {whole} of {frames}");
        }
    }

    /// A process that dies while it writes leaves no whole frame.
    #[test]
    fn an_end_that_was_not_written_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let (_database, file) = logged(folder.path());
        let good = std::fs::read(files::with(&file, files::WAL)).unwrap();
        for cut in (0..good.len()).step_by(501) {
            let log = Wal::parse(good[..cut].to_vec());
            assert_eq!(log.and_then(|log| log.fault()), None, "cut at {cut}");
        }
    }
}
