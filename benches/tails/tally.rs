//! What came of all runs, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::cases::Case;
use super::load::{Shot, What};

/// When a request was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum When {
    Before,
    During,
    After,
}

/// Of what a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Key {
    pub(super) case: Case,
    pub(super) what: What,
    pub(super) when: When,
    /// Without it, it is the control.
    pub(super) has_event: bool,
}

/// All rounds of it.
struct Figures {
    micros: Histogram<u64>,
    by_round: Vec<Percentiles>,
    errors: BTreeMap<String, u64>,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    worst: f64,
}

impl Percentiles {
    fn of(micros: &Histogram<u64>) -> Self {
        let at = |percent| micros.value_at_percentile(percent) as f64 / 1e3;
        Self {
            p50: at(50.0),
            p99: at(99.0),
            p999: at(99.9),
            worst: micros.max() as f64 / 1e3,
        }
    }
}

/// All rows.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<Key, Figures>);

impl Tally {
    /// Adds what one round had of it.
    pub(super) fn add<'a>(
        &mut self,
        key: Key,
        shots: impl Iterator<Item = &'a Shot>,
    ) -> Result<()> {
        let mut micros = empty()?;
        let mut errors = BTreeMap::<String, u64>::new();
        for shot in shots {
            micros.saturating_record(in_micros(shot.took));
            for error in &shot.errors {
                *errors.entry(error.clone()).or_default() += 1;
            }
        }
        if micros.is_empty() {
            return Ok(());
        }
        let figures = match self.0.entry(key) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(Figures {
                micros: empty()?,
                by_round: Vec::new(),
                errors: BTreeMap::new(),
            }),
        };
        figures.by_round.push(Percentiles::of(&micros));
        figures.micros.add(micros).context("the same bounds")?;
        for (error, count) in errors {
            *figures.errors.entry(error).or_default() += count;
        }
        Ok(())
    }

    pub(super) fn table(&self) -> String {
        let mut table = String::from(
            "| case | request | when | run | requests | p50, ms | p99, ms | p99.9, ms | worst of each round, ms | not answered well |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for (key, figures) in &self.0 {
            let Percentiles { p50, p99, p999, .. } = Percentiles::of(&figures.micros);
            let worst = figures.by_round.iter().map(|of| format!("{:.1}", of.worst));
            let worst = worst.collect::<Vec<_>>().join(", ");
            let errors = figures.errors.iter();
            let errors = errors.map(|(why, count)| format!("{count} x {why}"));
            let errors = errors.collect::<Vec<_>>().join(", ");
            let run = if key.has_event { "event" } else { "control" };
            let (case, what, when) = (word(&key.case), word(&key.what), word(&key.when));
            let requests = figures.micros.len();
            table += &format!(
                "| {case} | {what} | {when} | {run} | {requests} | {p50:.2} | {p99:.1} | {p999:.1} | {worst} | {errors} |\n"
            );
        }
        table
    }

    pub(super) fn json(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Row<'a> {
            #[serde(flatten)]
            key: Key,
            requests: u64,
            all_rounds: Percentiles,
            by_round: &'a [Percentiles],
            errors: &'a BTreeMap<String, u64>,
        }
        let rows = self.0.iter().map(|(key, figures)| Row {
            key: *key,
            requests: figures.micros.len(),
            all_rounds: Percentiles::of(&figures.micros),
            by_round: &figures.by_round,
            errors: &figures.errors,
        });
        serde_json::to_string_pretty(&rows.collect::<Vec<_>>()).context("JSON")
    }
}

fn empty() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 600_000_000, 3).context("a histogram")
}

fn in_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// As in JSON.
fn word(value: &impl Serialize) -> String {
    let word = serde_json::to_value(value).ok();
    word.and_then(|word| Some(word.as_str()?.to_owned()))
        .unwrap_or_default()
}
