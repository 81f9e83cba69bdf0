//! Gateways: one certificate that reports several hosts, and no others.

use lizmon_protocol::name::Role;
use serde_json::{Value, json};

use crate::crash::start_receiver;
use crate::harness::process::{Finished, program, run};
use crate::harness::world::{Holder, wall_clock};
use crate::harness::{World, answer};

async fn send(world: &World, sender: &Holder, host: &str) -> crate::harness::answer::Answer {
    let token = world.token(sender).await;
    let path = format!("/api/perf/{host}/{}", wall_clock() - 1);
    let body = json!({"cpu": 1.5}).to_string();
    world.post(sender, &token, &path, body).await
}

/// A host as the list has it.
async fn listed(world: &World, reader: &Holder, host: &str) -> Value {
    let token = world.token(reader).await;
    let got = world.get(reader, &token, "/api/perf").await.json("hosts");
    let hosts = got["hosts"].as_array().unwrap();
    let found = hosts.iter().find(|listed| listed["name"] == host);
    found.cloned().unwrap_or_default()
}

fn reporters(host: &Value) -> Vec<&str> {
    let reported_by = host["reported-by"].as_object();
    let reporters = reported_by.into_iter().flatten();
    reporters.map(|(who, _)| who.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_reports_its_hosts_and_no_others() {
    let mut world = World::without_receiver(|_| ());
    let gateway = world.holder_with(Role::Gateway, "prom1", &["web*"]);
    let tagged = world.holder_with(Role::Gateway, "prom2", &["*", "env=prod"]);
    let web1 = world.node("web1");
    let db1 = world.holder_with(Role::Node, "db1", &["env=prod"]);
    let reader = world.reader();
    let receiver = start_receiver(&mut world);
    for host in ["web1", "web2"] {
        let got = send(&world, &gateway, host).await;
        got.no_content(host);
    }
    for host in ["db1", "my-web1", "WEB1", "prom1", "unknown", "no%20host"] {
        let got = send(&world, &gateway, host).await;
        got.refused("wrong_host", host);
    }
    // A tag is of the host's own certificate: nobody has it before that got a token.
    let got = send(&world, &tagged, "db1").await;
    got.refused("wrong_host", "no tags yet");
    send(&world, &db1, "db1").await.no_content("itself");
    send(&world, &tagged, "db1").await.no_content("tagged");
    let got = send(&world, &tagged, "web1").await;
    got.refused("wrong_host", "of other tags");
    // What a machine is, and what has arrived of it, is between the machine and the receiver.
    let token = world.token(&gateway).await;
    let facts = gateway.http.put(world.url("/api/facts/web1"));
    let got = answer(facts.bearer_auth(&token).body(r#"{"os":"x"}"#)).await;
    got.refused("wrong_host", "facts");
    for path in ["/api/perf/web1", "/api/perf", "/api/delivery/web1"] {
        let got = world.get(&gateway, &token, path).await;
        got.refused("insufficient_scope", path);
    }
    send(&world, &web1, "web1").await.no_content("itself");
    // Who reports is stored like what is reported.
    receiver.kill();
    let _receiver = start_receiver(&mut world);
    let host = listed(&world, &reader, "web1").await;
    assert_eq!(reporters(&host), ["gateway/prom1", "node/web1"], "{host}");
    let at = host["reported-by"]["gateway/prom1"].as_u64().unwrap();
    assert!(at.abs_diff(wall_clock()) < 120, "{host}");
    let host = listed(&world, &reader, "web2").await;
    assert_eq!(reporters(&host), ["gateway/prom1"], "{host}");
    let host = listed(&world, &reader, "db1").await;
    assert_eq!(reporters(&host), ["gateway/prom2"], "{host}");
    let page = answer(reader.http.get(world.url("/hosts/web1"))).await;
    for who in ["gateway/prom1", "node/web1"] {
        assert!(page.text().contains(who), "{}", page.text());
    }
}

/// A batch of a gateway is numbered like that of a monitor.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_gateway_counts_once() {
    let world = World::start().await;
    let gateway = world.holder_with(Role::Gateway, "prom1", &["web*"]);
    let token = world.token(&gateway).await;
    let producer = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
    let record = json!({"seq": 1, "epoch": world.clock.now(), "values": {"cpu": 1}});
    let batch = json!({"producer": producer, "records": [record]}).to_string();
    for (accepted, duplicate) in [(1, 0), (0, 1)] {
        let got = world
            .post(&gateway, &token, "/api/perf/web1", batch.clone())
            .await;
        let expected = json!({"accepted": accepted, "duplicate": duplicate});
        assert_eq!(got.json("a batch"), expected);
    }
    let got = world.post(&gateway, &token, "/api/perf/db1", batch).await;
    got.refused("wrong_host", "a batch");
}

/// A gateway that is called as a node is: name and role together are who it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_takes_no_nodes_place() {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("web1");
    let gateway = world.holder_with(Role::Gateway, "web1", &["web1"]);
    let other = world.holder_with(Role::Gateway, "web2", &["web1"]);
    let reader = world.reader();
    let _receiver = start_receiver(&mut world);
    send(&world, &node, "web1").await.no_content("the node");
    let got = send(&world, &gateway, "web1").await;
    got.no_content("a gateway of its name");
    // Its own name is no host that it may report.
    let got = send(&world, &other, "web2").await;
    got.refused("wrong_host", "its own name");
    let operator = world.holder(Role::Operator, "olga");
    let mut revoke = lizctl(
        &world,
        &["revoke", "web1", "--role", "gateway", "--receiver"],
    );
    revoke.arg(world.url("/"));
    revoke.arg("--cert").arg(&operator.cert);
    revoke.arg("--key").arg(&operator.key);
    revoke.arg("--ca").arg(world.root());
    ran(revoke).await.success();
    let got = send_as_before(&world, &gateway, "web1").await;
    assert!(matches!(got, Err(()) | Ok(401)), "{got:?}");
    // The gateway's end is not that of the node.
    let host = listed(&world, &reader, "web1").await;
    assert_eq!(host["state"], Value::Null, "{host}");
    send(&world, &node, "web1").await.no_content("the node");
}

/// The status; an error where the connection is refused.
async fn send_as_before(world: &World, sender: &Holder, host: &str) -> Result<u16, ()> {
    let path = format!("/api/perf/{host}/{}", wall_clock() - 1);
    let request = sender.http.post(world.url(&path)).body(r#"{"cpu":1}"#);
    let sent = request.bearer_auth("x.y.z").send().await;
    sent.map(|got| got.status().as_u16()).map_err(|_| ())
}

fn lizctl(world: &World, arguments: &[&str]) -> std::process::Command {
    let mut command = program("lizctl");
    command.arg("--certs").arg(world.certs()).args(arguments);
    command
}

async fn ran(mut command: std::process::Command) -> Finished {
    let ran = tokio::task::spawn_blocking(move || run(&mut command));
    ran.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lizctl_issues_a_gateway_that_pushes() {
    let mut world = World::without_receiver(|_| ());
    let issue = lizctl(
        &world,
        &["issue-gateway", "prom1", "--hosts", "web*", "db1"],
    );
    let said = ran(issue).await.success();
    assert!(said.contains("gateway prom1: "), "{said}");
    let file = |end: &str| world.certs().join(format!("gateways/prom1.{end}"));
    let mut inspect = lizctl(&world, &["inspect", "--json"]);
    inspect.arg(file("crt"));
    let shown = ran(inspect).await.success();
    assert!(
        shown.contains("\"db1\"") && shown.contains("\"web*\""),
        "{shown}"
    );
    let (cert, key) = (file("crt"), file("key"));
    let _receiver = start_receiver(&mut world);
    let mut doctor = lizctl(&world, &["doctor", "--receiver"]);
    doctor.arg(world.url("/")).arg("--cert").arg(&cert);
    doctor.arg("--key").arg(&key).arg("--ca").arg(world.root());
    let found = ran(doctor).await.success();
    assert!(found.contains("a token for metrics:write"), "{found}");
    for (host, is_good) in [("web7", true), ("db1", true), ("db2", false)] {
        let mut push = lizctl(&world, &["push", host, "cpu=4.98", "--receiver"]);
        push.arg(world.url("/")).arg("--cert").arg(&cert);
        push.arg("--key").arg(&key).arg("--ca").arg(world.root());
        let finished = ran(push).await;
        if is_good {
            finished.success();
        } else {
            let said = finished.failure(3);
            assert!(said.contains("prom1"), "{said}");
        }
    }
}
