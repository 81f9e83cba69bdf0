//! How far each goal is reached, as SVG.

use maud::{Markup, html};

use crate::goal::{Goal, Row};
use crate::report::{Report, goal_text, number};

const WIDTH: f64 = 820.0;
const LINE: f64 = 26.0;
const TOP: f64 = 44.0;
/// Where the bars begin: names are left of them.
const BARS_AT: f64 = 160.0;
/// The length of a bar that reaches its goal.
const GOAL_WIDTH: f64 = 210.0;
/// What is further is cut off.
const SHOWN_MAX: f64 = 1.6;
/// Where the figures begin, right of all bars.
const FIGURES_AT: f64 = BARS_AT + GOAL_WIDTH * SHOWN_MAX + 12.0;
const REACHED: &str = "#2f7d4f";
const NOT_REACHED: &str = "#b4532a";

pub(crate) fn svg(report: &Report) -> String {
    let rows: Vec<_> = report
        .rows
        .iter()
        .filter_map(|row| Some((row, row.goal?, row.attainment()?)))
        .collect();
    let bottom = TOP + LINE * rows.len() as f64;
    let goal_at = BARS_AT + GOAL_WIDTH;
    let view = format!("0 0 {WIDTH} {}", bottom + 16.0);
    let picture = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(view) font-family="sans-serif" font-size="13" role="img" {
            title { "How far each goal is reached" }
            rect width="100%" height="100%" fill="#ffffff" {}
            text x="8" y="20" font-weight="bold" { "Goals reached: " (report.date) ", " (report.commit) ", " (report.profile) " profile" }
            text x=(goal_at) y=(TOP - 8.0) text-anchor="middle" { "goal" }
            @for (at, (row, goal, attainment)) in rows.iter().enumerate() {
                (bar((row, *goal), *attainment, TOP + LINE * at as f64))
            }
            line x1=(goal_at) x2=(goal_at) y1=(TOP) y2=(bottom) stroke="#333333" stroke-dasharray="4 3" {}
        }
    };
    picture.into_string() + "\n"
}

fn bar((row, goal): (&Row, Goal), attainment: f64, top: f64) -> Markup {
    let width = GOAL_WIDTH * attainment.min(SHOWN_MAX);
    let colour = if attainment >= 1.0 {
        REACHED
    } else {
        NOT_REACHED
    };
    let middle = top + LINE * 0.66;
    html! {
        text x=(BARS_AT - 8.0) y=(middle) text-anchor="end" { (row.id) }
        rect x=(BARS_AT) y=(top + 4.0) width=(format!("{width:.1}")) height=(LINE - 8.0) fill=(colour) {}
        text x=(FIGURES_AT) y=(middle) { (format!("{:.0} %", attainment * 100.0)) ": " (figure(row, goal)) }
    }
}

/// What the goal is about, and the goal.
fn figure(row: &Row, goal: Goal) -> String {
    let text = goal_text(goal);
    match (goal, row.ratio(), &row.baseline) {
        (Goal::RatioAtLeast(_) | Goal::RatioAtMost(_), Some(ratio), Some(baseline)) => {
            format!("{} of {baseline}, goal {text}", number(ratio))
        }
        _ => format!(
            "{}, goal {text}",
            row.ours().map(number).unwrap_or_default()
        ),
    }
}
