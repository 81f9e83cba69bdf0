//! The receiver's endpoints, and who may use each.

use super::super::{NOWHERE, Row};

/// In a path: the present epoch.
pub(super) const NOW: &str = "NOW";
pub(super) const WRITE: &str = "/api/v1/write";
pub(super) const OTLP: &str = "/v1/metrics";

/// Who may use an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Anyone,
    /// Refused for everybody, with this code.
    NoRoute(&'static str),
    /// Clients of the token endpoint, by certificate alone.
    Client,
    /// Node a and a gateway for it, with their tokens.
    Write,
    /// Node a, with its token.
    Report,
    /// Node a, readers and operators.
    ReadA,
    /// Readers and operators; nodes, which are shown their own alone.
    ReadSeries,
    /// Readers and operators.
    List,
    /// Operators.
    Administer,
    /// Readers and operators, by certificate alone.
    Scrape,
}

/// All endpoints of the receiver; those of a host are for node a.
pub(super) const ROWS: [Row<Access>; 41] = [
    row(
        "POST",
        "/oauth2/token",
        "/oauth2/token",
        Access::Client,
        200,
    ),
    row(
        "GET",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server",
        Access::Anyone,
        200,
    ),
    row(
        "GET",
        "/.well-known/jwks.json",
        "/.well-known/jwks.json",
        Access::Anyone,
        200,
    ),
    row(
        "POST",
        "/api/perf/{*rest}",
        "/api/perf/a/NOW",
        Access::Write,
        204,
    ),
    row(
        "POST",
        "/api/perf/{*rest}",
        "/api/perf/a",
        Access::Write,
        200,
    ),
    row(
        "GET",
        "/api/perf/{*rest}",
        "/api/perf/a",
        Access::ReadA,
        200,
    ),
    row(
        "GET",
        "/api/perf/{*rest}",
        "/api/perf/a/cpu",
        Access::ReadA,
        200,
    ),
    row("GET", "/api/perf", "/api/perf", Access::List, 200),
    row(
        "GET",
        "/api/delivery/{host}",
        "/api/delivery/a",
        Access::ReadA,
        200,
    ),
    row(
        "GET",
        "/api/history/{*rest}",
        "/api/history/a/cpu",
        Access::ReadA,
        200,
    ),
    row("POST", WRITE, WRITE, Access::Write, 204),
    row("POST", OTLP, OTLP, Access::Write, 200),
    row(
        "POST",
        "/api/v1/read",
        "/api/v1/read",
        Access::ReadSeries,
        200,
    ),
    row(
        "GET",
        "/api/v1/series",
        "/api/v1/series?match[]=cpu",
        Access::ReadSeries,
        200,
    ),
    row(
        "POST",
        "/api/v1/series",
        "/api/v1/series?match[]=cpu",
        Access::ReadSeries,
        200,
    ),
    row(
        "GET",
        "/api/v1/labels",
        "/api/v1/labels",
        Access::ReadSeries,
        200,
    ),
    row(
        "POST",
        "/api/v1/labels",
        "/api/v1/labels",
        Access::ReadSeries,
        200,
    ),
    row(
        "GET",
        "/api/v1/label/{name}/values",
        "/api/v1/label/__name__/values",
        Access::ReadSeries,
        200,
    ),
    row("PUT", "/api/crl", "/api/crl", Access::Administer, 204),
    row(
        "PUT",
        "/api/facts/{host}",
        "/api/facts/a",
        Access::Report,
        204,
    ),
    row(
        "POST",
        "/api/delivery/{host}/acknowledged",
        "/api/delivery/a/acknowledged",
        Access::Administer,
        200,
    ),
    row("GET", "/api/alarms", "/api/alarms", Access::List, 200),
    row(
        "POST",
        "/api/alarms/test/{channel}",
        "/api/alarms/test/none",
        Access::Administer,
        200,
    ),
    row(
        "POST",
        "/api/silences/{host}",
        "/api/silences/a",
        Access::Administer,
        200,
    ),
    row(
        "GET",
        "/api/certificates",
        "/api/certificates",
        Access::Administer,
        200,
    ),
    row("GET", "/healthz", "/healthz", Access::Anyone, 200),
    row("GET", "/readyz", "/readyz", Access::Anyone, 200),
    row("GET", "/openapi.json", "/openapi.json", Access::Anyone, 200),
    row("GET", "/metrics", "/metrics", Access::Scrape, 200),
    row("GET", "/", "/", Access::Scrape, 200),
    row("GET", "/hosts/{host}", "/hosts/a", Access::Scrape, 200),
    row("GET", "/trust", "/trust", Access::Scrape, 200),
    row("GET", "/delivery", "/delivery", Access::Scrape, 200),
    row("GET", "/alarms", "/alarms", Access::Scrape, 200),
    row("GET", "/add", "/add", Access::Scrape, 200),
    row("GET", "/revoke/{host}", "/revoke/a", Access::Scrape, 200),
    row(
        "GET",
        "/assets/{name}",
        "/assets/page.css",
        Access::Anyone,
        200,
    ),
    row("GET", "/live", "/live?events=1", Access::Scrape, 200),
    // None, as a reader of other hosts would wait for one.
    row("GET", "/api/live", "/api/live?events=0", Access::List, 200),
    row(
        "GET",
        "/api/live",
        "/api/live?events=1&host=a",
        Access::ReadA,
        200,
    ),
    row("GET", NOWHERE, NOWHERE, Access::NoRoute("not_found"), 0),
];

const fn row(
    method: &'static str,
    route: &'static str,
    path: &'static str,
    access: Access,
    good: u16,
) -> Row<Access> {
    Row {
        method,
        route,
        path,
        access,
        good,
    }
}
