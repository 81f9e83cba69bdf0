//! What is logged about a destination: when an outage begins and ends, and rarely in between.

/// While an outage lasts, it is logged this often.
pub const REMIND_SECS: u64 = 600;
/// An outage whose reason changes is logged again, but not more often than this.
pub const CHANGE_SECS: u64 = 60;

/// Whether deliveries to a destination succeed.
#[derive(Debug, Default)]
pub struct DestinationHealth {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    Up,
    Down {
        since: u64,
        logged_at: u64,
        reason: String,
        /// Delivered since the receiver came back.
        caught_up: u64,
    },
}

/// What to log after a delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum SuccessNotice {
    /// The first delivery.
    First,
    /// One of many.
    Steady,
    /// The destination came back, and more records wait.
    CatchingUp,
    /// The destination came back, and no records wait any more.
    Recovered {
        /// Since the first failure.
        away_secs: u64,
        /// Delivered since it came back.
        records: u64,
    },
}

/// What to log after a failure.
#[derive(Debug, PartialEq, Eq)]
pub enum OutageNotice {
    /// The first failure, or one for another reason.
    Started,
    /// It still fails.
    Ongoing {
        /// Since the first failure.
        away_secs: u64,
    },
    /// It was logged lately.
    Suppressed,
}

impl DestinationHealth {
    /// So many records were delivered, and so many still wait.
    pub fn delivered(&mut self, records: u64, pending: u64, now: u64) -> SuccessNotice {
        match &mut self.state {
            State::New => {
                self.state = State::Up;
                SuccessNotice::First
            }
            State::Up => SuccessNotice::Steady,
            State::Down {
                since, caught_up, ..
            } => {
                *caught_up += records;
                if pending > 0 {
                    return SuccessNotice::CatchingUp;
                }
                let recovered = SuccessNotice::Recovered {
                    away_secs: now.saturating_sub(*since),
                    records: *caught_up,
                };
                self.state = State::Up;
                recovered
            }
        }
    }

    /// Nothing was delivered, for this reason.
    pub fn failed(&mut self, because: &str, now: u64) -> OutageNotice {
        if let State::Down {
            since,
            logged_at,
            reason,
            ..
        } = &mut self.state
        {
            let quiet_secs = now.saturating_sub(*logged_at);
            let changed = because != reason.as_str() && quiet_secs >= CHANGE_SECS;
            if !changed && quiet_secs < REMIND_SECS {
                return OutageNotice::Suppressed;
            }
            *logged_at = now;
            *reason = because.to_owned();
            return if changed {
                OutageNotice::Started
            } else {
                OutageNotice::Ongoing {
                    away_secs: now.saturating_sub(*since),
                }
            };
        }
        self.state = State::Down {
            since: now,
            logged_at: now,
            reason: because.to_owned(),
            caught_up: 0,
        };
        OutageNotice::Started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_logged_and_reminders_are_rare() {
        let mut health = DestinationHealth::default();
        assert_eq!(health.delivered(1, 0, 1), SuccessNotice::First);
        assert_eq!(health.delivered(1, 0, 2), SuccessNotice::Steady);
        assert_eq!(health.failed("away", 10), OutageNotice::Started);
        assert_eq!(health.failed("away", 11), OutageNotice::Suppressed);
        assert_eq!(health.failed("revoked", 69), OutageNotice::Suppressed);
        assert_eq!(health.failed("revoked", 70), OutageNotice::Started);
        assert_eq!(health.failed("revoked", 669), OutageNotice::Suppressed);
        assert_eq!(
            health.failed("revoked", 670),
            OutageNotice::Ongoing { away_secs: 660 }
        );
        assert_eq!(health.failed("revoked", 671), OutageNotice::Suppressed);
        assert_eq!(health.delivered(500, 1, 700), SuccessNotice::CatchingUp);
        assert_eq!(health.failed("revoked", 701), OutageNotice::Suppressed);
        let recovered = SuccessNotice::Recovered {
            away_secs: 692,
            records: 502,
        };
        assert_eq!(health.delivered(2, 0, 702), recovered);
        assert_eq!(health.delivered(1, 0, 703), SuccessNotice::Steady);
        assert_eq!(health.failed("away", 704), OutageNotice::Started);
    }

    #[test]
    fn an_outage_at_the_start_counts() {
        let mut health = DestinationHealth::default();
        assert_eq!(health.failed("away", 1), OutageNotice::Started);
        let recovered = SuccessNotice::Recovered {
            away_secs: 9,
            records: 10,
        };
        assert_eq!(health.delivered(10, 0, 10), recovered);
    }

    #[test]
    fn a_step_back_of_the_clock_is_harmless() {
        let mut health = DestinationHealth::default();
        assert_eq!(health.failed("away", 1000), OutageNotice::Started);
        assert_eq!(health.failed("away", 10), OutageNotice::Suppressed);
        let recovered = SuccessNotice::Recovered {
            away_secs: 0,
            records: 1,
        };
        assert_eq!(health.delivered(1, 0, 11), recovered);
    }
}
