//! What all pages have around their contents.

use maud::{DOCTYPE, Markup, html};

use crate::assets;
use crate::date;
use crate::text::isolated;

/// Nothing but the page's own files, and nothing inline: an element that somebody smuggled in could
/// neither run nor send anything. Forms ask the page itself.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Where a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageSection {
    /// The list of hosts, and a host.
    Hosts,
    /// The alarms.
    Alarms,
    /// What arrived.
    Delivery,
    /// Certificates and CRLs.
    Trust,
    /// How a machine is added.
    Add,
}

impl PageSection {
    const ALL: [Self; 5] = [
        Self::Hosts,
        Self::Alarms,
        Self::Delivery,
        Self::Trust,
        Self::Add,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hosts => "Hosts",
            Self::Alarms => "Alarms",
            Self::Delivery => "Delivery",
            Self::Trust => "Trust",
            Self::Add => "Add a machine",
        }
    }

    /// Its path from the root.
    fn path(self) -> &'static str {
        match self {
            Self::Hosts => "./",
            Self::Alarms => "alarms",
            Self::Delivery => "delivery",
            Self::Trust => "trust",
            Self::Add => "add",
        }
    }
}

/// What is the same on each page.
#[derive(Debug, Clone)]
pub struct PageFrame {
    /// From the page to the root: empty, or `../`.
    pub root: &'static str,
    /// Which page it is.
    pub section: PageSection,
    /// Its title.
    pub title: String,
    /// Who reads it.
    pub reader: String,
    /// The present time: epoch seconds.
    pub now: u64,
    /// What the receiver warns of.
    pub warnings: Vec<String>,
    /// The query of its event stream, if it has one.
    pub live: Option<String>,
}

/// The head of every page. Without a root there is no style sheet and no script.
fn head(root: &str, title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · lizmon" }
            link rel="icon" type="image/svg+xml" href={ (root) "assets/" (assets::ICON.name) };
            link rel="stylesheet" href={ (root) "assets/" (assets::STYLE.name) };
            script type="module" src={ (root) "assets/" (assets::SCRIPT.name) } {}
        }
    }
}

/// A page.
pub fn page(frame: &PageFrame, main: &Markup) -> Markup {
    let PageFrame { root, now, .. } = frame;
    let live = frame
        .live
        .as_ref()
        .map(|query| format!("{root}live{query}"));
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(root, &frame.title))
            body data-live=[live] {
                a.skip href="#main" { "Skip to the contents" }
                header.top {
                    a.brand href={ (root) "./" } {
                        svg viewBox="0 0 32 32" aria-hidden="true" {
                            rect width="32" height="32" rx="8" {}
                            path d="M5 19h5l3-9 5 14 4-10 2 5h3" {}
                        }
                        "lizmon"
                    }
                    nav aria-label="Pages" {
                        ul {
                            @for section in PageSection::ALL {
                                @let current = (section == frame.section).then_some("page");
                                li { a href={ (root) (section.path()) } aria-current=[current] { (section.name()) } }
                            }
                        }
                    }
                    p.who {
                        span #live role="status" {}
                        " " span.reader { (isolated(&frame.reader)) }
                    }
                }
                @if !frame.warnings.is_empty() {
                    section.warnings aria-label="The receiver's warnings" {
                        ul { @for warning in &frame.warnings { li { (isolated(warning)) } } }
                    }
                }
                main #main tabindex="-1" { (main) }
                footer {
                    p {
                        "As of " time datetime=(date::machine(*now)) { (date::moment(*now)) " UTC" }
                        ". All times are UTC."
                    }
                }
            }
        }
    }
}

/// A page for who may not see another: it says why.
pub fn bare(root: &str, title: &str, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(root, title))
            body.bare { main #main { (main) } }
        }
    }
}

/// Links to the pages of a long list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    /// Which page, from 1.
    pub page: u64,
    /// How many entries a page has.
    pub size: u64,
    /// How many entries there are.
    pub entries: u64,
}

impl Paging {
    /// The asked page, or the last one there is.
    pub fn new(page: u64, size: u64, entries: u64) -> Self {
        let last = entries.div_ceil(size.max(1)).max(1);
        let page = page.clamp(1, last);
        Self {
            page,
            size,
            entries,
        }
    }

    fn pages(self) -> u64 {
        self.entries.div_ceil(self.size.max(1)).max(1)
    }

    /// The first entry of the page, from 0.
    pub fn first(self) -> usize {
        usize::try_from((self.page - 1) * self.size).unwrap_or(usize::MAX)
    }

    /// How many entries a page has at most.
    pub fn size(self) -> usize {
        usize::try_from(self.size).unwrap_or(usize::MAX)
    }

    /// Previous and next, if there are any. `link` makes the link of a page.
    pub fn links(self, link: impl Fn(u64) -> String) -> Markup {
        let (page, pages) = (self.page, self.pages());
        html! {
            @if pages > 1 {
                nav.paging aria-label="Parts of the list" {
                    @if page > 1 { a rel="prev" href=(link(page - 1)) { "← Previous" } }
                    span { "Page " (page) " of " (pages) }
                    @if page < pages { a rel="next" href=(link(page + 1)) { "Next →" } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_list() {
        for (page, entries, expected) in [
            (0, 0, (1, 0)),
            (1, 50, (1, 0)),
            (2, 50, (1, 0)),
            (2, 51, (2, 50)),
            (u64::MAX, 5_000, (100, 4_950)),
        ] {
            let paging = Paging::new(page, 50, entries);
            assert_eq!((paging.page, paging.first()), expected, "{page} {entries}");
        }
        let links = Paging::new(2, 50, 150).links(|page| format!("?page={page}"));
        let links = links.into_string();
        assert!(
            links.contains("?page=1") && links.contains("?page=3"),
            "{links}"
        );
        assert_eq!(
            Paging::new(1, 50, 50)
                .links(|_| String::new())
                .into_string(),
            ""
        );
    }
}
