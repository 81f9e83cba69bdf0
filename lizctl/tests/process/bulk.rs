//! Certificates for long lists of names.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use lizmon_ca::authority::has_leaf;
use lizmon_ca::pki::inspect::{Item, inspect};
use lizmon_protocol::name::Role;
use serde_json::Value;

use crate::sandbox::{Sandbox, ran};

const ISSUE: [&str; 4] = ["issue-node", "--from", "names", "--if-missing"];

/// A CA, and a file with so many names.
fn sandbox_with_names(count: usize) -> Sandbox {
    let sandbox = Sandbox::with_ca();
    let names: String = (0..count).map(|at| format!("web{at}\n")).collect();
    sandbox.write("names", &names);
    sandbox
}

fn spawn(sandbox: &Sandbox) -> Child {
    let mut command = sandbox.command();
    let pipes = command.args(ISSUE).stdin(Stdio::null());
    pipes
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Every certificate of nodes on disk, also one that waits for its place.
fn certificates(sandbox: &Sandbox) -> Vec<PathBuf> {
    let is_certificate = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "crt");
    let nodes = sandbox.path("certs/nodes");
    let mut found = files(&nodes);
    found.extend(files(&nodes.join(".lizmon-issuing")));
    found.retain(is_certificate);
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// Serial numbers of all certificates of nodes that the ledger has.
fn recorded(sandbox: &Sandbox) -> Vec<String> {
    let list = sandbox.json("list --json");
    let entries = list["certificates"].as_array().unwrap().iter();
    let of_nodes = entries.filter(|entry| entry["role"] == "node");
    let serial = |entry: &Value| entry["serial"].as_str().unwrap().to_owned();
    of_nodes.map(serial).collect()
}

fn serial(certificate: &Path) -> Option<String> {
    let items = inspect(&fs::read(certificate).ok()?).ok()?;
    match items.into_iter().next()? {
        Item::Certificate { serial, .. } => Some(serial),
        _ => None,
    }
}

/// The ledger accounts for every certificate on disk, and its log is whole.
fn assert_accounted(sandbox: &Sandbox) {
    let recorded: BTreeSet<String> = recorded(sandbox).into_iter().collect();
    for file in certificates(sandbox) {
        // One that was being written when the process was killed is not whole.
        let is_staged = file.parent().unwrap().ends_with(".lizmon-issuing");
        match serial(&file) {
            Some(serial) => assert!(recorded.contains(&serial), "{}", file.display()),
            None => assert!(is_staged, "{}", file.display()),
        }
    }
    sandbox.run("verify-audit").done();
}

/// Every name has a certificate with its key, and nothing else is there.
fn assert_complete(sandbox: &Sandbox, count: usize) {
    let certs = sandbox.path("certs");
    for at in 0..count {
        let name = format!("web{at}").parse().unwrap();
        assert!(has_leaf(&certs, Role::Node, &name).unwrap(), "web{at}");
        assert!(certs.join(format!("nodes/web{at}.key")).exists(), "web{at}");
    }
    assert_eq!(files(&certs.join("nodes")).len(), 2 * count);
    let serials = recorded(sandbox);
    let unique: BTreeSet<&String> = serials.iter().collect();
    assert_eq!(
        unique.len(),
        serials.len(),
        "a serial number was used twice"
    );
}

/// Killed while files wait for their places, while they come to them, and after a group.
#[test]
fn a_run_that_is_killed_is_finished_by_the_same_command() {
    let count = 700;
    let sandbox = sandbox_with_names(count);
    let nodes = sandbox.path("certs/nodes");
    let staged = || files(&nodes.join(".lizmon-issuing")).len();
    let in_place = || files(&nodes).len();
    let moments: [(&str, &dyn Fn() -> bool); 3] = [
        ("the first file is written", &|| staged() > 0),
        ("many are", &|| staged() > 700),
        ("the first is in its place", &|| in_place() > 10),
    ];
    for (moment, has_come) in moments {
        let mut child = spawn(&sandbox);
        while !has_come() {
            assert!(child.try_wait().unwrap().is_none(), "ended before {moment}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_accounted(&sandbox);
    }
    let mut child = spawn(&sandbox);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("node web"), "{line}");
    assert_accounted(&sandbox);
    ran(spawn(&sandbox).wait_with_output().unwrap()).done();
    assert_accounted(&sandbox);
    assert_complete(&sandbox, count);
    let again = ran(spawn(&sandbox).wait_with_output().unwrap()).done();
    assert!(
        again.stderr.contains("700 of 700 are there already"),
        "{again:?}"
    );
    assert_eq!(again.stdout, "");
}

/// It prints more than a pipe holds, so it cannot end before it is told to stop.
#[test]
fn a_run_that_is_told_to_stop_keeps_what_is_finished() {
    let count = 1_100;
    let sandbox = sandbox_with_names(count);
    let mut child = spawn(&sandbox);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    stdout.read_line(&mut printed).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    stdout.read_to_string(&mut printed).unwrap();
    let ended = ran(child.wait_with_output().unwrap());
    let done = printed.lines().count();
    assert!(0 < done && done < count, "{done}");
    let expected = format!("stopped after {done} of {count} were issued");
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains(&expected), "{ended:?}");
    assert_eq!(recorded(&sandbox).len(), done);
    assert_eq!(certificates(&sandbox).len(), done);
    ran(spawn(&sandbox).wait_with_output().unwrap()).done();
    assert_complete(&sandbox, count);
    assert_eq!(recorded(&sandbox).len(), count);
}

#[test]
fn several_processes_issue_the_same_long_list() {
    let count = 520;
    let sandbox = sandbox_with_names(count);
    let children: Vec<Child> = (0..2)
        .map(|_| {
            let mut command = sandbox.command();
            let pipes = command.args(&ISSUE[..3]).stdout(Stdio::piped());
            pipes.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = ran(child.wait_with_output().unwrap()).done();
        assert_eq!(output.stdout.lines().count(), count);
    }
    assert_eq!(recorded(&sandbox).len(), 2 * count);
    assert_accounted(&sandbox);
    assert_complete(&sandbox, count);
}

#[test]
fn a_long_list_is_delivered_into_a_folder_too() {
    let count = 20;
    let sandbox = sandbox_with_names(count);
    sandbox.run("issue-node --from names --out out").done();
    for at in 0..count {
        for ending in ["crt", "key"] {
            let file = |folder: &str| fs::read(sandbox.path(&format!("{folder}/web{at}.{ending}")));
            assert_eq!(file("out").unwrap(), file("certs/nodes").unwrap());
        }
    }
    assert_eq!(files(&sandbox.path("out")).len(), 2 * count + 2);
    let again = sandbox.run("issue-node --from names web-more --out out --if-missing");
    assert!(again.done().stderr.contains("20 of 21 are there already"));
    assert_eq!(recorded(&sandbox).len(), count + 1);
}
