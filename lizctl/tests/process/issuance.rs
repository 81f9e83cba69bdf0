//! `init-ca`, the `issue-` verbs, `list`, `inspect` and `verify`.

use std::fs;
use std::io::Write;
#[cfg(unix)]
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::sandbox::{Sandbox, ran};

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::symlink_metadata(path)
        .unwrap()
        .permissions()
        .mode()
        & 0o777
}

#[test]
fn certificates_are_issued_listed_and_verified() {
    let sandbox = Sandbox::with_ca();
    sandbox.run("issue-node web1 web2").done();
    sandbox
        .run("issue-receiver metrics --san metrics.example --san 10.0.0.5 ::1")
        .done();
    sandbox.run("issue-reader alice --key-alg ed25519").done();
    sandbox.run("issue-operator olga --hours 12").done();
    let summarizer = sandbox.run("issue-summarizer sum1").done();
    let next = "next: liz-summarizer --store redis://HOST:6379 --cert certs/summarizers/sum1.crt \
                --key certs/summarizers/sum1.key --ca certs/root.crt --crl certs/crl.pem";
    assert!(summarizer.stderr.contains(next), "{}", summarizer.stderr);
    let expected = [
        "node web1",
        "node web2",
        "receiver metrics",
        "reader alice",
        "operator olga",
        "summarizer sum1",
    ];
    assert_eq!(sandbox.issued(), expected);
    let table = sandbox.run("list").done().stdout;
    assert!(table.starts_with("ROLE"), "{table}");
    assert_eq!(table.lines().count(), 1 + 2 + 6, "{table}");
    for (file, identity) in [
        ("certs/nodes/web1.crt", "spiffe://lizmon.internal/node/web1"),
        (
            "certs/receivers/metrics.crt",
            "spiffe://lizmon.internal/receiver/metrics",
        ),
        (
            "certs/readers/alice.crt",
            "spiffe://lizmon.internal/reader/alice",
        ),
        (
            "certs/operators/olga.crt",
            "spiffe://lizmon.internal/operator/olga",
        ),
        (
            "certs/summarizers/sum1.crt",
            "spiffe://lizmon.internal/summarizer/sum1",
        ),
    ] {
        let plain = sandbox.run(&format!("verify {file}")).done();
        assert!(plain.stdout.contains(identity), "{plain:?}");
        let verdict = sandbox.json(&format!("verify --json {file}"));
        assert_eq!(verdict["identity"], identity);
        let shown = sandbox.json(&format!("inspect {file} --json"));
        assert_eq!(shown["items"][0]["uris"][0], identity);
        assert_eq!(shown["items"][1]["ca"], true);
        sandbox.run(&format!("inspect {file}")).done();
    }
    sandbox.run("inspect certs/crl.pem").done();
    let key = sandbox.run("inspect certs/nodes/web1.key").done();
    assert!(key.stdout.starts_with("private key: P-256"), "{key:?}");
    let soon = sandbox.json("list --expiring 1d --json");
    assert_eq!(soon["certificates"].as_array().unwrap().len(), 1, "{soon}");
    assert_eq!(soon["certificates"][0]["name"], "olga");
}

#[test]
fn answers_go_to_stdout_and_advice_to_stderr() {
    let sandbox = Sandbox::new();
    let init = sandbox.run("init-ca --trust-domain metrics.example").done();
    assert!(init.stdout.contains("certs/root.crt"), "{init:?}");
    assert!(
        init.stderr.starts_with("next: lizctl issue-receiver"),
        "{init:?}"
    );
    let node = sandbox.run("issue-node web1").done();
    assert!(
        node.stdout.starts_with("node web1: certs/nodes/web1.crt"),
        "{node:?}"
    );
    assert!(
        node.stderr.contains("liz-monitor --this-host web1"),
        "{node:?}"
    );
    let again = sandbox.run("issue-node web1").done();
    assert_ne!(again.stdout, "");
    for line in ["--help", "--version", "issue-node --help"] {
        let help = sandbox.run(line).done();
        assert!(
            !help.stdout.is_empty() && help.stderr.is_empty(),
            "{help:?}"
        );
    }
}

#[test]
fn failures_end_with_1_and_wrong_usage_with_2() {
    let sandbox = Sandbox::with_ca();
    sandbox.run("issue-node web1").done();
    sandbox.write("bad-names", "web2\n# a comment\nweb 3\n");
    sandbox.write("twins", "db1\nDB1\n");
    sandbox.write("twice", "db1\ndb2\ndb1\n");
    sandbox.write("taken", "db1\nWEB1\n");
    sandbox.write("none", "# nobody\n");
    sandbox.write("text", "hello");
    let cases = [
        ("init-ca", 1, "nothing was changed"),
        ("issue-node WEB1", 1, "differs only by case"),
        ("issue-node db1 db1", 1, "named twice"),
        ("issue-node --from twins", 1, "twins, line 2"),
        ("issue-node --from twice", 1, "twice, line 3"),
        ("issue-node --from taken", 1, "taken, line 2"),
        ("issue-node --from bad-names", 1, "bad-names, line 3"),
        ("issue-node --from nowhere", 1, "nowhere"),
        ("issue-node --from none", 1, "at least one"),
        ("issue-node db1 --csr text", 1, "signing request"),
        ("issue-node db1 --csr nowhere", 1, "nowhere"),
        ("--certs elsewhere issue-node web1", 1, "lizctl init-ca"),
        ("list --certs elsewhere", 1, "lizctl init-ca"),
        ("init-ca --certs text/certs", 1, "text"),
        ("inspect text", 1, "text"),
        ("inspect nowhere", 1, "nowhere"),
        ("verify text", 1, "text"),
        ("verify certs/root.crt", 1, "not a client certificate"),
        (
            "verify certs/nodes/web1.crt --certs elsewhere",
            1,
            "elsewhere",
        ),
        ("issue-node db1 db2 --csr text", 2, "one name"),
        ("issue-node ../web1", 2, "not a node name"),
        ("issue-node a/b", 2, "not a node name"),
        ("issue-node ..", 2, "not a node name"),
        ("issue-node", 2, "NAME"),
        ("issue-node web1 --days 0", 2, "--days"),
        ("issue-receiver metrics", 2, "--san"),
        ("issue-receiver metrics --san *.example", 2, "*.example"),
        ("no-such-verb", 2, "no-such-verb"),
    ];
    for (line, code, culprit) in cases {
        sandbox.run(line).failed(code, culprit);
    }
    assert_eq!(sandbox.issued(), ["node web1"]);
    assert!(!sandbox.path("elsewhere").exists());
}

#[test]
fn every_flag_has_an_environment_variable_and_the_command_line_wins() {
    let sandbox = Sandbox::new();
    let run = |line: &str, settings: &[(&str, &str)]| {
        let mut command = sandbox.command();
        command.args(line.split(' ')).envs(settings.iter().copied());
        ran(command.output().unwrap()).done()
    };
    run(
        "init-ca",
        &[
            ("LIZMON_CERTS", "here"),
            ("LIZMON_TRUST_DOMAIN", "a.example"),
        ],
    );
    let certs = [
        ("LIZMON_CERTS", "here"),
        ("LIZMON_HOURS", "1"),
        ("LIZMON_JSON", "1"),
    ];
    run("issue-node web1", &certs);
    let list: Value = serde_json::from_str(&run("list", &certs).stdout).unwrap();
    let entry = &list["certificates"][2];
    assert_eq!(entry["identity"], "spiffe://a.example/node/web1");
    let lives = entry["not-after"].as_u64().unwrap() - entry["issued-at"].as_u64().unwrap();
    assert_eq!(lives, 3600);
    run("--certs there init-ca", &certs);
    assert!(sandbox.path("there/root.crt").exists());
}

#[test]
fn names_are_read_from_a_file_or_stdin() {
    let sandbox = Sandbox::with_ca();
    sandbox.write("names", "# the web\nweb1\n\n  web2  # the second\nweb3");
    sandbox.run("issue-node --from names db1").done();
    let mut command = sandbox.command();
    command.args(["issue-node", "--from", "-"]);
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"mail1\r\nmail2\n")
        .unwrap();
    ran(child.wait_with_output().unwrap()).done();
    let names = ["db1", "web1", "web2", "web3", "mail1", "mail2"];
    assert_eq!(sandbox.issued(), names.map(|name| format!("node {name}")));
}

#[test]
fn several_processes_share_one_ledger() {
    let sandbox = Sandbox::with_ca();
    let children: Vec<_> = (0..10)
        .map(|process| {
            let mut command = sandbox.command();
            command.arg("issue-node");
            command.args([format!("a{process}"), format!("b{process}")]);
            let pipes = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            pipes.spawn().unwrap()
        })
        .collect();
    for child in children {
        ran(child.wait_with_output().unwrap()).done();
    }
    let mut issued = sandbox.issued();
    issued.sort();
    issued.dedup();
    assert_eq!(issued.len(), 20);
    for name in ["a0", "b9"] {
        sandbox
            .run(&format!("verify certs/nodes/{name}.crt"))
            .done();
    }
}

/// `lizctl list | true` is no failure.
#[test]
fn a_closed_stdout_is_no_failure() {
    let sandbox = Sandbox::with_ca();
    let mut command = sandbox.command();
    command.arg("list").stderr(Stdio::piped());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[cfg(unix)]
#[test]
fn keys_have_mode_0600_whatever_the_umask() {
    for umask in ["000", "022", "027", "077"] {
        let sandbox = Sandbox::new();
        for line in [
            "init-ca",
            "issue-node web1",
            "issue-receiver metrics --san a.example",
        ] {
            let mut shell = Command::new("sh");
            let script = format!("umask {umask}; exec \"$0\" {line}");
            shell.args(["-c", &script, env!("CARGO_BIN_EXE_lizctl")]);
            ran(shell.current_dir(sandbox.dir.path()).output().unwrap()).done();
        }
        for file in [
            "root.key",
            "issuing.key",
            "nodes/web1.key",
            "receivers/metrics.key",
            "ledger.db",
        ] {
            assert_eq!(
                mode(&sandbox.path("certs").join(file)),
                0o600,
                "{file}, umask {umask}"
            );
        }
        for folder in ["", "nodes", "receivers"] {
            assert_eq!(
                mode(&sandbox.path("certs").join(folder)),
                0o700,
                "{folder}, umask {umask}"
            );
        }
        for file in ["root.crt", "crl.pem", "nodes/web1.crt"] {
            assert_eq!(
                mode(&sandbox.path("certs").join(file)) & 0o022,
                0,
                "{file}, umask {umask}"
            );
        }
    }
}

#[test]
fn requests_of_other_tools_are_read_from_files_too() {
    let sandbox = Sandbox::with_ca();
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let pem = request.pem().unwrap();
    let base64: String = pem.lines().filter(|line| !line.contains("----")).collect();
    let forms = [
        pem.clone(),
        pem.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        pem.replace('\n', "\r\n"),
        format!("\u{feff}{pem}"),
        format!("Bag Attributes\n    friendlyName: web1\n{pem}"),
        base64,
    ];
    for (at, form) in forms.iter().enumerate() {
        sandbox.write("request", form);
        sandbox
            .run(&format!("issue-node web{at} --csr request"))
            .done();
    }
    fs::write(sandbox.path("request"), request.der()).unwrap();
    sandbox.run("issue-node der --csr request").done();
    for (form, words) in [
        (key.serialize_pem(), "but PRIVATE KEY"),
        (
            pem.replace("-----END", "----END"),
            "request: the signing request cannot be read: line 1",
        ),
        (String::new(), "there is no signing request in it"),
    ] {
        sandbox.write("request", &form);
        sandbox
            .run("issue-node web9 --csr request")
            .failed(1, words);
    }
}

/// As a one-time service of a container manager runs it, again with each start.
#[test]
fn a_holders_files_go_into_a_folder_and_only_once() {
    let sandbox = Sandbox::with_ca();
    sandbox.run("init-ca --if-missing").done();
    let issue = "issue-receiver rx1 --san rx1.example --out rx --if-missing";
    sandbox.run(issue).done();
    let read = |file: &str| fs::read(sandbox.path(file)).unwrap();
    for (copy, original) in [
        ("rx/rx1.crt", "certs/receivers/rx1.crt"),
        ("rx/rx1.key", "certs/receivers/rx1.key"),
        ("rx/root.crt", "certs/root.crt"),
        ("rx/crl.pem", "certs/crl.pem"),
    ] {
        assert_eq!(read(copy), read(original), "{copy}");
    }
    #[cfg(unix)]
    assert_eq!(mode(&sandbox.path("rx/rx1.key")), 0o600);
    let before = read("rx/rx1.crt");
    assert!(sandbox.run(issue).done().stderr.contains("there already"));
    assert_eq!(read("rx/rx1.crt"), before);
    assert_eq!(sandbox.issued(), ["receiver rx1"]);
    sandbox.run("issue-node web1 web2 --out nodes").done();
    sandbox
        .run("issue-node web1 web3 --out nodes --if-missing")
        .done();
    let expected = ["receiver rx1", "node web1", "node web2", "node web3"];
    assert_eq!(sandbox.issued(), expected);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("rx", sandbox.path("link")).unwrap();
        let said = sandbox.run("issue-reader ada --out link");
        assert_eq!(said.code, 1, "{}", said.stderr);
        assert!(!sandbox.path("rx/ada.key").exists());
    }
}
