//! How the crates of the house depend on each other, as cargo sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What cargo knows of the workspace, without a look at anybody else's crates.
fn metadata() -> Value {
    let mut cargo = Command::new(std::env::var_os("CARGO").expect("tests are run by cargo"));
    cargo.args([
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = cargo.current_dir(root).output().expect("cargo runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn packages(metadata: &Value) -> &[Value] {
    metadata["packages"].as_array().expect("packages")
}

/// Of each crate, those of ours that it is built with: what only its tests use does not count.
fn arrows(metadata: &Value) -> BTreeMap<&str, BTreeSet<&str>> {
    let ours: BTreeSet<&str> = packages(metadata)
        .iter()
        .map(|package| text(&package["name"]))
        .collect();
    let built_with = |package: &'_ Value| -> BTreeSet<&str> {
        let all = package["dependencies"].as_array().expect("dependencies");
        let built = all.iter().filter(|dependency| dependency["kind"] != "dev");
        let names = built.map(|dependency| text(&dependency["name"]));
        names.filter_map(|name| ours.get(name).copied()).collect()
    };
    packages(metadata)
        .iter()
        .map(|package| (text(&package["name"]), built_with(package)))
        .collect()
}

/// The receiver cannot issue a certificate, and neither can a monitor: neither is built with the
/// CA, by no detour.
#[test]
fn only_the_ca_and_lizctl_can_issue() {
    let metadata = metadata();
    let arrows = arrows(&metadata);
    let expected: [(&str, &[&str]); 12] = [
        ("lizmon-protocol", &[]),
        ("lizmon-summary", &[]),
        ("lizmon-daemon", &[]),
        ("lizmon-pki", &["lizmon-protocol"]),
        ("lizmon-transport", &["lizmon-pki", "lizmon-protocol"]),
        (
            "lizmon-enrol",
            &["lizmon-pki", "lizmon-protocol", "lizmon-transport"],
        ),
        (
            "lizmon-client",
            &["lizmon-pki", "lizmon-protocol", "lizmon-transport"],
        ),
        ("lizmon-mtls", &["lizmon-pki", "lizmon-protocol"]),
        (
            "lizmon-ca",
            &[
                "lizmon-daemon",
                "lizmon-mtls",
                "lizmon-pki",
                "lizmon-protocol",
            ],
        ),
        (
            "lizmon-receiver",
            &[
                "lizmon-daemon",
                "lizmon-enrol",
                "lizmon-mtls",
                "lizmon-pki",
                "lizmon-protocol",
                "lizmon-summary",
                "lizmon-transport",
            ],
        ),
        (
            "lizmon-monitor",
            &[
                "lizmon-client",
                "lizmon-daemon",
                "lizmon-enrol",
                "lizmon-pki",
                "lizmon-protocol",
                "lizmon-transport",
            ],
        ),
        (
            "lizctl",
            &[
                "lizmon-ca",
                "lizmon-client",
                "lizmon-daemon",
                "lizmon-enrol",
                "lizmon-monitor",
                "lizmon-mtls",
                "lizmon-pki",
                "lizmon-protocol",
                "lizmon-receiver",
                "lizmon-transport",
            ],
        ),
    ];
    for (name, may) in expected {
        let may: BTreeSet<&str> = may.iter().copied().collect();
        assert_eq!(arrows[name], may, "{name}");
    }
    let issues: Vec<&str> = arrows
        .iter()
        .filter(|(_, built_with)| built_with.contains("lizmon-ca"))
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(issues, ["lizctl"]);
}

/// Plain `cargo run` is lizctl, though the workspace has no root package; plain `cargo build` is
/// everything.
#[test]
fn cargo_run_is_lizctl_and_cargo_build_is_whole() {
    let metadata = metadata();
    let runs: Vec<&str> = packages(&metadata)
        .iter()
        .filter_map(|package| package["default_run"].as_str())
        .collect();
    assert_eq!(runs, ["lizctl"]);
    let members = |of: &str| {
        let members = metadata[of].as_array().expect("members");
        members
            .iter()
            .map(|id| text(id).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        members("workspace_default_members"),
        members("workspace_members")
    );
}
