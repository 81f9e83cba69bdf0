//! What the web page is made of. It is for people, and described in short.

use lizmon_page::assets::ASSETS;
use lizmon_protocol::problem::Code;
use lizmon_protocol::route;
use utoipa::openapi::content::ContentBuilder;

use super::operation::{Described, header};
use super::operations::EVENT_STREAM;
use super::schema::{one_of, text};

/// What changes on a page, for its script.
pub(in super::super) fn page_live() -> Vec<Described> {
    let content = ContentBuilder::new().schema(Some(text())).build();
    let operation = Described::get(
        route::PAGE_LIVE,
        "pageLive",
        "What changes on a page, for its script",
    )
    .tag("page")
    .for_viewers()
    .answers(200, "Server-sent events", Some((EVENT_STREAM, content)));
    vec![operation]
}

pub(in super::super) fn asset() -> Vec<Described> {
    let path = format!("{}/{{name}}", route::PAGE_ASSETS);
    let names = one_of(ASSETS.iter().map(|asset| asset.name));
    let mut operation = Described::get(path, "asset", "A file of the page")
        .tag("page")
        .segment("name", names, ("Its name", ASSETS[0].name))
        .may_be(&[Code::NotFound])
        .answers(
            304,
            "It is the one that the client has: `If-None-Match`",
            None,
        )
        .sends(200, &[header::ENTITY_TAG])
        .sends(304, &[header::ENTITY_TAG]);
    for asset in ASSETS {
        let content = ContentBuilder::new().schema(Some(text())).build();
        operation = operation.answers(200, asset.name, Some((asset.media_type, content)));
    }
    vec![operation]
}

pub(in super::super) fn page_hosts() -> Vec<Described> {
    vec![page(route::PAGE, "pageHosts", "Web page: all hosts")]
}

pub(in super::super) fn page_host() -> Vec<Described> {
    let path = format!("{}/{{host}}", route::PAGE_HOSTS);
    let codes = [Code::UnknownHost, Code::StoreUnavailable];
    vec![
        page(path, "pageHost", "Web page: one host")
            .host()
            .may_be(&codes),
    ]
}

pub(in super::super) fn page_trust() -> Vec<Described> {
    vec![page(
        route::PAGE_TRUST,
        "pageTrust",
        "Web page: certificates and CRLs",
    )]
}

pub(in super::super) fn page_delivery() -> Vec<Described> {
    vec![page(
        route::PAGE_DELIVERY,
        "pageDelivery",
        "Web page: what arrived",
    )]
}

pub(in super::super) fn page_alarms() -> Vec<Described> {
    vec![page(route::PAGE_ALARMS, "pageAlarms", "Web page: alarms")]
}

pub(in super::super) fn page_add() -> Vec<Described> {
    vec![page(
        route::PAGE_ADD,
        "pageAdd",
        "Web page: how a machine is added",
    )]
}

pub(in super::super) fn page_revoke() -> Vec<Described> {
    let path = format!("{}/{{host}}", route::PAGE_REVOKE);
    let page = page(path, "pageRevoke", "Web page: how a machine is revoked");
    vec![page.host().may_be(&[Code::UnknownHost])]
}

fn page(path: impl Into<String>, id: &str, summary: &str) -> Described {
    Described::get(path, id, summary)
        .tag("page")
        .for_viewers()
        .answers_page()
}
