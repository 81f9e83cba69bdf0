//! Exit codes of the verbs that query a receiver, without one; completions and manual pages.
//! End-to-end tests have receivers.

use crate::sandbox::Sandbox;

/// 1 failed, 2 wrong usage, 4 unreachable; stdout is empty.
#[test]
fn exit_codes_without_a_receiver() {
    let sandbox = Sandbox::with_ca();
    sandbox.run("issue-node web1").done();
    // Port 1 of this machine: nobody listens there.
    let connection = "--receiver https://127.0.0.1:1 --cert certs/nodes/web1.crt --key certs/nodes/web1.key --ca certs/root.crt";
    let missing_key = connection.replace("nodes/web1.key", "nodes/gone.key");
    let cases = [
        (format!("audit web1 {connection}"), 4, "cannot be reached"),
        (
            format!("audit web1 --wait 1ms {connection}"),
            4,
            "cannot be reached",
        ),
        (
            format!("audit web1 --json {connection}"),
            4,
            "cannot be reached",
        ),
        (
            format!("push web1 cpu=1 {connection}"),
            4,
            "cannot be reached",
        ),
        (format!("audit web1 {missing_key}"), 1, "gone.key"),
        (format!("push web1 cpu=1 {missing_key}"), 1, "gone.key"),
        ("audit web1".to_owned(), 2, "--receiver, --cert"),
        (
            connection
                .replace("--ca certs/root.crt", "")
                .replace("--receiver", "token --receiver"),
            2,
            "--ca is missing: root.crt",
        ),
        (
            connection.replace("--receiver https://127.0.0.1:1", "token"),
            2,
            "--receiver is missing: the URL",
        ),
        (format!("audit {connection}"), 2, "HOST"),
        (format!("audit ../x {connection}"), 2, "not a node name"),
        (format!("audit web1 --wait 10 {connection}"), 2, "--wait"),
        (format!("push web1 {connection}"), 2, "LABEL=VALUE"),
        (format!("push web1 cpu {connection}"), 2, "cpu=4.98"),
        (format!("push web1 cpu=much {connection}"), 2, "no number"),
        (
            format!("push web1 cpu=1 cpu=2 {connection}"),
            2,
            "`cpu` is given twice",
        ),
        (format!("push web1 summary:x=1 {connection}"), 2, "summary:"),
        (
            format!("push web1 cpu=1 --epoch soon {connection}"),
            2,
            "--epoch",
        ),
        (
            format!("push web1 cpu=1 --idempotency-key 17 {connection}"),
            2,
            "PRODUCER/SEQ",
        ),
        ("up --listen localhost:8443".to_owned(), 2, "127.0.0.1:8443"),
        ("help no-such-verb".to_owned(), 2, "no-such-verb"),
        ("completions".to_owned(), 2, "SHELL"),
        ("completions csh".to_owned(), 2, "csh"),
        ("man".to_owned(), 2, "DIR"),
        ("man certs/root.crt/man".to_owned(), 1, "certs/root.crt/man"),
    ];
    for (line, code, culprit) in cases {
        sandbox.run(&line).failed(code, culprit);
    }
}

#[test]
fn every_shell_gets_its_script() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = sandbox.run(&format!("completions {shell}")).done();
        assert!(script.stdout.contains("issue-node"), "{script:?}");
        assert_eq!(script.stderr, "");
    }
}

#[test]
fn every_verb_gets_its_page() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run("man here/man1").done().stdout, "");
    let help = sandbox.run("--help").done().stdout;
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs: Vec<_> = verbs
        .take_while(|line| !line.is_empty())
        // Lines with deeper indentation continue the text above.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() >= 15, "{verbs:?}");
    for verb in verbs {
        let page = sandbox.path(&format!("here/man1/lizctl-{verb}.1"));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(".SH DESCRIPTION"), "{verb}: {page}");
    }
    assert!(sandbox.path("here/man1/lizctl.1").exists());
}
