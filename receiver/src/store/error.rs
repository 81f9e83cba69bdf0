//! What a store says when it fails, without saying which store it is.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why a store did not do what it was asked, as far as callers decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It cannot be used at present: a full disk, a failed read or write.
    Unavailable,
    /// Its servers are not reached, or the connection broke.
    Unreachable,
    /// Its servers do not let this process in, or not do what it asked.
    AccessDenied,
    /// There is no store, and none is to be created.
    Missing,
    /// What is stored is damaged. A new store in its place helps.
    Damaged,
    /// Another process uses it.
    InUse,
    /// It belongs to another program, or to another version of this one. It is left alone.
    Incompatible,
    /// Another process has acquired the shard since.
    Fenced,
    /// It has no memory left for more.
    Full,
    /// It was written, and too few copies of it are confirmed.
    Unconfirmed,
}

/// Why a store did not do what it was asked. Says what its cause says; the cause's type stays
/// inside the store.
#[derive(Debug, Clone)]
pub struct StoreError {
    kind: ErrorKind,
    cause: Arc<dyn Error + Send + Sync>,
}

impl StoreError {
    /// An error of this kind, for this cause.
    pub fn new(kind: ErrorKind, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            cause: cause.into().into(),
        }
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether it may be over in a moment, as a failover is.
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Unreachable)
    }

    /// Whether what is stored is at fault, and not the disk or another program: then a new store in
    /// its place helps.
    pub fn is_damage(&self) -> bool {
        self.kind == ErrorKind::Damaged
    }

    /// Whether it has no memory left.
    pub fn is_full(&self) -> bool {
        self.kind == ErrorKind::Full
    }

    /// With its source, in one line.
    pub fn in_full(&self) -> String {
        match self.source() {
            None => self.to_string(),
            Some(source) => format!("{self}: {source}"),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}
