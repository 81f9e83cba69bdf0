//! All hosts: what needs somebody first.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use maud::{Markup, html};

use crate::badge::{Badge, badges};
use crate::date;
use crate::frame::Paging;
use crate::link;
use crate::piece::Piece;
use crate::spark::{DayCover, Spark};
use crate::text::{counted, grouped, isolated, isolated_in_attribute, visible};

/// How many hosts a page has.
pub const HOSTS_PER_PAGE: u64 = 50;
/// How many tags are offered.
pub const TAGS_MAX: usize = 24;
/// How many columns have a series.
pub const COLUMNS_MAX: usize = 3;

/// A part of the hosts, with the question that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFilter {
    /// In the query; empty for all.
    pub key: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Whether it is good if there are none.
    pub is_trouble: bool,
}

/// All of them, in the order of the page.
pub const FILTERS: [HostFilter; 6] = [
    filter("", "Hosts", false),
    filter("alarms", "With alarms", true),
    filter("silent", "Silent now", true),
    filter("gaps", "Silent in the last day", true),
    filter("disks", "Disks nearly full", true),
    filter("certificates", "Certificates not renewed", true),
];

const fn filter(key: &'static str, name: &'static str, is_trouble: bool) -> HostFilter {
    HostFilter {
        key,
        name,
        is_trouble,
    }
}

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverviewQuery {
    /// A part of the names.
    pub search: String,
    /// The key of a filter.
    pub show: String,
    /// A tag, `env=prod`.
    pub tag: String,
    /// Which page, from 1.
    pub page: u64,
}

impl OverviewQuery {
    /// The query that asks for this page of the same hosts.
    fn link(&self, page: u64) -> String {
        let page = if page > 1 {
            page.to_string()
        } else {
            String::new()
        };
        link::query(&[
            ("q", &self.search),
            ("show", &self.show),
            ("tag", &self.tag),
            ("page", &page),
        ])
    }

    /// The query of the page itself.
    pub fn own(&self) -> String {
        self.link(self.page)
    }
}

/// One host in the list.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRow {
    /// Its name.
    pub name: String,
    /// What is wrong with it, worst first.
    pub badges: Vec<Badge>,
    /// Its series in the columns of the page, each with its label.
    pub sparks: Vec<Option<(String, Spark)>>,
    /// The last day.
    pub cover: DayCover,
    /// When something came from it last: epoch seconds.
    pub last_received: u64,
    /// When its certificate ends: epoch seconds.
    pub certificate_end: u64,
}

/// The list of hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct OverviewPage {
    /// What was asked for.
    pub query: OverviewQuery,
    /// The present time: epoch seconds.
    pub now: u64,
    /// How many hosts each of [`FILTERS`] has.
    pub counts: [u64; FILTERS.len()],
    /// Tags of hosts, and how many have each: at most [`TAGS_MAX`].
    pub tags: Vec<(String, u64)>,
    /// Which part of the hosts found this is.
    pub paging: Paging,
    /// The heads of the columns with series.
    pub columns: Vec<String>,
    /// The hosts.
    pub rows: Vec<HostRow>,
    /// What the reader's certificate is limited to.
    pub limits: Vec<String>,
}

impl OverviewPage {
    /// Changes when something else than values and times does: then the list is asked for again.
    pub fn shape(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (self.counts, &self.tags, self.paging.entries, &self.columns).hash(&mut hasher);
        for row in &self.rows {
            (&row.name, &row.badges, &row.cover.hours).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }

    /// The page's contents.
    pub fn markup(&self) -> Markup {
        html! {
            h1 { "Hosts" }
            div #shape data-shape=(self.shape()) {
                (self.tiles())
                (self.tags())
            }
            (self.search())
            p.count #count role="status" { (self.found()) }
            div #results { (self.results()) }
        }
    }

    fn tiles(&self) -> Markup {
        html! {
            nav.tiles aria-label="Which hosts to list" {
                ul {
                    @for (filter, count) in FILTERS.iter().zip(self.counts) {
                        @let is_shown = filter.key == self.query.show;
                        @let query = OverviewQuery { show: filter.key.to_owned(), page: 1, ..self.query.clone() };
                        @let is_bad = filter.is_trouble && count > 0;
                        li {
                            a.trouble[is_bad] href=(query.own()) aria-current=[is_shown.then_some("true")] {
                                strong { (grouped(count)) } " " span { (filter.name) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn tags(&self) -> Markup {
        html! {
            @if !self.tags.is_empty() {
                nav.tags aria-label="Tags" {
                    ul {
                        @for (tag, hosts) in &self.tags {
                            @let is_shown = *tag == self.query.tag;
                            // The shown one is taken away again.
                            @let other = if is_shown { String::new() } else { tag.clone() };
                            @let query = OverviewQuery { tag: other, page: 1, ..self.query.clone() };
                            li {
                                a href=(query.own()) aria-current=[is_shown.then_some("true")] {
                                    (isolated(tag)) " " span.quiet { (grouped(*hosts)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn search(&self) -> Markup {
        html! {
            form.search role="search" method="get" action="./" data-search="results" {
                label for="q" { "Search hosts" }
                input #q type="search" name="q" value=(self.query.search) placeholder="Part of a name" autocomplete="off" spellcheck="false" maxlength="200";
                @if !self.query.show.is_empty() {
                    input type="hidden" name="show" value=(self.query.show);
                }
                @if !self.query.tag.is_empty() {
                    input type="hidden" name="tag" value=(self.query.tag);
                }
                button type="submit" { "Search" }
            }
        }
    }

    fn results(&self) -> Markup {
        html! {
            @if self.rows.is_empty() {
                (self.nothing())
            } @else {
                (self.table())
            }
            (self.paging.links(|page| self.query.link(page)))
        }
    }

    fn found(&self) -> String {
        let found = counted(self.paging.entries, "host", "hosts");
        let first = self.paging.first() as u64;
        let last = first + self.rows.len() as u64;
        if self.paging.entries > self.rows.len() as u64 && !self.rows.is_empty() {
            return format!("{found}: {} to {}", grouped(first + 1), grouped(last));
        }
        found
    }

    fn nothing(&self) -> Markup {
        let OverviewQuery {
            search, show, tag, ..
        } = &self.query;
        let is_asked = !(search.is_empty() && show.is_empty() && tag.is_empty());
        html! {
            div.nothing {
                @if is_asked {
                    p { "No host is like this. " a href="./" { "Show all hosts" } }
                } @else if !self.limits.is_empty() {
                    h2 { "No host that you may see has reported" }
                    p { "Your certificate is limited to " (isolated(&self.limits.join(", "))) ". There may be others." }
                } @else {
                    h2 { "No host has reported yet" }
                    p { a href="add" { "Add a machine" } }
                }
            }
        }
    }

    fn table(&self) -> Markup {
        html! {
            table.hosts {
                caption.hidden { "Hosts, with what needs somebody first" }
                thead {
                    tr {
                        th scope="col" { "Host" }
                        th scope="col" { "State" }
                        @for (at, column) in self.columns.iter().enumerate() {
                            th class={ "value c" (at) } scope="col" { (isolated(column)) }
                        }
                        th.day scope="col" { "Last 24 hours" }
                        th.when scope="col" { "Last sample" }
                        th.end scope="col" { "Certificate ends" }
                    }
                }
                tbody {
                    @for (at, row) in self.rows.iter().enumerate() { (self.row(at, row)) }
                }
            }
        }
    }

    fn row(&self, at: usize, row: &HostRow) -> Markup {
        let end = row.certificate_end;
        html! {
            tr {
                th scope="row" {
                    a href=(link::host("", &row.name)) { (isolated(&row.name)) }
                }
                td.state { (badges(&row.badges)) }
                @for (column, spark) in row.sparks.iter().enumerate() {
                    td class={ "value c" (column) } {
                        @if let Some((label, spark)) = spark {
                            @let is_other = self.columns.get(column) != Some(label);
                            (spark.svg(&id(at, column)))
                            span.newest id={ (id(at, column)) "v" } { (spark.newest()) }
                            @if is_other {
                                span.label title=(isolated_in_attribute(label)) { (isolated(label)) }
                            }
                        } @else {
                            span.none { "–" }
                        }
                    }
                }
                td.day { (row.cover.svg()) }
                td.when id={ "h" (at) "w" } { (date::ago(row.last_received, self.now)) }
                td.end {
                    @if end > 0 {
                        time datetime=(date::machine(end)) title={ (date::moment(end)) " UTC" } { (ends(end, self.now)) }
                    }
                }
            }
        }
    }

    /// The values that change while the page is shown.
    pub fn pieces(&self) -> Vec<Piece> {
        let rows = self.rows.iter().enumerate();
        rows.flat_map(|(at, row)| {
            let ago = date::ago(row.last_received, self.now);
            let mut pieces = vec![Piece::text(format!("h{at}w"), ago)];
            for (column, spark) in row.sparks.iter().enumerate() {
                let Some((_, spark)) = spark else { continue };
                let id = id(at, column);
                let (line, area) = spark.paths();
                pieces.push(Piece::text(format!("{id}v"), spark.newest()));
                pieces.push(Piece::path(format!("{id}l"), line));
                pieces.push(Piece::path(format!("{id}a"), area));
            }
            pieces
        })
        .collect()
    }
}

fn id(row: usize, column: usize) -> String {
    format!("h{row}c{column}")
}

/// In how long a certificate ends.
pub fn ends(end: u64, now: u64) -> String {
    match end.checked_sub(now) {
        Some(left) => format!("in {}", date::span(left)),
        None => format!("ended {}", date::ago(end, now)),
    }
}

/// The title of the page.
pub fn title(query: &OverviewQuery) -> String {
    match query.search.is_empty() {
        true => "Hosts".to_owned(),
        false => format!("Hosts like {}", visible(&query.search)),
    }
}
