//! What a receiver does for each POST of samples, and in which order, as its log and the kernel see
//! it: strace shows the lines of the log among the syncs and what goes to the client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use crate::crash::{receiver_command, started};
use crate::harness::World;
use crate::harness::raw::{self, tls_config};
use crate::harness::world::wall_clock;

const POSTS: usize = 20;
const PRODUCER: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The certificate was compared with the current trust.
    TrustChecked,
    /// The request was counted against its holder's limit.
    PaceChecked,
    /// Its records were.
    RecordsCounted,
    /// A sync of a file was finished.
    Synced,
    /// Bytes for the client are given to the kernel.
    Answered,
}

use Step::{Answered, PaceChecked, RecordsCounted, Synced, TrustChecked};

/// The trust is checked before anything is read, and again when the body is there, because that may
/// take a while; the limit of requests is asked once, that of records once. Then one sync, then the
/// answer.
#[tokio::test(flavor = "multi_thread")]
async fn each_post_is_checked_counted_and_synced_before_its_answer() {
    let mut world = World::without_receiver(|_| ());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace");
    let mut command = traced(&receiver_command(&world), &file);
    command.env("RUST_LOG", "info,lizmon_mtls=trace");
    let receiver = started(&mut world, &mut command);
    let node = world.node("web1");
    let token = world.token(&node).await;
    let now = wall_clock();
    let config = tls_config(&world.root(), Some(node.shown()), &["http/1.1"]);
    let mut stream = raw::connect(&world, config).await.unwrap();
    for at in 1..=POSTS {
        let (path, body) = match at % 2 {
            0 => (format!("/api/perf/web1/{now}"), r#"{"cpu": 4.98}"#.into()),
            _ => {
                let record = json!({"seq": at, "epoch": now, "values": {"cpu": 4.98}});
                let batch = json!({"producer": PRODUCER, "records": [record]});
                ("/api/perf/web1".to_owned(), batch.to_string())
            }
        };
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = raw::exchange_one(&mut stream, request.as_bytes())
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(matches!(raw::status(&answer), 200 | 204), "{text}");
    }
    let client = stream.get_ref().0.local_addr().unwrap();
    drop(stream);
    receiver.signal(Signal::TERM);
    receiver.wait().success();

    let trace = std::fs::read_to_string(&file).unwrap();
    let steps = steps(&trace, client);
    let posts: Vec<Vec<Step>> = steps
        .split(|step| *step == Answered)
        .filter(|steps| steps.contains(&RecordsCounted))
        .map(without_others)
        .collect();
    assert_eq!(posts.len(), POSTS, "{steps:?}");
    let expected = [
        TrustChecked,
        PaceChecked,
        TrustChecked,
        RecordsCounted,
        Synced,
    ];
    for post in &posts {
        assert!(post.starts_with(&expected), "{post:?}");
    }
    // What is due beside requests may sync, too.
    let syncs = posts.iter().flatten().filter(|step| **step == Synced);
    assert!(syncs.count() < 2 * POSTS, "{posts:?}");
}

/// What was synced before the request's records were counted was not for them.
fn without_others(steps: &[Step]) -> Vec<Step> {
    let counted = steps.iter().position(|step| *step == RecordsCounted);
    let (before, after) = steps.split_at(counted.unwrap_or_default());
    let of_request = before.iter().filter(|step| **step != Synced);
    of_request.chain(after).copied().collect()
}

/// The program under strace, which is no parent of it: signals and the end are the program's own.
fn traced(program: &Command, file: &std::path::Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qq", "-yy", "-s", "256"]);
    strace.args(["-e", "trace=fsync,fdatasync,write,writev,sendto,sendmsg"]);
    strace.arg("-o").arg(file);
    strace.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace.stdin(std::process::Stdio::null());
    strace
}

/// The steps in their order. What takes a while is two lines if another thread does something
/// meanwhile: a sync is a step when it ends, and what is written when it begins.
fn steps(trace: &str, client: SocketAddr) -> Vec<Step> {
    let to_client = format!("->{client}]");
    let mut unfinished = HashMap::new();
    let mut steps = Vec::new();
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap_or_default();
        let call = call.trim_start();
        let begun = match call.starts_with("<... ") {
            true => unfinished.remove(thread).unwrap_or(""),
            false => call,
        };
        let is_begin = begun == call;
        let is_end = !call.ends_with("<unfinished ...>");
        if !is_end {
            unfinished.insert(thread, call);
        }
        let is_sync = begun.starts_with("fsync(") || begun.starts_with("fdatasync(");
        let step = match begun {
            _ if is_sync => (is_end && call.ends_with("= 0")).then_some(Synced),
            _ if begun.contains("(2<") => logged(begun),
            _ if begun.contains(&to_client) => Some(Answered),
            _ => None,
        };
        steps.extend(step.filter(|step| is_begin || *step == Synced));
    }
    steps
}

/// What a line of the log says was done.
fn logged(line: &str) -> Option<Step> {
    let said = [
        ("trust checked", TrustChecked),
        ("pace checked", PaceChecked),
        ("records counted", RecordsCounted),
    ];
    let found = said.into_iter().find(|(words, _)| line.contains(words));
    found.map(|(_, step)| step)
}
