//! One host: every label.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use maud::{Markup, html};

use crate::badge::{Badge, badges};
use crate::date;
use crate::frame::Paging;
use crate::link;
use crate::overview::ends;
use crate::piece::{Piece, PieceRow};
use crate::plot::SeriesPlot;
use crate::text::{counted, grouped, isolated, isolated_in_attribute};
use crate::trust::revoke;
use crate::unit::ValueUnit;

/// How many labels a page has.
pub const LABELS_PER_PAGE: u64 = 12;

/// How far back the plots reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum PlotRange {
    /// The last hour and the last day, beside each other.
    #[default]
    HourAndDay,
    /// The last hour.
    Hour,
    /// The last day.
    Day,
    /// The last 31 days.
    Month,
    /// The last 400 days.
    Year,
}

impl PlotRange {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::HourAndDay,
        Self::Hour,
        Self::Day,
        Self::Month,
        Self::Year,
    ];

    /// In the query; empty for the default.
    pub fn key(self) -> &'static str {
        match self {
            Self::HourAndDay => "",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The range of this key; the default for any other.
    pub fn of(key: &str) -> Self {
        let found = Self::ALL.into_iter().find(|range| range.key() == key);
        found.unwrap_or_default()
    }

    fn name(self) -> &'static str {
        match self {
            Self::HourAndDay => "Hour and day",
            Self::Hour => "Hour",
            Self::Day => "Day",
            Self::Month => "31 days",
            Self::Year => "400 days",
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostQuery {
    /// One label alone, if not empty.
    pub label: String,
    /// A part of the labels.
    pub search: String,
    /// How far back.
    pub range: PlotRange,
    /// Which page, from 1.
    pub page: u64,
}

impl HostQuery {
    fn link(&self, page: u64) -> String {
        let page = if page > 1 {
            page.to_string()
        } else {
            String::new()
        };
        link::query(&[
            ("label", &self.label),
            ("q", &self.search),
            ("range", self.range.key()),
            ("page", &page),
        ])
    }

    /// The parameters of the event stream of this host.
    pub fn live(&self, host: &str) -> String {
        let page = self.page.to_string();
        link::query(&[
            ("host", host),
            ("label", &self.label),
            ("q", &self.search),
            ("range", self.range.key()),
            ("page", &page),
        ])
    }
}

/// A label with its plots.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelPlots {
    /// The label.
    pub label: String,
    /// The mean of its newest minute.
    pub newest: Option<f64>,
    /// The plots, side by side.
    pub plots: Vec<SeriesPlot>,
}

/// What of a host's records arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct DeliverySums {
    /// Different numbers that arrived.
    pub received: u64,
    /// Numbers that have not arrived, and were not dropped.
    pub lost: u64,
    /// Records that came again, and did not count.
    pub duplicate: u64,
    /// Numbers that their producer dropped.
    pub dropped: u64,
    /// Records that arrived as a repair.
    pub repaired: u64,
}

/// A host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostPage {
    /// Its name.
    pub name: String,
    /// What was asked for.
    pub query: HostQuery,
    /// The present time: epoch seconds.
    pub now: u64,
    /// What is wrong with it, worst first.
    pub badges: Vec<Badge>,
    /// When something came from it last: epoch seconds.
    pub last_received: u64,
    /// The time from one sample to the next, in seconds, if it is known.
    pub spacing_secs: Option<u64>,
    /// When its certificate ends: epoch seconds.
    pub certificate_end: u64,
    /// What arrived of it.
    pub delivery: DeliverySums,
    /// What its monitor says of the machine.
    pub facts: Vec<(String, String)>,
    /// Which part of the labels found this is.
    pub paging: Paging,
    /// The labels.
    pub labels: Vec<LabelPlots>,
}

impl HostPage {
    /// Changes when something else than values and times does: then the page is asked for again.
    pub fn shape(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (&self.badges, &self.facts, self.paging.entries).hash(&mut hasher);
        for label in &self.labels {
            label.label.hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }

    /// The page's contents.
    pub fn markup(&self) -> Markup {
        html! {
            p.crumbs { a href="../" { "Hosts" } " / " }
            div.title {
                h1 { (isolated(&self.name)) }
                div #shape data-shape=(self.shape()) { (badges(&self.badges)) }
            }
            (self.facts())
            (self.controls())
            p.count #count role="status" { (self.found()) }
            div #results { (self.results()) }
        }
    }

    fn facts(&self) -> Markup {
        let DeliverySums {
            received,
            lost,
            duplicate,
            ..
        } = self.delivery;
        html! {
            dl.facts {
                div { dt { "Last sample" } dd id="when" { (date::ago(self.last_received, self.now)) } }
                @if let Some(secs) = self.spacing_secs {
                    div { dt { "A sample" } dd { "every " (date::span(secs)) } }
                }
                @if self.certificate_end > 0 {
                    div { dt { "Certificate ends" } dd { (ends(self.certificate_end, self.now)) " " (revoke("../", &self.name)) } }
                }
                div {
                    dt { a href={ "../delivery" (link::query(&[("q", &self.name)])) } { "Delivery" } }
                    dd id="delivered" { (delivered(received, lost, duplicate)) }
                }
                @for (name, value) in &self.facts {
                    @let (name, value) = fact(name, value, self.now);
                    div { dt { (isolated(name)) } dd { (isolated(&value)) } }
                }
            }
        }
    }

    fn controls(&self) -> Markup {
        html! {
            div.controls {
                form.search role="search" method="get" data-search="results" {
                    label for="q" { "Search labels" }
                    input #q type="search" name="q" value=(self.query.search) placeholder="Part of a label" autocomplete="off" spellcheck="false" maxlength="1024";
                    @if self.query.range != PlotRange::default() {
                        input type="hidden" name="range" value=(self.query.range.key());
                    }
                    button type="submit" { "Search" }
                }
                nav.ranges aria-label="How far back" {
                    ul {
                        @for range in PlotRange::ALL {
                            @let query = HostQuery { range, page: self.query.page, ..self.query.clone() };
                            @let is_shown = range == self.query.range;
                            li { a href=(query.link(query.page)) aria-current=[is_shown.then_some("true")] { (range.name()) } }
                        }
                    }
                }
            }
        }
    }

    /// The link to all labels.
    fn all(&self) -> String {
        let all = HostQuery {
            range: self.query.range,
            ..HostQuery::default()
        };
        all.link(1)
    }

    fn found(&self) -> Markup {
        html! {
            @if self.query.label.is_empty() {
                (counted(self.paging.entries, "label", "labels"))
            } @else {
                a href=(self.all()) { "All labels" }
            }
        }
    }

    fn results(&self) -> Markup {
        html! {
            @if self.labels.is_empty() {
                div.nothing {
                    p { "No label is like this. " a href=(self.all()) { "Show all labels" } }
                }
            }
            @for (at, label) in self.labels.iter().enumerate() { (self.label(at, label)) }
            (self.paging.links(|page| self.query.link(page)))
        }
    }

    fn label(&self, at: usize, label: &LabelPlots) -> Markup {
        let alone = HostQuery {
            label: label.label.clone(),
            range: self.query.range,
            ..HostQuery::default()
        };
        let unit = ValueUnit::of(&label.label);
        let newest = label.newest.map(|value| unit.short(value));
        html! {
            section.label aria-labelledby={ "l" (at) } {
                div.head {
                    h2 id={ "l" (at) } { a href=(alone.link(1)) { (isolated(&label.label)) } }
                    span.newest id={ "l" (at) "v" } { (newest.unwrap_or_else(|| "–".to_owned())) }
                }
                div.plots {
                    @for plot in &label.plots { (plot.figure(&id(at, plot), &label.label)) }
                }
                details {
                    summary { "Values" span.hidden { " of " (isolated(&label.label)) } }
                    div.tables {
                        @for plot in &label.plots { (plot.table(&id(at, plot), &label.label)) }
                    }
                }
            }
        }
    }

    /// The values that change while the page is shown.
    pub fn pieces(&self) -> Vec<Piece> {
        let DeliverySums {
            received,
            lost,
            duplicate,
            ..
        } = self.delivery;
        let mut pieces = vec![
            Piece::text("when".to_owned(), date::ago(self.last_received, self.now)),
            Piece::text("delivered".to_owned(), delivered(received, lost, duplicate)),
        ];
        for (at, label) in self.labels.iter().enumerate() {
            let unit = ValueUnit::of(&label.label);
            if let Some(newest) = label.newest {
                pieces.push(Piece::text(format!("l{at}v"), unit.short(newest)));
            }
            let plots = label.plots.iter();
            pieces.extend(plots.flat_map(|plot| plot.pieces(&id(at, plot))));
        }
        pieces
    }

    /// The newest rows of its tables.
    pub fn rows(&self) -> Vec<PieceRow> {
        let labels = self.labels.iter().enumerate();
        labels
            .flat_map(|(at, label)| {
                let plots = label.plots.iter();
                plots.flat_map(move |plot| plot.rows(&id(at, plot)))
            })
            .collect()
    }

    /// The title of the page.
    pub fn title(&self) -> String {
        match self.query.label.as_str() {
            "" => self.name.clone(),
            label => format!("{} of {}", isolated_in_attribute(label), self.name),
        }
    }
}

fn id(at: usize, plot: &SeriesPlot) -> String {
    format!("l{at}{}", plot.tier.key)
}

/// As `lizctl audit` says it: no number ever counts twice.
pub fn delivered(received: u64, lost: u64, duplicate: u64) -> String {
    let ignored = match duplicate {
        0 => String::new(),
        _ => format!(
            ", {} ignored",
            counted(duplicate, "duplicate", "duplicates")
        ),
    };
    format!(
        "received {}, lost {}, twice 0{ignored}",
        grouped(received),
        grouped(lost)
    )
}
/// A fact as a person reads it: sizes and times by the end of their name, everything else as it is.
fn fact<'a>(name: &'a str, value: &str, now: u64) -> (&'a str, String) {
    let ending = |end| name.strip_suffix(end).zip(value.parse::<u64>().ok());
    match (ending("-bytes"), ending("-epoch")) {
        (Some((name, bytes)), _) => (name, ValueUnit::Bytes.short(bytes as f64)),
        (_, Some((name, epoch))) => (name, date::ago(epoch, now)),
        _ => (name, value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_as_people_read_them() {
        let now = 1_465_001_814;
        for (name, value, expected) in [
            ("memory-bytes", "25276510208", ("memory", "23.5 GiB")),
            ("boot-epoch", "1464998214", ("boot", "1 h ago")),
            ("kernel", "6.1.0-44-amd64", ("kernel", "6.1.0-44-amd64")),
            ("cores", "2", ("cores", "2")),
            ("x-bytes", "many", ("x-bytes", "many")),
            ("x-bytes", "-1", ("x-bytes", "-1")),
            ("x-epoch", "1e3", ("x-epoch", "1e3")),
            ("bytes", "7", ("bytes", "7")),
        ] {
            let (shown, said) = fact(name, value, now);
            assert_eq!((shown, &*said), expected);
        }
    }
}
