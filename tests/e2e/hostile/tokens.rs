//! Tokens that no receiver mints, and wrong ways to send one.

use aws_lc_rs::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use crate::harness::forge::{Token, own_token_key, stolen_token_key};
use crate::harness::{Holder, World, answer};

struct Stage {
    world: World,
    node: Holder,
    reader: Holder,
    good: Token,
    text: String,
    stolen: Ed25519KeyPair,
}

impl Stage {
    async fn set() -> Self {
        let world = World::start().await;
        let (node, reader) = (world.node("a"), world.reader());
        let text = world.token(&node).await;
        let (good, stolen) = (Token::parse(&text), stolen_token_key(&world));
        Self {
            world,
            node,
            reader,
            good,
            text,
            stolen,
        }
    }

    fn post(&self) -> reqwest::RequestBuilder {
        let path = format!("/api/perf/a/{}", self.world.clock.now());
        self.node
            .http
            .post(self.world.url(&path))
            .body(r#"{"cpu":1}"#)
    }

    async fn refused(&self, token: &str, code: &str, story: &str) {
        for request in [
            self.post(),
            self.node.http.get(self.world.url("/api/perf/a")),
            self.node.http.get(self.world.url("/api/perf")),
            self.node.http.get(self.world.url("/api/delivery/a")),
        ] {
            answer(request.bearer_auth(token))
                .await
                .refused(code, story);
        }
        self.world.healthy().await;
        assert_eq!(self.world.stored(&self.reader).await, json!({}), "{story}");
    }

    fn with(&self, edit: impl FnOnce(&mut Token)) -> Token {
        let mut token = self.good.clone();
        edit(&mut token);
        token
    }
}

/// RFC 9068 section 2, RFC 8705 section 3.1: exactly this.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_what_is_promised() {
    let Stage {
        world, node, good, ..
    } = Stage::set().await;
    let now = world.clock.now();
    let header = good.header.as_object().unwrap();
    assert_eq!(
        (&header["typ"], &header["alg"]),
        (&json!("at+jwt"), &json!("EdDSA"))
    );
    let keys = answer(node.http.get(world.url("/.well-known/jwks.json")))
        .await
        .json("keys");
    assert!(
        keys["keys"]
            .as_array()
            .unwrap()
            .iter()
            .any(|key| key["kid"] == header["kid"])
    );
    let mut claims = good.claims.as_object().unwrap().clone();
    assert!(claims.remove("jti").unwrap().as_str().unwrap().len() >= 16);
    let leaf = &node.shown().chain[0];
    let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
    use base64::Engine as _;
    let thumbprint = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(thumbprint);
    assert_eq!(
        Value::Object(claims),
        json!({
            "iss": world.issuer(), "aud": world.issuer(), "sub": "a", "client_id": "spiffe://lizmon.internal/node/a",
            "scope": "metrics:write", "iat": now, "nbf": now, "exp": now + 300, "cnf": {"x5t#S256": thumbprint},
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers() {
    let stage = Stage::set().await;
    // The forged token is valid when nothing is changed.
    let again = stage
        .with(|token| token.claims["jti"] = json!("another"))
        .signed(&stage.stolen);
    let got = answer(
        stage
            .node
            .http
            .get(stage.world.url("/api/perf/a"))
            .bearer_auth(&again),
    )
    .await;
    got.refused("unknown_host", "no samples yet, but the token is good");

    let (own, jwk) = own_token_key();
    let own_kid = json!("attacker");
    let url = json!(format!("{}/.well-known/jwks.json", stage.world.issuer()));
    let kid = stage.good.header["kid"].clone();
    let set = |member: &'static str, value: Value| stage.with(|token| token.header[member] = value);
    let without = |member: &str| {
        stage.with(|token| {
            token.header.as_object_mut().unwrap().remove(member);
        })
    };
    let public = {
        use aws_lc_rs::signature::KeyPair as _;
        stage.stolen.public_key().as_ref().to_vec()
    };
    let mut tokens = vec![
        ("alg none without a signature", {
            let mut token = set("alg", json!("none"));
            token.signature.clear();
            token.unsigned()
        }),
        ("alg none", set("alg", json!("none")).signed(&stage.stolen)),
        ("alg NONE", set("alg", json!("NoNe")).unsigned()),
        (
            "alg HS256 with the public key",
            set("alg", json!("HS256")).signed_hs256(&public),
        ),
        (
            "alg HS256 with an empty key",
            set("alg", json!("HS256")).signed_hs256(b""),
        ),
        (
            "alg ES256",
            set("alg", json!("ES256")).signed(&stage.stolen),
        ),
        (
            "alg RS256",
            set("alg", json!("RS256")).signed(&stage.stolen),
        ),
        (
            "alg eddsa",
            set("alg", json!("eddsa")).signed(&stage.stolen),
        ),
        ("alg null", set("alg", json!(null)).signed(&stage.stolen)),
        (
            "alg an array",
            set("alg", json!(["EdDSA"])).signed(&stage.stolen),
        ),
        ("no alg", without("alg").signed(&stage.stolen)),
        ("typ JWT", set("typ", json!("JWT")).signed(&stage.stolen)),
        (
            "typ id token",
            set("typ", json!("id_token+jwt")).signed(&stage.stolen),
        ),
        ("typ null", set("typ", json!(null)).signed(&stage.stolen)),
        ("no typ", without("typ").signed(&stage.stolen)),
        (
            "crit exp",
            set("crit", json!(["exp"])).signed(&stage.stolen),
        ),
        (
            "crit of something",
            set("crit", json!(["x"])).signed(&stage.stolen),
        ),
        ("crit empty", set("crit", json!([])).signed(&stage.stolen)),
        (
            "b64 false",
            stage
                .with(|t| {
                    t.header["b64"] = json!(false);
                    t.header["crit"] = json!(["b64"]);
                })
                .signed(&stage.stolen),
        ),
        ("no kid", without("kid").signed(&stage.stolen)),
        ("kid null", set("kid", json!(null)).signed(&stage.stolen)),
        (
            "another kid",
            set("kid", own_kid.clone()).signed(&stage.stolen),
        ),
        (
            "kid a path",
            set("kid", json!("../../../../dev/null")).signed(&stage.stolen),
        ),
        (
            "kid a query",
            set("kid", json!("' or 1=1 --")).signed(&stage.stolen),
        ),
        ("own key, their kid", set("kid", kid.clone()).signed(&own)),
        ("own key, own kid", set("kid", own_kid.clone()).signed(&own)),
    ];
    for (member, value) in [
        ("jwk", jwk.clone()),
        ("jku", url.clone()),
        ("x5u", url),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("x")),
    ] {
        for kid in [kid.clone(), own_kid.clone()] {
            let token = stage.with(|token| {
                token.header[member] = value.clone();
                token.header["kid"] = kid;
            });
            tokens.push((member, token.signed(&own)));
        }
    }
    for (story, token) in tokens {
        stage.refused(&token, "token_invalid", story).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims() {
    let stage = Stage::set().await;
    let now = stage.world.clock.now();
    let issuer = stage.world.issuer();
    let cases = [
        ("iss", json!("https://evil.example")),
        ("iss", json!(format!("{issuer}/"))),
        ("iss", json!([issuer])),
        ("iss", json!(null)),
        ("aud", json!("https://evil.example")),
        ("aud", json!([issuer])),
        ("aud", json!([issuer, "https://evil.example"])),
        ("aud", json!(true)),
        ("sub", json!("b")),
        ("sub", json!("")),
        ("sub", json!(["a"])),
        ("client_id", json!("spiffe://lizmon.internal/node/b")),
        ("client_id", json!("spiffe://evil.internal/node/a")),
        ("client_id", json!("a")),
        ("scope", json!("root")),
        ("scope", json!(["metrics:write"])),
        ("scope", json!(7)),
        ("iat", json!(now + 1)),
        ("iat", json!(now + 59)),
        ("iat", json!(-1)),
        ("iat", json!("now")),
        ("nbf", json!(now + 1)),
        ("nbf", json!(now + 59)),
        ("exp", json!("never")),
        ("exp", json!(1e300)),
        ("exp", json!(-1)),
        ("exp", json!(null)),
        ("jti", json!(7)),
        ("cnf", json!({})),
        ("cnf", json!({"jkt": "x"})),
        ("cnf", json!("x")),
        ("cnf", json!(null)),
    ];
    for (claim, value) in cases {
        let story = format!("{claim} = {value}");
        let token = stage
            .with(|token| token.claims[claim] = value)
            .signed(&stage.stolen);
        // A client_id of somebody else makes it somebody else's token.
        let code = match (claim, stage.good.claims["sub"].as_str()) {
            ("client_id", Some("a")) if story.contains("evil.internal") => "certificate_mismatch",
            _ => "token_invalid",
        };
        stage.refused(&token, code, &story).await;
    }
    for claim in stage.good.claims.as_object().unwrap().keys() {
        let token = stage.with(|token| {
            token.claims.as_object_mut().unwrap().remove(claim);
        });
        stage
            .refused(
                &token.signed(&stage.stolen),
                "token_invalid",
                &format!("no {claim}"),
            )
            .await;
    }
    for exp in [now, now - 1] {
        let token = stage.with(|token| {
            for (claim, value) in [("iat", now - 300), ("nbf", now - 300), ("exp", exp)] {
                token.claims[claim] = json!(value);
            }
        });
        stage
            .refused(
                &token.signed(&stage.stolen),
                "token_expired",
                "expired, no leeway",
            )
            .await;
    }
    for thumbprint in ["x", "", &"A".repeat(43), &"A".repeat(44)] {
        let token = stage.with(|token| token.claims["cnf"] = json!({"x5t#S256": thumbprint}));
        stage
            .refused(
                &token.signed(&stage.stolen),
                "certificate_mismatch",
                thumbprint,
            )
            .await;
    }
    // Even a validly signed token gives no more scopes than the role of the certificate allows.
    let greedy =
        stage.with(|token| token.claims["scope"] = json!("metrics:write metrics:read admin"));
    let list = stage
        .node
        .http
        .get(stage.world.url("/api/perf"))
        .bearer_auth(greedy.signed(&stage.stolen));
    answer(list)
        .await
        .refused("insufficient_scope", "a node that reads all");
}

#[tokio::test(flavor = "multi_thread")]
async fn shapes() {
    let stage = Stage::set().await;
    let parts: Vec<&str> = stage.text.split('.').collect();
    let changed = stage.with(|token| token.claims["sub"] = json!("b"));
    let mut tokens = vec![
        (".".to_owned(), "dots"),
        ("..".to_owned(), "dots"),
        ("a.b.c".to_owned(), "letters"),
        (parts[..2].join("."), "without a signature"),
        (
            format!("{}.{}.", parts[0], parts[1]),
            "with an empty signature",
        ),
        (format!("{}.", stage.text), "a dot more"),
        (
            format!("{}.x.y", stage.text),
            "five parts: an encrypted one",
        ),
        (format!("{}=", stage.text), "padded"),
        (
            format!("{}+", &stage.text[..stage.text.len() - 1]),
            "base64 of the other kind",
        ),
        (changed.unsigned(), "another sub"),
        (
            format!("{}.{}.{}", parts[1], parts[0], parts[2]),
            "parts in another order",
        ),
        (
            format!("{}.{}.{}", parts[0], parts[1], "A".repeat(86)),
            "another signature",
        ),
        ("x".repeat(5_000), "long"),
        (
            format!("{}{}", stage.text, "A".repeat(5_000)),
            "a long tail",
        ),
    ];
    let flip = |text: &str, at: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("ASCII")
    };
    let dots = [parts[0].len(), parts[0].len() + 1 + parts[1].len()];
    let flips = (0..stage.text.len())
        .step_by(41)
        .filter(|at| !dots.contains(at));
    tokens.extend(flips.map(|at| (flip(&stage.text, at), "a letter changed")));
    for (token, story) in tokens {
        stage
            .refused(&token, "token_invalid", &format!("{story}: {token}"))
            .await;
    }
}

/// Tokens are accepted only in the Authorization header: RFC 6750 section 2.1.
#[tokio::test(flavor = "multi_thread")]
async fn the_authorization_header() {
    let stage = Stage::set().await;
    let text = &stage.text;
    for (value, code) in [
        (String::new(), "token_missing"),
        ("Basic YTpi".to_owned(), "token_missing"),
        (format!("DPoP {text}"), "token_missing"),
        (text.clone(), "token_missing"),
        (format!("Bearer{text}"), "token_missing"),
        ("Bearer".to_owned(), "token_missing"),
        ("Bearer ".to_owned(), "token_missing"),
        (format!("Bearer {text} {text}"), "token_invalid"),
        (format!("Bearer {text},"), "token_invalid"),
        (format!("Bearer \"{text}\""), "token_invalid"),
    ] {
        let got = answer(stage.post().header("authorization", &value)).await;
        got.refused(code, &value);
    }
    let bearer = format!("Bearer {text}");
    let twice = stage
        .post()
        .header("authorization", &bearer)
        .header("authorization", "Bearer x");
    let got = answer(twice).await;
    assert!(
        matches!(got.status, 400 | 401),
        "two headers: {} {}",
        got.status,
        got.text()
    );
    let path = format!(
        "/api/perf/a/{}?access_token={text}",
        stage.world.clock.now()
    );
    let query = stage
        .node
        .http
        .post(stage.world.url(&path))
        .body(r#"{"cpu":1}"#);
    answer(query).await.refused("token_missing", "in the query");
    let cookie = stage
        .post()
        .header("cookie", format!("access_token={text}"));
    answer(cookie).await.refused("token_missing", "in a cookie");
    assert_eq!(stage.world.stored(&stage.reader).await, json!({}));
    // RFC 9110 section 11.1: the scheme folds case.
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let got = answer(
            stage
                .post()
                .header("authorization", format!("{scheme} {text}")),
        )
        .await;
        got.no_content(scheme);
    }
}

/// A token signed by another receiver's key, for the same names.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_receiver() {
    let stage = Stage::set().await;
    let other = World::start_with(|config| {
        config.issuer = Some("https://localhost:1".into());
        config.audience = Some("https://localhost:1".into());
    })
    .await;
    let token = other.token(&other.node("a")).await;
    stage
        .refused(&token, "token_invalid", "of another receiver")
        .await;
}
