//! What takes long keeps no thread busy that serves requests.

use lizmon_ca::pki::Reason;
use lizmon_protocol::name::Role;
use tokio::task::JoinSet;

use crate::harness::raw::{self, tls_config};
use crate::harness::{Holder, World, answer};

/// Each is more than an answer that waits for nothing takes.
const ROUNDS: usize = 20;

/// The only thread for what takes long is busy, as all are where a disk hangs. What takes long waits
/// for it; samples, answers of a few labels, tokens, handshakes and probes do not.
///
/// A revocation list of 100,000 serials was read on a thread that served requests, and so was the
/// list of all hosts made, with a certificate to verify for each.
#[test]
fn what_takes_long_waits_and_nobody_else() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::start().await;
        let [node, wide] = ["a", "wide"].map(|name| world.node(name));
        let (reader, operator) = (world.reader(), world.holder(Role::Operator, "root"));
        let token = world.token(&node).await;
        let reads = world.token(&reader).await;
        let administers = world.token(&operator).await;
        let labels: Vec<_> = (0..100).map(|at| format!(r#""label{at}":1"#)).collect();
        let labels = format!("{{{}}}", labels.join(","));
        let now = world.clock.now();
        let sample = async |holder: &Holder, token: &str, body: &str| {
            let path = format!("/api/perf/{}/{now}", holder.name);
            let sent = world.post(holder, token, &path, body.to_owned()).await;
            sent.no_content("a sample");
        };
        sample(&wide, &world.token(&wide).await, &labels).await;
        sample(&node, &token, r#"{"cpu":1}"#).await;
        let entries = world.ca.entries().unwrap();
        let gone = entries.iter().rfind(|entry| entry.name == "wide").unwrap();
        let serial = gone.serial.parse().unwrap();
        world.ca.revoke(&serial, Reason::Superseded, now).unwrap();
        let list = std::fs::read(world.certs().join("crl.pem")).unwrap();

        let (release, released) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || released.recv());
        let mut long = JoinSet::new();
        for body in [list, b"no list".to_vec()] {
            let request = operator.http.put(world.url("/api/crl"));
            long.spawn(answer(request.bearer_auth(&administers).body(body)));
        }
        for path in ["/api/perf", "/api/perf/wide", "/"] {
            let request = reader.http.get(world.url(path));
            long.spawn(answer(request.bearer_auth(&reads)));
        }
        let request = operator.http.get(world.url("/api/certificates"));
        long.spawn(answer(request.bearer_auth(&administers)));
        for _ in 0..ROUNDS {
            sample(&node, &token, r#"{"cpu":1}"#).await;
            let read = world.get(&reader, &reads, "/api/perf/a").await;
            read.json("a few labels");
            world.token(&node).await;
            world.healthy().await;
            let config = tls_config(&world.root(), Some(node.shown()), &["http/1.1"]);
            raw::connect(&world, config).await.unwrap();
        }
        assert!(long.try_join_next().is_none(), "it was done by a worker");
        drop(release);
        busy.await.unwrap().unwrap_err();
        let answers = long.join_all().await;
        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 200, 204, 400]);
    });
}
