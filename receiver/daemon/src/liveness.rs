//! Tells others that the program still works: the service manager, whose watchdog restarts a
//! program that says nothing for too long, and `health`, which container managers run.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use clap::Args;
use sd_notify::NotifyState;

use crate::since_boot;

/// How often a program calls [`Liveness::alive`].
pub const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// How often the file is written.
const FILE_EVERY: Duration = Duration::from_secs(5);
/// After how long a program is said to have stopped working. A busy machine delays it by seconds.
pub const SILENT_FOR: Duration = Duration::from_secs(60);

/// The flag that every program has for `health`.
#[derive(Debug, Clone, Args)]
pub struct LivenessFlags {
    /// File that is written every few seconds while the program works; `health` checks its age
    #[arg(long, global = true, env = "LIZMON_HEALTH_FILE", value_name = "FILE")]
    pub health_file: Option<PathBuf>,
}

/// Whether the file shows that the program works.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// No file is named.
    #[error("give --health-file FILE, the same that the program was started with")]
    NoFile,
    /// It is not ready yet, or it does not run.
    #[error("{file}: the program has not written it: it is not ready, or does not run")]
    Unwritten {
        /// The file.
        file: String,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// It has stopped working.
    #[error("{file}: the program has been silent for {secs} s: it hangs, or does not run")]
    Silent {
        /// The file.
        file: String,
        /// For how long.
        secs: u64,
    },
}

impl LivenessFlags {
    /// Checks the file that a running program writes.
    pub fn check(&self, now: SystemTime) -> Result<(), HealthError> {
        let path = self.health_file.as_deref().ok_or(HealthError::NoFile)?;
        let file = path.display().to_string();
        let written = match std::fs::metadata(path).and_then(|found| found.modified()) {
            Ok(written) => written,
            Err(source) => return Err(HealthError::Unwritten { file, source }),
        };
        // The clock may have stepped back since: then the file is written anew within seconds.
        let age = now
            .duration_since(written)
            .unwrap_or_else(|error| error.duration());
        match age < SILENT_FOR {
            true => Ok(()),
            false => Err(HealthError::Silent {
                file,
                secs: age.as_secs(),
            }),
        }
    }
}

/// Tells that the program works, as often as those who listen want to hear it.
#[derive(Debug)]
pub struct Liveness {
    watchdog: Option<Pace>,
    file: Option<(PathBuf, Pace)>,
    failed: Mutex<bool>,
}

#[derive(Debug)]
struct Pace {
    every: Duration,
    last: Mutex<Option<Duration>>,
}

impl Pace {
    fn new(every: Duration) -> Self {
        let last = Mutex::new(None);
        Self { every, last }
    }

    /// Whether it is time again. `now` is monotonic.
    fn is_due(&self, now: Duration) -> bool {
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_sub(last) >= self.every);
        if due {
            *last = Some(now);
        }
        due
    }
}

impl Liveness {
    /// Learns from the environment how often the service manager wants to hear of the program: it
    /// is told three times as often, so that one late message ends nothing.
    pub fn new(flags: LivenessFlags) -> Self {
        Self::with(sd_notify::watchdog_enabled(), flags)
    }

    fn with(watchdog: Option<Duration>, flags: LivenessFlags) -> Self {
        let file = flags.health_file.map(|path| (path, Pace::new(FILE_EVERY)));
        Self {
            watchdog: watchdog.map(|within| Pace::new(within / 3)),
            file,
            failed: Mutex::default(),
        }
    }

    /// To be called each [`ALIVE_EVERY`] by what shows that the program works.
    pub fn alive(&self) {
        let now = since_boot();
        if self.watchdog.as_ref().is_some_and(|pace| pace.is_due(now)) {
            crate::tell(NotifyState::Watchdog);
        }
        if let Some((path, pace)) = &self.file
            && pace.is_due(now)
        {
            self.note(write(path), path);
        }
    }

    /// Logs a failure once, until it works again.
    fn note(&self, written: io::Result<()>, path: &Path) {
        let mut failed = self
            .failed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = &written
            && !*failed
        {
            tracing::warn!(%error, "cannot write {}: `health` will fail", path.display());
        }
        *failed = written.is_err();
    }
}

/// A link in the place of the file is not followed: its folder may be anyone's, as /dev/shm is.
fn write(path: &Path) -> io::Result<()> {
    let mut file = open(path)?;
    file.set_len(0)?;
    file.write_all(b"alive\n")
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(no_follow)
        .open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}
