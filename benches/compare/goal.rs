//! A row of the table: what was measured beside its goal.

use serde::{Deserialize, Serialize};

/// What is reached by at least, or by at most, this.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Goal {
    /// Ours divided by the baseline's.
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtLeast(f64),
    AtMost(f64),
}

/// Of one round: the servers ran one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) baseline: Option<f64>,
    pub(crate) ours: f64,
}

/// What was measured, or why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Rounds(Vec<Round>),
    NotMeasured(String),
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Row {
    /// What `--only` calls it.
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) unit: String,
    /// What ours is compared with.
    pub(crate) baseline: Option<String>,
    /// None for what is only shown beside others.
    pub(crate) goal: Option<Goal>,
    pub(crate) outcome: Outcome,
    /// What was seen besides.
    pub(crate) note: Option<String>,
}

impl Row {
    pub(crate) fn new(
        id: &str,
        (what, unit): (&str, &str),
        goal: impl Into<Option<Goal>>,
        rounds: Vec<Round>,
    ) -> Self {
        Self {
            id: id.to_owned(),
            what: what.to_owned(),
            unit: unit.to_owned(),
            baseline: None,
            goal: goal.into(),
            outcome: Outcome::Rounds(rounds),
            note: None,
        }
    }

    pub(crate) fn beside(mut self, baseline: &str) -> Self {
        self.baseline = Some(baseline.to_owned());
        self
    }

    pub(crate) fn noted(mut self, note: String) -> Self {
        self.note = Some(note);
        self
    }

    /// The median of the rounds.
    pub(crate) fn ours(&self) -> Option<f64> {
        self.median(|round| Some(round.ours))
    }

    pub(crate) fn baseline_figure(&self) -> Option<f64> {
        self.median(|round| round.baseline)
    }

    /// The median of each round's ratio: a machine that is slower for a while is so for both.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.median(|round| Some(round.ours / round.baseline?))
    }

    /// How far the goal is reached: 1 or more if it is.
    pub(crate) fn attainment(&self) -> Option<f64> {
        Some(match self.goal? {
            Goal::RatioAtLeast(goal) => self.ratio()? / goal,
            Goal::RatioAtMost(goal) => goal / self.ratio()?,
            Goal::AtLeast(goal) => self.ours()? / goal,
            Goal::AtMost(goal) => goal / self.ours()?,
        })
    }

    fn median(&self, of: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        match &self.outcome {
            Outcome::Rounds(rounds) => median(rounds.iter().filter_map(of)),
            Outcome::NotMeasured(_) => None,
        }
    }
}

pub(crate) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let lower = figures.len().checked_sub(1)? / 2;
    let upper = figures.len() / 2;
    Some((figures[lower] + figures[upper]) / 2.0)
}
