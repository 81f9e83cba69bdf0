//! Tokens of other receivers, and signatures over what is no token.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::*;

/// The data folders of two receivers that share an issuer.
fn two() -> ([tempfile::TempDir; 2], [Tokens; 2]) {
    let data = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let tokens = [0, 1].map(|at: usize| tokens(data[at].path()));
    (data, tokens)
}

fn key_of(tokens: &Tokens, until: u64) -> ForeignTokenKey {
    ForeignTokenKey::new(tokens.signing_key(NOW).unwrap(), until)
}

fn is_invalid<T>(result: Result<T, AccessTokenError>) -> bool {
    matches!(result, Err(AccessTokenError::Invalid(_)))
}

#[test]
fn anothers_tokens_are_honoured_while_its_key_is_trusted() {
    let (_data, [ours, theirs]) = two();
    let token = theirs.mint(&identity("web1"), scope(), NOW).unwrap().token;
    assert!(is_invalid(ours.verify(&token, NOW)), "not known");
    let until = NOW + TTL / 2;
    ours.set_foreign(vec![key_of(&theirs, until)]);
    for _anew_then_remembered in 0..2 {
        let claims = ours.verify(&token, NOW).unwrap();
        assert_eq!(claims.sub.as_str(), "web1");
        assert!(is_bound_to(&claims, &[7; 32]));
        assert!(ours.verify(&token, until).is_ok());
        assert!(is_invalid(ours.verify(&token, until + 1)), "the key ended");
    }
    let last = LastToken::default();
    last.verify(&ours, b"header", &token, NOW).unwrap();
    ours.set_foreign(Vec::new());
    assert_eq!(ours.remembered.len(), 1);
    assert!(is_invalid(ours.verify(&token, NOW)), "remembered in vain");
    assert!(last.claims(&ours, b"header", NOW).is_none());
    ours.set_foreign(vec![key_of(&theirs, u64::MAX)]);
    assert!(ours.verify(&token, NOW + TTL - 1).is_ok());
    let ended = ours.verify(&token, NOW + TTL);
    assert_eq!(ended.err(), Some(AccessTokenError::Expired));
}

#[test]
fn a_foreign_key_verifies_what_it_signed_alone() {
    let (_data, [ours, theirs]) = two();
    let (_data, [stranger, _]) = two();
    ours.set_foreign(vec![key_of(&theirs, u64::MAX)]);
    let kid = |tokens: &Tokens| Value::from(tokens.signing_key(NOW).unwrap().kid());
    let named = |by: &Tokens, kid: Value| forge(by, |header| header["kid"] = kid, |_| ());
    for (token, story) in [
        (named(&stranger, kid(&theirs)), "a stranger as another"),
        (named(&stranger, kid(&ours)), "a stranger as us"),
        (named(&theirs, kid(&ours)), "another as us"),
        (named(&ours, kid(&theirs)), "we as another"),
        (named(&theirs, Value::Null), "nameless"),
    ] {
        assert!(is_invalid(ours.verify(&token, NOW)), "{story}");
    }
    for claim in ["iss", "aud"] {
        let token = forge(&theirs, |_| (), |claims| claims[claim] = "https://x".into());
        assert!(is_invalid(ours.verify(&token, NOW)), "{claim}");
    }
    assert!(ours.verify(&forge(&theirs, |_| (), |_| ()), NOW).is_ok());
}

/// A client brings a token to another receiver a moment after it was minted, and no two clocks
/// agree.
#[test]
fn anothers_clock_may_be_ahead() {
    let (_data, [ours, theirs]) = two();
    ours.set_foreign(vec![key_of(&theirs, u64::MAX)]);
    let ahead = |tokens: &Tokens, secs| tokens.mint(&identity("web1"), scope(), NOW + secs);
    for (secs, is_good) in [
        (1, true),
        (CLOCK_SKEW_SECS_MAX, true),
        (CLOCK_SKEW_SECS_MAX + 1, false),
    ] {
        let token = ahead(&theirs, secs).unwrap().token;
        for _anew_then_remembered in 0..2 {
            assert_eq!(ours.verify(&token, NOW).is_ok(), is_good, "{secs}");
        }
    }
    let own = ahead(&ours, 1).unwrap().token;
    assert!(is_invalid(ours.verify(&own, NOW)), "our own is not");
}

/// Whoever verifies tokens by the issuer's key set gets tokens of all its receivers.
#[test]
fn the_key_set_has_the_keys_of_all() {
    let (data, [ours, theirs]) = two();
    ours.set_foreign(vec![key_of(&theirs, u64::MAX)]);
    let keys = |tokens: &Tokens| tokens.key_set()["keys"].as_array().unwrap().clone();
    let own = keys(&tokens(data[0].path()));
    assert_eq!(keys(&ours), [own, keys(&theirs)].concat());
}

#[test]
fn a_token_key_signs_no_token_for_others() {
    let (_data, [ours, theirs]) = two();
    let key = ours.signing_key(NOW).unwrap();
    let message = b"lizmon group 1\0abc";
    let signature = ours.sign(key.kid(), message).unwrap();
    let public = UnparsedPublicKey::new(&ED25519, key.bytes());
    assert!(public.verify(message, &signature).is_ok());
    let unknown = theirs.signing_key(NOW).unwrap();
    assert_eq!(ours.sign(unknown.kid(), message), None);
    let token = ours.mint(&identity("web1"), scope(), NOW).unwrap().token;
    let (signed, _) = token.rsplit_once('.').unwrap();
    for message in [signed, "abc", "a.b.c", "", "-_."] {
        assert_eq!(ours.sign(key.kid(), message.as_bytes()), None, "{message}");
    }
}
