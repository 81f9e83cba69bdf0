//! What receivers sign for each other, and what others make of it. How certificates and headers
//! are judged is tested where statements are.

use std::sync::Arc;

use lizmon_mtls::trust::StatementError;
use rcgen::{KeyPair, PKCS_ECDSA_P521_SHA512};
use serde_json::{Value, json};

use self::pki::*;
use super::*;
use crate::store::signing::{GroupRefusal, GroupSigner, GroupVerifier, PublishedKey};
use crate::token::Tokens;

mod pki;

const STORE: &str = "0b1e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
const MESSAGE: &[u8] = b"lizmon group 1\0 and so on";

/// Two receivers, and what the first publishes.
fn two() -> (Pki, Member, Member, ReceiverKeys) {
    let pki = Pki::new();
    let (one, other) = (Member::new(&pki, 1, 60), Member::new(&pki, 2, 90));
    let keys = one.keys();
    (pki, one, other, keys)
}

#[test]
fn one_receiver_verifies_what_another_signed() {
    let (pki, one, other, keys) = two();
    let key = keys.key(STORE).unwrap();
    let signature = keys.sign(&key.id, MESSAGE).unwrap();
    let verify = |store, key: &PublishedKey, message, signature: &[u8]| {
        other.verifier.verify(store, key, message, signature)
    };
    assert_eq!(verify(STORE, &key, MESSAGE, &signature), Ok(()));
    let bad = Err(GroupRefusal::BadSignature);
    assert_eq!(verify(STORE, &key, b"another", &signature), bad);
    assert_eq!(verify(STORE, &key, MESSAGE, &[0; 64]), bad);
    assert_eq!(verify(STORE, &key, MESSAGE, b""), bad);
    let untrusted = Err(GroupRefusal::UntrustedKey);
    let another_store = "1b1e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
    assert_eq!(verify(another_store, &key, MESSAGE, &signature), untrusted);
    let published = |id: &str, statement: &str| PublishedKey {
        id: id.to_owned(),
        statement: statement.to_owned(),
    };
    let theirs = other.keys().key(STORE).unwrap();
    for key in [
        published(&theirs.id, &key.statement),
        published(&key.id, &theirs.statement[1..]),
        published(&key.id, ""),
        published("", &key.statement),
    ] {
        assert_eq!(verify(STORE, &key, MESSAGE, &signature), untrusted);
    }
    // Another's key is a trusted one, and has not signed this.
    assert_eq!(verify(STORE, &theirs, MESSAGE, &signature), bad);
    let strangers = Member::new(&Pki::new(), 3, 90);
    let stranger = strangers.keys().key(STORE).unwrap();
    assert!(!other.verifier.trusts(STORE, &stranger));
    drop((pki, one));
}

#[test]
fn a_revocation_ends_it_at_once() {
    let (pki, mut one, mut other, keys) = two();
    let key = keys.key(STORE).unwrap();
    let signature = keys.sign(&key.id, MESSAGE).unwrap();
    let verify = |other: &Member| other.verifier.verify(STORE, &key, MESSAGE, &signature);
    assert_eq!(verify(&other), Ok(()));
    other.revoke(&pki, 2, &[7]);
    assert_eq!(verify(&other), Ok(()), "of another");
    other.revoke(&pki, 3, &[7, 1]);
    assert_eq!(verify(&other), Err(GroupRefusal::UntrustedKey));
    // And it learns that nobody would take what it appends.
    assert!(keys.key(STORE).is_some());
    one.revoke(&pki, 3, &[7, 1]);
    assert_eq!(keys.key(STORE), None);
}

#[test]
fn it_ends_with_the_certificate() {
    let (_pki, one, other, keys) = two();
    let key = keys.key(STORE).unwrap();
    let end = NOW + 60 * DAY;
    for (now, expected) in [
        (NOW, true),
        (end, true),
        (end + 1, false),
        (end, true),
        (NOW - 2 * DAY, false),
        (NOW, true),
    ] {
        one.set_time(now);
        other.set_time(now);
        assert_eq!(other.verifier.trusts(STORE, &key), expected, "{now}");
        assert_eq!(keys.key(STORE).is_some(), expected, "{now}: its own");
    }
}

/// Each statement is signed by a trusted receiver: what one of them could claim about others.
#[test]
fn claims_of_another_shape_are_refused() {
    let (_pki, one, other, _) = two();
    let trust = one.trust.current();
    let (own, anothers) = (one.tokens.signing_key(NOW), other.tokens.signing_key(NOW));
    let (own, anothers) = (own.unwrap(), anothers.unwrap());
    let good = json!({
        "sub": "spiffe://lizmon.internal/receiver/rx1", "aud": STORE, "iat": NOW,
        "cnf": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": own.x(), "kid": own.kid()}},
    });
    let judge = |claims: &str| {
        let statement = trust.sign_statement("lizmon-key+jwt", claims.as_bytes());
        let other = other.trust.current();
        KeyStatement::verify(&other, STORE, &statement.unwrap(), NOW).map(|found| found.key)
    };
    assert_eq!(judge(&good.to_string()), Ok(own.clone()));
    let set = |pointer: &str, value: Value| {
        let mut claims = good.clone();
        *claims.pointer_mut(pointer).unwrap() = value;
        claims.to_string()
    };
    let more = |pointer: &str, name: &str, value: Value| {
        let mut claims = good.clone();
        claims.pointer_mut(pointer).unwrap()[name] = value;
        claims.to_string()
    };
    let id = one.trust.current().own().spiffe_id.clone();
    let text = good.to_string();
    let rx2 = json!("spiffe://lizmon.internal/receiver/rx2");
    for (claims, expected) in [
        (set("/sub", rx2), KeyRefusal::OtherReceiver(id)),
        (set("/sub", json!("rx1")), KeyRefusal::Claims),
        (set("/aud", json!("")), KeyRefusal::OtherStore),
        (set("/aud", json!([STORE])), KeyRefusal::Claims),
        (set("/iat", json!(NOW - DAY - 1)), KeyRefusal::Date),
        (set("/iat", json!(NOW + 60 * DAY + 1)), KeyRefusal::Date),
        (set("/iat", json!(-1)), KeyRefusal::Claims),
        (set("/cnf/jwk/kty", json!("EC")), KeyRefusal::Key),
        (set("/cnf/jwk/crv", json!("X25519")), KeyRefusal::Key),
        (set("/cnf/jwk/x", json!("AAAA")), KeyRefusal::Key),
        // The key of another under our name, and ours under another's.
        (set("/cnf/jwk/x", json!(anothers.x())), KeyRefusal::KeyName),
        (
            set("/cnf/jwk/kid", json!(anothers.kid())),
            KeyRefusal::KeyName,
        ),
        (set("/cnf/jwk", json!([])), KeyRefusal::Claims),
        (more("/cnf/jwk", "d", json!("AAAA")), KeyRefusal::Claims),
        (
            more("/cnf", "kid", json!(anothers.kid())),
            KeyRefusal::Claims,
        ),
        (more("", "exp", json!(NOW + 1)), KeyRefusal::Claims),
        // Which of two counts would be a matter of the reader.
        (
            text.replace(r#""kid":"#, r#""kid":"x","kid":"#),
            KeyRefusal::Claims,
        ),
        (
            text.replace(r#""aud":"#, r#""aud":"x","aud":"#),
            KeyRefusal::Claims,
        ),
        (format!("{text}{text}"), KeyRefusal::Claims),
        (String::new(), KeyRefusal::Claims),
    ] {
        assert_ne!(claims, text);
        assert_eq!(judge(&claims), Err(expected), "{claims}");
    }
    let typed = trust.sign_statement("at+jwt", text.as_bytes()).unwrap();
    let trust = other.trust.current();
    assert!(KeyStatement::verify(&trust, STORE, &typed, NOW).is_err());
}

/// An ECDSA signature is another each time, so the same statement was not signed again.
#[test]
fn a_statement_is_signed_once_for_a_key_and_a_certificate() {
    let (pki, mut one, other, keys) = two();
    let first = keys.key(STORE).unwrap();
    assert_eq!(keys.key(STORE).unwrap(), first);
    one.revoke(&pki, 2, &[7]);
    assert_eq!(
        keys.key(STORE).unwrap(),
        first,
        "another trust, the same certificate"
    );
    one.renew(&pki, 3, KeyPair::generate().unwrap());
    let renewed = keys.key(STORE).unwrap();
    assert_eq!(renewed.id, first.id);
    assert_ne!(renewed.statement, first.statement);
    assert!(other.verifier.trusts(STORE, &renewed));
    one.tokens.rotate(NOW + 31 * DAY).unwrap();
    let rotated = keys.key(STORE).unwrap();
    assert_ne!(rotated.id, first.id);
    assert!(keys.sign(&rotated.id, MESSAGE).is_some());
    let elsewhere = keys.key("another").unwrap();
    assert_eq!(elsewhere.id, rotated.id);
    assert!(other.verifier.trusts("another", &elsewhere));
    assert!(!other.verifier.trusts(STORE, &elsewhere));
}

#[test]
fn tokens_are_honoured_by_published_keys() {
    let (pki, one, mut other, keys) = two();
    let holder = one.trust.current().own().clone();
    let scope = "metrics:write".parse().unwrap();
    let token = one.tokens.mint(&holder, scope, NOW).unwrap().token;
    let mut published = vec![keys.key(STORE).unwrap()];
    let strangers = Member::new(&Pki::new(), 1, 90);
    published.push(strangers.keys().key(STORE).unwrap());
    let honour = |other: &Member| {
        let keys = other.verifier.token_keys(STORE, &published);
        let count = keys.len();
        other.tokens.set_foreign(keys);
        (count, other.tokens.verify(&token, NOW).is_ok())
    };
    assert_eq!(honour(&other), (1, true));
    other.revoke(&pki, 2, &[1]);
    assert_eq!(honour(&other), (0, false));
}

#[test]
fn a_key_that_signs_no_statement_is_told_at_the_start() {
    let (pki, mut one, _, keys) = two();
    assert!(keys.key(STORE).is_some());
    one.renew(
        &pki,
        3,
        KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap(),
    );
    assert_eq!(keys.key(STORE), None);
    let opened = ReceiverKeys::open(one.tokens.clone(), one.verifier.clone());
    assert_eq!(opened.err(), Some(StatementError::KeyKind));
}
