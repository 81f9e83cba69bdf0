//! What is wrong with a file of rules.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file of rules that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It cannot be read.
    #[error("{}: the rules cannot be read", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A rule or channel in it is wrong.
    #[error("{}:{line}: {key}: {why}", .path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Which line of it, from 1.
        line: usize,
        /// Which key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// A file, to say where in it something is.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Something at these bytes is wrong.
    pub(super) fn error(&self, at: Range<usize>, why: impl Into<String>) -> RulesError {
        let start = at.start.min(self.text.len());
        let before = self.text.get(..start).unwrap_or_default();
        RulesError::Invalid {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            key: self.key_at(before, start),
            why: why.into(),
        }
    }

    /// The table and the key of the line that these bytes are in.
    fn key_at(&self, before: &str, start: usize) -> String {
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = self.text.get(line_start..).unwrap_or_default();
        let line = line.lines().next().unwrap_or_default().trim();
        let header = |line: &str| {
            let name = line.trim().strip_prefix('[')?.split(']').next()?;
            Some(name.trim_matches('[').trim().to_owned())
        };
        if let Some(table) = header(line) {
            return table;
        }
        let through = self.text.get(..start.max(line_start)).unwrap_or_default();
        let table = through.lines().rev().find_map(header);
        let key = line.split('=').next().unwrap_or_default().trim();
        let key = key.chars().take(80).collect::<String>();
        match (table, key.is_empty()) {
            (Some(table), true) => table,
            (Some(table), false) => format!("{table}.{key}"),
            (None, true) => "the file".to_owned(),
            (None, false) => key,
        }
    }
}
