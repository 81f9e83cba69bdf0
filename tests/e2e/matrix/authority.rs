//! liz-ca: its routes × certificates × join tokens.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lizmon_ca::pki::Reason;
use lizmon_ca::service::Config;
use lizmon_protocol::name::{Attributes, Role};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};

use super::credentials::{Certificate, CredentialSet, Who};
use super::requester::{Ask, Requester};
use super::{NOWHERE, Outcome, Row, all_rows, product, run};
use crate::enrolment::CaServer;
use crate::harness::World;
use crate::harness::raw::tls_config;

/// Who may use an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Anyone,
    /// Refused for everybody, with this status.
    NoRoute(u16),
    /// Everybody with a join token.
    Join,
    /// Everybody with a certificate that the CA has issued.
    Renew,
}

/// All endpoints of liz-ca.
const ROWS: [Row<Access>; 7] = [
    row("GET", "/.well-known/est/cacerts", Access::Anyone),
    row("POST", "/.well-known/est/simpleenroll", Access::Join),
    row("POST", "/.well-known/est/simplereenroll", Access::Renew),
    row("GET", "/crl", Access::Anyone),
    row("GET", "/healthz", Access::Anyone),
    row("GET", "/readyz", Access::Anyone),
    row("GET", NOWHERE, Access::NoRoute(404)),
];

const fn row(method: &'static str, path: &'static str, access: Access) -> Row<Access> {
    Row {
        method,
        route: path,
        path,
        access,
        good: match access {
            Access::NoRoute(_) => 0,
            Access::Anyone | Access::Join | Access::Renew => 200,
        },
    }
}

/// The Authorization header of a request: HTTP Basic with a name and a join token, unless noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Token {
    None,
    Good,
    /// Node a's, under node b's name.
    OtherName,
    WrongSecret,
    /// Already used, with another key.
    Used,
    Expired,
    /// Its name was revoked after it was created.
    Withdrawn,
    Malformed,
    AsBearer,
}

const TOKENS: [Token; 9] = [
    Token::None,
    Token::Good,
    Token::OtherName,
    Token::WrongSecret,
    Token::Used,
    Token::Expired,
    Token::Withdrawn,
    Token::Malformed,
    Token::AsBearer,
];

/// What docs/enrolment.md promises.
fn expected(row: &Row<Access>, certificate: Certificate, token: Token) -> Outcome {
    if let Some(alert) = certificate.alert() {
        return Outcome::Alert(alert);
    }
    match row.access {
        Access::Anyone => Outcome::good(row.good),
        Access::NoRoute(status) => Outcome::refused(status, "", ""),
        // A machine that has lost its certificate rejoins: only the token counts.
        Access::Join if token == Token::Good => Outcome::good(row.good),
        Access::Join => Outcome::refused(401, "", "Basic"),
        Access::Renew => match certificate.who() {
            None | Some(Who::NodeAUnlisted) => Outcome::refused(403, "", ""),
            Some(_) => Outcome::good(row.good),
        },
    }
}

/// The identity for which a valid request gets a certificate.
fn holder(row: &Row<Access>, certificate: Certificate) -> Option<String> {
    match row.access {
        Access::Join => Some(Certificate::Of(Who::NodeA).id()),
        Access::Renew => Some(certificate.id()),
        Access::Anyone | Access::NoRoute(_) => None,
    }
}

/// The tokens that are created once. A valid token is used up, so each request has its own.
struct Tokens {
    used: String,
    expired: String,
    withdrawn: String,
    /// For requests that are refused anyway. It is never used up.
    spare: String,
}

impl Tokens {
    /// Created first, because the expired one has to expire.
    fn make(world: &World) -> Self {
        let now = world.clock.now();
        let used = join_token(world, "a", 600);
        let name = "a".parse().unwrap();
        let request = STANDARD.decode(request().1).unwrap();
        world.ca.enrol(&name, &used, &request, now).unwrap();
        let withdrawn = join_token(world, "gone", 600);
        let gone = "gone".parse().unwrap();
        let reason = Reason::Unspecified;
        world
            .ca
            .revoke_holder(Role::Node, &gone, reason, now)
            .unwrap();
        Self {
            used,
            expired: join_token(world, "a", 60),
            withdrawn,
            spare: join_token(world, "a", 3_600),
        }
    }

    fn header(&self, world: &World, token: Token, is_good: bool) -> Option<String> {
        let basic = |name: &str, token: &str| {
            let packed = STANDARD.encode(format!("{name}:{token}"));
            Some(format!("Basic {packed}"))
        };
        match token {
            Token::None => None,
            Token::Good if is_good => basic("a", &join_token(world, "a", 600)),
            Token::Good => basic("a", &self.spare),
            Token::OtherName => basic("b", &self.spare),
            Token::WrongSecret => basic("a", &format!("a.{}", "0".repeat(64))),
            Token::Used => basic("a", &self.used),
            Token::Expired => basic("a", &self.expired),
            Token::Withdrawn => basic("gone", &self.withdrawn),
            Token::Malformed => Some(format!("Basic a:{}", self.spare)),
            Token::AsBearer => Some(format!("Bearer {}", self.spare)),
        }
    }
}

fn join_token(world: &World, name: &str, secs: u64) -> String {
    let (name, ttl) = (name.parse().unwrap(), Duration::from_secs(secs));
    let now = world.clock.now();
    let token = world
        .ca
        .make_join_token(Role::Node, &name, &[], &Attributes::default(), ttl, now);
    token.unwrap().as_str().to_owned()
}

/// The SHA-256 of a new key, as in the ledger, and a signing request for it.
fn request() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let hash = digest(&SHA256, &key.subject_public_key_info());
    (hex::encode(hash), STANDARD.encode(request.der()))
}

fn served() -> Vec<(String, &'static str)> {
    let routes = lizmon_ca::service::routes();
    routes
        .into_iter()
        .map(|r| (r.path.to_owned(), r.allow))
        .collect()
}

/// Disables rate limits: the test sends many requests.
fn without_rates(config: &mut Config) {
    let rates = &mut config.rates;
    for rate in [
        &mut rates.joins_per_address,
        &mut rates.joins_per_name,
        &mut rates.renewals_per_holder,
    ] {
        rate.burst = 1_000_000.try_into().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_times_every_wrong_credential() {
    let world = World::without_receiver(|_| ());
    let tokens = Tokens::make(&world);
    let ca_server = CaServer::open_with(&world, without_rates).await;
    let mut credentials = CredentialSet::assemble(&world, ca_server.port()).await;
    let before = world.ca.entries().unwrap().len();
    let rows = all_rows(&ROWS, &served(), Access::NoRoute(405));

    // Every request has its own key, so that the ledger shows which got a certificate, and for
    // whom. Except granted renewals: a holder has few certificates at a time, and the same one for
    // the same key.
    let mut renewals: HashMap<String, (String, String)> = HashMap::new();
    let mut to_issue: HashMap<String, (String, String)> = HashMap::new();
    let cells = product(&rows, &TOKENS, |story, row, certificate, token| {
        let expected = expected(row, certificate, token);
        let mut ask = Ask::new(row.method, row.path.to_owned());
        let is_joined = row.access == Access::Join && expected.is_good();
        ask.authorization = tokens.header(&world, token, is_joined);
        if row.method == "POST" {
            let id = holder(row, certificate).filter(|_| expected.is_good());
            let renewed = id.clone().filter(|_| row.access == Access::Renew);
            let (key, request) = match renewed {
                Some(id) => renewals.entry(id).or_insert_with(request).clone(),
                None => request(),
            };
            ask.body = request.into();
            to_issue.extend(id.map(|id| (key, (id, story.to_owned()))));
        }
        (ask, expected)
    });
    run(credentials.take_requesters(), cells).await;

    let entries = world.ca.entries().unwrap();
    let issued: HashSet<_> = entries[before..]
        .iter()
        .map(|entry| &entry.key_sha256)
        .collect();
    assert_eq!(issued, to_issue.keys().collect());
    for (key, (id, story)) in &to_issue {
        let entry = entries.iter().find(|entry| entry.key_sha256 == *key);
        let entry = entry.map(|entry| format!("{}/{}", entry.profile.as_str(), entry.name));
        let id = id.trim_start_matches("spiffe://lizmon.internal/");
        assert_eq!(entry.as_deref(), Some(id), "{story}");
    }
    world.ca.verify_audit(None).unwrap();
    // What was refused for everybody else was valid.
    let got = ca_server
        .enroll(&world, "a", &tokens.spare, request().1)
        .await;
    assert_eq!(got.status, 200, "{}", got.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn methods() {
    let world = World::without_receiver(|_| ());
    let ca_server = CaServer::open_with(&world, without_rates).await;
    let config = tls_config(&world.root(), None, &["http/1.1"]);
    let anyone = Requester::http1(config, ca_server.port()).await;
    super::methods_are_those_of_the_table(anyone, &served(), str::to_owned).await;
}
