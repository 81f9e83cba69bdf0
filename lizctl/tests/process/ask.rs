//! The verbs that ask a receiver, where none is needed to tell, and those that print what shells and `man` read. Against
//! a receiver they are tried end to end.

use crate::desk::Desk;

/// 1 failed; 2 wrong usage; 4 nobody there; nothing on stdout.
#[test]
fn exit_codes_without_a_receiver() {
    let desk = Desk::with_ca();
    desk.run("issue-node web1").done();
    // Port 1 of this machine: nobody listens there.
    let asked = "--receiver https://127.0.0.1:1 --cert certs/nodes/web1.crt --key certs/nodes/web1.key --ca certs/root.crt";
    let elsewhere = asked.replace("nodes/web1.key", "nodes/gone.key");
    let cases = [
        (format!("audit web1 {asked}"), 4, "cannot be reached"),
        (
            format!("audit web1 --wait 1ms {asked}"),
            4,
            "cannot be reached",
        ),
        (format!("audit web1 --json {asked}"), 4, "cannot be reached"),
        (format!("push web1 cpu=1 {asked}"), 4, "cannot be reached"),
        (format!("audit web1 {elsewhere}"), 1, "gone.key"),
        (format!("push web1 cpu=1 {elsewhere}"), 1, "gone.key"),
        ("audit web1".to_owned(), 2, "--receiver"),
        (format!("audit {asked}"), 2, "HOST"),
        (format!("audit ../x {asked}"), 2, "not a node name"),
        (format!("audit web1 --wait 10 {asked}"), 2, "--wait"),
        (format!("push web1 {asked}"), 2, "LABEL=VALUE"),
        (format!("push web1 cpu {asked}"), 2, "cpu=4.98"),
        (format!("push web1 cpu=much {asked}"), 2, "no number"),
        (
            format!("push web1 cpu=1 cpu=2 {asked}"),
            2,
            "`cpu` is given twice",
        ),
        (format!("push web1 summary:x=1 {asked}"), 2, "summary:"),
        (
            format!("push web1 cpu=1 --epoch soon {asked}"),
            2,
            "--epoch",
        ),
        (
            format!("push web1 cpu=1 --idempotency-key 17 {asked}"),
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
        desk.run(&line).failed(code, culprit);
    }
}

#[test]
fn every_shell_gets_its_script() {
    let desk = Desk::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = desk.run(&format!("completions {shell}")).done();
        assert!(script.stdout.contains("issue-node"), "{script:?}");
        assert_eq!(script.stderr, "");
    }
}

#[test]
fn every_verb_gets_its_page() {
    let desk = Desk::new();
    assert_eq!(desk.run("man here/man1").done().stdout, "");
    let help = desk.run("--help").done().stdout;
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs: Vec<_> = verbs
        .take_while(|line| !line.is_empty())
        // What is further in goes on about the verb above.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() >= 15, "{verbs:?}");
    for verb in verbs {
        let page = desk.path(&format!("here/man1/lizctl-{verb}.1"));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(".SH DESCRIPTION"), "{verb}: {page}");
    }
    assert!(desk.path("here/man1/lizctl.1").exists());
}
