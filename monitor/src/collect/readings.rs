//! What a collector appends to, and how many labels it may publish.
//!
//! A receiver accepts 256 labels in a record and 1,000 of a host, and keeps a label for a day after
//! its last value. A machine may have 3,000 cgroups, and new ones every minute. So each collector
//! has a number of labels that it may publish at once, and of all that it publishes in a day;
//! whatever was published last has precedence, and new labels come in the collector's order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use lizmon_protocol::name::{Label, NameError};
use lizmon_protocol::sample::Value;

use super::failure::CollectError;

/// How many labels a collector may publish in a day, for each that it may publish at once: all
/// together stay below the 1,000 of a host.
const LABELS_A_DAY: usize = 3;
/// For how long a receiver may count a label after its last value: the window by hour, and a margin
/// for what was sent late.
const LABEL_KEPT: Duration = Duration::from_secs(26 * 3600);

/// Which labels a collector may publish.
#[derive(Debug)]
pub(super) struct LabelBudget {
    labels_max: usize,
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

/// When a label had a place last.
#[derive(Debug, Clone, Copy)]
struct Use {
    sample: u64,
    at: Duration,
    /// Whether it has its value in this sample.
    has_value: bool,
}

impl LabelBudget {
    pub(super) fn new(labels_max: usize) -> Self {
        Self {
            labels_max,
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
    fn admits(&mut self, label: &Label<'static>) -> bool {
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
        } else if self.admitted + self.awaited < self.labels_max && self.has_room_today() {
            self.admitted += 1;
            let new = Use {
                sample,
                at,
                has_value: false,
            };
            self.known.insert(label.clone(), new);
            return true;
        }
        self.first_left_out.get_or_insert_with(|| label.clone());
        false
    }

    fn has_room_today(&mut self) -> bool {
        let day_max = self.labels_max.saturating_mul(LABELS_A_DAY);
        if self.known.len() >= day_max {
            let now = self.now;
            let is_kept = |last: &Use| now.saturating_sub(last.at) < LABEL_KEPT;
            self.known.retain(|_, last| is_kept(last));
        }
        self.known.len() < day_max
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
        self.budget.admits(label)
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
        let value = Value::new(two_decimals(value)).ok_or(CollectError::NoNumber)?;
        if !self.budget.admits(&label) {
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
        let pushed = label
            .map_err(CollectError::from)
            .and_then(|label| self.push_label(label, value));
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

fn two_decimals(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn values_have_at_most_two_decimals() {
        for (value, expected) in [(4.983, 4.98), (4.987, 4.99), (0.0, 0.0), (99.999, 100.0)] {
            let mut budget = LabelBudget::new(1);
            let mut readings = Readings::new(&mut budget, SECOND);
            readings.push("cpu", value).unwrap();
            assert_eq!(readings.pairs(), [("cpu", expected)]);
        }
    }

    /// A receiver would refuse the whole record.
    #[test]
    fn a_pair_that_a_receiver_refuses_is_not_appended() {
        let mut budget = LabelBudget::new(8);
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
        let mut budget = LabelBudget::new(2);
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
        let mut budget = LabelBudget::new(2);
        let names: Vec<String> = (0..60).map(|n| format!("unit:{n}")).collect();
        let mut all = 0;
        for (at, name) in names.iter().enumerate() {
            let mut readings = Readings::new(&mut budget, SECOND * at as u32);
            readings.push(name.clone(), 1.0).unwrap();
            all += readings.finish().0.len();
        }
        assert_eq!(all, 2 * LABELS_A_DAY);
        let day = LABEL_KEPT.as_secs() + 60;
        assert_eq!(published(&mut budget, day, &["x"]), ["x"]);
    }
}
