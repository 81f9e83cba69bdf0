//! `liz-monitor` with a `/proc` that is hidden, constant or incomplete, in its own mount namespace.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::monitor::monitor;
use crate::harness::World;
use crate::harness::process::Running;

const AT_ONCE: Duration = Duration::from_secs(10);

/// The same command, run after `setup` in its own mount namespace; `$D` is a folder there.
fn after(setup: &str, command: &Command) -> Command {
    let script = format!("D=$(mktemp -d) && {{ {setup}; }} && exec \"$@\"");
    let mut wrapped = Command::new("unshare");
    wrapped.args(["-rm", "sh", "-c", &script, "sh"]);
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
