//! Files of values, in one folder.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::OFlags;

use super::super::names;
use super::lines::{OwnValues, parse};

/// Files have this ending, so that one can be written beside them and be renamed.
const ENDING: &[u8] = b".txt";
/// So many are read, in the order of their names.
const FILES_MAX: usize = 64;
/// A longer file is not one of values.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A file as it was read.
#[derive(Debug)]
pub(super) struct OwnFile {
    pub(super) name: String,
    content: Result<Content, String>,
}

#[derive(Debug)]
struct Content {
    /// When it was written, since 1970.
    written: Duration,
    values: OwnValues,
}

impl OwnFile {
    /// Its values, or why it has none. `now` is the wall clock.
    pub(super) fn values(&self, now: Duration, stale: Duration) -> Result<&OwnValues, String> {
        let content = self.content.as_ref().map_err(Clone::clone)?;
        let age = now.saturating_sub(content.written);
        match age > stale {
            true => Err(format!("it was not written for {} s", age.as_secs())),
            false => Ok(&content.values),
        }
    }
}

/// All files of the folder.
pub(super) fn read(folder: &Path) -> io::Result<Vec<OwnFile>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let bytes = name.as_bytes();
        if bytes.ends_with(ENDING) && !bytes.starts_with(b".") {
            names.push(name);
        }
    }
    names.sort_unstable();
    let left_out = names.split_off(names.len().min(FILES_MAX));
    let mut files: Vec<_> = names
        .into_iter()
        .map(|name| OwnFile {
            name: names::shown(name.as_bytes()),
            content: content(&folder.join(&name)),
        })
        .collect();
    if let Some(first) = left_out.first() {
        files.push(OwnFile {
            name: names::shown(first.as_bytes()),
            content: Err(format!("it is not read: only {FILES_MAX} files are")),
        });
    }
    Ok(files)
}

fn content(path: &Path) -> Result<Content, String> {
    let unreadable = |error: io::Error| format!("it cannot be read ({})", error.kind());
    // A named pipe must not be waited for.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags as i32)
        .open(path);
    let file = file.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {} KiB", FILE_BYTES_MAX >> 10));
    }
    let written = metadata.modified().map_err(unreadable)?;
    Ok(Content {
        written: written.duration_since(UNIX_EPOCH).unwrap_or_default(),
        values: parse(&bytes, None),
    })
}
