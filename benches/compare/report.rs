//! What is printed: a table in Markdown, and the same as JSON.

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

use crate::goal::{Goal, Outcome, Row};

/// A run, or several.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: String,
    pub(crate) profile: String,
    pub(crate) rounds: usize,
    pub(crate) secs: u64,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "row", "what", "baseline", "ours", "ratio", "goal", "reached",
        ]);
        for row in &self.rows {
            table.add_row(cells(row));
        }
        let Self {
            date,
            commit,
            machine,
            profile,
            rounds,
            secs,
            ..
        } = self;
        let heading = format!(
            "{date}, commit {commit}, {profile} profile, {machine}; {rounds} rounds of {secs} s, medians"
        );
        let notes = self
            .rows
            .iter()
            .filter_map(|row| Some(format!("- `{}`: {}\n", row.id, row.note.as_ref()?)));
        format!("{heading}\n\n{table}\n\n{}", notes.collect::<String>())
    }

    pub(crate) fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("JSON")
    }

    /// The rows of several reports under the heading of the last.
    pub(crate) fn joined(reports: Vec<Self>) -> Option<Self> {
        let mut reports = reports.into_iter();
        let first = reports.next()?;
        Some(reports.fold(first, |mut before, mut next| {
            before
                .rows
                .retain(|row| next.rows.iter().all(|other| other.id != row.id));
            before.rows.append(&mut next.rows);
            next.rows = before.rows;
            next
        }))
    }
}

fn cells(row: &Row) -> Vec<String> {
    let what = format!("{}: {}", row.what, row.unit);
    let goal = row.goal.map(|goal| match goal {
        Goal::RatioAtLeast(_) | Goal::RatioAtMost(_) => format!("{} of it", goal_text(goal)),
        Goal::AtLeast(_) | Goal::AtMost(_) => goal_text(goal),
    });
    let goal = goal.unwrap_or_default();
    if let Outcome::NotMeasured(why) = &row.outcome {
        let empty = String::new;
        return vec![
            row.id.clone(),
            what,
            empty(),
            empty(),
            empty(),
            goal,
            why.clone(),
        ];
    }
    let shown = |figure: Option<f64>| figure.map(number).unwrap_or_default();
    let baseline = match (&row.baseline, row.baseline_figure()) {
        (Some(name), Some(figure)) => format!("{name} {}", number(figure)),
        _ => String::new(),
    };
    let reached = match row.attainment() {
        Some(part) if part >= 1.0 => "yes".to_owned(),
        Some(part) => format!("no: {:.0} %", part * 100.0),
        None if row.goal.is_none() => String::new(),
        None => "not measured".to_owned(),
    };
    vec![
        row.id.clone(),
        what,
        baseline,
        shown(row.ours()),
        shown(row.ratio()),
        goal,
        reached,
    ]
}

pub(crate) fn goal_text(goal: Goal) -> String {
    match goal {
        Goal::RatioAtLeast(least) | Goal::AtLeast(least) => format!("≥ {}", number(least)),
        Goal::RatioAtMost(most) | Goal::AtMost(most) => format!("≤ {}", number(most)),
    }
}

/// Three digits or more; thousands are grouped.
pub(crate) fn number(figure: f64) -> String {
    let decimals = match figure.abs() {
        large if large >= 100.0 => 0,
        ten if ten >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{figure:.decimals$}");
    let text = match decimals {
        0 => text,
        _ => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
    };
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let digits = whole.chars().enumerate();
    let grouped = digits.fold(String::new(), |mut grouped, (at, digit)| {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
        grouped
    });
    grouped + rest
}
