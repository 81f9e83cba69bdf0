use super::*;
use aws_lc_rs::signature::Ed25519KeyPair;
use serde_json::{Value, json};

const NOW: u64 = 1_465_001_814;
const TTL: u64 = 300;

fn identity(name: &str) -> Identity {
    Identity {
        spiffe_id: format!("spiffe://lizmon.internal/node/{name}")
            .parse()
            .unwrap(),
        attributes: lizmon_protocol::name::Attributes::default(),
        serial: Box::new([1]),
        thumbprint: [7; 32],
        not_before: NOW - 60,
        not_after: NOW + 3600,
    }
}

fn tokens(data: &Path) -> Tokens {
    let url = "https://localhost:8443".to_owned();
    let life = Duration::from_secs(30 * 86_400);
    Tokens::open(data, url.clone(), url, Duration::from_secs(TTL), life, NOW).unwrap()
}

fn scope() -> Scopes {
    "metrics:write".parse().unwrap()
}

#[test]
fn what_is_minted_is_verified_until_it_ends() {
    let data = tempfile::tempdir().unwrap();
    let tokens = tokens(data.path());
    let minted = tokens.mint(&identity("web1"), scope(), NOW).unwrap();
    assert_eq!(minted.expires_in, TTL);
    assert_eq!(tokens.remembered.len(), 1, "remembered when it is minted");
    for _remembered_then_anew in 0..2 {
        let claims = tokens.verify(&minted.token, NOW + TTL - 1).unwrap();
        assert_eq!(claims.sub.as_str(), "web1");
        assert!(is_bound_to(&claims, &[7; 32]) && !is_bound_to(&claims, &[8; 32]));
        assert_eq!(tokens.remembered.len(), 1, "verified once");
        tokens.remembered.clear();
    }
    tokens.verify(&minted.token, NOW + TTL - 1).unwrap();
    for remembered in [1, 0] {
        assert_eq!(tokens.remembered.len(), remembered);
        assert_eq!(
            tokens.verify(&minted.token, NOW + TTL),
            Err(AccessTokenError::Expired)
        );
    }
}

/// Its first request comes a moment later: no signature is verified for it, but all it says is
/// checked.
#[test]
fn a_minted_token_is_known_without_its_key() {
    let data = tempfile::tempdir().unwrap();
    let tokens = tokens(data.path());
    let token = tokens.mint(&identity("web1"), scope(), NOW).unwrap().token;
    tokens.ring.store(Arc::new(KeyRing { keys: Vec::new() }));
    assert!(tokens.verify(&token, NOW).is_ok());
    let mut other = token.clone().into_bytes();
    *other.last_mut().unwrap() ^= 1;
    let other = String::from_utf8(other).unwrap();
    assert!(tokens.verify(&other, NOW).is_err(), "by its exact bytes");
    let early = tokens.verify(&token, NOW - 1);
    assert!(
        matches!(early, Err(AccessTokenError::Invalid(_))),
        "{early:?}"
    );
    assert_eq!(
        tokens.verify(&token, NOW + TTL),
        Err(AccessTokenError::Expired)
    );
    assert!(
        tokens.verify(&token, NOW).is_err(),
        "forgotten with its end"
    );
}

#[test]
fn a_token_never_outlives_its_certificate() {
    let data = tempfile::tempdir().unwrap();
    let holder = Identity {
        not_after: NOW + 10,
        ..identity("web1")
    };
    let minted = tokens(data.path()).mint(&holder, scope(), NOW).unwrap();
    assert_eq!(minted.expires_in, 10);
}

#[test]
fn keys_survive_a_restart_and_rotate_on_time() {
    let data = tempfile::tempdir().unwrap();
    let old = tokens(data.path())
        .mint(&identity("web1"), scope(), NOW)
        .unwrap()
        .token;
    let tokens = tokens(data.path());
    assert!(tokens.verify(&old, NOW + 1).is_ok());
    let later = NOW + 30 * 86_400;
    tokens.rotate(later - 1).unwrap();
    assert_eq!(tokens.key_set()["keys"].as_array().unwrap().len(), 1);
    tokens.rotate(later).unwrap();
    assert_eq!(tokens.key_set()["keys"].as_array().unwrap().len(), 2);
    let holder = Identity {
        not_after: later + 3600,
        ..identity("web1")
    };
    let new = tokens.mint(&holder, scope(), later).unwrap().token;
    assert!(tokens.verify(&new, later).is_ok());
    // It is published for two seconds before it signs, and the old one signs until then.
    let signing = |now| tokens.signing_key(now).unwrap();
    let own = tokens.own_keys();
    assert_eq!(
        [signing(later + 1), signing(later + 2)],
        [own[0].clone(), own[1].clone()]
    );
    tokens.rotate(later + 2 + TTL).unwrap();
    assert_eq!(tokens.key_set()["keys"].as_array().unwrap().len(), 2);
    tokens.rotate(later + 2 + TTL + 1).unwrap();
    assert_eq!(tokens.key_set()["keys"].as_array().unwrap().len(), 1);
}

#[cfg(unix)]
#[test]
fn the_key_file_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let data = tempfile::tempdir().unwrap();
    tokens(data.path());
    let mode = std::fs::metadata(data.path().join(KEYS_FILE))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Signs any header and claims with the real key: what an insider with the key file could make.
fn forge(
    tokens: &Tokens,
    edit_header: impl FnOnce(&mut Value),
    edit_claims: impl FnOnce(&mut Value),
) -> String {
    let ring = tokens.ring.load();
    let key = ring.keys.last().unwrap();
    let mut header = json!({"typ": "at+jwt", "alg": "EdDSA", "kid": key.public.kid()});
    edit_header(&mut header);
    let good = tokens.mint(&identity("web1"), scope(), NOW).unwrap().token;
    let payload = URL_SAFE_NO_PAD
        .decode(good.split('.').nth(1).unwrap())
        .unwrap();
    let mut claims: Value = serde_json::from_slice(&payload).unwrap();
    edit_claims(&mut claims);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let pair =
        Ed25519KeyPair::from_pkcs8(&URL_SAFE_NO_PAD.decode(&key.stored.pkcs8).unwrap()).unwrap();
    format!(
        "{message}.{}",
        URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes()))
    )
}

#[test]
fn claims_of_another_shape_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let tokens = tokens(data.path());
    assert!(
        tokens.verify(&forge(&tokens, |_| (), |_| ()), NOW).is_ok(),
        "the forge itself works"
    );
    let set = |claim: &'static str, value: Value| (claim, value);
    let cases = [
        set("iss", json!("https://evil.example")),
        set("iss", json!(["https://localhost:8443"])),
        set("iss", json!("https://localhost:8443/")),
        set("aud", json!(["https://localhost:8443"])),
        set("aud", json!("https://other.example")),
        set("sub", json!("db1")),
        set("sub", json!("")),
        set("client_id", json!("spiffe://lizmon.internal/node/db1")),
        set("scope", json!("root")),
        set("scope", json!(["metrics:write"])),
        set("iat", json!(NOW + 1)),
        set("nbf", json!(NOW + 1)),
        set("exp", json!("never")),
        set("exp", json!(-1)),
        set("exp", json!(1.5)),
        set("jti", json!(7)),
        set("cnf", json!({})),
        set("cnf", json!({"x5t#S256": "x", "jwk": {}})),
    ];
    for (claim, value) in cases {
        let shown = format!("{claim} = {value}");
        let token = forge(&tokens, |_| (), |claims| claims[claim] = value);
        assert!(
            matches!(
                tokens.verify(&token, NOW),
                Err(AccessTokenError::Invalid(_))
            ),
            "{shown}"
        );
    }
    let mut required = Vec::new();
    let note = |claims: &mut Value| required.extend(claims.as_object().unwrap().keys().cloned());
    forge(&tokens, |_| (), note);
    assert_eq!(required.len(), 10);
    for claim in required {
        let token = forge(
            &tokens,
            |_| (),
            |claims| {
                claims.as_object_mut().unwrap().remove(&claim);
            },
        );
        assert!(
            matches!(
                tokens.verify(&token, NOW),
                Err(AccessTokenError::Invalid(_))
            ),
            "without {claim}"
        );
    }
    let ended = forge(
        &tokens,
        |_| (),
        |claims| {
            claims["iat"] = json!(NOW - 9);
            claims["nbf"] = json!(NOW - 9);
            claims["exp"] = json!(NOW - 1);
        },
    );
    assert_eq!(tokens.verify(&ended, NOW), Err(AccessTokenError::Expired));
}

#[test]
fn headers_of_another_shape_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let tokens = tokens(data.path());
    let cases = [
        ("typ", json!("JWT")),
        ("typ", json!(null)),
        ("typ", json!("AT+JWT")),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("ES256")),
        ("kid", json!("another")),
        ("kid", json!(null)),
        ("kid", json!("../../etc/passwd")),
    ];
    for (member, value) in cases {
        let shown = format!("{member} = {value}");
        let token = forge(&tokens, |header| header[member] = value, |_| ());
        assert!(tokens.verify(&token, NOW).is_err(), "{shown}");
    }
}

#[test]
fn keys_in_a_header_are_never_followed() {
    let data = tempfile::tempdir().unwrap();
    let tokens = tokens(data.path());
    let other_data = tempfile::tempdir().unwrap();
    let attacker = super::tests::tokens(other_data.path());
    let attackers_jwk = attacker.key_set()["keys"][0].clone();
    let our_kid = tokens.key_set()["keys"][0]["kid"].clone();
    for (member, value) in [
        ("jwk", attackers_jwk),
        ("jku", json!("https://127.0.0.1:1/jwks.json")),
        ("x5u", json!("https://127.0.0.1:1/cert.pem")),
        ("x5c", json!(["AAAA"])),
    ] {
        for kid in [our_kid.clone(), json!("attacker")] {
            let token = forge(
                &attacker,
                |header| {
                    header[member] = value.clone();
                    header["kid"] = kid;
                },
                |_| (),
            );
            assert!(
                matches!(
                    tokens.verify(&token, NOW),
                    Err(AccessTokenError::Invalid(_))
                ),
                "{member}"
            );
        }
    }
}

/// A token is named by its `jti`: an ECDSA token can be rewritten and stay valid, so nothing may be
/// known or denied by the string. No two have the same, and ours cannot be rewritten to begin with.
#[test]
fn a_token_has_a_name_of_its_own() {
    let data = tempfile::tempdir().unwrap();
    let tokens = tokens(data.path());
    let names: std::collections::HashSet<String> = (0..100)
        .map(|_| {
            let token = tokens.mint(&identity("web1"), scope(), NOW).unwrap().token;
            tokens.verify(&token, NOW).unwrap().jti.clone()
        })
        .collect();
    assert_eq!(names.len(), 100, "of one holder, in one second");
    assert!(names.iter().all(|name| Uuid::parse_str(name).is_ok()));
}

/// RFC 8032 section 5.1.7: a signature whose S is not below the group's order L is none. Who does
/// not look can be given (R, S + L) for (R, S).
#[test]
fn a_signature_cannot_be_rewritten() {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let data = tempfile::tempdir().unwrap();
    let tokens = tokens(data.path());
    let good = tokens.mint(&identity("web1"), scope(), NOW).unwrap().token;
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut carry = 0;
    for (byte, of_order) in bytes[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(of_order) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0, "S + L fits");
    // The last of 86 characters has four bits to spare.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let spare = alphabet
        .chars()
        .nth(alphabet.find(last).unwrap() + 1)
        .unwrap();
    for (story, rewritten) in [
        ("S + L", URL_SAFE_NO_PAD.encode(&bytes)),
        ("spare bits", format!("{}{spare}", &signature[..85])),
        ("padding", format!("{signature}==")),
    ] {
        let token = format!("{message}.{rewritten}");
        assert!(
            matches!(
                tokens.verify(&token, NOW),
                Err(AccessTokenError::Invalid(_))
            ),
            "{story}"
        );
    }
    assert!(tokens.verify(&good, NOW).is_ok());
}

#[test]
fn broken_tokens_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let tokens = tokens(data.path());
    let good = tokens.mint(&identity("web1"), scope(), NOW).unwrap().token;
    let parts: Vec<&str> = good.split('.').collect();
    let mut cases = vec![
        String::new(),
        ".".into(),
        "..".into(),
        "a.b.c".into(),
        format!("{good}."),
        format!("{good}="),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(86)),
        "x".repeat(TOKEN_BYTES_MAX + 1),
    ];
    for at in (0..good.len()).step_by(7) {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        cases.push(String::from_utf8(bytes).unwrap());
    }
    for token in cases {
        assert!(tokens.verify(&token, NOW).is_err(), "{token}");
    }
    assert_eq!(
        tokens.remembered.len(),
        1,
        "only the good token is remembered"
    );
}

mod foreign;

/// What a connection's last request had is judged like any other, and is another's in no case.
#[test]
fn the_last_token_of_a_connection() {
    let data = tempfile::tempdir().unwrap();
    let tokens = tokens(data.path());
    let last = LastToken::default();
    let header = |token: &str| format!("Bearer {token}").into_bytes();
    let mint = |name| tokens.mint(&identity(name), scope(), NOW).unwrap().token;
    let [ours, other] = ["web1", "web2"].map(mint);
    let known = |token: &str, now| last.claims(&tokens, &header(token), now);
    assert!(known(&ours, NOW).is_none(), "none yet");
    let verified = last.verify(&tokens, &header(&ours), &ours, NOW).unwrap();
    // It needs no other memory.
    tokens.remembered.clear();
    assert_eq!(known(&ours, NOW), Some(verified));
    assert!(tokens.remembered.is_empty());
    for near in [
        &other,
        &ours[1..],
        &ours[..ours.len() - 1],
        &format!("{ours}x"),
    ] {
        assert!(known(near, NOW).is_none(), "{near}");
    }
    assert!(known(&ours, NOW + TTL - 1).is_some());
    assert!(known(&ours, NOW + TTL).is_none(), "it has expired");
    assert!(known(&ours, NOW - 1).is_none(), "not valid yet");
    // What is refused takes the place of nothing.
    let broken = format!("{ours}x");
    assert!(
        last.verify(&tokens, &header(&broken), &broken, NOW)
            .is_err()
    );
    assert!(known(&broken, NOW).is_none() && known(&ours, NOW).is_some());
    last.verify(&tokens, &header(&other), &other, NOW).unwrap();
    assert_eq!(known(&other, NOW).unwrap().sub.as_str(), "web2");
    assert!(known(&ours, NOW).is_none());
}
