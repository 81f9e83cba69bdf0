//! Why there is no page.

use maud::{Markup, html};

use crate::frame;
use crate::text::isolated;

/// An error, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalPage {
    /// From the page to the root: empty, or `../`.
    pub root: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong.
    pub title: String,
    /// More of it.
    pub detail: Option<String>,
    /// Its code, for programs and searches.
    pub code: &'static str,
}

impl RefusalPage {
    /// The whole page.
    pub fn markup(&self) -> Markup {
        let main = html! {
            p.status { (self.status) }
            h1 { (self.title) }
            @if let Some(detail) = &self.detail { p { (isolated(detail)) } }
            (self.remedy())
            p.quiet { code { (self.code) } }
        };
        frame::bare(self.root, &self.title, &main)
    }

    fn remedy(&self) -> Markup {
        html! {
            @match self.status {
                401 | 403 => {
                    p { "This page is for who shows a reader's or an operator's certificate. Open it by" }
                    pre { code { "lizctl open" } }
                    p { "or import a certificate into the browser: " code { "lizctl issue-reader NAME --p12 FILE" } "." }
                }
                404 => p { a href={ (self.root) "./" } { "All hosts" } }
                429 | 503 => p { "Try again in a moment." }
                _ => {}
            }
        }
    }
}
