//! `rotate`, without receivers.

use crate::sandbox::Sandbox;

#[test]
fn a_rotation_goes_forward_and_back() {
    for what in ["issuing", "root"] {
        let sandbox = Sandbox::with_ca();
        sandbox.run("issue-node web1").done();
        let stage = |sandbox: &Sandbox| {
            sandbox.json(&format!("rotate {what} --status --json"))["stage"].clone()
        };
        assert_eq!(stage(&sandbox), "steady");
        let step = |step: &str| sandbox.run(&format!("rotate {what} {step}"));
        let published = step("--next").done();
        assert!(published.stdout.contains("is published"), "{published:?}");
        assert_eq!(stage(&sandbox), "published");
        let other = if what == "root" { "issuing" } else { "root" };
        sandbox
            .run(&format!("rotate {other} --next"))
            .failed(1, what);
        if what == "root" {
            step("--next").failed(1, "node `web1` first");
        }
        step("--next --force").done();
        assert_eq!(stage(&sandbox), "in use");
        step("--next").failed(1, "--force");
        let waiting = step("--status").done();
        assert!(waiting.stdout.contains("waits: node `web1`"), "{waiting:?}");
        sandbox.run("verify certs/nodes/web1.crt").done();
        std::fs::copy(
            sandbox.path("certs/nodes/web1.crt"),
            sandbox.path("old.crt"),
        )
        .unwrap();
        sandbox.run("issue-node web1").done();
        step("--next").done();
        assert_eq!(stage(&sandbox), "steady");
        sandbox.run("verify certs/nodes/web1.crt").done();
        let before = sandbox.run("verify old.crt");
        assert_eq!(before.code, 1, "{before:?}");
        step("--back").done();
        sandbox.run("verify old.crt").done();
        sandbox.run("verify certs/nodes/web1.crt").done();
        let phases = sandbox.json(&format!("rotate {what} --status --json"));
        let phases: Vec<&str> = phases["generations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ca| ca["phase"].as_str().unwrap())
            .collect();
        let expected = if what == "root" {
            &["current", "current", "old", "old"][..]
        } else {
            &["current", "current", "old"]
        };
        assert_eq!(phases, expected);
        sandbox.run("verify-audit").done();
    }
}

/// Pending holders are listed with the command that renews them, and retired certificates as such.
#[test]
fn a_rotation_lists_pending_holders_and_how_to_renew() {
    let sandbox = Sandbox::with_ca();
    for line in [
        "issue-node web1",
        "issue-reader ada",
        "issue-receiver rx1 --san rx1.example --san 192.0.2.7",
        "rotate issuing --next",
        "rotate issuing --next",
    ] {
        sandbox.run(line).done();
    }
    let command_for = |name: &str| {
        let status = sandbox.json("rotate issuing --status --json");
        let waiting = status["waiting"].as_array().unwrap();
        let entry = waiting.iter().find(|entry| entry["name"] == name);
        entry.map(|entry| entry["command"].as_str().unwrap().to_owned())
    };
    let shown = sandbox.run("rotate issuing --status").done().stdout;
    for (name, command) in [
        ("web1", "lizctl issue-node web1"),
        ("ada", "lizctl issue-reader ada"),
        (
            "rx1",
            "lizctl issue-receiver rx1 --san rx1.example --san 192.0.2.7",
        ),
    ] {
        assert_eq!(command_for(name).as_deref(), Some(command));
        assert!(shown.contains(&format!("`{command}`")), "{shown}");
        sandbox.run(command.strip_prefix("lizctl ").unwrap()).done();
        assert_eq!(command_for(name), None, "renewed");
    }
    // Nobody is pending, but programs may not have reloaded files that were replaced a moment ago.
    let last = sandbox.run("rotate issuing --next").done();
    assert!(last.stderr.contains("waiting for "), "{last:?}");
    let listed = sandbox.json("list --output json");
    let states = |role: &str| -> Vec<String> {
        let entries = listed["certificates"].as_array().unwrap().iter();
        entries
            .filter(|entry| entry["role"] == role)
            .map(|entry| entry["state"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(states("issuing"), ["retired", "valid"]);
    assert_eq!(states("node"), ["retired", "valid"]);
    assert_eq!(states("root"), ["valid"]);
    let expiring = sandbox.json("list --expiring 400d --json");
    let expiring = expiring["certificates"].as_array().unwrap();
    let retired = expiring.iter().find(|entry| entry["state"] == "retired");
    assert!(retired.is_none(), "{retired:?}");
}

#[test]
fn exit_codes_of_rotate() {
    let sandbox = Sandbox::with_ca();
    for (line, code, culprit) in [
        ("rotate", 2, "CA"),
        ("rotate issuing", 2, "--status"),
        ("rotate issuing --next --back", 2, "--back"),
        ("rotate leaf --next", 2, "issuing or root"),
        ("rotate issuing --next --receiver https://r1", 2, "--cert"),
        ("rotate issuing --back", 1, "no retired CA"),
        ("rotate root --next --offline-root gone", 1, "gone"),
    ] {
        sandbox.run(line).failed(code, culprit);
    }
    // A failed step changes nothing.
    assert_eq!(
        sandbox.json("rotate root --status --json")["stage"],
        "steady"
    );
    assert!(!sandbox.path("certs/generations").exists());
    assert_eq!(
        sandbox.json("list --json")["certificates"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}
