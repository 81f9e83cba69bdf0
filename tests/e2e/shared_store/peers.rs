//! What receivers that share a store tell each other.

use std::fs;
use std::time::Duration;

use lizmon_ca::authority::Request;
use lizmon_ca::pki::Reason;
use lizmon_engines::{EngineNode, EngineSettings};
use lizmon_protocol::name::Role;
use serde_json::{Value, json};

use super::{GroupReceiver, receiver_on, summarizer};
use crate::harness::process::{PATIENCE, Running};
use crate::harness::world::wall_clock;
use crate::harness::{Answer, Holder, World, answer};

/// A receiver with a certificate and a CRL file of its own.
fn receiver_named(world: &World, store: &EngineNode, name: &str) -> GroupReceiver {
    receiver_with(world, store, name, &[])
}

fn receiver_with(world: &World, store: &EngineNode, name: &str, flags: &[&str]) -> GroupReceiver {
    let mut request = Request::new(Role::Receiver, name.parse().unwrap());
    request.sans = vec!["localhost".parse().unwrap()];
    world.ca.issue(request, wall_clock() - 60).unwrap();
    let crl = world.folder().join(format!("{name}.crl"));
    fs::copy(world.trust_files().crl, &crl).unwrap();
    let own = |kind| world.certs().join(format!("receivers/{name}.{kind}"));
    let base = receiver_on(world, store, name);
    let mut args: Vec<_> = base.get_args().map(ToOwned::to_owned).collect();
    for (flag, file) in [
        ("--cert", own("crt")),
        ("--key", own("key")),
        ("--crl", crl),
    ] {
        let at = args.iter().position(|arg| arg == flag).unwrap();
        args[at + 1] = file.into();
    }
    let mut command = crate::harness::process::program("liz-receiver");
    GroupReceiver::of(Running::start(command.args(args).args(flags)))
}

/// Signs a CRL that revokes this holder's certificate. No receiver reads the file it is in.
fn revoke(world: &World, name: &str) -> Vec<u8> {
    let entries = world.ca.entries().unwrap();
    let entry = entries.iter().rfind(|entry| entry.name == name).unwrap();
    let serial = entry.serial.parse().unwrap();
    let now = wall_clock();
    world
        .ca
        .revoke(&serial, Reason::KeyCompromise, now)
        .unwrap();
    fs::read(world.certs().join("crl.pem")).unwrap()
}

async fn put_crl(receiver: &GroupReceiver, operator: &Holder, crl: Vec<u8>) -> Answer {
    let token = receiver.token(operator).await;
    let request = operator.http.put(format!("{}/api/crl", receiver.url));
    answer(request.bearer_auth(token).body(crl)).await
}

/// Posts until the answer has this code.
async fn until_refused(
    receiver: &GroupReceiver,
    (holder, token): (&Holder, &str),
    epoch: u64,
    code: &str,
) {
    let mut last = String::new();
    let refused = async {
        loop {
            let said = receiver.post(holder, token, 1, epoch).await;
            if said.status == crate::harness::answer::status_of(code) {
                return said.refused(code, &receiver.url);
            }
            last = said.text();
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, refused).await;
    assert!(in_time.is_ok(), "{}: {last}", receiver.url);
}

/// A client comes to any receiver with the token of any other, of one that has died, too. A token
/// of a receiver whose certificate was revoked is honoured by none.
#[tokio::test(flavor = "multi_thread")]
async fn any_receiver_honours_the_tokens_of_the_others() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let (node, operator) = (world.node("web1"), world.holder(Role::Operator, "root"));
    let first = receiver_named(&world, &store, "rx1");
    let token_before = first.token(&node).await;
    let second = receiver_named(&world, &store, "rx2");
    let third = receiver_named(&world, &store, "rx3");
    let epoch = wall_clock();
    let taken = async |receiver: &GroupReceiver, token: &str, seq| {
        let said = receiver.post(&node, token, seq, epoch).await;
        assert_eq!(
            said.json(&receiver.url),
            json!({"accepted": 1, "duplicate": 0})
        );
    };
    taken(&second, &token_before, 1).await;
    let of_third = third.token(&node).await;
    taken(&first, &of_third, 2).await;
    let keys = answer(
        node.http
            .get(format!("{}/.well-known/jwks.json", second.url)),
    )
    .await;
    let keys = keys.json("keys");
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(3), "{keys}");
    third.running.kill();
    taken(&first, &of_third, 3).await;
    let crl = revoke(&world, "rx3");
    put_crl(&first, &operator, crl).await.no_content("a CRL");
    for receiver in [&first, &second] {
        until_refused(receiver, (&node, &of_third), epoch, "token_invalid").await;
    }
    taken(&second, &token_before, 4).await;
}

/// A CRL that one receiver was given is in force at all of them, at one that starts later, and at
/// summarizers. What others write in its place is removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_crl_pushed_to_one_receiver_is_in_force_at_all() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let (node, operator) = (world.node("web1"), world.holder(Role::Operator, "root"));
    let receivers = ["rx1", "rx2"].map(|name| receiver_named(&world, &store, name));
    let mut sum1 = summarizer(&world, &store, "sum1");
    let mut tokens = Vec::new();
    let epoch = wall_clock();
    for receiver in &receivers {
        let token = receiver.token(&node).await;
        receiver.post(&node, &token, 1, epoch).await.json("taken");
        tokens.push(token);
    }
    let crls = "lizmon:{group}:crls";
    store.cli(&["HSET", crls, &"ab".repeat(32), "anything"]);
    let crl = revoke(&world, "web1");
    put_crl(&receivers[0], &operator, crl)
        .await
        .no_content("a CRL");
    for (receiver, token) in receivers.iter().zip(&tokens) {
        until_refused(receiver, (&node, token), epoch, "certificate_revoked").await;
    }
    sum1.wait_for("CRLs of another receiver in force");
    let late = receiver_named(&world, &store, "rx3");
    let refused = node.http.get(format!("{}/healthz", late.url)).send().await;
    assert!(refused.is_err(), "its certificate is revoked");
    // One of the root, one of the issuing CA: what is older, and what is none, is gone.
    let mut count = Value::Null;
    let clean = async {
        while count != "2" {
            count = store.cli(&["HLEN", crls]).trim().into();
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, clean).await;
    assert!(in_time.is_ok(), "{count}");
}

/// A holder has its limit once, however many receivers there are: at the second receiver it stays
/// below a half of the limit, and is refused for what it does at the first.
#[expect(clippy::disallowed_methods, reason = "a client that is limited waits")]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_holder_uses_at_one_receiver_counts_at_all() {
    let store = EngineNode::start(&EngineSettings::redis());
    let world = World::without_receiver(|_| ());
    let node = world.node("web1");
    let few = ["--requests-per-second", "4"];
    let [first, second] = ["rx1", "rx2"].map(|name| receiver_with(&world, &store, name, &few));
    let token = first.token(&node).await;
    let epoch = wall_clock();
    let limited = async {
        let mut granted = 0;
        loop {
            if first.post(&node, &token, 1, epoch).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            granted += 1;
            if granted % 3 == 0 {
                let said = second.post(&node, &token, 1, epoch).await;
                if said.status == 429 {
                    return said.refused("rate_limited", "at the second");
                }
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, limited).await;
    assert!(in_time.is_ok());
}
