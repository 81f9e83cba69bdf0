//! The receiver: its routes × certificates × bearer tokens.

mod rows;

use std::collections::{BTreeSet, HashMap};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lizmon_mtls::proxies::ProxyRole;
use lizmon_protocol::name::{Role, SpiffeId};
use lizmon_receiver::otlp::OtlpEncoding;
use lizmon_receiver::prometheus::message::{
    LabelPair, Query, ReadRequest, SamplePair, TimeSeries, WriteRequest,
};
use lizmon_receiver::prometheus::naming::written;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use serde_json::json;

use self::rows::{Access, NOW, OTLP, ROWS, WRITE};
use super::credentials::{Certificate, CredentialSet, Flaw, Way, Who};
use super::requester::{Ask, Requester};
use super::{CONFIDENTIAL, Cell, Cells, NOWHERE, Outcome, Row, all_rows, product, run};
use crate::harness::answer::status_of;
use crate::harness::forge::{self, Forger, own_token_key, stolen_token_key};
use crate::harness::raw::tls_config;
use crate::harness::{World, answer};

const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
/// The text of the facts that may be stored.
const GOOD: &str = "told by node a";
/// What an answer that tells of host a has in it.
const TRACES: [&str; 6] = [
    CONFIDENTIAL,
    r#""name":"a""#,
    r#""host":"a""#,
    r#"host="a""#,
    r#"hosts/a""#,
    // As protobuf: a label's name and value.
    "\u{4}host\u{12}\u{1}a",
];

/// The bearer token of a request. Unless noted, it is like the certificate's own token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    None,
    /// For the certificate of the request. If the receiver would mint none, it is forged with the
    /// receiver's key.
    Own,
    /// With every scope.
    Greedy,
    /// Minted for this certificate, on any connection.
    Of(Who),
    /// Of node a's certificate that was revoked.
    OfRevoked,
    Expired,
    NotYetValid,
    OtherAudience,
    OtherIssuer,
    OtherKey,
    AlgNone,
    Malformed,
    OtherScheme,
}

const TOKENS: [Token; 17] = [
    Token::None,
    Token::Own,
    Token::Greedy,
    Token::Of(Who::NodeAFormer),
    Token::Of(Who::NodeA),
    Token::Of(Who::NodeB),
    Token::Of(Who::ReaderA),
    Token::Of(Who::Operator),
    Token::OfRevoked,
    Token::Expired,
    Token::NotYetValid,
    Token::OtherAudience,
    Token::OtherIssuer,
    Token::OtherKey,
    Token::AlgNone,
    Token::Malformed,
    Token::OtherScheme,
];

/// For pages, where no token is asked for: they are many.
const PAGE_TOKENS: [Token; 3] = [Token::None, Token::Own, Token::Malformed];

fn is_page(row: &Row<Access>) -> bool {
    const PAGES: [&str; 9] = [
        "/",
        "/hosts/{host}",
        "/trust",
        "/delivery",
        "/alarms",
        "/add",
        "/revoke/{host}",
        "/assets/{name}",
        "/live",
    ];
    PAGES.contains(&row.route)
}

impl Row<Access> {
    /// Whether it reads host a alone.
    fn is_of_a(&self) -> bool {
        self.access == Access::ReadA || ["/hosts/{host}", "/revoke/{host}"].contains(&self.route)
    }
}

/// Nothing of host a is shown to a reader of others, or to another node, whatever the route.
fn hidden_from(certificate: Certificate) -> &'static [&'static str] {
    match certificate.who() {
        Some(Who::ReaderOfOthers | Who::NodeB) => &TRACES,
        _ => &[],
    }
}

/// What docs/http-api.md promises.
fn expected(row: &Row<Access>, certificate: Certificate, token: Token) -> Outcome {
    if let Some(alert) = certificate.alert() {
        return Outcome::Alert(alert);
    }
    // A trusted proxy that names no client sends the requests of one without a certificate.
    let certificate = match certificate {
        Certificate::Of(Who::Proxy) => Certificate::Absent,
        certificate => certificate,
    };
    answered(row, certificate, token)
}

/// What it promises for requests through a trusted proxy.
fn expected_through_proxy(row: &Row<Access>, certificate: Certificate, token: Token) -> Outcome {
    let outcome = match (certificate, row.access) {
        (Certificate::Flawed(Flaw::Malformed), _) if row.route == "/oauth2/token" => {
            Outcome::refused(400, "invalid_request", "")
        }
        (Certificate::Flawed(Flaw::Malformed), _) => problem("invalid_forwarding"),
        _ => return answered(row, certificate, token),
    };
    match row.method {
        "HEAD" => outcome.without_body(),
        _ => outcome,
    }
}

fn answered(row: &Row<Access>, certificate: Certificate, token: Token) -> Outcome {
    let verdict = match row.access {
        Access::Anyone => None,
        Access::NoRoute(code) => Some(code),
        Access::Client => return token_endpoint(certificate, token),
        _ => judge(row, certificate, token).err(),
    };
    let outcome = verdict.map_or(Outcome::good(row.good), problem);
    match row.method {
        "HEAD" => outcome.without_body(),
        _ => outcome,
    }
}

/// RFC 6749 section 5.2.
fn token_endpoint(certificate: Certificate, token: Token) -> Outcome {
    match (certificate.who().map(Who::role), token) {
        (None, _) => Outcome::refused(401, "invalid_client", "Bearer invalid_client"),
        // Section 2.3: one way to authenticate, and that is the certificate.
        (Some(_), token) if token != Token::None => Outcome::refused(400, "invalid_request", ""),
        (Some(Role::Receiver | Role::Ca | Role::Summarizer | Role::Proxy), _) => {
            Outcome::refused(400, "unauthorized_client", "")
        }
        (Some(Role::Node | Role::Reader | Role::Operator | Role::Gateway), _) => Outcome::good(200),
    }
}

/// Checked in this order: the certificate, the token, whether they match, the permission.
fn judge(row: &Row<Access>, certificate: Certificate, token: Token) -> Result<(), &'static str> {
    let action = row.access;
    match certificate {
        Certificate::Ended(_) => return Err("certificate_expired"),
        Certificate::Revoked(_) => return Err("certificate_revoked"),
        Certificate::Flawed(Flaw::NotYetValid) => return Err("certificate_expired"),
        Certificate::Flawed(_) => return Err("certificate_untrusted"),
        Certificate::Absent | Certificate::Of(_) => (),
    }
    let token = match action {
        // Whatever is sent as one.
        Access::Scrape => Token::Own,
        _ => token,
    };
    let bound_to = match token {
        Token::None | Token::OtherScheme => return Err("token_missing"),
        Token::Expired => return Err("token_expired"),
        Token::NotYetValid
        | Token::OtherAudience
        | Token::OtherIssuer
        | Token::OtherKey
        | Token::AlgNone
        | Token::Malformed => return Err("token_invalid"),
        Token::Own | Token::Greedy => certificate.who(),
        Token::Of(who) => Some(who),
        Token::OfRevoked => None,
    };
    let Some(who) = certificate.who().filter(|who| bound_to == Some(*who)) else {
        return Err(
            match brings_points(row) && is_of_same_holder(certificate, token) {
                true => "certificate_renewed",
                false => "certificate_mismatch",
            },
        );
    };
    let reads = matches!(who.role(), Role::Reader | Role::Operator);
    let permitted = match action {
        Access::Write | Access::Report => matches!(who.role(), Role::Node | Role::Gateway),
        Access::ReadA | Access::ReadSeries => reads || who.role() == Role::Node,
        Access::List | Access::Scrape => reads,
        Access::Administer => who.role() == Role::Operator,
        Access::Anyone | Access::NoRoute(_) | Access::Client => true,
    };
    match permitted {
        false => Err("insufficient_scope"),
        true if row.is_of_a() && who == Who::ReaderOfOthers => Err("insufficient_scope"),
        true if action == Access::ReadSeries => Ok(()),
        true if who.role() == Role::Node && who.name() != "a" => Err("wrong_host"),
        true if who == Who::GatewayOfOthers => Err("wrong_host"),
        true if who == Who::GatewayOfA && action == Access::Report => Err("wrong_host"),
        true => Ok(()),
    }
}

/// Whether the token was minted for another certificate of the same role and name.
fn is_of_same_holder(certificate: Certificate, token: Token) -> bool {
    let other = match token {
        Token::Of(who) => who,
        Token::OfRevoked => Who::NodeA,
        _ => return false,
    };
    let holder = |who: Who| (who.role(), who.name());
    certificate.who().map(holder) == Some(holder(other))
}

/// RFC 9457, with the header that RFC 6750 section 3 requires.
fn problem(code: &'static str) -> Outcome {
    let status = status_of(code);
    let challenge = match code {
        "token_missing" => "Bearer",
        "insufficient_scope" => "Bearer insufficient_scope",
        _ if status == 401 => "Bearer invalid_token",
        _ => "",
    };
    Outcome::refused(status, code, challenge)
}

/// Creates tokens.
struct Mint {
    minted: HashMap<Who, String>,
    template: forge::Token,
    /// The receiver's own.
    key: Ed25519KeyPair,
    other_key: Ed25519KeyPair,
    now: u64,
}

impl Mint {
    async fn open(world: &World, credentials: &CredentialSet) -> Self {
        let mut minted = HashMap::new();
        for token in TOKENS {
            if let Token::Of(who) = token {
                minted.insert(who, world.token(credentials.holder(who)).await);
            }
        }
        Self {
            template: forge::Token::parse(&minted[&Who::NodeA]),
            minted,
            key: stolen_token_key(world),
            other_key: own_token_key().0,
            now: world.clock.now(),
        }
    }

    /// The Authorization header.
    fn header(
        &self,
        credentials: &CredentialSet,
        certificate: Certificate,
        token: Token,
    ) -> Option<String> {
        let own = self.own(credentials, certificate);
        let signed = |edit: fn(&mut forge::Token, u64)| {
            let mut token = own.clone();
            edit(&mut token, self.now);
            token.signed(&self.key)
        };
        let text = match token {
            Token::None => return None,
            Token::Own => signed(|_, _| ()),
            Token::Greedy => signed(|token, _| {
                token.claims["scope"] = json!("metrics:write metrics:read admin");
            }),
            Token::Of(who) => self.minted[&who].clone(),
            Token::OfRevoked => {
                let revoked = Certificate::Revoked(Way::New);
                self.own(credentials, revoked).signed(&self.key)
            }
            Token::Expired => signed(|token, now| token.lives(now - 300, now)),
            Token::NotYetValid => signed(|token, now| token.lives(now + 60, now + 360)),
            Token::OtherAudience => signed(|token, _| {
                token.claims["aud"] = json!("https://other.example:8443");
            }),
            Token::OtherIssuer => signed(|token, _| {
                token.claims["iss"] = json!("https://other.example:8443");
            }),
            Token::OtherKey => own.signed(&self.other_key),
            Token::AlgNone => {
                let mut token = own.clone();
                token.header["alg"] = json!("none");
                token.signature.clear();
                token.unsigned()
            }
            Token::Malformed => {
                let text = own.signed(&self.key);
                text.rsplit_once('.').unwrap().0.to_owned()
            }
            Token::OtherScheme => return Some(format!("DPoP {}", own.signed(&self.key))),
        };
        Some(format!("Bearer {text}"))
    }

    /// The claims of a token for this certificate; without one, those of node a's.
    fn own(&self, credentials: &CredentialSet, certificate: Certificate) -> forge::Token {
        let node_a = Certificate::Of(Who::NodeA);
        let leaf = credentials
            .leaf(certificate)
            .or_else(|| credentials.leaf(node_a))
            .unwrap();
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, leaf));
        let id: SpiffeId = certificate.id().parse().unwrap();
        let scope = match id.role {
            Role::Node | Role::Gateway => "metrics:write",
            Role::Operator => "metrics:read admin",
            // The last four get none from the receiver.
            Role::Reader | Role::Receiver | Role::Ca | Role::Summarizer | Role::Proxy => {
                "metrics:read"
            }
        };
        let mut token = self.template.clone();
        token.claims["client_id"] = json!(id.to_string());
        token.claims["sub"] = json!(id.name.as_str());
        token.claims["scope"] = json!(scope);
        token.claims["jti"] = json!(format!("forged for {certificate:?}"));
        token.claims["cnf"] = json!({"x5t#S256": thumbprint});
        token
    }
}

/// The bodies of the requests.
struct Bodies {
    now: u64,
    /// The CRLs in force, which change nothing.
    lists: Vec<u8>,
    /// Newer CRLs, which also revoke node b's certificate.
    newer_lists: Vec<u8>,
}

impl Bodies {
    fn make(world: &World, credentials: &CredentialSet) -> Self {
        let over = [Certificate::Of(Who::NodeB), Certificate::Revoked(Way::New)];
        let over = over.map(|certificate| credentials.leaf(certificate).unwrap());
        Self {
            now: world.clock.now(),
            lists: std::fs::read(world.certs().join("crl.pem")).unwrap(),
            newer_lists: Forger::with_issuing_key(world).revocation_list(&over, 1_000_000),
        }
    }

    /// The body of the request with this number. The label of a sample is its description, so an
    /// accepted one is visible.
    fn of(&self, row: &Row<Access>, number: u64, story: &str, is_good: bool) -> Vec<u8> {
        let values = json!({story: 1});
        match (row.method, row.access) {
            ("POST", Access::ReadSeries) if row.path == "/api/v1/read" => every_series(),
            ("POST", Access::Write) if row.path == WRITE => self.write_of(story),
            ("POST", Access::Write) if row.path == OTLP => self.export_of(story, number),
            ("POST", Access::Client) => b"grant_type=client_credentials".to_vec(),
            ("POST", Access::Write) if row.path.contains(NOW) => values.to_string().into(),
            ("POST", Access::Write) => {
                let record = json!({"seq": number, "epoch": self.now, "values": values});
                let batch = json!({"producer": PRODUCER, "records": [record]});
                batch.to_string().into()
            }
            ("PUT", Access::Report) => json!({"os": if is_good { GOOD } else { story }})
                .to_string()
                .into(),
            ("POST", Access::Administer) if row.path.contains("/silences/") => {
                br#"{"for-secs":60,"why":"new disks"}"#.to_vec()
            }
            ("POST", Access::Administer) => br#"{"why":"the disk broke"}"#.to_vec(),
            ("PUT", Access::Administer) if is_good => self.lists.clone(),
            ("PUT", Access::Administer) => self.newer_lists.clone(),
            _ => Vec::new(),
        }
    }
}

impl Bodies {
    /// A remote write of one sample of host a.
    fn write_of(&self, story: &str) -> Vec<u8> {
        let labels = [("__name__", METRIC), ("host", "a"), ("story", story)];
        let labels = labels.map(|(name, value)| LabelPair {
            name: name.to_owned(),
            value: value.to_owned(),
        });
        let sample = SamplePair {
            value: 1.0,
            timestamp: self.now as i64 * 1_000,
        };
        let series = TimeSeries {
            labels: labels.into(),
            samples: vec![sample],
            ..TimeSeries::default()
        };
        packed(&WriteRequest {
            timeseries: vec![series],
            ..WriteRequest::default()
        })
    }
}

impl Bodies {
    /// A metrics export of one point of host a, in one encoding and the other, with the host in one
    /// attribute and the other, alone and behind another resource.
    fn export_of(&self, story: &str, number: u64) -> Vec<u8> {
        let attribute =
            |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        let host = match number & 1 {
            0 => "host.name",
            _ => "service.instance.id",
        };
        let resource = json!({"attributes": [attribute(host, "a")]});
        let point = json!({
            "timeUnixNano": (self.now * 1_000_000_000).to_string(),
            "asInt": "1",
            "attributes": [attribute("story", story)],
        });
        let metric = json!({"name": METRIC, "gauge": {"dataPoints": [point]}});
        let of_a = json!({"resource": resource, "scopeMetrics": [{"metrics": [metric]}]});
        let resources = match number & 2 {
            0 => json!([of_a]),
            _ => json!([{}, of_a]),
        };
        let json = json!({"resourceMetrics": resources})
            .to_string()
            .into_bytes();
        match number & 4 {
            0 => json,
            _ => OtlpEncoding::Json.parse(&json).unwrap().encode_to_vec(),
        }
    }
}

/// The metric of what is written.
const METRIC: &str = "written";

/// The label of an accepted sample.
fn label_of(row: &Row<Access>, story: &str) -> String {
    match row.path {
        WRITE | OTLP => written(METRIC, [("story", story)]),
        _ => story.to_owned(),
    }
}

/// Whether accepted records are numbered.
fn is_numbered(row: &Row<Access>) -> bool {
    !row.path.contains(NOW) && !brings_points(row)
}

/// Whether it is by a protocol of others.
fn brings_points(row: &Row<Access>) -> bool {
    [WRITE, OTLP].contains(&row.path)
}

fn packed(message: &impl prost::Message) -> Vec<u8> {
    let packed = snap::raw::Encoder::new().compress_vec(&message.encode_to_vec());
    packed.unwrap()
}

/// A remote read of every series, packed.
fn every_series() -> Vec<u8> {
    let query = Query {
        end_timestamp_ms: i64::MAX,
        ..Query::default()
    };
    packed(&ReadRequest {
        queries: vec![query],
        ..ReadRequest::default()
    })
}

/// The same certificates, named by a trusted proxy.
fn through_proxy(
    credentials: &CredentialSet,
    mut ask: impl FnMut(&Row<Access>, &str, (Certificate, Token, &Outcome)) -> Ask,
) -> Cells {
    let tokens = [
        Token::None,
        Token::Own,
        Token::Greedy,
        Token::Of(Who::NodeA),
        Token::OfRevoked,
    ];
    let rows = all_rows(&ROWS, &served(), Access::NoRoute("method_not_allowed"));
    let mut cells = Cells::new();
    for certificate in Certificate::all() {
        // That its holder has the key is what a proxy checks.
        if certificate == Certificate::Flawed(Flaw::WithoutItsKey) {
            continue;
        }
        let encode = |der: &CertificateDer<'_>| format!(":{}:", STANDARD.encode(der));
        let shown = credentials.chain(certificate).unwrap_or_default();
        let shown: Vec<String> = shown.iter().map(encode).collect();
        let mut forwarded = Vec::new();
        if let Some((leaf, issuers)) = shown.split_first() {
            forwarded.push(("client-cert", leaf.clone()));
            if !issuers.is_empty() {
                forwarded.push(("client-cert-chain", issuers.join(", ")));
            }
        }
        let of_certificate = cells.entry(certificate).or_default();
        for (row, token) in rows.iter().flat_map(|row| tokens.map(|token| (row, token))) {
            let story = format!(
                "through a proxy {} × {certificate:?} × {token:?}",
                row.story()
            );
            let expected = expected_through_proxy(row, certificate, token);
            let mut ask = ask(row, &story, (certificate, token, &expected));
            ask.forwarded.clone_from(&forwarded);
            of_certificate.push(Cell {
                story,
                ask,
                expected,
            });
        }
    }
    cells
}

/// The labels of node a, the only host, and the number of its numbered records.
async fn stored(world: &World) -> (BTreeSet<String>, u64) {
    let stored = world.stored(&world.reader()).await;
    let hosts = stored.as_object().unwrap();
    assert_eq!(hosts.keys().collect::<Vec<_>>(), ["a"]);
    let labels = stored["a"][0]["labels"].as_array().unwrap().iter();
    let labels = labels.map(|label| label.as_str().unwrap().to_owned());
    let received = &stored["a"][2]["producers"][0]["received"];
    (labels.collect(), received.as_u64().unwrap_or(0))
}

fn served() -> Vec<(String, &'static str)> {
    let routes = lizmon_receiver::router::routes();
    routes.into_iter().map(|r| (r.path, r.allow)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_times_every_wrong_credential() {
    let world = World::start_with(|config| config.proxies.role = ProxyRole::Trusted).await;
    let mut credentials = CredentialSet::assemble(&world, world.port()).await;
    let node_a = credentials.holder(Who::NodeA).clone();
    let token = world.token(&node_a).await;
    let now = world.clock.now();
    let first = format!(r#"{{"cpu": 1, "{CONFIDENTIAL}": 1}}"#);
    let path = format!("/api/perf/a/{now}");
    world
        .post(&node_a, &token, &path, first)
        .await
        .no_content("the first");
    let (bodies, mint) = (
        Bodies::make(&world, &credentials),
        Mint::open(&world, &credentials).await,
    );
    let rows = all_rows(&ROWS, &served(), Access::NoRoute("method_not_allowed"));

    let mut number = 0;
    let (mut labels, mut received) = stored(&world).await;
    let mut cell = |story: &str, row: &Row<Access>, certificate, token| {
        let expected = expected(row, certificate, token);
        number += 1;
        let mut ask = Ask::new(row.method, row.path.replace(NOW, &now.to_string()));
        ask.authorization = mint.header(&credentials, certificate, token);
        ask.body = bodies.of(row, number, story, expected.is_good());
        ask.hidden = hidden_from(certificate);
        if row.access == Access::Write && row.method == "POST" && expected.is_good() {
            labels.insert(label_of(row, story));
            received += u64::from(is_numbered(row));
        }
        (ask, expected)
    };
    let (pages, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_page);
    let mut cells = product(&others, &TOKENS, &mut cell);
    for (certificate, of_pages) in product(&pages, &PAGE_TOKENS, &mut cell) {
        cells.entry(certificate).or_default().extend(of_pages);
    }
    let operator = credentials.holder(Who::Operator).clone();
    run(credentials.take_requesters(), cells).await;
    // Only now: a connection without a certificate does not last long.
    let through_proxy = through_proxy(&credentials, |row, story, asked| {
        number += 1;
        let (certificate, token, expected) = asked;
        let mut ask = Ask::new(row.method, row.path.replace(NOW, &now.to_string()));
        ask.authorization = mint.header(&credentials, certificate, token);
        ask.body = bodies.of(row, number, story, expected.is_good());
        ask.hidden = hidden_from(certificate);
        if row.access == Access::Write && row.method == "POST" && expected.is_good() {
            labels.insert(label_of(row, story));
            received += u64::from(is_numbered(row));
        }
        ask
    });
    let proxy = credentials.proxy(&world);
    let mut requesters = Vec::new();
    for certificate in through_proxy.keys() {
        let requester = Requester::http1(proxy.clone(), world.port()).await;
        requesters.push((*certificate, requester));
    }
    run(requesters, through_proxy).await;

    // Only what should be accepted is stored.
    assert_eq!(stored(&world).await, (labels, received));
    let facts = &world.stored(&world.reader()).await["a"][0]["facts"];
    assert_eq!(facts, &json!({"os": GOOD}));
    // The CRLs that were refused for everybody else were valid.
    let token = world.token(&operator).await;
    let put = || operator.http.put(world.url("/api/crl")).bearer_auth(&token);
    answer(put().body(bodies.newer_lists))
        .await
        .no_content("an operator");
    assert_eq!(answer(put().body(bodies.lists)).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn methods() {
    let world = World::start().await;
    let config = tls_config(&world.root(), None, &["http/1.1"]);
    let anyone = Requester::http1(config, world.port()).await;
    let path_of = |route: &str| {
        let row = ROWS.iter().find(|row| row.route == route);
        row.map_or(NOWHERE, |row| row.path).to_owned()
    };
    super::methods_are_those_of_the_table(anyone, &served(), path_of).await;
}
