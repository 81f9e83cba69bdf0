//! The token endpoint as RFC 6749, RFC 8705 and RFC 8414 have it.

use lizmon_protocol::name::Role;
use serde_json::{Value, json};

use crate::harness::{World, answer};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

#[tokio::test(flavor = "multi_thread")]
async fn every_role_gets_its_scopes() {
    let world = World::start().await;
    for (role, scope) in [
        (Role::Node, "metrics:write"),
        (Role::Reader, "metrics:read"),
        (Role::Operator, "metrics:read admin"),
    ] {
        let holder = world.holder(role, "a");
        let got = world.ask_token(&holder.http, &[GRANT]).await;
        assert_eq!(got.header("cache-control"), "no-store", "{role}");
        let body = got.json(role.as_str());
        assert_eq!(
            (&body["token_type"], &body["expires_in"]),
            (&json!("Bearer"), &json!(300)),
            "{role}"
        );
        assert_eq!(body["scope"], scope, "{role}");
        assert!(body.get("refresh_token").is_none(), "{role}");
        // client_id is the SPIFFE ID, if it is sent.
        let id = format!("spiffe://lizmon.internal/{role}/a");
        let got = world
            .ask_token(&holder.http, &[GRANT, ("client_id", &id)])
            .await;
        got.json(&id);
        // That there is no secret, as a client says it that cannot be without.
        let form = [GRANT, ("client_id", &id), ("client_secret", "none")];
        world.ask_token(&holder.http, &form).await.json(&id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_ask_for_less() {
    let world = World::start().await;
    let operator = world.holder(Role::Operator, "root");
    for (asked, granted) in [
        ("metrics:read", Some("metrics:read")),
        ("admin", Some("admin")),
        ("metrics:read admin", Some("metrics:read admin")),
        ("admin metrics:read", Some("metrics:read admin")),
        // RFC 6749 section 3.2: a parameter without a value counts as left out.
        ("", Some("metrics:read admin")),
        ("metrics:write", None),
        ("metrics:read metrics:write", None),
        ("root", None),
        ("ADMIN", None),
        ("metrics:read  admin", None),
        ("metrics:read,admin", None),
        (" admin", None),
        ("admin\0", None),
    ] {
        let got = world
            .ask_token(&operator.http, &[GRANT, ("scope", asked)])
            .await;
        match granted {
            Some(granted) => assert_eq!(got.json(asked)["scope"], granted, "{asked}"),
            None => got.token_error(400, "invalid_scope", asked),
        }
    }
    // A token with only the admin scope may not read.
    let got = world
        .ask_token(&operator.http, &[GRANT, ("scope", "admin")])
        .await
        .json("admin");
    let token = got["access_token"].as_str().unwrap();
    let got = world.get(&operator, token, "/api/perf").await;
    got.refused("insufficient_scope", "admin alone");
}

/// RFC 6749 section 5.2, error by error.
#[tokio::test(flavor = "multi_thread")]
async fn errors() {
    let world = World::start().await;
    let node = world.node("a");
    let body = |text: &'static str| (text, "application/x-www-form-urlencoded");
    let id = "client_id=spiffe://lizmon.internal/node/a";
    let with_id = format!("grant_type=client_credentials&{id}&{id}");
    for ((form, media_type), status, error) in [
        (body(""), 400, "invalid_request"),
        (body("grant_type="), 400, "invalid_request"),
        (body("scope=metrics:write"), 400, "invalid_request"),
        (
            body("grant_type=client_credentials&grant_type=client_credentials"),
            400,
            "invalid_request",
        ),
        (
            body("grant_type=client_credentials&scope=metrics:write&scope=metrics:write"),
            400,
            "invalid_request",
        ),
        (
            (&with_id, "application/x-www-form-urlencoded"),
            400,
            "invalid_request",
        ),
        (
            body("grant_type=client_credentials&client_secret=x"),
            400,
            "invalid_request",
        ),
        (
            body("grant_type=client_credentials&client_assertion=x&client_assertion_type=y"),
            400,
            "invalid_request",
        ),
        (
            ("grant_type=client_credentials", "text/plain"),
            400,
            "invalid_request",
        ),
        (
            (
                "grant_type=client_credentials",
                "multipart/form-data; boundary=x",
            ),
            400,
            "invalid_request",
        ),
        (
            (r#"{"grant_type":"client_credentials"}"#, "application/json"),
            400,
            "invalid_request",
        ),
        (
            body("grant_type=password&username=a&password=b"),
            400,
            "unsupported_grant_type",
        ),
        (
            body("grant_type=authorization_code&code=x"),
            400,
            "unsupported_grant_type",
        ),
        (
            body("grant_type=refresh_token&refresh_token=x"),
            400,
            "unsupported_grant_type",
        ),
        (
            body("grant_type=Client_Credentials"),
            400,
            "unsupported_grant_type",
        ),
        (
            body("grant_type=client_credentials%00"),
            400,
            "unsupported_grant_type",
        ),
        (
            body("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion=x"),
            400,
            "unsupported_grant_type",
        ),
        (
            body("grant_type=client_credentials&scope=admin"),
            400,
            "invalid_scope",
        ),
        (
            body("grant_type=client_credentials&scope=metrics:read"),
            400,
            "invalid_scope",
        ),
        (
            body("grant_type=client_credentials&client_id=a"),
            401,
            "invalid_client",
        ),
        (
            body("grant_type=client_credentials&client_id=spiffe://lizmon.internal/node/b"),
            401,
            "invalid_client",
        ),
        (
            body("grant_type=client_credentials&client_id=spiffe://lizmon.internal/reader/a"),
            401,
            "invalid_client",
        ),
        (
            body("grant_type=client_credentials&client_id=spiffe://evil.internal/node/a"),
            401,
            "invalid_client",
        ),
        (
            body("grant_type=client_credentials&client_id=SPIFFE://lizmon.internal/node/a"),
            401,
            "invalid_client",
        ),
        (body("\u{fffd}%FF=&grant_type"), 400, "invalid_request"),
    ] {
        let request = node
            .http
            .post(world.url("/oauth2/token"))
            .header("content-type", media_type);
        let got = answer(request.body(form.to_owned())).await;
        got.token_error(status, error, &format!("{media_type}: {form}"));
        world.healthy().await;
    }
    // Two ways to authenticate at once: RFC 6749 section 2.3.
    let request = node.http.post(world.url("/oauth2/token")).form(&[GRANT]);
    answer(request.basic_auth("a", Some("b")))
        .await
        .token_error(400, "invalid_request", "basic auth");
    // Unknown parameters are ignored: section 3.2.
    let got = world
        .ask_token(
            &node.http,
            &[GRANT, ("sub", "b"), ("audience", "x"), ("exp", "9")],
        )
        .await;
    assert_eq!(got.json("unknown parameters")["scope"], "metrics:write");
    // A charset is no other media type.
    let request = node
        .http
        .post(world.url("/oauth2/token"))
        .body("grant_type=client_credentials");
    let request = request.header(
        "content-type",
        "application/x-www-form-urlencoded; charset=UTF-8",
    );
    answer(request).await.json("with a charset");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_client() {
    let world = World::start().await;
    let anonymous = world.client(None, &["http/1.1"]);
    let got = world.ask_token(&anonymous, &[GRANT]).await;
    got.token_error(401, "invalid_client", "no certificate");
    for role in [Role::Receiver, Role::Ca, Role::Summarizer] {
        let holder = world.holder(role, "a");
        let got = world.ask_token(&holder.http, &[GRANT]).await;
        got.token_error(400, "unauthorized_client", role.as_str());
    }
}

/// Bodies that are too large or unreadable get the same error.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_form() {
    let world = World::start().await;
    let node = world.node("a");
    let request = |body: Vec<u8>| {
        let request = node.http.post(world.url("/oauth2/token")).body(body);
        request.header("content-type", "application/x-www-form-urlencoded")
    };
    let big = [
        b"grant_type=client_credentials&x=".to_vec(),
        vec![b'x'; 1 << 20],
    ]
    .concat();
    let got = answer(request(big)).await;
    assert!(
        matches!(got.status, 400 | 413),
        "{} {}",
        got.status,
        got.text()
    );
    got.token_error(got.status, "invalid_request", "more than a mebibyte");
    let many = "a=1&".repeat(200_000).into_bytes();
    answer(request(many))
        .await
        .token_error(400, "invalid_request", "many parameters");
    let packed = request(b"no gzip".to_vec()).header("content-encoding", "gzip");
    let got = answer(packed).await;
    got.token_error(400, "invalid_request", "not what it says it is");
    world.healthy().await;
}

/// RFC 8414 section 2 and RFC 8705 section 3.3; RFC 7517 section 5 and RFC 8037 section 2.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_keys() {
    let world = World::start().await;
    let anonymous = world.client(None, &["http/1.1"]);
    let get = async |path: &str| answer(anonymous.get(world.url(path))).await.json(path);
    let metadata = get("/.well-known/oauth-authorization-server").await;
    assert_eq!(metadata["issuer"], world.issuer());
    assert_eq!(metadata["token_endpoint"], world.url("/oauth2/token"));
    assert_eq!(metadata["jwks_uri"], world.url("/.well-known/jwks.json"));
    assert_eq!(
        metadata["grant_types_supported"],
        json!(["client_credentials"])
    );
    assert_eq!(
        metadata["token_endpoint_auth_methods_supported"],
        json!(["tls_client_auth"])
    );
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    assert_eq!(metadata["response_types_supported"], json!([]));
    assert_eq!(
        metadata["scopes_supported"],
        json!(["metrics:write", "metrics:read", "admin"])
    );
    let keys = get("/.well-known/jwks.json").await;
    check_keys(&keys, 1);
}

fn check_keys(set: &Value, count: usize) {
    let keys = set["keys"].as_array().expect("a key set");
    assert_eq!(keys.len(), count, "{set}");
    for key in keys {
        let told = |member: &str| key[member].as_str().unwrap_or_default();
        assert_eq!(
            (told("kty"), told("crv"), told("use"), told("alg")),
            ("OKP", "Ed25519", "sig", "EdDSA")
        );
        assert_eq!(told("x").len(), 43, "{key}");
        assert!(!told("kid").is_empty(), "{key}");
        assert!(
            key.get("d").is_none(),
            "the private half is nobody's business"
        );
    }
}

/// Token keys rotate automatically; tokens signed by an old key remain valid until they expire.
#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate() {
    let mut world = World::start_with(|config| {
        config.issuer = Some("https://metrics.example".into());
        config.audience = Some("https://metrics.example".into());
        config.token_ttl = std::time::Duration::from_secs(86_400);
    })
    .await;
    let node = world.node("a");
    world.clock.advance(30 * 86_400 - 1_000);
    let old = world.token(&node).await;
    world.clock.advance(1_000);
    for (later, count, code) in [
        (0, 2, "unknown_host"),
        (86_000, 2, "token_expired"),
        // The old key signed for two seconds more, until the new one was known.
        (403, 1, "token_invalid"),
    ] {
        world.clock.advance(later);
        world.restart().await;
        let keys = answer(node.http.get(world.url("/.well-known/jwks.json"))).await;
        check_keys(&keys.json("keys"), count);
        world
            .get(&node, &old, "/api/perf/a")
            .await
            .refused(code, &format!("{later} s later"));
        let new = world.token(&node).await;
        world
            .get(&node, &new, "/api/perf/a")
            .await
            .refused("unknown_host", "a new token is good");
    }
}
