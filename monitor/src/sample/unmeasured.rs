//! Why something was not measured, and when a person is told so.

use std::io;

/// What goes on for so long is mentioned again, and what comes and goes is mentioned no more often.
pub const REMIND_SECS: u64 = 600;
/// Another reason is told of no more often than this.
pub const CHANGE_SECS: u64 = 60;

/// Why a metric has no value this time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmeasured {
    /// The system does not let us read it: not there, not allowed, or it failed.
    #[error("`{path}` cannot be read ({kind}): is it hidden, as by ProcSubset=pid?")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// What the system said, in short.
        kind: io::ErrorKind,
    },
    /// The file does not say what is needed.
    #[error("`{path}` has no {field} that can be read")]
    Missing {
        /// The file.
        path: &'static str,
        /// What was looked for.
        field: &'static str,
    },
    /// Two numbers that cannot both be true.
    #[error("`{path}` says that more is available than there is")]
    MoreThanAll {
        /// The file.
        path: &'static str,
    },
    /// Not one of the counters has gone on.
    #[error("the counters in `{path}` stand still")]
    Still {
        /// The file.
        path: &'static str,
    },
    /// A counter is less than it was.
    #[error("the counter `{counter}` in `{path}` went back")]
    WentBack {
        /// The file.
        path: &'static str,
        /// Which.
        counter: &'static str,
    },
    /// There is nothing to compare the counters with yet.
    #[error("`{path}` has been read only once so far")]
    ReadOnce {
        /// The file.
        path: &'static str,
    },
    /// The last reading is too young to compare with.
    #[error("it was measured a moment ago: this machine is late with its samples")]
    TooSoon,
    /// The operating system's answer is no number.
    #[error("the operating system gives no number for it")]
    NoNumber,
}

/// What to tell of one metric.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// It is not measured from now on, or for another reason.
    Begins(Unmeasured),
    /// It still is not.
    Lasts {
        /// Why.
        why: Unmeasured,
        /// How many samples lack it, since it was measured last.
        samples: u64,
    },
    /// It is measured again, and its absence was told of.
    Again {
        /// How many samples lacked it.
        samples: u64,
    },
}

/// How it has been with one metric lately.
#[derive(Debug, Default)]
pub struct Told {
    /// When something was said last, epoch seconds, and why.
    said: Option<(u64, Unmeasured)>,
    /// Samples without it, since it was measured last.
    samples: u64,
    /// Whether it was told that it is missing now.
    is_told: bool,
}

impl Told {
    /// It was measured.
    pub fn measured(&mut self) -> Option<Word> {
        let samples = std::mem::take(&mut self.samples);
        std::mem::take(&mut self.is_told).then_some(Word::Again { samples })
    }

    /// It was not. A clock that was set back does no harm but one word more.
    pub fn missed(&mut self, why: Unmeasured, now: u64) -> Option<Word> {
        self.samples += 1;
        let samples = self.samples;
        let word = match &self.said {
            None => Word::Begins(why.clone()),
            Some((at, _)) if now.abs_diff(*at) >= REMIND_SECS && samples > 1 => Word::Lasts {
                why: why.clone(),
                samples,
            },
            Some((at, _)) if now.abs_diff(*at) >= REMIND_SECS => Word::Begins(why.clone()),
            Some((at, said)) if *said != why && now.abs_diff(*at) >= CHANGE_SECS => {
                Word::Begins(why.clone())
            }
            Some(_) => return None,
        };
        self.said = Some((now, why));
        self.is_told = true;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: Unmeasured = Unmeasured::Still { path: "/proc/stat" };

    fn unreadable() -> Unmeasured {
        Unmeasured::Unreadable {
            path: "/proc/stat",
            kind: io::ErrorKind::NotFound,
        }
    }

    /// A processor's load of 0.0 was published for ever, without a word, where `/proc/stat` is hidden.
    #[test]
    fn what_is_missing_is_told_once_and_rarely_again() {
        let mut told = Told::default();
        assert_eq!(told.measured(), None);
        assert_eq!(told.missed(STILL, 100), Some(Word::Begins(STILL)));
        for now in 101..160 {
            assert_eq!(told.missed(unreadable(), now), None);
        }
        let begins = Some(Word::Begins(unreadable()));
        assert_eq!(told.missed(unreadable(), 160), begins);
        assert_eq!(told.missed(unreadable(), 759), None);
        let lasts = Word::Lasts {
            why: unreadable(),
            samples: 63,
        };
        assert_eq!(told.missed(unreadable(), 760), Some(lasts));
        assert_eq!(told.measured(), Some(Word::Again { samples: 63 }));
        assert_eq!(told.measured(), None);
    }

    /// A kernel whose counters go back every other second fills no disk with that.
    #[test]
    fn what_comes_and_goes_is_told_rarely() {
        let mut told = Told::default();
        let mut words = 0;
        for now in 0..1200 {
            let word = match now % 2 {
                0 => told.missed(STILL, now),
                _ => told.measured(),
            };
            words += usize::from(word.is_some());
        }
        assert_eq!(words, 4);
    }
}
