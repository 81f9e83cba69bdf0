//! The documents name tests and routes that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::process;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Text between backticks.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests of this program, as it lists them.
fn own_tests() -> BTreeSet<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let listed = process::run(command.arg("--list")).success();
    let tests = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    tests.map(str::to_owned).collect()
}

/// Whether a crate of the workspace has such a module, or a test in it:
/// `lizmon-ca::api::life::a_ca_under_a_passphrase`.
fn is_in_crate(workspace: &str, name: &str) -> bool {
    let mut parts: Vec<&str> = name.split("::").collect();
    let crate_name = parts.remove(0).to_owned();
    let entry = format!("{crate_name} = {{ path = \"");
    // A crate that no other crate uses is in a folder of its name.
    let listed = workspace.split(&entry).nth(1);
    let listed = listed.map(|rest| rest.split('"').next().unwrap());
    let folder = root().join(listed.unwrap_or(&crate_name));
    let files = |parts: &[&str]| {
        let ends = [".rs", "/mod.rs", "/tests.rs"].map(|end| parts.join("/") + end);
        let places = ["src", "tests"].map(|place| folder.join(place));
        let texts = places.into_iter().flat_map(move |place| {
            let files = ends.clone().map(|end| fs::read_to_string(place.join(end)));
            files.into_iter().flatten()
        });
        let marks = ["#[test]", "#[tokio::test", "#[cfg(test)]"];
        texts.filter(move |text| marks.iter().any(|mark| text.contains(mark)))
    };
    let (test, module) = parts.split_last().unwrap();
    let is_test = files(module).any(|text| text.contains(&format!("fn {test}()")));
    is_test || files(&parts).next().is_some()
}

/// Every test that the page names exists.
#[test]
fn the_threat_model_names_its_tests() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let tests = own_tests();
    let exists = |name: &str| match name {
        _ if name.starts_with("lizmon-") => is_in_crate(&workspace, name),
        _ if name.contains('/') => root().join(name).is_dir(),
        _ => {
            let within = format!("{name}::");
            tests
                .iter()
                .any(|test| test == name || test.starts_with(&within))
        }
    };
    let table = |head: &str| {
        let table = page.split(head).nth(1).unwrap();
        table.lines().take_while(|line| line.starts_with('|'))
    };
    let attacks = table("| --- | --- | --- | --- |\n");
    let left_to_us = table("| left to us | guard | test |\n").skip(1);
    let rows: Vec<&str> = attacks.chain(left_to_us).collect();
    assert!(rows.len() > 40, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let shown_by = row.trim_end_matches('|').rsplit('|').next().unwrap();
        if names(shown_by).next().is_none() {
            wrong.push(format!("no test: {row}"));
        }
        wrong.extend(
            names(shown_by)
                .filter(|name| !exists(name))
                .map(str::to_owned),
        );
    }
    assert!(wrong.is_empty(), "docs/security.md:\n{}", wrong.join("\n"));
    for other in [
        "lizmon-ca::nowhere",
        "lizmon-ca::api::life::nowhere",
        "nowhere",
        "matri",
    ] {
        assert!(!exists(other), "{other}");
    }
}

/// Each guard that `tests/guards/run` removes is in the code exactly once, and its test exists.
#[test]
fn the_list_of_guards_finds_them() {
    let text = fs::read_to_string(root().join("tests/guards/guards.toml")).unwrap();
    let list: toml::Table = text.parse().unwrap();
    let of = |name: &str| list[name].as_array().unwrap().iter();
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let tests = own_tests();
    let mut wrong = Vec::new();
    for test in of("guard").filter_map(|guard| guard.get("test")?.as_str()) {
        let parts: Vec<&str> = test.split(' ').collect();
        let exists = match parts[..] {
            ["lizmon-tests", "e2e", name] => tests.contains(name),
            ["lizmon-tests", suite, name] => {
                let main = root().join(format!("tests/{suite}/main.rs"));
                let main = fs::read_to_string(main).unwrap_or_default();
                main.contains(&format!("\nfn {name}()"))
            }
            // Tests are in the module's file, or in one beside it.
            [package, "lib", name] => [name, &name.replace("::tests::", "::")]
                .iter()
                .any(|name| is_in_crate(&workspace, &format!("{package}::{name}"))),
            [package, file, name] => is_in_crate(&workspace, &format!("{package}::{file}::{name}")),
            _ => false,
        };
        if !exists {
            wrong.push(format!("no test `{test}`"));
        }
    }
    assert!(of("guard").len() > 80, "{}", of("guard").len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let python = root().join("target/tools/venv/bin/python");
    let mut check = Command::new(python);
    let check = check.arg(root().join("tests/guards/run")).arg("--check");
    let output = check.output().expect("tests/run installs Python's part");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The pages that say where things are name files and folders that exist.
#[test]
fn named_paths_exist() {
    let mut missing = Vec::new();
    for page in ["README.md", "docs/architecture.md", "docs/glossary.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        let is_path = |name: &&str| {
            let folder = name.split('/').next().unwrap_or_default();
            let is_ours = [
                "benches", "ca", "fuzz", "lizctl", "monitor", "receiver", "tests",
            ]
            .contains(&folder);
            // What a reader is to add has a name in capitals.
            is_ours && name.contains('/') && !name.contains("NAME") && !name.contains("VERB")
        };
        let paths: Vec<&str> = quoted.filter(is_path).collect();
        let gone = paths.into_iter().filter(|path| !root().join(path).exists());
        missing.extend(gone.map(|path| format!("{page}: {path}")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Every route that a server has is in its document's table, with each of its methods.
#[test]
fn every_route_is_described() {
    let of_receiver = lizmon_receiver::router::routes().into_iter();
    let of_receiver = of_receiver.map(|route| (route.path, route.allow)).collect();
    let of_ca = lizmon_ca::service::routes().into_iter();
    let of_ca = of_ca.map(|route| (route.path.to_owned(), route.allow));
    let documents: [(&str, Vec<(String, &str)>); 2] = [
        ("docs/http-api.md", of_receiver),
        ("docs/enrolment.md", of_ca.collect()),
    ];
    let mut missing = Vec::new();
    for (document, served) in documents {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let told: BTreeSet<&str> = text
            .lines()
            .filter(|line| line.starts_with("| `"))
            .flat_map(names)
            .collect();
        for (path, allow) in served {
            // If the router has one route for everything below a path, the document lists what can
            // be there.
            let beginning = path.split("{*").next().unwrap();
            for method in allow.split(", ").filter(|method| *method != "HEAD") {
                let begins = format!("{method} {beginning}");
                let is_told = told.iter().any(|told| match beginning == path {
                    true => *told == begins,
                    false => told.starts_with(&begins),
                });
                if !is_told {
                    missing.push(format!("{document}: {method} {path}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not described:\n{}", missing.join("\n"));
}

/// The page for operators names metrics that exist, and every code of `lizctl doctor`.
#[test]
fn operating_names_what_there_is() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (page, metrics) = (read("docs/operating.md"), read("docs/receiver.md"));
    let told = names(&page).filter(|name| name.starts_with("lizmon_"));
    let told = told.map(|name| name.split('{').next().unwrap());
    let told: BTreeSet<&str> = told.filter(|name| !name.contains("::")).collect();
    assert!(told.len() > 15, "{told:?}");
    let gone: Vec<_> = told
        .iter()
        .filter(|name| !metrics.contains(**name))
        .collect();
    assert!(gone.is_empty(), "{gone:?}");

    let folder = root().join("lizctl/src/commands/doctor");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let sources: String = files
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let is_code = |text: &&str| {
        let is_word =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
        text.contains('-') && text.split('-').all(is_word)
    };
    let literals: BTreeSet<&str> = sources.split('"').filter(is_code).collect();
    let table = page.split("| check | codes |").nth(1).unwrap();
    let documented: BTreeSet<&str> = names(table.split("\n\n").next().unwrap()).collect();
    let known = |name: &&&str| sources.contains(&format!("\"{name}\""));
    let unknown: Vec<_> = documented.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "no such code: {unknown:?}");
    let serde = [
        "kebab-case",
        "by-minute",
        "auto-restart",
        "not-found",
        "liz-ca",
    ];
    let missing = literals
        .difference(&documented)
        .filter(|name| !serde.contains(name));
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "not in docs/operating.md: {missing:?}");
}
