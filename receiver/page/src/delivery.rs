//! What arrived of each host's records.

use maud::{Markup, html};

use crate::date;
use crate::frame::Paging;
use crate::host::DeliverySums;
use crate::link;
use crate::text::{counted, grouped, isolated};

/// How many producers a page has.
pub const PRODUCERS_PER_PAGE: u64 = 100;

/// One producer of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerArrivals {
    /// The host.
    pub host: String,
    /// The producer; none for a host that sends records without numbers.
    pub producer: Option<String>,
    /// What arrived.
    pub sums: DeliverySums,
    /// When something came from it last: epoch seconds.
    pub last_taken: u64,
}

/// What arrived of all hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPage {
    /// A part of the hosts' names.
    pub search: String,
    /// The present time: epoch seconds.
    pub now: u64,
    /// The sums of all hosts found.
    pub sums: DeliverySums,
    /// Which part of the producers found this is.
    pub paging: Paging,
    /// The producers: those that lost something first.
    pub rows: Vec<ProducerArrivals>,
}

impl DeliveryPage {
    /// The page's contents.
    pub fn markup(&self) -> Markup {
        let DeliverySums {
            received,
            lost,
            duplicate,
            ..
        } = self.sums;
        html! {
            h1 { "Delivery" }
            p.lead {
                strong { (counted(received, "record", "records")) " received, lost " (grouped(lost)) ", twice 0" }
                " up to each producer's highest number. "
                (counted(duplicate, "duplicate", "duplicates")) " changed nothing."
            }
            form.search role="search" method="get" data-search="results" {
                label for="q" { "Search hosts" }
                input #q type="search" name="q" value=(self.search) placeholder="Part of a name" autocomplete="off" spellcheck="false" maxlength="200";
                button type="submit" { "Search" }
            }
            p.count #count role="status" { (counted(self.paging.entries, "producer", "producers")) }
            div #results {
                    @if self.rows.is_empty() {
                    div.nothing { p { "Nothing has arrived." } }
                } @else {
                    (self.table())
                }
                (self.paging.links(|page| link::query(&[("q", &self.search), ("page", &page.to_string())])))
            }
        }
    }

    fn table(&self) -> Markup {
        html! {
            div.scroll tabindex="0" role="region" aria-label="Producers" {
                table.plain {
                    caption.hidden { "Producers, with those that lost records first" }
                    thead {
                        tr {
                            th scope="col" { "Host" }
                            @for head in ["Received", "Lost", "Twice", "Duplicates ignored", "Dropped", "Repaired"] {
                                th.number scope="col" { (head) }
                            }
                            th scope="col" { "Last record" }
                            th scope="col" { "Producer" }
                        }
                    }
                    tbody { @for row in &self.rows { (self.row(row)) } }
                }
            }
            p.note {
                "Numbers that have not arrived are lost, or still on the way: ask again in a minute. "
                code { "lizctl audit HOST" } " lists them."
            }
        }
    }

    fn row(&self, row: &ProducerArrivals) -> Markup {
        let DeliverySums {
            received,
            lost,
            duplicate,
            dropped,
            repaired,
        } = row.sums;
        html! {
            tr {
                th scope="row" { a href=(link::host("", &row.host)) { (isolated(&row.host)) } }
                @if let Some(producer) = &row.producer {
                    td.number { (grouped(received)) }
                    td.number {
                        @if lost > 0 { strong.bad { (grouped(lost)) } } @else { "0" }
                    }
                    td.number { "0" }
                    td.number { (grouped(duplicate)) }
                    td.number { (grouped(dropped)) }
                    td.number { (grouped(repaired)) }
                    td { (date::ago(row.last_taken, self.now)) }
                    td.small { code { (producer) } }
                } @else {
                    td.small colspan="8" { "sends records without numbers: what is lost of them is not known" }
                }
            }
        }
    }
}
