//! The file that one process locks while it uses the folder, and the checkpoints in it: which
//! numbers are assigned.
//!
//! ```text
//! lizmon-spool 1 PRODUCER NEXT CRC32    32 lines of 128 bytes: none spans two disk sectors
//! (blank)                               overwritten as a whole: it needs no more space than before
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::super::backend::{CHECKPOINTS_MAX, SeqCheckpoint};
use super::files::private;
use super::open_error::OpenError;

pub(super) const LOCK: &str = "lock";
const MAGIC: &str = "lizmon-spool 1";
/// A line, padded with blanks.
const LINE_BYTES: usize = 128;
const BLANK_LINE: [u8; LINE_BYTES] = {
    let mut line = [b' '; LINE_BYTES];
    line[LINE_BYTES - 1] = b'\n';
    line
};

/// Locked until it is dropped.
#[derive(Debug)]
pub(super) struct LockFile(File);

impl LockFile {
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(LOCK);
        let fails = |source| OpenError::Folder {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let lock = private(&mut options).open(&path).map_err(fails)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self(lock)),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked(folder.to_owned())),
            Err(TryLockError::Error(source)) => Err(fails(source)),
        }
    }

    /// Those that are sound.
    pub(super) fn read_checkpoints(&mut self) -> Vec<SeqCheckpoint> {
        let mut bytes = Vec::new();
        let bytes_max = (CHECKPOINTS_MAX * LINE_BYTES) as u64;
        let lock = &mut self.0;
        // A checkpoint that cannot be read is as good as none.
        let _read = lock
            .seek(SeekFrom::Start(0))
            .and_then(|_| lock.take(bytes_max).read_to_end(&mut bytes));
        let lines = bytes.split(|byte| *byte == b'\n');
        lines
            .filter_map(|line| parse(std::str::from_utf8(line).ok()?))
            .collect()
    }

    /// Replaces those that are there. If `durable`, they survive a power failure.
    pub(super) fn write_checkpoints(
        &mut self,
        checkpoints: &[SeqCheckpoint],
        durable: bool,
    ) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(0))?;
        self.0.write_all(&write_all(checkpoints))?;
        match durable {
            true => self.0.sync_data(),
            false => Ok(()),
        }
    }
}

fn write_all(checkpoints: &[SeqCheckpoint]) -> Vec<u8> {
    let mut lines = BLANK_LINE.repeat(CHECKPOINTS_MAX);
    for (checkpoint, line) in checkpoints.iter().zip(lines.chunks_exact_mut(LINE_BYTES)) {
        let text = write(*checkpoint);
        line[..text.len()].copy_from_slice(text.as_bytes());
    }
    lines
}

fn write(checkpoint: SeqCheckpoint) -> String {
    let text = format!("{MAGIC} {} {:016}", checkpoint.producer, checkpoint.next);
    let crc = crc32fast::hash(text.as_bytes());
    format!("{text} {crc:08x}")
}

fn parse(line: &str) -> Option<SeqCheckpoint> {
    let line = line.trim_end_matches(' ');
    let (text, crc) = line.rsplit_once(' ')?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    let fields = text.strip_prefix(MAGIC)?.strip_prefix(' ')?;
    let (producer, next) = fields.split_once(' ')?;
    let checkpoint = SeqCheckpoint {
        producer: producer.parse().ok()?,
        next: next.parse().ok()?,
    };
    (crc32fast::hash(text.as_bytes()) == crc && write(checkpoint) == line).then_some(checkpoint)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use lizmon_protocol::sample::ProducerId;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_a_written_line_is_a_checkpoint() {
        let checkpoint = SeqCheckpoint {
            producer: ProducerId::from_bytes([7; 16]),
            next: 1 << 52,
        };
        let text = write(checkpoint);
        assert_eq!(parse(&text), Some(checkpoint));
        assert_eq!(
            write(SeqCheckpoint {
                next: 1,
                ..checkpoint
            })
            .len(),
            text.len()
        );
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(parse(&changed), None, "{changed}");
            assert_eq!(parse(&text[..at]), None);
        }
    }

    /// However many there are, they need the same space, and replace all that were there before.
    #[test]
    fn checkpoints_fit_their_file() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(LOCK);
        let checkpoint = |number: u8| SeqCheckpoint {
            producer: ProducerId::from_bytes([number; 16]),
            next: number.into(),
        };
        let mut lock = LockFile::take(folder.path()).unwrap();
        for count in [1, 3, 0, CHECKPOINTS_MAX as u8, 2] {
            let checkpoints: Vec<_> = (0..count).map(checkpoint).collect();
            lock.write_checkpoints(&checkpoints, true).unwrap();
            assert_eq!(lock.read_checkpoints(), checkpoints);
            assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
        }
        fs::write(&path, write(checkpoint(9)) + "\n").unwrap();
        assert_eq!(lock.read_checkpoints(), [checkpoint(9)]);
    }
}
