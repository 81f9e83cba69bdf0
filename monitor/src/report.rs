//! What a person is told about a destination: when it begins, when it changes, rarely in between.

/// While an outage lasts, it is mentioned this often.
pub const REMIND_SECS: u64 = 600;
/// An outage whose reason changes is mentioned again, but not more often than this.
pub const CHANGE_SECS: u64 = 60;

/// How a destination has been lately.
#[derive(Debug, Default)]
pub struct Health {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    Well,
    Ill {
        since: u64,
        said_at: u64,
        reason: String,
        /// Delivered since the receiver came back, while the rest still waits.
        caught_up: u64,
    },
}

/// What to say after a delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum Good {
    /// The first ever: it works.
    First,
    /// As ever.
    Steady,
    /// It came back, and more is waiting.
    CatchingUp,
    /// It came back, and nothing waits any more.
    Recovered {
        /// Since the first failure.
        away_secs: u64,
        /// Delivered since it came back.
        records: u64,
    },
}

/// What to say after a failure.
#[derive(Debug, PartialEq, Eq)]
pub enum Bad {
    /// The first failure, or one for another reason.
    Begins,
    /// It still fails.
    Lasts {
        /// Since the first failure.
        away_secs: u64,
    },
    /// It was said lately.
    Known,
}

impl Health {
    /// So many records were delivered, so many still wait.
    pub fn delivered(&mut self, records: u64, pending: u64, now: u64) -> Good {
        match &mut self.state {
            State::New => {
                self.state = State::Well;
                Good::First
            }
            State::Well => Good::Steady,
            State::Ill {
                since, caught_up, ..
            } => {
                *caught_up += records;
                if pending > 0 {
                    return Good::CatchingUp;
                }
                let recovered = Good::Recovered {
                    away_secs: now.saturating_sub(*since),
                    records: *caught_up,
                };
                self.state = State::Well;
                recovered
            }
        }
    }

    /// Nothing was delivered, for this reason.
    pub fn failed(&mut self, because: &str, now: u64) -> Bad {
        if let State::Ill {
            since,
            said_at,
            reason,
            ..
        } = &mut self.state
        {
            let quiet_secs = now.saturating_sub(*said_at);
            let changed = because != reason.as_str() && quiet_secs >= CHANGE_SECS;
            if !changed && quiet_secs < REMIND_SECS {
                return Bad::Known;
            }
            *said_at = now;
            *reason = because.to_owned();
            return if changed {
                Bad::Begins
            } else {
                Bad::Lasts {
                    away_secs: now.saturating_sub(*since),
                }
            };
        }
        self.state = State::Ill {
            since: now,
            said_at: now,
            reason: because.to_owned(),
            caught_up: 0,
        };
        Bad::Begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_when_it_changes() {
        let mut health = Health::default();
        assert_eq!(health.delivered(1, 0, 1), Good::First);
        assert_eq!(health.delivered(1, 0, 2), Good::Steady);
        assert_eq!(health.failed("away", 10), Bad::Begins);
        assert_eq!(health.failed("away", 11), Bad::Known);
        assert_eq!(health.failed("revoked", 69), Bad::Known);
        assert_eq!(health.failed("revoked", 70), Bad::Begins);
        assert_eq!(health.failed("revoked", 669), Bad::Known);
        assert_eq!(health.failed("revoked", 670), Bad::Lasts { away_secs: 660 });
        assert_eq!(health.failed("revoked", 671), Bad::Known);
        assert_eq!(health.delivered(500, 1, 700), Good::CatchingUp);
        assert_eq!(health.failed("revoked", 701), Bad::Known);
        let recovered = Good::Recovered {
            away_secs: 692,
            records: 502,
        };
        assert_eq!(health.delivered(2, 0, 702), recovered);
        assert_eq!(health.delivered(1, 0, 703), Good::Steady);
        assert_eq!(health.failed("away", 704), Bad::Begins);
    }

    #[test]
    fn an_outage_from_the_start_is_one_too() {
        let mut health = Health::default();
        assert_eq!(health.failed("away", 1), Bad::Begins);
        let recovered = Good::Recovered {
            away_secs: 9,
            records: 10,
        };
        assert_eq!(health.delivered(10, 0, 10), recovered);
    }

    #[test]
    fn a_clock_set_back_does_not_matter() {
        let mut health = Health::default();
        assert_eq!(health.failed("away", 1000), Bad::Begins);
        assert_eq!(health.failed("away", 10), Bad::Known);
        let recovered = Good::Recovered {
            away_secs: 0,
            records: 1,
        };
        assert_eq!(health.delivered(1, 0, 11), recovered);
    }
}
