//! `--trusted-proxy`: whose word counts for who the client is, and in which form.

use lizmon_ca::pki::Reason;
use lizmon_mtls::identity::Identity;
use lizmon_mtls::proxies::ProxyRole;
use lizmon_protocol::name::Role;
use reqwest::RequestBuilder;
use serde_json::json;

use super::set_up::client_cert;
use crate::harness::forge::Forger;
use crate::harness::raw::Shown;
use crate::harness::{Answer, Holder, World, answer};

const GRANT: [(&str, &str); 1] = [("grant_type", "client_credentials")];

async fn world() -> World {
    World::start_with(|config| config.proxies.role = ProxyRole::Trusted).await
}

/// A request that a proxy, or whoever it is, passes on.
struct Passing<'a> {
    world: &'a World,
    http: reqwest::Client,
    headers: Vec<(&'static str, String)>,
}

impl<'a> Passing<'a> {
    fn by(world: &'a World, http: &reqwest::Client) -> Self {
        Self {
            world,
            http: http.clone(),
            headers: Vec::new(),
        }
    }

    fn of(mut self, client: &Holder) -> Self {
        self.headers.push(("client-cert", client_cert(client)));
        self
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    async fn answer(&self, request: RequestBuilder) -> Answer {
        let each = self.headers.iter();
        answer(each.fold(request, |request, (name, value)| {
            request.header(*name, value)
        }))
        .await
    }

    async fn token(&self) -> Answer {
        let url = self.world.url("/oauth2/token");
        self.answer(self.http.post(url).form(&GRANT)).await
    }

    async fn post(&self, host: &str, token: &str) -> Answer {
        let path = format!("/api/perf/{host}/{}", self.world.clock.now());
        let request = self.http.post(self.world.url(&path)).bearer_auth(token);
        self.answer(request.body(r#"{"cpu": 1}"#)).await
    }

    async fn health(&self) -> Answer {
        self.answer(self.http.get(self.world.url("/healthz"))).await
    }
}

fn token_of(answer: &Answer) -> String {
    let body = answer.json("a token");
    body["access_token"].as_str().unwrap().to_owned()
}

/// One connection of a proxy carries requests of many clients, each with its own rights.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_its_clients() {
    let world = world().await;
    let (a, b, edge) = (
        world.node("a"),
        world.node("b"),
        world.holder(Role::Proxy, "edge1"),
    );
    let through = |client: &Holder| Passing::by(&world, &edge.http).of(client);
    let tokens = [
        token_of(&through(&a).token().await),
        token_of(&through(&b).token().await),
    ];
    for _ in 0..2 {
        through(&a).post("a", &tokens[0]).await.no_content("a");
        through(&b).post("b", &tokens[1]).await.no_content("b");
        through(&a)
            .post("b", &tokens[0])
            .await
            .refused("wrong_host", "a to b");
        through(&a)
            .post("b", &tokens[1])
            .await
            .refused("certificate_mismatch", "a with b's token");
    }
    // It is the certificate that a token is bound to, not the way.
    Passing::by(&world, &a.http)
        .post("a", &tokens[0])
        .await
        .no_content("a, directly");
    let direct = world.token(&a).await;
    through(&a)
        .post("a", &direct)
        .await
        .no_content("a, with its other token");
    // Without a certificate in a header the client has none. The proxy's own gives no right.
    let nobody = Passing::by(&world, &edge.http);
    nobody
        .token()
        .await
        .token_error(401, "invalid_client", "nobody");
    nobody
        .post("a", &tokens[0])
        .await
        .refused("certificate_mismatch", "nobody with a's token");
    assert_eq!(nobody.health().await.status, 200);
    through(&edge)
        .token()
        .await
        .token_error(400, "unauthorized_client", "a proxy as the client");
    // A chain is not needed while the receiver knows the issuer, and does no harm.
    let shown = a.shown();
    let chain = |der: &[u8]| {
        use base64::Engine as _;
        format!(
            ":{}:",
            base64::engine::general_purpose::STANDARD.encode(der)
        )
    };
    let whole = through(&a).with("client-cert-chain", chain(&shown.chain[1]));
    whole
        .post("a", &tokens[0])
        .await
        .no_content("with its chain");
    let other = World::without_receiver(|_| ()).node("a").shown();
    let wrong = through(&a).with("client-cert-chain", chain(&other.chain[1]));
    wrong
        .post("a", &tokens[0])
        .await
        .refused("certificate_untrusted", "with another chain");
}

/// Whoever is no proxy and names a client is refused, whatever it asks for.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_names_a_client() {
    let world = world().await;
    let (a, b) = (world.node("a"), world.node("b"));
    let token = world.token(&b).await;
    let mut peers = vec![("nobody", world.client(None, &["http/1.1"]))];
    for role in [
        Role::Node,
        Role::Reader,
        Role::Operator,
        Role::Receiver,
        Role::Ca,
        Role::Summarizer,
    ] {
        peers.push((role.as_str(), world.holder(role, "spoofer").http));
    }
    peers.push(("HTTP/2", world.client(Some(a.shown()), &["h2"])));
    for (story, http) in &peers {
        for name in ["client-cert", "client-cert-chain"] {
            let spoofed = Passing::by(&world, http).with(name, client_cert(&b));
            spoofed
                .post("b", &token)
                .await
                .refused("untrusted_proxy", story);
            spoofed.health().await.refused("untrusted_proxy", story);
            spoofed
                .token()
                .await
                .token_error(400, "unauthorized_client", story);
        }
    }
    assert_eq!(world.stored(&world.reader()).await, json!({}));
}

/// A receiver without the flag takes nothing from a proxy.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_flag_a_proxy_is_refused() {
    let world = World::start().await;
    let (a, edge) = (world.node("a"), world.holder(Role::Proxy, "edge1"));
    let token = world.token(&a).await;
    for passing in [
        Passing::by(&world, &edge.http),
        Passing::by(&world, &edge.http).of(&a),
        Passing::by(&world, &edge.http).with("client-cert", "::"),
    ] {
        passing.health().await.refused("untrusted_proxy", "health");
        passing
            .post("a", &token)
            .await
            .refused("untrusted_proxy", "a sample");
        passing
            .token()
            .await
            .token_error(400, "unauthorized_client", "a token");
    }
    Passing::by(&world, &a.http)
        .post("a", &token)
        .await
        .no_content("a, directly");
}

/// Values that could be read in two ways are read in none.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_values_of_a_proxy_are_refused() {
    let world = world().await;
    let (a, b, edge) = (
        world.node("a"),
        world.node("b"),
        world.holder(Role::Proxy, "edge1"),
    );
    let token = world.token(&a).await;
    let passing = || Passing::by(&world, &edge.http);
    let (of_a, of_b) = (client_cert(&a), client_cert(&b));
    let pem = std::fs::read_to_string(&a.cert)
        .unwrap()
        .replace('\n', "%0A");
    for (story, passing) in [
        ("twice", passing().of(&a).of(&a)),
        ("two", passing().of(&a).of(&b)),
        (
            "a list",
            passing().with("client-cert", format!("{of_a}, {of_b}")),
        ),
        ("empty", passing().with("client-cert", "")),
        ("no bytes", passing().with("client-cert", "::")),
        (
            "without colons",
            passing().with("client-cert", of_a.trim_matches(':')),
        ),
        (
            "a parameter",
            passing().with("client-cert", format!("{of_a};a=1")),
        ),
        ("PEM", passing().with("client-cert", pem.clone())),
        (
            "PEM in base64",
            passing().with("client-cert", ":LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t:"),
        ),
        (
            "a chain alone",
            passing().with("client-cert-chain", of_a.clone()),
        ),
        (
            "two chains",
            passing()
                .of(&a)
                .with("client-cert-chain", of_b.clone())
                .with("client-cert-chain", of_b.clone()),
        ),
        (
            "a chain that is none",
            passing().of(&a).with("client-cert-chain", "1"),
        ),
        (
            "no address",
            passing().of(&a).with("x-forwarded-for", "unknown"),
        ),
    ] {
        passing
            .post("a", &token)
            .await
            .refused("invalid_forwarding", story);
        passing.health().await.refused("invalid_forwarding", story);
        passing
            .token()
            .await
            .token_error(400, "invalid_request", story);
    }
    assert_eq!(world.stored(&world.reader()).await, json!({}));
}

/// A certificate in a header is judged as one of a handshake.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_in_headers_are_verified() {
    let world = world().await;
    let edge = world.holder(Role::Proxy, "edge1");
    let id = "spiffe://lizmon.internal/node/a";
    let forger = Forger::with_issuing_key(&world);
    let now = time::OffsetDateTime::from_unix_timestamp(world.clock.now() as i64).unwrap();
    let hour = time::Duration::HOUR;
    let cases = [
        (
            "of another CA",
            World::without_receiver(|_| ()).node("a").shown(),
            "certificate_untrusted",
        ),
        (
            "with the names of ours",
            Forger::with_same_names(&world).leaf(id, |_| ()),
            "certificate_untrusted",
        ),
        (
            "for servers",
            forger.leaf(id, |leaf| {
                leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            }),
            "certificate_untrusted",
        ),
        (
            "of another domain",
            forger.leaf("spiffe://other.internal/node/a", |_| ()),
            "certificate_untrusted",
        ),
        (
            "ended",
            forger.leaf(id, |leaf| leaf.not_after = now - hour),
            "certificate_expired",
        ),
        (
            "not yet valid",
            forger.leaf(id, |leaf| leaf.not_before = now + hour),
            "certificate_expired",
        ),
    ];
    let token = world.token(&world.node("a")).await;
    for (story, Shown { chain, .. }, code) in cases {
        use base64::Engine as _;
        let value = base64::engine::general_purpose::STANDARD.encode(&chain[0]);
        let passing = Passing::by(&world, &edge.http).with("client-cert", format!(":{value}:"));
        passing.post("a", &token).await.refused(code, story);
        passing
            .token()
            .await
            .token_error(401, "invalid_client", story);
    }
    assert_eq!(world.stored(&world.reader()).await, json!({}));
}

/// Whose certificate is revoked, client or proxy, is refused on connections that are open.
#[tokio::test(flavor = "multi_thread")]
async fn revocations_reach_requests_through_a_proxy() {
    let world = world().await;
    let (a, b, edge) = (
        world.node("a"),
        world.node("b"),
        world.holder(Role::Proxy, "edge1"),
    );
    let through = |client: &Holder| Passing::by(&world, &edge.http).of(client);
    let tokens = [
        token_of(&through(&a).token().await),
        token_of(&through(&b).token().await),
    ];
    through(&a).post("a", &tokens[0]).await.no_content("before");
    revoke(&world, &a);
    until_refused(async || through(&a).post("a", &tokens[0]).await)
        .await
        .refused("certificate_revoked", "a");
    through(&a)
        .token()
        .await
        .token_error(401, "invalid_client", "a");
    through(&b)
        .post("b", &tokens[1])
        .await
        .no_content("b is as it was");
    revoke(&world, &edge);
    until_refused(async || through(&b).post("b", &tokens[1]).await)
        .await
        .refused("untrusted_proxy", "b");
    through(&b)
        .health()
        .await
        .refused("untrusted_proxy", "health");
    through(&b)
        .token()
        .await
        .token_error(400, "unauthorized_client", "b");
    Passing::by(&world, &b.http)
        .post("b", &tokens[1])
        .await
        .no_content("b, directly");
}

fn revoke(world: &World, holder: &Holder) {
    let identity = Identity::from_der(&holder.shown().chain[0]).unwrap();
    let serial = identity.serial_hex();
    let serial = serial.trim_start_matches("00").parse().unwrap();
    let now = world.clock.now();
    world
        .ca
        .revoke(&serial, Reason::KeyCompromise, now)
        .unwrap();
}

/// Sends until the receiver has read the new CRL.
async fn until_refused(send: impl AsyncFn() -> Answer) -> Answer {
    let refused = async {
        loop {
            let got = send().await;
            if got.status >= 400 {
                return got;
            }
        }
    };
    let in_time = tokio::time::timeout(crate::harness::process::PATIENCE, refused).await;
    in_time.expect("the revocation is known")
}

/// A proxy's clients do not share a limit.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_those_of_each_client() {
    let world = World::start_with(|config| {
        config.proxies.role = ProxyRole::Trusted;
        config.limits.requests_per_second_max = 5.try_into().unwrap();
    })
    .await;
    let (a, b, edge) = (
        world.node("a"),
        world.node("b"),
        world.holder(Role::Proxy, "edge1"),
    );
    let through = |client: &Holder| Passing::by(&world, &edge.http).of(client);
    let token = token_of(&through(&b).token().await);
    let limited = until_refused(async || through(&a).token().await).await;
    assert_eq!(limited.status, 429, "{}", limited.text());
    through(&b).post("b", &token).await.no_content("b");
}
