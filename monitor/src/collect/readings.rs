//! What a collector appends to, and how many labels it may publish.
//!
//! A receiver accepts 256 labels in a record and 1,000 of a host, and keeps a label for a day after
//! its last value. A machine may have 3,000 cgroups, and new ones every minute. So each collector
//! has a number of labels that it may publish at once, and of all that it publishes in a day;
//! whatever was published last has precedence, and new labels come in the collector's order.
//!
//! ```text
//! of a day:  [ fleeting ones too ][ all others ][ one after another, over the day ]
//!              as many as at once   as many        the rest
//! ```
//!
//! So what begins late in a busy day has its place within a while, and things that last are not
//! crowded out by things that do not.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use lizmon_protocol::name::{Label, NameError};
use lizmon_protocol::sample::Value;

use super::failure::CollectError;

/// How many labels a collector may publish in a day, for each that it may publish at once, and more
/// if its things come and go.
const LABELS_A_DAY: usize = 3;
/// How many of them may come at any time. The rest of the day's come one after another.
const AT_ANY_TIME: usize = 2;
/// For how long a receiver may count a label after its last value: the window by hour, and a margin
/// for what was sent late.
const LABEL_KEPT: Duration = Duration::from_secs(26 * 3600);

/// Which labels a collector may publish.
#[derive(Debug)]
pub(super) struct LabelBudget {
    labels_max: usize,
    day_max: usize,
    /// The time in which one new label of a day is earned.
    earned_every: Duration,
    /// Until when what has come is not earned again.
    earned_at: Duration,
    known: HashMap<Label<'static>, Use>,
    /// Counts the samples.
    sample: u64,
    now: Duration,
    /// Labels of the last sample that have not come in this one yet.
    awaited: usize,
    /// Labels that have a place in this sample.
    admitted: usize,
    first_left_out: Option<Label<'static>>,
}

/// Whether a label that is new will be published for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasts {
    Long,
    MaybeNot,
}

/// When a label had a place last.
#[derive(Debug, Clone, Copy)]
struct Use {
    sample: u64,
    at: Duration,
    /// Whether it has its value in this sample.
    has_value: bool,
}

impl LabelBudget {
    pub(super) fn new(labels_max: usize, more_a_day: usize) -> Self {
        let day_max = labels_max.saturating_mul(LABELS_A_DAY) + more_a_day;
        let earned_a_day = day_max - labels_max * AT_ANY_TIME;
        Self {
            labels_max,
            day_max,
            earned_every: LABEL_KEPT / u32::try_from(earned_a_day.max(1)).unwrap_or(u32::MAX),
            earned_at: Duration::ZERO,
            known: HashMap::new(),
            sample: 0,
            now: Duration::ZERO,
            awaited: 0,
            admitted: 0,
            first_left_out: None,
        }
    }

    fn begin(&mut self, now: Duration) {
        self.sample += 1;
        self.now = now;
        self.awaited = std::mem::take(&mut self.admitted);
        self.first_left_out = None;
    }

    /// Whether this label may be published now. The same answer if it is asked again.
    fn admits(&mut self, label: &Label<'static>, lasts: Lasts) -> bool {
        let (sample, at) = (self.sample, self.now);
        if let Some(known) = self.known.get_mut(label) {
            if known.sample == sample {
                return true;
            }
            let was_last = known.sample + 1 == sample;
            if was_last || self.admitted + self.awaited < self.labels_max {
                self.awaited -= usize::from(was_last);
                self.admitted += 1;
                *known = Use {
                    sample,
                    at,
                    has_value: false,
                };
                return true;
            }
        } else if self.admitted + self.awaited < self.labels_max && self.has_room_today(lasts, 1) {
            self.admitted += 1;
            self.earned_at = self.earned_at.max(at) + self.earned_every;
            let new = Use {
                sample,
                at,
                has_value: false,
            };
            self.known.insert(label.clone(), new);
            return true;
        }
        if lasts == Lasts::Long {
            self.first_left_out.get_or_insert_with(|| label.clone());
        }
        false
    }

    /// Whether so many new labels may come.
    fn has_room_today(&mut self, lasts: Lasts, count: usize) -> bool {
        if self.known.len() + count > self.day_max {
            let now = self.now;
            let is_kept = |last: &Use| now.saturating_sub(last.at) < LABEL_KEPT;
            self.known.retain(|_, last| is_kept(last));
        }
        self.known.len() + count <= self.day_max && self.are_earned(lasts, count)
    }

    fn are_earned(&self, lasts: Lasts, count: usize) -> bool {
        let at_any_time = match lasts {
            Lasts::Long => self.labels_max * AT_ANY_TIME,
            Lasts::MaybeNot => self.labels_max,
        };
        let Some(ahead) = at_any_time.checked_sub(count) else {
            return false;
        };
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.earned_at.saturating_sub(self.now) <= self.earned_every * ahead
    }
}

/// The values of one collector in one record, while they are collected.
#[derive(Debug)]
pub struct Readings<'b> {
    budget: &'b mut LabelBudget,
    values: Vec<(Label<'static>, Value)>,
    problem: Option<CollectError>,
}

impl<'b> Readings<'b> {
    /// For the sample that is taken now, by the monotonic clock.
    pub(super) fn new(budget: &'b mut LabelBudget, now: Duration) -> Self {
        budget.begin(now);
        Self {
            budget,
            values: Vec::new(),
            problem: None,
        }
    }

    /// Whether a value of this label will be published: ask before you measure it, if that costs
    /// anything. What is not admitted is counted as left out.
    pub fn admits(&mut self, label: &Label<'static>) -> bool {
        self.budget.admits(label, Lasts::Long)
    }

    /// Whether it was published in the last day, and costs nothing.
    pub(super) fn is_known(&self, label: &Label<'static>) -> bool {
        self.budget.known.contains_key(label)
    }

    /// Whether the day has room for so many new labels.
    pub(super) fn has_room_today(&mut self, lasts: Lasts, count: usize) -> bool {
        self.budget.has_room_today(lasts, count)
    }

    /// Appends a value, rounded to two decimals. What a receiver would refuse, and the whole record
    /// with it, is an error here.
    pub fn push(
        &mut self,
        label: impl Into<Cow<'static, str>>,
        value: f64,
    ) -> Result<(), CollectError> {
        self.push_label(Label::new(label)?, value)
    }

    /// The same, with a label that was made before.
    pub fn push_label(&mut self, label: Label<'static>, value: f64) -> Result<(), CollectError> {
        let value = rounded(value)?;
        self.push_lasting(label, value, Lasts::Long)
    }

    fn push_lasting(
        &mut self,
        label: Label<'static>,
        value: Value,
        lasts: Lasts,
    ) -> Result<(), CollectError> {
        if !self.budget.admits(&label, lasts) {
            return Ok(());
        }
        let known = self.budget.known.get_mut(&label);
        if known.is_some_and(|known| std::mem::replace(&mut known.has_value, true)) {
            return Err(CollectError::DuplicateLabel(label.to_string()));
        }
        self.values.push((label, value));
        Ok(())
    }

    /// The same; a value that cannot be published is noted, and the others can be.
    pub fn push_or_note(&mut self, label: Result<Label<'static>, NameError>, value: f64) {
        self.push_lasting_or_note(label, value, Lasts::Long);
    }

    /// The same; without a note, a new label that may not last gets no place where few are left.
    pub(super) fn push_lasting_or_note(
        &mut self,
        label: Result<Label<'static>, NameError>,
        value: f64,
        lasts: Lasts,
    ) {
        let pushed = label.map_err(CollectError::from).and_then(|label| {
            let value = rounded(value)?;
            self.push_lasting(label, value, lasts)
        });
        if let Err(problem) = pushed {
            self.note(problem);
        }
    }

    /// Something is not measured, and the rest is. The first of a sample is logged.
    pub fn note(&mut self, problem: CollectError) {
        self.problem.get_or_insert(problem);
    }

    /// The values, and what is missing.
    pub(super) fn finish(self) -> (Vec<(Label<'static>, Value)>, Option<CollectError>) {
        let first = self.budget.first_left_out.take();
        let over = first.map(|first| CollectError::LeftOut {
            labels_max: self.budget.labels_max,
            first: first.to_string(),
        });
        (self.values, self.problem.or(over))
    }

    #[cfg(test)]
    pub(super) fn pairs(&self) -> Vec<(&str, f64)> {
        let values = self.values.iter();
        values
            .map(|(label, value)| (label.as_str(), value.get()))
            .collect()
    }
}

/// To two decimals.
fn rounded(value: f64) -> Result<Value, CollectError> {
    Value::new((value * 100.0).round() / 100.0).ok_or(CollectError::NoNumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn values_have_at_most_two_decimals() {
        for (value, expected) in [(4.983, 4.98), (4.987, 4.99), (0.0, 0.0), (99.999, 100.0)] {
            let mut budget = LabelBudget::new(1, 0);
            let mut readings = Readings::new(&mut budget, SECOND);
            readings.push("cpu", value).unwrap();
            assert_eq!(readings.pairs(), [("cpu", expected)]);
        }
    }

    /// A receiver would refuse the whole record.
    #[test]
    fn a_pair_that_a_receiver_refuses_is_not_appended() {
        let mut budget = LabelBudget::new(8, 0);
        let mut readings = Readings::new(&mut budget, SECOND);
        readings.push("core:0", 1.0).unwrap();
        let refused = [
            readings.push("", 1.0),
            readings.push("disk:\n", 1.0),
            readings.push("summary:cpu", 1.0),
            readings.push("cpu", f64::NAN),
            readings.push("cpu", 1e291),
            readings.push(String::from("core:0"), 1.0),
        ];
        assert!(refused.iter().all(Result::is_err), "{refused:?}");
        assert_eq!(readings.pairs(), [("core:0", 1.0)]);
    }

    /// What is published of these names, in a sample at this second.
    fn published(budget: &mut LabelBudget, at: u64, names: &[&'static str]) -> Vec<String> {
        let mut readings = Readings::new(budget, SECOND * at as u32);
        for name in names {
            readings.push(*name, 1.0).unwrap();
        }
        let (values, problem) = readings.finish();
        let is_over = names.len() > values.len();
        assert_eq!(problem.is_some(), is_over, "{problem:?}");
        values
            .into_iter()
            .map(|(label, _)| label.to_string())
            .collect()
    }

    #[test]
    fn what_is_over_the_budget_is_left_out_and_what_was_published_stays() {
        let mut budget = LabelBudget::new(2, 0);
        let steps: [(&[&str], &[&str]); 7] = [
            (&["b", "c", "d"], &["b", "c"]),
            // A new one before them takes nobody's place.
            (&["a", "b", "c", "d"], &["b", "c"]),
            // A place that is free is given in the next sample, in the collector's order.
            (&["a", "c", "d"], &["c"]),
            (&["a", "c", "d"], &["a", "c"]),
            (&["a"], &["a"]),
            (&["a", "b"], &["a", "b"]),
            (&[], &[]),
        ];
        for (at, (names, expected)) in steps.into_iter().enumerate() {
            assert_eq!(
                published(&mut budget, at as u64 + 1, names),
                expected,
                "{at}"
            );
        }
        let mut readings = Readings::new(&mut budget, SECOND * 9);
        for name in ["a", "b", "c", "d"] {
            readings.push(name, 1.0).unwrap();
        }
        let left_out = CollectError::LeftOut {
            labels_max: 2,
            first: "c".to_owned(),
        };
        assert_eq!(readings.finish().1, Some(left_out));
    }

    /// A machine that starts a container each second has few labels at once, and would have 86,400
    /// in a day.
    #[test]
    fn labels_that_come_and_go_are_limited_by_the_day() {
        let mut budget = LabelBudget::new(2, 3);
        let day = LABEL_KEPT.as_secs();
        // By second: how many have come until then. 4 at any time, 5 more in a day.
        let all_until = [
            (60, 4),
            (day / 5, 4),
            (day / 5 + 60, 5),
            (day, 8),
            (day + 60, 9),
        ];
        let (mut at, mut all) = (0, 0);
        for (until, expected) in all_until {
            while at < until {
                all += published_of(&mut budget, at, &format!("unit:{at}"), Lasts::Long);
                at += 5;
            }
            assert_eq!(all, expected, "{until}");
        }
    }

    /// What lasts has its place, on a machine that starts something else each second.
    #[test]
    fn fleeting_labels_leave_room_for_others() {
        let mut budget = LabelBudget::new(2, 0);
        let mut all = 0;
        for at in 0..600 {
            let name = format!("process-cpu:job-{at}");
            all += published_of(&mut budget, at, &name, Lasts::MaybeNot);
        }
        assert_eq!(all, 2);
        for at in 600..602 {
            let name = format!("process-cpu:server-{at}");
            assert_eq!(published_of(&mut budget, at, &name, Lasts::Long), 1);
        }
        // What is known costs nothing.
        assert_eq!(
            published_of(&mut budget, 603, "process-cpu:job-0", Lasts::MaybeNot),
            1
        );
        assert_eq!(
            published_of(&mut budget, 604, "process-cpu:job-9", Lasts::MaybeNot),
            0
        );
    }

    fn published_of(budget: &mut LabelBudget, at: u64, name: &str, lasts: Lasts) -> usize {
        let mut readings = Readings::new(budget, Duration::from_secs(at));
        readings.push_lasting_or_note(Label::new(name.to_owned()), 1.0, lasts);
        readings.finish().0.len()
    }
}
