//! Load balancers in front of receivers, and clients that claim to be one.

mod door;
mod forwarding;
mod load;
mod set_up;

use std::net::Ipv4Addr;

use lizmon_protocol::name::Role;
use serde_json::json;

use self::load::Load;
use self::set_up::{Balancer, Behind, Mode, Software};
use crate::harness::{Answer, Holder, answer};

/// What clients claim to have.
const SPOOFED_ADDRESS: &str = "203.0.113.9";

const SET_UPS: [(Software, Mode); 4] = [
    (Software::Nginx, Mode::Passthrough),
    (Software::Nginx, Mode::MutualTls),
    (Software::Haproxy, Mode::Passthrough),
    (Software::Haproxy, Mode::MutualTls),
];

/// Connections of each set-up, and restarts of both receivers in turn. Many are tried with one
/// set-up after another: docs/testing.md.
fn extent() -> (usize, usize) {
    let number = |variable: &str| {
        let text = std::env::var(variable).ok();
        text.map(|text| text.parse().expect("a number"))
    };
    (
        number("LIZMON_BALANCER_CONNECTIONS").unwrap_or(4),
        number("LIZMON_BALANCER_RESTARTS").unwrap_or(1),
    )
}

/// The shipped configurations, each before the same two receivers.
#[tokio::test(flavor = "multi_thread")]
async fn every_set_up_serves_through_restarts() {
    let (connections, restarts) = extent();
    let at_a_time = if restarts > 1 { 1 } else { SET_UPS.len() };
    let mut behind = Behind::start();
    let (node, stranger) = (behind.world.node("web1"), behind.world.node("stranger"));
    let mut logs = Vec::new();
    for (at, set_ups) in SET_UPS.chunks(at_a_time).enumerate() {
        let mut loads = Vec::new();
        for (more, (software, mode)) in set_ups.iter().enumerate() {
            // The clients of each have an address of their own.
            let address = client_address(at * at_a_time + more);
            let balancer = behind.balancer(*software, *mode).await;
            for holder in [Some(&stranger), None] {
                let client = balancer.client(&behind.world, holder, address);
                nobody_is_somebody_else(&balancer, &client, &node).await;
            }
            loads.push(Load::start(&behind.world, balancer, connections, address).await);
        }
        for receiver in (0..restarts).flat_map(|_| [0, 1]) {
            // Each client has had answers since the last one.
            for load in &loads {
                load.progress().await;
            }
            logs.push(behind.restart(receiver));
        }
        for load in loads {
            load.progress().await;
            let (balancer, sent) = load.stop().await;
            behind.audit(&balancer, &sent).await;
            balancer.stop();
        }
    }
    logs.extend(behind.stop());
    let logs = logs.concat();
    for at in 0..SET_UPS.len() {
        let address = format!("address={} ", client_address(at));
        assert!(logs.contains(&address), "{address}:\n{logs}");
    }
    assert!(!logs.contains(SPOOFED_ADDRESS), "{logs}");
}

fn client_address(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, u8::try_from(at).unwrap() + 1)
}

/// Headers that a client sends are not a proxy's, whatever is in between.
async fn nobody_is_somebody_else(balancer: &Balancer, client: &reqwest::Client, victim: &Holder) {
    let story = &balancer.story;
    let token = balancer.token(&victim.http).await;
    let leaf = set_up::client_cert(victim);
    let post = |client: &reqwest::Client| {
        let path = format!(
            "/api/perf/{}/{}",
            victim.name,
            crate::harness::world::wall_clock()
        );
        let request = client.post(balancer.url(&path)).bearer_auth(&token);
        request.body(json!({"cpu": 1}).to_string())
    };
    let spoofed = |name: &str, value: &str| {
        let request = post(client).header(name, value);
        answer(request.header("X-Forwarded-For", SPOOFED_ADDRESS))
    };
    let refused = |got: Answer, at_the_receiver: &str| {
        let code = match balancer.mode {
            Mode::Passthrough => at_the_receiver,
            Mode::MutualTls => "certificate_mismatch",
        };
        got.refused(code, story);
    };
    refused(spoofed("Client-Cert", &leaf).await, "untrusted_proxy");
    refused(spoofed("Client-Cert-Chain", &leaf).await, "untrusted_proxy");
    refused(
        spoofed("X-Client-Cert", &leaf).await,
        "certificate_mismatch",
    );
    answer(post(&victim.http)).await.no_content(story);
}

#[test]
fn a_proxy_gets_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let lizctl = |args: &[&str]| {
        let mut command = crate::harness::process::program("lizctl");
        command.args(args).arg("--certs").arg(&certs);
        crate::harness::process::run(&mut command).success()
    };
    lizctl(&["init-ca"]);
    let said = lizctl(&["issue-proxy", "edge1"]);
    assert!(said.starts_with("proxy edge1: "), "{said}");
    let der = crate::harness::raw::Shown::from_files(
        &certs.join("proxies/edge1.crt"),
        &certs.join("proxies/edge1.key"),
    );
    let identity = lizmon_mtls::identity::Identity::from_der(&der.chain[0]).unwrap();
    assert_eq!(identity.spiffe_id.role, Role::Proxy);
}
