//! Rotation of token keys: while both keys exist, tokens of either are valid, to the receiver and
//! to anyone with the key set.

use std::fs;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::crash::{receiver_command, started};
use crate::harness::forge::Token;
use crate::harness::process::{PATIENCE, run};
use crate::harness::{World, answer};

const DAY: u64 = 86_400;
const TTL: u64 = 600;
/// The receiver checks every second; this is far more.
const SOON: Duration = Duration::from_secs(20);

/// The public key set: key IDs, oldest first, and public keys.
async fn key_set(world: &World) -> Vec<(String, Vec<u8>)> {
    let client = world.client(None, &["http/1.1"]);
    let got = answer(client.get(world.url("/.well-known/jwks.json"))).await;
    let set = got.json("the key set");
    let key = |key: &Value| {
        assert!(key.get("d").is_none(), "the private half is nobody's");
        let told = |member: &str| key[member].as_str().expect("a text").to_owned();
        let x = URL_SAFE_NO_PAD.decode(told("x")).expect("base64url");
        (told("kid"), x)
    };
    set["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .map(key)
        .collect()
}

/// Which key of the set signed this token, found from public data alone.
fn signer(token: &str, set: &[(String, Vec<u8>)]) -> Option<String> {
    let named = Token::parse(token).header["kid"].as_str()?.to_owned();
    let (_, x) = set.iter().find(|(kid, _)| *kid == named)?;
    let (message, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    UnparsedPublicKey::new(&ED25519, x)
        .verify(message.as_bytes(), &signature)
        .ok()
        .map(|()| named)
}

async fn until_keys(world: &World, count: usize) -> Vec<(String, Vec<u8>)> {
    let asked = async {
        loop {
            let set = key_set(world).await;
            if set.len() == count {
                return set;
            }
        }
    };
    let in_time = tokio::time::timeout(SOON, asked).await;
    in_time.unwrap_or_else(|_| panic!("not {count} keys in time"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_followed_while_the_receiver_serves() {
    let mut world = World::start_with(|config| {
        config.token_ttl = Duration::from_secs(TTL);
        // It listens on another port after a restart.
        let url = Some("https://localhost:8443".to_owned());
        (config.issuer, config.audience) = (url.clone(), url);
    })
    .await;
    let node = world.node("a");
    let good = async |world: &World, token: &str, story: &str| {
        let got = world.get(&node, token, "/api/perf/a").await;
        got.refused(
            "unknown_host",
            &format!("{story}: no samples, but the token is good"),
        );
    };
    let first = key_set(&world).await;
    assert_eq!(first.len(), 1);
    let old_kid = first[0].0.clone();
    // The last moment at which the old key signs; its token is valid long after that.
    world.clock.advance(30 * DAY - 1);
    let old = world.token(&node).await;
    assert_eq!(signer(&old, &first).as_ref(), Some(&old_kid));
    world.clock.advance(1);
    let both = until_keys(&world, 2).await;
    assert_eq!(both[0], first[0], "the old one is still published");
    let new_kid = both[1].0.clone();
    assert_ne!(new_kid, old_kid);
    let early = world.token(&node).await;
    assert_eq!(
        signer(&early, &both),
        Some(old_kid.clone()),
        "known to nobody yet"
    );
    world.clock.advance(2);
    let new = world.token(&node).await;
    assert_eq!(signer(&new, &both).as_ref(), Some(&new_kid), "it signs");
    assert_eq!(signer(&old, &both).as_ref(), Some(&old_kid));
    // A restart: the receiver remembers no token that it minted, and verifies both by their keys.
    world.restart().await;
    good(&world, &old, "the old key's token").await;
    good(&world, &new, "the new key's token").await;
    // Until the old key's last token has expired, which is now.
    world.clock.advance(TTL - 4);
    good(&world, &old, "in its last second").await;
    world.clock.advance(1);
    let got = world.get(&node, &old, "/api/perf/a").await;
    got.refused("token_expired", "it has ended");
    good(&world, &new, "the new key's token").await;
    assert_eq!(key_set(&world).await, both);
    world.clock.advance(4);
    let last = until_keys(&world, 1).await;
    assert_eq!(last[0], both[1], "the old one has left");
    let got = world.get(&node, &old, "/api/perf/a").await;
    got.refused("token_invalid", "nobody's key any more");
    good(&world, &world.token(&node).await, "a token of now").await;
}

/// `--token-key-days`, with a key file that says how old the key is.
#[tokio::test(flavor = "multi_thread")]
async fn token_keys_last_as_many_days_as_configured() {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("a");
    let (mut tokens, mut first) = (Vec::new(), None);
    for (age, keys) in [(0, 1), (2 * DAY - 3_600, 1), (2 * DAY, 2)] {
        let story = format!("a key of {age} s");
        set_age(&world, age);
        let mut command = receiver_command(&world);
        let running = started(&mut world, command.args(["--token-key-days", "2"]));
        let set = key_set(&world).await;
        assert_eq!(set.len(), keys, "{story}");
        assert_eq!(*first.get_or_insert(set[0].clone()), set[0], "{story}");
        // A new key signs once others know it.
        let by_newest = async {
            loop {
                let token = world.token(&node).await;
                if signer(&token, &set).as_ref() == Some(&set[keys - 1].0) {
                    return token;
                }
                tokio::task::yield_now().await;
            }
        };
        let token = tokio::time::timeout(SOON, by_newest).await;
        tokens.push(token.unwrap_or_else(|_| panic!("{story}: the newest does not sign")));
        // Tokens of this start and of earlier ones, of either key.
        for token in &tokens {
            let got = world.get(&node, token, "/api/perf/a").await;
            got.refused("unknown_host", &format!("{story}: the token is good"));
        }
        running.signal(Signal::TERM);
        running.wait_within(PATIENCE).success();
    }
    for days in ["0", "3651", "-1", "two"] {
        let mut command = receiver_command(&world);
        let done = run(command.arg(format!("--token-key-days={days}")));
        assert!(done.failure(2).contains("--token-key-days"), "{days}");
    }
}

/// Sets the age of the newest key, by the wall clock that the program uses.
fn set_age(world: &World, age: u64) {
    let file = world.data().join("token-keys.json");
    let Ok(text) = fs::read(&file) else {
        return;
    };
    let mut keys: Value = serde_json::from_slice(&text).unwrap();
    let newest = keys.as_array_mut().unwrap().last_mut().unwrap();
    newest["created"] = json!(crate::harness::world::wall_clock() - age);
    fs::write(&file, keys.to_string()).unwrap();
}
