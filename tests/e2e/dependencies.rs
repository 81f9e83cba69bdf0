//! Dependencies between crates as cargo knows them, and between modules and names within the
//! crates.

mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use self::modules::ModuleTree;

/// The metadata of the workspace, without other crates.
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

/// For each crate, those of ours that it is built with. Dependencies of its tests do not count.
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

/// Cargo runs no test of a program that says so: then none may stand in its files.
#[test]
fn programs_that_are_not_tested_have_no_tests() {
    let metadata = metadata();
    let targets = packages(&metadata)
        .iter()
        .flat_map(|package| package["targets"].as_array().expect("targets"));
    let untested = targets.filter(|target| target["kind"][0] == "bin" && target["test"] == false);
    let mut names = Vec::new();
    for program in untested {
        names.push(text(&program["name"]));
        let main = Path::new(text(&program["src_path"]));
        let of_main = std::fs::read_to_string(main).expect("a file");
        let modules = of_main.lines().filter_map(|line| {
            let name = line.strip_prefix("mod ")?.strip_suffix(';')?;
            Some(main.with_file_name(format!("{name}.rs")))
        });
        let of_modules = modules.map(|file| std::fs::read_to_string(file).expect("a file"));
        for source in of_modules.collect::<Vec<_>>().iter().chain([&of_main]) {
            assert!(!source.contains("#[test]"), "{}: {source}", main.display());
        }
    }
    names.sort_unstable();
    assert_eq!(
        names,
        ["liz-ca", "liz-monitor", "liz-receiver", "liz-summarizer"]
    );
}

/// Receiver and monitor cannot issue certificates: neither is built with the CA, even indirectly.
#[test]
fn only_the_ca_and_lizctl_can_issue() {
    let metadata = metadata();
    let arrows = arrows(&metadata);
    let expected: [(&str, &[&str]); 16] = [
        ("lizmon-tests", &[]),
        ("lizmon-benches", &[]),
        ("lizmon-protocol", &[]),
        ("lizmon-summary", &[]),
        ("lizmon-daemon", &[]),
        ("lizmon-page", &[]),
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
        ("lizmon-alarms", &["lizmon-pki", "lizmon-protocol"]),
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
                "lizmon-alarms",
                "lizmon-daemon",
                "lizmon-enrol",
                "lizmon-mtls",
                "lizmon-page",
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
                "lizmon-page",
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

/// Plain `cargo run` runs lizctl although the workspace has no root package; plain `cargo build`
/// builds everything.
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

/// The module trees of all libraries and programs, with the names of their packages.
fn crates(metadata: &Value) -> Vec<(&str, ModuleTree)> {
    let mut crates = Vec::new();
    for package in packages(metadata) {
        for target in package["targets"].as_array().expect("targets") {
            if matches!(text(&target["kind"][0]), "lib" | "bin") {
                let root = Path::new(text(&target["src_path"]));
                crates.push((text(&package["name"]), ModuleTree::read(root)));
            }
        }
    }
    crates
}

/// Names that may stand for a type in every crate.
const COMMON_TYPES: [&str; 4] = ["Builder", "Config", "Error", "Result"];
/// A name means one thing in the whole workspace.
#[test]
fn public_types_have_different_names() {
    let metadata = metadata();
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (package, modules) in crates(&metadata) {
        for (name, module) in modules.public_types() {
            let place = format!("{package} {module}");
            types.entry(name).or_default().push(place);
        }
    }
    let excepted = COMMON_TYPES;
    types.retain(|name, places| places.len() > 1 && !excepted.contains(&name.as_str()));
    assert!(types.is_empty(), "{types:#?}");
}

/// The modules of a crate form layers: none uses a module that uses it, directly or indirectly.
#[test]
fn module_graphs_have_no_cycles() {
    let metadata = metadata();
    let mut cycles = Vec::new();
    for (package, modules) in crates(&metadata) {
        let found = modules.cycles().into_iter();
        cycles.extend(found.map(|cycle| format!("{package}: {cycle}")));
    }
    assert!(cycles.is_empty(), "{}", cycles.join("\n"));
}

/// The files of a crate, and its cycles.
#[track_caller]
fn check_cycles(files: &[(&str, &str)], expected: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, text).expect("a file");
    }
    let cycles = ModuleTree::read(&folder.path().join("lib.rs")).cycles();
    let cycles: Vec<String> = cycles.iter().map(ToString::to_string).collect();
    assert_eq!(cycles, expected, "{files:?}");
}

#[test]
fn cycles_are_found() {
    // By `use`, by a path in the code, and in a macro.
    for user in [
        "use crate::b::B;",
        "use super::{b::B};",
        "use crate::b::*;",
        "fn f() -> crate::b::B {}",
        "fn f() { m!(crate::b::B) }",
    ] {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", &format!("pub struct A; {user}")),
            ("b.rs", "pub struct B;\nuse crate::a::A;"),
        ];
        let name = if user.contains('*') { "b" } else { "B" };
        let expected = format!("crate::a --{name} (line 1)--> crate::b --A (line 2)--> crate::a");
        check_cycles(&files, &[&expected]);
    }
    // A child that uses its parent.
    let lib = ("lib.rs", "mod a;");
    let child = ("a/b.rs", "pub struct B;\nuse super::A;");
    let cycle = "crate::a --B (line 1)--> crate::a::b --A (line 2)--> crate::a";
    check_cycles(
        &[lib, ("a.rs", "mod b; use b::B; struct A;"), child],
        &[cycle],
    );
    check_cycles(&[lib, ("a.rs", "mod b; struct A(b::B);"), child], &[cycle]);
    check_cycles(
        &[lib, ("a.rs", "mod b; pub use b::B; struct A(B);"), child],
        &[cycle],
    );
}

#[test]
fn what_is_no_cycle_is_not_found() {
    let lib = ("lib.rs", "mod a;");
    let child = ("a/b.rs", "pub struct B; use super::A;");
    check_cycles(&[lib, ("a.rs", "mod b; pub struct A;"), child], &[]);
    check_cycles(
        &[lib, ("a.rs", "mod b; pub use b::B; pub struct A;"), child],
        &[],
    );
    let tests = "mod b; pub struct A; #[cfg(test)] mod tests { use super::b::B; }";
    check_cycles(&[lib, ("a.rs", tests), child], &[]);
    // A name that the root re-exports belongs to the module that defines it.
    let files = [
        ("lib.rs", "mod a; mod b; pub use a::A;"),
        ("a.rs", "pub struct A;"),
        ("b.rs", "use crate::A;"),
    ];
    check_cycles(&files, &[]);
}
