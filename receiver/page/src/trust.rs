//! Certificates and CRLs, as this receiver knows them.

use maud::{Markup, html};

use crate::badge::{Badge, badges};
use crate::date;
use crate::frame::Paging;
use crate::link;
use crate::overview::ends;
use crate::text::{counted, isolated};

/// How many certificates a page has.
pub const CERTIFICATES_PER_PAGE: u64 = 100;

/// A certificate that was shown here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// The role in it.
    pub role: String,
    /// The name in it.
    pub name: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// Who issued it.
    pub issuer: String,
    /// When it ends: epoch seconds.
    pub end: u64,
    /// When it was shown last: epoch seconds.
    pub last_seen: u64,
    /// Whether it is a machine's that could be revoked.
    pub may_be_revoked: bool,
    /// What is wrong with it.
    pub badges: Vec<Badge>,
}

/// A CRL in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlRow {
    /// Who signed it.
    pub issuer: String,
    /// Its number.
    pub number: String,
    /// When it was signed: epoch seconds.
    pub this_update: u64,
    /// When it ends: epoch seconds.
    pub next_update: u64,
    /// What is wrong with it.
    pub badges: Vec<Badge>,
}

/// A certificate that the receiver itself uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificateRow {
    /// What it is for.
    pub part: String,
    /// Whose it is.
    pub subject: String,
    /// Since when: epoch seconds.
    pub begin: u64,
    /// When it ends: epoch seconds.
    pub end: u64,
    /// What is wrong with it.
    pub badges: Vec<Badge>,
}

/// Leads to the page that revokes the machine, from a page at this root.
pub(crate) fn revoke(root: &str, name: &str) -> Markup {
    html! {
        a href=(link::revoke(root, name)) { "Revoke" span.hidden { " " (isolated(name)) } }
    }
}

/// The page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustPage {
    /// A part of the names.
    pub search: String,
    /// The present time: epoch seconds.
    pub now: u64,
    /// Since when certificates are noted: epoch seconds.
    pub since: u64,
    /// Whether there were too many to note all.
    pub is_complete: bool,
    /// Which part of the certificates found this is.
    pub paging: Paging,
    /// The certificates of clients.
    pub certificates: Vec<CertificateRow>,
    /// The CRLs in force.
    pub crls: Vec<CrlRow>,
    /// The receiver's own certificates.
    pub own: Vec<OwnCertificateRow>,
}

impl TrustPage {
    /// The page's contents.
    pub fn markup(&self) -> Markup {
        html! {
            h1 { "Trust" }
            (self.crls())
            (self.own())
            h2 #seen { "Certificates seen here" }
            p.lead {
                "Those that were shown to this receiver since " (date::moment(self.since)) " UTC and have not ended"
                @if !self.is_complete { ", as far as there was room for them" }
                ". Who let a machine in, and what was issued and never used, is in the CA's ledger: where its folder is, "
                a href="add" { "below the form for a new machine" } ", and by " code { "lizctl list" } " and "
                code { "lizctl audit-log" } "."
            }
            form.search role="search" method="get" data-search="results" {
                label for="q" { "Search names" }
                input #q type="search" name="q" value=(self.search) placeholder="Part of a name or role" autocomplete="off" spellcheck="false" maxlength="200";
                button type="submit" { "Search" }
            }
            p.count #count role="status" { (counted(self.paging.entries, "certificate", "certificates")) }
            div #results { (self.certificates()) }
        }
    }

    fn certificates(&self) -> Markup {
        html! {
            div.scroll tabindex="0" role="region" aria-labelledby="seen" {
                table.plain {
                    caption.hidden { "Certificates, those that end first at the top" }
                    thead {
                        tr { @for head in ["Name", "Role", "Ends", "State", "Last seen", "Serial", "Issuer"] { th scope="col" { (head) } } }
                    }
                    tbody {
                        @for row in &self.certificates {
                            tr {
                                th scope="row" { (isolated(&row.name)) }
                                td { (row.role) }
                                td { (self.end(row.end)) }
                                td { (badges(&row.badges)) @if row.may_be_revoked { (revoke("", &row.name)) } }
                                td { (date::ago(row.last_seen, self.now)) }
                                td.small { code { (row.serial) } }
                                td.small { (isolated(&row.issuer)) }
                            }
                        }
                    }
                }
            }
            (self.paging.links(|page| link::query(&[("q", &self.search), ("page", &page.to_string())])))
        }
    }

    fn end(&self, end: u64) -> Markup {
        html! {
            time datetime=(date::machine(end)) { (date::day(end)) }
            " " span.quiet { (ends(end, self.now)) }
        }
    }

    fn crls(&self) -> Markup {
        html! {
            h2 #crls { "Revocation lists in force" }
            div.scroll tabindex="0" role="region" aria-labelledby="crls" {
                table.plain {
                    caption.hidden { "Certificate revocation lists" }
                    thead {
                        tr { @for head in ["Issuer", "Number", "Signed", "Ends", "State"] { th scope="col" { (head) } } }
                    }
                    tbody {
                        @for row in &self.crls {
                            tr {
                                th scope="row" { (isolated(&row.issuer)) }
                                td { (row.number) }
                                td { time datetime=(date::machine(row.this_update)) { (date::moment(row.this_update)) } }
                                td { (self.end(row.next_update)) }
                                td { (badges(&row.badges)) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn own(&self) -> Markup {
        html! {
            h2 #own { "The receiver's own certificates" }
            div.scroll tabindex="0" role="region" aria-labelledby="own" {
                table.plain {
                    caption.hidden { "The receiver's certificate, and the authorities that it trusts" }
                    thead {
                        tr { @for head in ["Subject", "Part", "From", "Ends", "State"] { th scope="col" { (head) } } }
                    }
                    tbody {
                        @for row in &self.own {
                            tr {
                                th scope="row" { (isolated(&row.subject)) }
                                td { (row.part) }
                                td { time datetime=(date::machine(row.begin)) { (date::moment(row.begin)) } }
                                td { (self.end(row.end)) }
                                td { (badges(&row.badges)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
