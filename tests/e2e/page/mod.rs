//! The web page: who may see it, what it does not let through, what a browser makes of it.

mod browser;
pub(crate) mod fleet;
mod live;

use lizmon_protocol::name::Role;

use crate::harness::{Answer, Holder, World, answer};

/// What a browser sends.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn get(world: &World, http: &reqwest::Client, path: &str, accept: &str) -> Answer {
    answer(http.get(world.url(path)).header("accept", accept)).await
}

/// Posts a sample of now.
async fn post(world: &World, node: &Holder, values: &str) {
    let token = world.token(node).await;
    let path = format!("/api/perf/{}/{}", node.name, world.clock.now());
    let posted = world.post(node, &token, &path, values.to_owned()).await;
    posted.no_content(values);
}

const PAGES: [&str; 7] = [
    "/",
    "/hosts/web1",
    "/trust",
    "/delivery",
    "/alarms",
    "/add",
    "/revoke/web1",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_page_has_its_headers_whoever_asks() {
    let world = World::start().await;
    let (reader, node) = (world.reader(), world.node("web1"));
    post(&world, &node, r#"{"cpu": 4.98}"#).await;
    let nobody = world.client(None, &["http/1.1"]);
    for path in PAGES {
        for (who, http, status) in [
            ("reader", &reader.http, 200),
            ("node", &node.http, 403),
            ("nobody", &nobody, 401),
        ] {
            let got = get(&world, http, path, BROWSER).await;
            let story = format!("{path} for {who}");
            assert_eq!(got.status, status, "{story}: {}", got.text());
            assert_eq!(
                got.header("content-type"),
                "text/html; charset=utf-8",
                "{story}"
            );
            assert_eq!(got.header("cache-control"), "no-store", "{story}");
            assert_eq!(got.header("x-content-type-options"), "nosniff", "{story}");
            assert_eq!(got.header("referrer-policy"), "no-referrer", "{story}");
            let policy = got.header("content-security-policy");
            for part in [
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
            ] {
                assert!(policy.contains(part), "{story}: {policy}");
            }
            assert!(!policy.contains("unsafe"), "{story}: {policy}");
            let text = got.text();
            assert!(text.starts_with("<!DOCTYPE html>"), "{story}: {text}");
            // Nothing inline, and nothing from elsewhere.
            for part in [
                "style=",
                "<style",
                "onclick",
                "javascript:",
                "=\"http",
                "=\"//",
            ] {
                assert!(!text.contains(part), "{story}: {part} in {text}");
            }
        }
    }
    let refused = get(&world, &node.http, "/", "*/*").await;
    refused.refused("insufficient_scope", "a program");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_exist_is_not_found() {
    let world = World::start().await;
    let reader = world.reader();
    for path in [
        "/hosts/web1",
        "/hosts/a%20b",
        "/hosts/%3Cimg%20src=x%3E",
        "/hosts/%FF",
    ] {
        let got = get(&world, &reader.http, path, "*/*").await;
        got.refused("unknown_host", path);
        let got = get(&world, &reader.http, path, BROWSER).await;
        assert_eq!(got.status, 404, "{path}");
        assert!(!got.text().contains("<img"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn assets_are_asked_for_again_and_sent_once() {
    let world = World::start().await;
    let nobody = world.client(None, &["http/1.1"]);
    for (name, media_type) in [
        ("page.css", "text/css; charset=utf-8"),
        ("page.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let url = world.url(&format!("/assets/{name}"));
        let got = answer(nobody.get(&url)).await;
        assert_eq!((got.status, got.header("content-type")), (200, media_type));
        assert_eq!(got.header("cache-control"), "no-cache");
        let tag = got.header("etag").to_owned();
        let again = answer(nobody.get(&url).header("if-none-match", tag)).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{name}");
        let other = answer(nobody.get(&url).header("if-none-match", "\"0\"")).await;
        assert_eq!(other.status, 200, "{name}");
    }
    for name in ["page.rs", "..%2Fpage.css", ""] {
        let got = answer(nobody.get(world.url(&format!("/assets/{name}")))).await;
        got.refused("not_found", name);
    }
}

/// A certificate that was seen and revoked is shown as revoked, of every role.
#[tokio::test(flavor = "multi_thread")]
async fn trust_shows_who_is_revoked() {
    let world = World::start().await;
    let (reader, other) = (world.reader(), world.holder(Role::Reader, "gone"));
    let operator = world.holder(Role::Operator, "root");
    assert_eq!(
        get(&world, &other.http, "/trust", BROWSER).await.status,
        200
    );
    let before = get(&world, &reader.http, "/trust?q=gone", BROWSER)
        .await
        .text();
    assert!(
        before.contains("1 certificate<") && !before.contains("Revoked"),
        "{before}"
    );
    live::revoke(&world, &operator, &other).await;
    let after = get(&world, &reader.http, "/trust?q=gone", BROWSER)
        .await
        .text();
    assert!(
        after.contains("1 certificate<") && after.contains("Revoked"),
        "{after}"
    );
}

/// A receiver cannot issue: its pages say what to type.
#[tokio::test(flavor = "multi_thread")]
async fn machines_are_added_and_revoked_by_commands() {
    let world = World::start().await;
    let (reader, node) = (world.reader(), world.node("web1"));
    post(&world, &node, r#"{"cpu": 4.98}"#).await;
    let page = async |path: &str| get(&world, &reader.http, path, BROWSER).await.text();
    for path in ["/", "/alarms", "/trust"] {
        let shown = page(path).await;
        assert!(shown.contains("<a href=\"add\">"), "{path}: {shown}");
    }
    for (path, link) in [("/hosts/web1", "../revoke/web1"), ("/trust", "revoke/web1")] {
        let shown = page(path).await;
        assert!(shown.contains(&format!("<a href=\"{link}\">")), "{shown}");
    }
    let readers_own = page("/trust?q=reader").await;
    assert!(!readers_own.contains("revoke/"), "{readers_own}");
    let issuer = world.issuer();
    for (path, line) in [
        ("/add", "lizctl join-token NAME".to_owned()),
        ("/add", format!(" --receiver {issuer}")),
        ("/revoke/web1", "lizctl revoke web1".to_owned()),
        (
            "/revoke/unknown",
            format!("lizctl revoke unknown --receiver {issuer} --cert"),
        ),
    ] {
        let shown = page(path).await;
        assert!(shown.contains(&line), "{path}: {line} in {shown}");
    }
    let nobodys = get(&world, &reader.http, "/revoke/a%20b", "*/*").await;
    nobodys.refused("unknown_host", "no name");
}

/// A reader who is limited to some hosts finds no other on any page, nor how many there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_limited_reader_sees_its_hosts_alone() {
    let world = World::start().await;
    let (web1, store_b1) = (world.node("web1"), world.node("store-b1"));
    post(&world, &web1, r#"{"cpu": 1}"#).await;
    post(&world, &store_b1, r#"{"cpu": 1}"#).await;
    let reader = world.holder_with(Role::Reader, "web", &["web*"]);
    for path in ["/", "/?q=b1", "/delivery", "/trust", "/live?events=1"] {
        let text = get(&world, &reader.http, path, BROWSER).await.text();
        assert!(!text.contains("store-b1"), "{path}: {text}");
        let is_live = path.starts_with("/live");
        assert!(is_live || text.contains("web1"), "{path}: {text}");
    }
    let own = get(&world, &reader.http, "/hosts/web1", BROWSER).await;
    assert_eq!(own.status, 200);
    let paths = [
        "/hosts/store-b1",
        "/hosts/nobody",
        "/hosts/a%20b",
        "/revoke/store-b1",
        "/live?host=store-b1",
        "/live?host=no",
    ];
    for path in paths {
        let got = get(&world, &reader.http, path, "*/*").await;
        got.refused("insufficient_scope", path);
    }
    let token = world.token(&reader).await;
    let url = world.url("/api/live?events=1");
    let text = answer(reader.http.get(url).bearer_auth(&token))
        .await
        .text();
    assert!(
        text.contains("web1") && !text.contains("store-b1"),
        "{text}"
    );
    let url = world.url("/api/live?host=store-b1");
    let got = answer(reader.http.get(url).bearer_auth(&token)).await;
    assert_eq!(got.status, 403, "{}", got.text());
}
