//! `liz-monitor` in namespaces of its own: with a `/proc` that is hidden, constant or incomplete,
//! and with mounts and interfaces that are made for it.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Map, Value};

use super::monitor::monitor;
use crate::harness::World;
use crate::harness::process::Running;

const AT_ONCE: Duration = Duration::from_secs(10);

/// The same command, run after `setup` in its own mount namespace; `$D` is a folder there.
fn after(setup: &str, command: &Command) -> Command {
    after_unshare("-rm", setup, command)
}

fn after_unshare(namespaces: &str, setup: &str, command: &Command) -> Command {
    let script = format!("D=$(mktemp -d) && {{ {setup}; }} && exec \"$@\"");
    let mut wrapped = Command::new("unshare");
    wrapped.args([namespaces, "sh", "-ec", &script, "sh"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    wrapped
}

/// Regression: a load of 0.0 was published forever, and no memory, without a warning.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_measured_is_not_published_and_is_logged() {
    let world = World::start().await;
    let node = world.node("web1");
    let bind = |file: &str| format!("mount --bind $D/f /proc/{file}");
    let still = format!("cp /proc/stat $D/f; {}", bind("stat"));
    let zeros = format!("echo cpu 0 0 0 0 0 0 0 0 0 0 >$D/f; {}", bind("stat"));
    let nonsense = format!("echo intr 1 >$D/f; {}", bind("stat"));
    let guessed = format!("grep -v Avail /proc/meminfo >$D/f; {}", bind("meminfo"));
    let emptied = format!("touch $D/f; {}", bind("meminfo"));
    let cases = [
        (still.as_str(), "cpu", "do not advance"),
        (&zeros, "cpu", "do not advance"),
        (&nonsense, "cpu", "has no line of all cores"),
        (&guessed, "mem", "has no MemAvailable"),
        (&emptied, "mem", "has no MemTotal"),
        ("mount -t tmpfs none /proc", "cpu", "cannot be read"),
        ("mount -t tmpfs none /proc", "mem", "cannot be read"),
    ];
    for (setup, label, why) in cases {
        let mut command = monitor(&world, &node);
        command.args(["--collect", &format!("{label},unmeasured")]);
        let mut running = Running::start(&mut after(setup, &command));
        let line = running.wait_for("is not measured");
        assert!(
            line.contains(&format!("`{label}`")) && line.contains(why),
            "{setup}: {line}"
        );
        running.wait_for("READY");
        for _ in 0..2 {
            let line = running.wait_for("sampled");
            assert!(!line.contains(&format!("\"{label}\"")), "{setup}: {line}");
            assert!(line.contains("\"unmeasured\""), "{setup}: {line}");
        }
        running.signal(Signal::TERM);
        let done = running.wait_within(AT_ONCE);
        let told = done.stderr.matches("is not measured").count();
        assert_eq!(told, 1, "{setup}: {}", done.stderr);
        done.success();
    }
}

/// The values of the next sample.
fn next_sample(running: &mut Running) -> Map<String, Value> {
    let line = running.wait_for("sampled");
    let values = line.split("values=").nth(1).unwrap();
    serde_json::from_str(values.trim()).expect(&line)
}

/// It has no network but what is made for it, so nothing is delivered: what counts is what it took.
#[tokio::test(flavor = "multi_thread")]
async fn new_mounts_and_interfaces_are_measured() {
    let world = World::start().await;
    let node = world.node("web1");
    let mut command = monitor(&world, &node);
    command.args(["--collect", "filesystems,network,unmeasured"]);
    command.args(["--filesystems", "/tmp/*,!*left out*"]);
    let setup = "\
        mkdir -p \"$D/half full\" \"$D/left out\" && \
        mount -t tmpfs -o size=1m,nr_inodes=100 none \"$D/half full\" && \
        head -c 524288 /dev/zero >\"$D/half full/data\" && \
        mount -t tmpfs none \"$D/left out\" && \
        ip link add eth9 type veth peer name veth9 && \
        ip link set eth9 up && ip link set veth9 up";
    let mut running = Running::start(&mut after_unshare("-rmn", setup, &command));
    let sample = next_sample(&mut running);
    let value = |label: &str| sample[label].as_f64().unwrap();
    let mut labels: Vec<&str> = sample.keys().map(String::as_str).collect();
    labels.sort_unstable();
    let [inodes, used, rest @ ..] = &labels[..] else {
        panic!("{labels:?}")
    };
    assert!(
        inodes.starts_with("disk-inodes:/tmp/") && inodes.ends_with("/half full"),
        "{inodes}"
    );
    assert!(
        used.starts_with("disk-used:/tmp/") && used.ends_with("/half full"),
        "{used}"
    );
    assert_eq!(
        rest,
        [
            "net-errors:eth9",
            "net-rx:eth9",
            "net-tx:eth9",
            "unmeasured"
        ]
    );
    assert_eq!((value(used), value(inodes)), (50.0, 2.0));
    assert!(
        value("net-tx:eth9") >= 0.0 && value("unmeasured") == 0.0,
        "{sample:?}"
    );
    running.signal(Signal::TERM);
    running.wait_within(AT_ONCE).success();
}
