//! The plot of one series: mean, band from minimum to maximum, gaps, marks of alarms, and a table of
//! the same values.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::date;
use crate::piece::{Piece, PieceKind, PieceRow};
use crate::text::{counted, grouped, isolated_in_attribute};
use crate::unit::{ValueUnit, exact};

/// The width of an interval in the paths' own units.
const STEP: u64 = 10;
const HEIGHT: f64 = 100.0;
/// Kept free above and below, so that a line at an end of the scale is whole.
const MARGIN: f64 = 2.0;

/// An interval with samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlotInterval {
    /// Its end, which belongs to it: epoch seconds.
    pub end: u64,
    /// How many samples it has.
    pub count: u64,
    /// Their mean.
    pub avg: f64,
    /// Their minimum.
    pub min: f64,
    /// Their maximum.
    pub max: f64,
}

/// How far back a plot reaches, and in which steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlotTier {
    /// In ids.
    pub key: &'static str,
    /// As a heading.
    pub title: &'static str,
    /// One of its intervals.
    pub one: &'static str,
    /// Several.
    pub many: &'static str,
    /// The width of an interval in seconds.
    pub width_secs: u64,
    /// The number of intervals.
    pub slots: u64,
}

/// The last hour by minute.
pub const HOUR_BY_MINUTE: PlotTier = PlotTier {
    key: "m",
    title: "Last hour, by minute",
    one: "minute",
    many: "minutes",
    width_secs: 60,
    slots: 60,
};

/// The last day by hour.
pub const DAY_BY_HOUR: PlotTier = PlotTier {
    key: "h",
    title: "Last day, by hour",
    one: "hour",
    many: "hours",
    width_secs: 3_600,
    slots: 25,
};

/// The last month by hour.
pub const MONTH_BY_HOUR: PlotTier = PlotTier {
    key: "n",
    title: "Last 31 days, by hour",
    slots: 31 * 24,
    ..DAY_BY_HOUR
};

/// The last year by day.
pub const YEAR_BY_DAY: PlotTier = PlotTier {
    key: "y",
    title: "Last 400 days, by day",
    one: "day",
    many: "days",
    width_secs: 86_400,
    slots: 400,
};

/// A moment or a time in which an alarm fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmMark {
    /// Since when: epoch seconds.
    pub from: u64,
    /// Until when, if it is over.
    pub to: Option<u64>,
    /// What fired.
    pub text: String,
}

/// One series in one tier.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesPlot {
    /// The tier.
    pub tier: PlotTier,
    /// Its unit.
    pub unit: ValueUnit,
    /// The present time: epoch seconds.
    pub now: u64,
    /// Since when the series is known, in any tier.
    pub known_from: u64,
    /// The intervals with samples, oldest first.
    pub intervals: Vec<PlotInterval>,
    /// When alarms fired.
    pub marks: Vec<AlarmMark>,
}

/// How complete the closed intervals are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrived {
    /// How many samples arrived.
    pub samples: u64,
    /// How many usually do.
    pub expected: Option<u64>,
    /// Intervals without any.
    pub gaps: u64,
}

impl SeriesPlot {
    /// The end of the last interval that is shown.
    fn to(&self) -> u64 {
        let newest = self.intervals.last().map_or(0, |interval| interval.end);
        newest.max(self.now.next_multiple_of(self.tier.width_secs))
    }

    fn from(&self) -> u64 {
        self.to()
            .saturating_sub(self.tier.slots * self.tier.width_secs)
    }

    /// Those that are shown, each with its place.
    fn shown(&self) -> impl Iterator<Item = (u64, &PlotInterval)> {
        let from = self.from();
        let shown = self.intervals.iter().filter(move |i| i.end > from);
        shown.map(move |interval| ((interval.end - 1 - from) / self.tier.width_secs, interval))
    }

    fn is_closed(&self, interval: &PlotInterval) -> bool {
        interval.end <= self.now
    }

    /// Whether it has ended, and the series did not begin within it.
    fn is_whole(&self, interval: &PlotInterval) -> bool {
        let is_first = interval.end <= self.known_from.saturating_add(self.tier.width_secs);
        self.is_closed(interval) && !is_first
    }

    /// How many samples an interval usually has: the median of those that have ended.
    pub fn usual_count(&self) -> Option<u64> {
        let closed = self.intervals.iter().filter(|i| self.is_whole(i));
        let mut counts: Vec<u64> = closed.map(|interval| interval.count).collect();
        if counts.len() < 3 {
            return None;
        }
        counts.sort_unstable();
        counts.get(counts.len() / 2).copied()
    }

    /// The places that have ended since the series is known, and have no samples.
    fn gaps(&self) -> Vec<u64> {
        let (from, width) = (self.from(), self.tier.width_secs);
        let mut filled = self.shown().map(|(place, _)| place).peekable();
        (0..self.tier.slots)
            .filter(|place| {
                let end = from + (place + 1) * width;
                let is_filled = filled.next_if_eq(place).is_some();
                !is_filled && end <= self.now && end > self.known_from
            })
            .collect()
    }

    /// How complete it is.
    pub fn arrived(&self) -> Arrived {
        let usual = self.usual_count();
        // What has only begun is compared with nothing; without a comparison all of it counts.
        let compared = |i: &PlotInterval| usual.is_none() || self.is_whole(i);
        let closed = self.shown().filter(|(_, i)| compared(i));
        let (intervals, samples) = closed.fold((0, 0_u64), |(intervals, samples), (_, i)| {
            (intervals + 1, samples.saturating_add(i.count))
        });
        let gaps = self.gaps().len() as u64;
        Arrived {
            samples,
            expected: usual.map(|usual| usual.saturating_mul(intervals + gaps)),
            gaps,
        }
    }

    /// The same in words.
    pub fn said(&self) -> String {
        let Arrived {
            samples,
            expected,
            gaps,
        } = self.arrived();
        let mut said = match expected {
            Some(expected) if samples < expected => format!(
                "{} of about {} expected samples",
                grouped(samples),
                grouped(expected)
            ),
            _ => counted(samples, "sample", "samples"),
        };
        if gaps > 0 {
            let gaps = counted(gaps, self.tier.one, self.tier.many);
            _ = write!(said, ", {gaps} without any");
        }
        said
    }

    fn ends(&self) -> Option<(f64, f64)> {
        let ends = self
            .shown()
            .map(|(_, interval)| (interval.min, interval.max));
        ends.reduce(|(min, max), (low, high)| (min.min(low), max.max(high)))
    }

    fn scale(&self) -> (f64, f64) {
        self.ends()
            .map_or((0.0, 1.0), |(min, max)| self.unit.scale(min, max))
    }

    /// Runs of intervals that follow each other.
    fn runs(&self) -> Vec<Vec<(u64, &PlotInterval)>> {
        let mut runs: Vec<Vec<(u64, &PlotInterval)>> = Vec::new();
        for (place, interval) in self.shown() {
            match runs.last_mut() {
                Some(run) if run.last().is_some_and(|(last, _)| last + 1 == place) => {
                    run.push((place, interval));
                }
                _ => runs.push(vec![(place, interval)]),
            }
        }
        runs
    }

    /// The paths of mean, band, gaps and intervals with fewer samples than usual.
    fn paths(&self) -> [(&'static str, String); 4] {
        let (low, high) = self.scale();
        let y = |value: f64| {
            let part = ((value - low) / (high - low)).clamp(0.0, 1.0);
            let y = HEIGHT - MARGIN - part * (HEIGHT - 2.0 * MARGIN);
            (y * 10.0).round() / 10.0
        };
        let (mut mean, mut band) = (String::new(), String::new());
        for run in self.runs() {
            let (Some((first, begin)), Some((last, end))) = (run.first(), run.last()) else {
                continue;
            };
            let (left, right) = (first * STEP, (last + 1) * STEP);
            let middle = |place: &u64| place * STEP + STEP / 2;
            _ = write!(mean, "M{left} {}", y(begin.avg));
            _ = write!(band, "M{left} {}", y(begin.max));
            for (place, interval) in &run {
                _ = write!(mean, "L{} {}", middle(place), y(interval.avg));
                _ = write!(band, "L{} {}", middle(place), y(interval.max));
            }
            _ = write!(mean, "H{right}");
            _ = write!(band, "H{right}V{}", y(end.min));
            for (place, interval) in run.iter().rev() {
                _ = write!(band, "L{} {}", middle(place), y(interval.min));
            }
            _ = write!(band, "H{left}Z");
        }
        let gaps = self
            .gaps()
            .into_iter()
            .fold(String::new(), |mut path, place| {
                _ = write!(path, "M{} 0h{STEP}v{HEIGHT}h-{STEP}z", place * STEP);
                path
            });
        let is_part = |interval: &PlotInterval| {
            let usual = self.usual_count().unwrap_or(0);
            self.is_whole(interval) && interval.count.saturating_mul(20) < usual.saturating_mul(19)
        };
        let parts = self.shown().filter(|(_, interval)| is_part(interval));
        let parts = parts.fold(String::new(), |mut path, (place, _)| {
            _ = write!(path, "M{} {HEIGHT}h{STEP}v-5h-{STEP}z", place * STEP);
            path
        });
        [
            ("gap", gaps),
            ("band", band),
            ("mean", mean),
            ("part", parts),
        ]
    }

    fn mark_path(&self) -> String {
        let (from, to) = (self.from(), self.to());
        let x = |at: u64| {
            let at = at.clamp(from, to) - from;
            at.saturating_mul(STEP) / self.tier.width_secs
        };
        let is_shown = |mark: &&AlarmMark| mark.from < to && mark.to.is_none_or(|end| end > from);
        let shown = self.marks.iter().filter(is_shown);
        shown.fold(String::new(), |mut path, mark| {
            let (left, right) = (x(mark.from), x(mark.to.unwrap_or(self.now)));
            let width = right.saturating_sub(left).max(STEP / 2);
            _ = write!(path, "M{left} 0h{width}v4h-{width}z");
            path
        })
    }

    /// Texts with their ids' endings.
    fn texts(&self) -> [(&'static str, String); 6] {
        let (low, high) = self.scale();
        let (from, to) = (self.from(), self.to());
        let middle = from + (to - from) / 2;
        let when = |epoch| match self.tier.width_secs {
            60 => date::clock(epoch),
            3_600 if self.tier.slots <= 25 => date::clock(epoch),
            3_600 => date::moment(epoch),
            _ => date::day(epoch),
        };
        [
            ("hi", self.unit.short(high)),
            ("lo", self.unit.short(low)),
            ("from", when(from)),
            ("mid", when(middle)),
            ("to", when(to)),
            ("said", self.said()),
        ]
    }

    fn window(&self) -> String {
        format!("{} {} {}", self.from(), self.to(), self.tier.slots * STEP)
    }

    /// In a sentence.
    fn words(&self, label: &str) -> String {
        let label = isolated_in_attribute(label);
        let title = self.tier.title.to_lowercase();
        let Some((min, max)) = self.ends() else {
            return format!("{label}, {title}: nothing arrived");
        };
        let (min, max) = (self.unit.short(min), self.unit.short(max));
        let newest = self.intervals.last();
        let newest = newest.map_or_else(String::new, |newest| self.unit.short(newest.avg));
        let said = self.said();
        format!("{label}, {title}: newest mean {newest}, from {min} to {max}; {said}")
    }

    /// The plot; `id` is the prefix of its parts' ids.
    pub fn figure(&self, id: &str, label: &str) -> Markup {
        let [
            (_, high),
            (_, low),
            (_, from),
            (_, middle),
            (_, to),
            (_, said),
        ] = self.texts();
        let width = self.tier.slots * STEP;
        let marks = self.mark_path();
        html! {
            figure.plot data-table={ (id) "t" } {
                figcaption {
                    span.title { (self.tier.title) }
                    " "
                    span.said id={ (id) "said" } { (said) }
                }
                div.canvas {
                    span.hi id={ (id) "hi" } { (high) }
                    span.lo id={ (id) "lo" } { (low) }
                    svg id={ (id) "svg" } viewBox={ "0 0 " (width) " 100" } preserveAspectRatio="none"
                        role="img" aria-label=(self.words(label)) data-window=(self.window()) {
                        path.grid d={ "M0 2H" (width) "M0 50H" (width) "M0 98H" (width) } {}
                        @for (name, path) in self.paths() {
                            path class=(name) id={ (id) (name) } d=(path) {}
                        }
                        @if !marks.is_empty() { path.mark d=(marks) {} }
                    }
                }
                div.axis aria-hidden="true" {
                    span id={ (id) "from" } { (from) }
                    span id={ (id) "mid" } { (middle) }
                    span id={ (id) "to" } { (to) }
                }
            }
        }
    }

    /// The values as a table.
    pub fn table(&self, id: &str, label: &str) -> Markup {
        let unit = match self.unit.name() {
            "" => String::new(),
            name => format!(" ({name})"),
        };
        html! {
            div.scroll tabindex="0" role="region" aria-label={ (isolated_in_attribute(label)) ", " (self.tier.title) ", values" } {
                table.values {
                    caption { (self.tier.title) (unit) }
                    thead {
                        tr {
                            @for head in ["Until (UTC)", "Samples", "Mean", "Min", "Max"] {
                                th scope="col" { (head) }
                            }
                        }
                    }
                    tbody id={ (id) "t" } {
                        @for (_, interval) in self.shown() {
                            @let [end, rest @ ..] = self.cells(interval);
                            tr data-end=(interval.end) {
                                th scope="row" { (end) }
                                @for cell in rest { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }

    fn cells(&self, interval: &PlotInterval) -> [String; 5] {
        let end = match self.tier.width_secs {
            86_400 => date::day(interval.end),
            _ => date::moment(interval.end),
        };
        let count = grouped(interval.count);
        let samples = match self.usual_count() {
            _ if !self.is_closed(interval) => format!("{count} so far"),
            Some(usual) if self.is_whole(interval) && interval.count < usual => {
                format!("{count} of {}", grouped(usual))
            }
            _ => count,
        };
        let [avg, min, max] = [interval.avg, interval.min, interval.max].map(exact);
        [end, samples, avg, min, max]
    }

    /// What has changed of the plot, if it is shown.
    pub fn pieces(&self, id: &str) -> impl Iterator<Item = Piece> + use<> {
        let texts = self
            .texts()
            .map(|(end, text)| Piece::text(format!("{id}{end}"), text));
        let paths = self
            .paths()
            .map(|(end, path)| Piece::path(format!("{id}{end}"), path));
        let window = Piece {
            id: format!("{id}svg"),
            kind: PieceKind::Window,
            value: self.window(),
        };
        texts.into_iter().chain(paths).chain([window])
    }

    /// The newest rows of its table: the last one may have closed meanwhile.
    pub fn rows(&self, id: &str) -> Vec<PieceRow> {
        let newest = self.intervals.len().saturating_sub(2);
        let newest = self.intervals.iter().skip(newest);
        newest
            .map(|interval| PieceRow {
                table: format!("{id}t"),
                end: interval.end,
                rows_max: usize::try_from(self.tier.slots).unwrap_or(usize::MAX),
                cells: self.cells(interval),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_790;

    /// Minutes, so many back, with so many samples.
    fn plot(minutes: &[(u64, u64)]) -> SeriesPlot {
        let end = NOW.next_multiple_of(60);
        let interval = |(back, count): &(u64, u64)| PlotInterval {
            end: end - back * 60,
            count: *count,
            avg: 5.0,
            min: 0.0,
            max: 10.0,
        };
        SeriesPlot {
            tier: HOUR_BY_MINUTE,
            unit: ValueUnit::Percent,
            now: NOW,
            known_from: end - 10 * 60,
            intervals: minutes.iter().map(interval).collect(),
            marks: Vec::new(),
        }
    }

    #[test]
    fn what_arrived_and_what_did_not() {
        for (minutes, said) in [
            (&[][..], "0 samples, 9 minutes without any"),
            (&[(0, 3)], "3 samples, 9 minutes without any"),
            (
                &[
                    (9, 60),
                    (8, 60),
                    (7, 60),
                    (6, 60),
                    (5, 60),
                    (4, 60),
                    (3, 60),
                    (2, 60),
                    (1, 60),
                    (0, 2),
                ],
                "480 samples",
            ),
            (
                &[
                    (9, 60),
                    (8, 60),
                    (7, 30),
                    (4, 60),
                    (3, 60),
                    (2, 60),
                    (1, 60),
                    (0, 2),
                ],
                "330 of about 480 expected samples, 2 minutes without any",
            ),
        ] {
            assert_eq!(plot(minutes).said(), said, "{minutes:?}");
        }
    }

    #[test]
    fn gaps_are_drawn_as_gaps() {
        let [(_, gap), (_, band), (_, mean), (_, part)] =
            plot(&[(3, 60), (2, 60), (1, 30)]).paths();
        assert_eq!(mean, "M560 50L565 50L575 50L585 50H590");
        assert_eq!(
            band,
            "M560 2L565 2L575 2L585 2H590V98L585 98L575 98L565 98H560Z"
        );
        assert_eq!(part, "M580 100h10v-5h-10z");
        assert_eq!(gap.matches('M').count(), 6, "{gap}");
        assert!(gap.starts_with("M500 0h10v100h-10z"), "{gap}");
        // One after another, with a gap between them.
        let [_, _, (_, mean), _] = plot(&[(3, 60), (1, 60)]).paths();
        assert_eq!(mean, "M560 50L565 50H570M580 50L585 50H590");
    }

    #[test]
    fn a_table_has_the_values() {
        let html = plot(&[(2, 60), (1, 58), (0, 2)])
            .table("a", "cpu")
            .into_string();
        assert!(
            html.contains("<td>58</td><td>5</td><td>0</td><td>10</td>"),
            "{html}"
        );
        assert!(html.contains("<td>2 so far</td>"), "{html}");
    }

    #[test]
    fn marks_are_within_the_plot() {
        let mut plot = plot(&[(1, 60)]);
        for (from, to, expected) in [
            (NOW - 60, None, "M585 0h10v4h-10z"),
            (NOW - 86_400, Some(NOW - 60), "M0 0h585v4h-585z"),
            (NOW - 86_400, Some(NOW - 80_000), ""),
            (NOW, None, "M595 0h5v4h-5z"),
        ] {
            plot.marks = vec![AlarmMark {
                from,
                to,
                text: "a".to_owned(),
            }];
            assert_eq!(plot.mark_path(), expected, "{from} {to:?}");
        }
    }
}
