//! The alarms.

use maud::{Markup, html};

use crate::badge::{Badge, badges};
use crate::date;
use crate::frame::Paging;
use crate::link;
use crate::text::{counted, isolated};

/// How many alarms a page has.
pub const ALARMS_PER_PAGE: u64 = 100;

/// One alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmRow {
    /// Its rule.
    pub rule: String,
    /// The host.
    pub host: String,
    /// The label, if it is about one.
    pub label: Option<String>,
    /// Its state and severity.
    pub badges: Vec<Badge>,
    /// Since when it is in that state: epoch seconds.
    pub since: u64,
    /// The value that it is about, as text.
    pub value: String,
    /// Until when it is silenced: epoch seconds.
    pub silenced_until: Option<u64>,
}

/// The page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmsPage {
    /// A part of the hosts, rules and labels.
    pub search: String,
    /// The present time: epoch seconds.
    pub now: u64,
    /// Which part of the alarms this is.
    pub paging: Paging,
    /// The alarms: those that fire first.
    pub rows: Vec<AlarmRow>,
}

impl AlarmsPage {
    /// The page's contents.
    pub fn markup(&self) -> Markup {
        html! {
            h1 { "Alarms" }
            form.search role="search" method="get" data-search="results" {
                label for="q" { "Search alarms" }
                input #q type="search" name="q" value=(self.search) placeholder="Part of a host, rule or label" autocomplete="off" spellcheck="false" maxlength="200";
                button type="submit" { "Search" }
            }
            p.count #count role="status" { (counted(self.paging.entries, "alarm", "alarms")) }
            div #results { (self.results()) }
            p.note {
                "An operator silences a host by " code { "lizctl silence HOST --for 2h --why TEXT" } "."
            }
        }
    }

    fn results(&self) -> Markup {
        html! {
            @if !self.rows.is_empty() {
                (self.table())
            } @else if self.search.is_empty() {
                div.nothing { p { "No alarm fires, and none has ended a while ago." } }
            } @else {
                div.nothing { p { "No alarm is like this. " a href="alarms" { "Show all alarms" } } }
            }
            (self.paging.links(|page| link::query(&[("q", &self.search), ("page", &page.to_string())])))
        }
    }

    fn table(&self) -> Markup {
        html! {
            div.scroll tabindex="0" role="region" aria-label="Alarms" {
                table.plain {
                    caption.hidden { "Alarms, those that fire first" }
                    thead {
                        tr { @for head in ["Host", "State", "Rule", "Label", "Value", "Since", "Silenced until"] { th scope="col" { (head) } } }
                    }
                    tbody {
                        @for row in &self.rows {
                            tr {
                                th scope="row" { a href=(link::host("", &row.host)) { (isolated(&row.host)) } }
                                td { (badges(&row.badges)) }
                                td { (isolated(&row.rule)) }
                                td {
                                    @if let Some(label) = &row.label {
                                        a href={ (link::host("", &row.host)) (link::query(&[("label", label)])) } { (isolated(label)) }
                                    }
                                }
                                td.number { (row.value) }
                                td {
                                    time datetime=(date::machine(row.since)) { (date::moment(row.since)) }
                                    " " span.quiet { (date::ago(row.since, self.now)) }
                                }
                                td { @if let Some(until) = row.silenced_until { (date::moment(until)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
