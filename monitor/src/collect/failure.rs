//! Why a collector failed, and when that is logged.

use std::io;

use lizmon_protocol::name::NameError;

#[cfg(target_os = "linux")]
use super::command::CommandFailure;

/// A failure that lasts is logged again after so long, and one that comes and goes no more often.
pub const REMIND_SECS: u64 = 600;
/// A failure for another reason is logged no more often than this.
pub const CHANGE_SECS: u64 = 60;

/// Why a collector has no values this time, or not all of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// The file is not there, may not be read, or reading it failed.
    #[error("`{path}` cannot be read ({kind}): is it hidden, as by ProcSubset=pid?")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// The system's error.
        kind: io::ErrorKind,
    },
    /// The file lacks a field.
    #[error("`{path}` has no {field} that can be read")]
    Missing {
        /// The file.
        path: &'static str,
        /// What was looked for.
        field: &'static str,
    },
    /// Two numbers contradict each other.
    #[error("`{path}` has more memory available than there is in all")]
    AvailableAboveTotal {
        /// The file.
        path: &'static str,
    },
    /// None of the counters has changed.
    #[error("the counters in `{path}` do not advance")]
    Unchanged {
        /// The file.
        path: &'static str,
    },
    /// A counter is less than before.
    #[error("the counter `{counter}` in `{path}` went back")]
    Decreased {
        /// The file.
        path: &'static str,
        /// The counter.
        counter: &'static str,
    },
    /// There is no earlier reading to compare the counters with.
    #[error("`{path}` has been read only once so far")]
    FirstReading {
        /// The file.
        path: &'static str,
    },
    /// The last reading is too recent to compare with.
    #[error("the last sample was taken a moment ago: this machine is late with its samples")]
    TooSoon,
    /// The value is not a number, or too great.
    #[error("the operating system does not report it")]
    NoNumber,
    /// The label is not one that may be published.
    #[error(transparent)]
    Label(#[from] NameError),
    /// The record has this label already.
    #[error("there are two values for the label `{0}`")]
    DuplicateLabel(String),
    /// Reading files takes too long.
    #[error("what was read in `{path}` is out of date: reading it takes too long")]
    NoAnswer {
        /// The folder.
        path: &'static str,
    },
    /// `systemctl` does not tell how many units failed.
    #[cfg(target_os = "linux")]
    #[error("systemctl does not say how many units failed: {0}")]
    Systemctl(CommandFailure),
    /// A file or a command of the site has no values, or not all.
    #[error("`{source_name}`: {fault}")]
    Own {
        /// The file or the command.
        source_name: String,
        /// Why.
        fault: String,
    },
    /// A file system does not answer.
    #[error("the file system at `{mount}` does not answer: is its server away?")]
    MountHangs {
        /// Where it is mounted.
        mount: String,
    },
    /// A file system refuses to answer.
    #[error("the file system at `{mount}` does not say how full it is ({kind})")]
    MountFails {
        /// Where it is mounted.
        mount: String,
        /// The system's error.
        kind: io::ErrorKind,
    },
    /// There is more to measure than the collector may publish.
    #[error(
        "it may publish {labels_max} labels at once, and three times as many in a day: `{first}` and others are left out; --labels-max allows more, and its patterns choose"
    )]
    LeftOut {
        /// Its labels.
        labels_max: usize,
        /// The first that is left out.
        first: String,
    },
}

impl CollectError {
    /// Whether other values of the collector are published all the same.
    pub fn is_partial(&self) -> bool {
        matches!(
            self,
            Self::LeftOut { .. }
                | Self::DuplicateLabel(_)
                | Self::Label(_)
                | Self::MountHangs { .. }
                | Self::MountFails { .. }
                | Self::Own { .. }
        )
    }
}

/// What to log about one collector.
#[derive(Debug, PartialEq, Eq)]
pub enum FailureNotice {
    /// It fails from now on, or for another reason.
    Failing(CollectError),
    /// It still fails.
    StillFailing {
        /// Why.
        why: CollectError,
        /// How many samples lack it, since it last worked.
        samples: u64,
    },
    /// It works again, and its failure was logged.
    Recovered {
        /// How many samples lacked it.
        samples: u64,
    },
}

/// Limits how often the failures of one collector are logged.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    /// When something was logged last, epoch seconds, and why.
    last_logged: Option<(u64, CollectError)>,
    /// Samples without it, since it last worked.
    samples: u64,
    /// Whether the failure that goes on now was logged.
    is_logged: bool,
}

impl FailureLog {
    /// The collector worked.
    pub(super) fn succeeded(&mut self) -> Option<FailureNotice> {
        let samples = std::mem::take(&mut self.samples);
        std::mem::take(&mut self.is_logged).then_some(FailureNotice::Recovered { samples })
    }

    /// The collector failed. A clock that was set back costs one notice more at most.
    pub(super) fn failed(&mut self, why: CollectError, now: u64) -> Option<FailureNotice> {
        self.samples += 1;
        let samples = self.samples;
        let failing = FailureNotice::Failing(why.clone());
        let notice = match &self.last_logged {
            None => failing,
            Some((at, _)) if now.abs_diff(*at) >= REMIND_SECS => match samples {
                1 => failing,
                _ => FailureNotice::StillFailing {
                    why: why.clone(),
                    samples,
                },
            },
            Some((at, logged)) if *logged != why && now.abs_diff(*at) >= CHANGE_SECS => failing,
            Some(_) => return None,
        };
        self.last_logged = Some((now, why));
        self.is_logged = true;
        Some(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNCHANGED: CollectError = CollectError::Unchanged { path: "/proc/stat" };

    fn unreadable() -> CollectError {
        CollectError::Unreadable {
            path: "/proc/stat",
            kind: io::ErrorKind::NotFound,
        }
    }

    /// A processor's load of 0.0 was published forever, without a notice, where `/proc/stat` is
    /// hidden.
    #[test]
    fn a_failure_is_logged_once_and_rarely_again() {
        let mut log = FailureLog::default();
        assert_eq!(log.succeeded(), None);
        assert_eq!(
            log.failed(UNCHANGED, 100),
            Some(FailureNotice::Failing(UNCHANGED))
        );
        for now in 101..160 {
            assert_eq!(log.failed(unreadable(), now), None);
        }
        let failing = Some(FailureNotice::Failing(unreadable()));
        assert_eq!(log.failed(unreadable(), 160), failing);
        assert_eq!(log.failed(unreadable(), 759), None);
        let still_failing = FailureNotice::StillFailing {
            why: unreadable(),
            samples: 63,
        };
        assert_eq!(log.failed(unreadable(), 760), Some(still_failing));
        assert_eq!(
            log.succeeded(),
            Some(FailureNotice::Recovered { samples: 63 })
        );
        assert_eq!(log.succeeded(), None);
    }

    /// A kernel whose counters decrease every other second must not fill the log.
    #[test]
    fn a_failure_that_comes_and_goes_is_logged_rarely() {
        let mut log = FailureLog::default();
        let mut notices = 0;
        for now in 0..1200 {
            let notice = match now % 2 {
                0 => log.failed(UNCHANGED, now),
                _ => log.succeeded(),
            };
            notices += usize::from(notice.is_some());
        }
        assert_eq!(notices, 4);
    }
}
