//! Small pictures for rows of a table: a line, and how complete the last day is.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::date;
use crate::text::counted;
use crate::unit::ValueUnit;

/// The height that the paths are drawn in.
const HEIGHT: f64 = 100.0;
/// Kept free above and below, so that a line at an end of the scale is whole.
const MARGIN: f64 = 6.0;

/// A line without axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Spark {
    /// The unit of its values.
    pub unit: ValueUnit,
    /// A value for each minute, oldest first, or none where nothing arrived.
    pub values: Vec<Option<f64>>,
}

impl Spark {
    /// The newest value at a glance.
    pub fn newest(&self) -> String {
        let newest = self.values.iter().rev().find_map(|value| *value);
        newest.map_or_else(|| "–".to_owned(), |value| self.unit.short(value))
    }

    /// The path of the line, and that of the area below it.
    pub fn paths(&self) -> (String, String) {
        let given = self.values.iter().flatten().copied();
        let (min, max) = given.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| {
            (min.min(value), max.max(value))
        });
        let (low, high) = match min <= max {
            true => self.unit.scale(min, max),
            false => (0.0, 1.0),
        };
        let y = |value: f64| {
            let part = ((value - low) / (high - low)).clamp(0.0, 1.0);
            (HEIGHT - MARGIN - part * (HEIGHT - 2.0 * MARGIN)).round()
        };
        let (mut line, mut area) = (String::new(), String::new());
        let mut at = 0;
        for run in self.values.split(Option::is_none) {
            let points: Vec<_> = run.iter().flatten().map(|value| y(*value)).collect();
            if let (Some(first), Some(last)) = (points.first(), points.last()) {
                let end = at + points.len();
                let mut steps = format!("{first}");
                for (step, point) in points.iter().enumerate().skip(1) {
                    _ = write!(steps, "L{} {point}", at + step);
                }
                if points.len() == 1 {
                    _ = write!(steps, "L{end} {last}");
                }
                _ = write!(line, "M{at} {steps}");
                let right = at + points.len().max(2) - 1;
                _ = write!(area, "M{at} {HEIGHT}L{at} {steps}L{right} {HEIGHT}Z");
            }
            at += run.len() + 1;
        }
        (line, area)
    }

    /// As SVG; the value beside it says the newest. `id` is the prefix of the paths' ids.
    pub fn svg(&self, id: &str) -> Markup {
        let (line, area) = self.paths();
        let width = self.values.len().max(2) - 1;
        html! {
            svg.spark viewBox={ "0 0 " (width) " 100" } preserveAspectRatio="none" aria-hidden="true" {
                path.area id={ (id) "a" } d=(area) {}
                path.line id={ (id) "l" } d=(line) {}
            }
        }
    }
}

/// How much of an hour's usual samples arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HourCover {
    /// It was before anything arrived of the host, or has only begun.
    Unknown,
    /// Nothing arrived.
    Empty,
    /// Less than usual.
    Part,
    /// As many as usual.
    Full,
}

/// The last day of a host by hour.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DayCover {
    /// The end of the last hour: epoch seconds.
    pub to: u64,
    /// The hours, oldest first.
    pub hours: Vec<HourCover>,
}

const HOUR_SECS: u64 = 3_600;

impl DayCover {
    fn count(&self, cover: HourCover) -> u64 {
        self.hours.iter().filter(|hour| **hour == cover).count() as u64
    }

    /// The first and the last time of each run of hours with nothing.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        let begin = self.to.saturating_sub(self.hours.len() as u64 * HOUR_SECS);
        let mut gaps: Vec<(u64, u64)> = Vec::new();
        for (hour, start) in self
            .hours
            .iter()
            .zip((0..).map(|at| begin + at * HOUR_SECS))
        {
            match gaps.last_mut() {
                _ if *hour != HourCover::Empty => (),
                Some((_, end)) if *end == start => *end += HOUR_SECS,
                _ => gaps.push((start, start + HOUR_SECS)),
            }
        }
        gaps
    }

    /// The same in words.
    pub fn words(&self) -> String {
        let (full, part) = (self.count(HourCover::Full), self.count(HourCover::Part));
        let mut words = format!("Last 24 hours: {} complete", counted(full, "hour", "hours"));
        if part > 0 {
            _ = write!(words, ", {part} in part");
        }
        for (from, to) in self.gaps() {
            let (from, to) = (date::clock(from), date::clock(to));
            _ = write!(words, ", nothing from {from} to {to} UTC");
        }
        words
    }

    /// As SVG, one bar an hour: whole, half, or a mark on the ground.
    pub fn svg(&self) -> Markup {
        let bars = |cover: HourCover, height: u32| {
            let hours = self.hours.iter().zip(0_u32..);
            hours
                .filter(|(hour, _)| **hour == cover)
                .fold(String::new(), |mut path, (_, at)| {
                    let (x, y) = (at * 4, 20 - height);
                    _ = write!(path, "M{x} {y}h3v{height}h-3z");
                    path
                })
        };
        html! {
            svg.cover viewBox={ "0 0 " (self.hours.len() * 4) " 20" } preserveAspectRatio="none" role="img" aria-label=(self.words()) {
                title { (self.words()) }
                path.full d=(bars(HourCover::Full, 20)) {}
                path.part d=(bars(HourCover::Part, 10)) {}
                path.empty d=(bars(HourCover::Empty, 4)) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spark(values: &[Option<f64>]) -> (String, String) {
        let (unit, values) = (ValueUnit::Percent, values.to_vec());
        Spark { unit, values }.paths()
    }

    #[test]
    fn gaps_are_gaps() {
        for (values, line) in [
            (&[][..], ""),
            (&[None, None], ""),
            (&[Some(0.0), Some(10.0)], "M0 94L1 6"),
            (
                &[Some(0.0), None, Some(10.0), Some(5.0)],
                "M0 94L1 94M2 6L3 50",
            ),
            (&[None, Some(5.0), None], "M1 50L2 50"),
        ] {
            assert_eq!(spark(values).0, line, "{values:?}");
        }
    }

    #[test]
    fn a_day_in_words() {
        use HourCover::{Empty, Full, Part, Unknown};
        let mut hours = vec![Unknown, Full, Empty, Empty, Full, Part, Empty];
        hours.resize(24, Full);
        let to = 1_465_002_000;
        let day = DayCover { to, hours };
        assert_eq!(
            day.words(),
            "Last 24 hours: 19 hours complete, 1 in part, nothing from 03:00 to 05:00 UTC, nothing from 07:00 to 08:00 UTC"
        );
        assert_eq!(day.svg().into_string().matches("<path").count(), 3);
    }
}
