//! `revoke`, `sign-crl` and the audit log, without receivers. End-to-end tests have receivers.

use serde_json::Value;

use crate::sandbox::{RunOutput, Sandbox};

#[test]
fn a_revoked_holder_is_listed_as_such_and_refused() {
    let sandbox = Sandbox::with_ca();
    sandbox.run("issue-node web1 web2").done();
    sandbox.run("issue-node web1").done();
    sandbox.run("issue-reader web1").done();
    let ran = sandbox.run("revoke web1 --reason key-compromise").done();
    assert_eq!(ran.stdout.matches("revoked node web1: serial ").count(), 2);
    assert!(ran.stdout.contains("signed number 2 of lizmon issuing CA "));
    assert!(ran.stderr.contains("certs/crl.pem"), "{ran:?}");

    let listed = |line: &str| -> Vec<(String, String)> {
        let list = sandbox.json(line);
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("").to_owned();
        let entries = list["certificates"].as_array().unwrap().iter();
        entries
            .filter(|entry| !entry["identity"].is_null())
            .map(|entry| {
                let who = format!("{} {}", text(entry, "role"), text(entry, "name"));
                (who, text(entry, "state"))
            })
            .collect()
    };
    let revoked = ("node web1".to_owned(), "revoked".to_owned());
    assert_eq!(listed("list --revoked --json"), vec![revoked.clone(); 2]);
    let all = listed("list --json");
    assert_eq!(all.len(), 4);
    assert_eq!(all.iter().filter(|entry| **entry == revoked).count(), 2);
    let table = sandbox.run("list").done().stdout;
    assert_eq!(
        table.matches("revoked (key-compromise)").count(),
        2,
        "{table}"
    );
    sandbox
        .run("verify certs/nodes/web1.crt")
        .failed(1, "revoked");
    sandbox.run("verify certs/nodes/web2.crt").done();
    sandbox.run("verify certs/readers/web1.crt").done();

    // By its serial number; a second time is no failure.
    let serial = sandbox.json("list --json")["certificates"][3]["serial"].clone();
    let line = format!("revoke --serial {}", serial.as_str().unwrap());
    assert!(
        sandbox
            .run(&line)
            .done()
            .stdout
            .contains("revoked node web2")
    );
    assert!(
        sandbox
            .run(&line)
            .done()
            .stdout
            .contains("no certificate was valid")
    );
    // A new certificate is accepted.
    sandbox.run("issue-node web1").done();
    sandbox.run("verify certs/nodes/web1.crt").done();
    // The newest certificate of each holder.
    let mut newest = listed("list --newest --json");
    newest.sort();
    let expected = [
        ("node web1", "valid"),
        ("node web2", "revoked"),
        ("reader web1", "valid"),
    ];
    assert_eq!(
        newest,
        expected.map(|(who, state)| (who.to_owned(), state.to_owned()))
    );
    assert_eq!(listed("list --newest --revoked --json").len(), 1);
    sandbox
        .run("list --newest --expiring 7d")
        .failed(2, "--expiring");
}

#[test]
fn exit_codes_of_revoke() {
    let sandbox = Sandbox::with_ca();
    sandbox.run("issue-node web1").done();
    sandbox.run("issue-operator olga").done();
    // Port 1 of this machine: nobody listens there.
    let keys = "--cert certs/operators/olga.crt --key certs/operators/olga.key --ca certs/root.crt";
    let zeros = "0".repeat(32);
    let cases = [
        ("revoke".to_owned(), 2, "NAME"),
        ("revoke ../x".to_owned(), 2, "not a node name"),
        (format!("revoke web1 --serial {zeros}"), 2, "--serial"),
        (format!("revoke --serial {zeros} --role node"), 2, "--role"),
        (
            "revoke web1 --reason because".to_owned(),
            2,
            "key-compromise",
        ),
        ("revoke web1 --role king".to_owned(), 2, "king"),
        ("revoke web1 --receiver https://r1".to_owned(), 2, "--cert"),
        ("revoke web9".to_owned(), 1, "web9"),
        ("revoke web1 --role reader".to_owned(), 1, "reader `web1`"),
        (
            format!("revoke --serial {zeros}"),
            1,
            "no certificate with serial",
        ),
        (
            format!(
                "revoke web1 --receiver https://127.0.0.1:1 {}",
                keys.replace("olga.key", "x.key")
            ),
            1,
            "x.key",
        ),
    ];
    for (line, code, culprit) in cases {
        sandbox.run(&line).failed(code, culprit);
    }
    sandbox.run("verify certs/nodes/web1.crt").done();
    // It is revoked whoever cannot be told, and the exit code and the last line say that somebody
    // could not.
    let ran = sandbox.run(&format!(
        "revoke web1 --receiver https://127.0.0.1:1 {keys}"
    ));
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stdout.contains("revoked node web1"), "{ran:?}");
    assert!(ran.stderr.contains("does not have the new CRLs"), "{ran:?}");
    sandbox
        .run("verify certs/nodes/web1.crt")
        .failed(1, "revoked");
}

#[test]
fn the_audit_log_is_shown_and_checked() {
    let sandbox = Sandbox::with_ca();
    let first: String = head(&sandbox.run("verify-audit").done());
    sandbox.run("issue-node web1").done();
    sandbox.run("revoke web1").done();
    let lines = sandbox.json("audit-log --json");
    let lines = lines["lines"].as_array().unwrap();
    let what: Vec<&str> = lines
        .iter()
        .map(|line| line["what"].as_str().unwrap())
        .collect();
    let expected = [
        "init", "sign-crl", "sign-crl", "issue", "revoke", "sign-crl",
    ];
    assert_eq!(what, expected);
    assert_eq!(lines[3]["details"]["name"], "web1");
    let table = sandbox.run("audit-log").done().stdout;
    assert_eq!(table.lines().count(), 7, "{table}");
    sandbox.run(&format!("verify-audit --head {first}")).done();
    assert_eq!(sandbox.json("verify-audit --json")["good"], true);

    let other = Sandbox::with_ca();
    other
        .run(&format!("verify-audit --head {first}"))
        .failed(1, "line 3 differs");
    sandbox
        .run("verify-audit --head 3")
        .failed(2, "NUMBER:HASH");
    let (_, hash) = first.split_once(':').unwrap();
    sandbox
        .run(&format!("verify-audit --head 9:{hash}"))
        .failed(1, "line 7 is missing");
}

fn head(ran: &RunOutput) -> String {
    let line = ran
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("head "));
    line.unwrap().to_owned()
}

/// Without liz-ca nobody signs CRLs again regularly.
#[test]
fn crls_have_the_chosen_lifetime() {
    let lives = |sandbox: &Sandbox| {
        let shown = sandbox.json("inspect certs/crl.pem --json");
        let list = &shown["items"][1];
        let [from, until] = ["this-update", "next-update"].map(|key| list[key].as_u64().unwrap());
        (until - from) / 86_400
    };
    let sandbox = Sandbox::with_ca();
    assert_eq!(lives(&sandbox), 30);
    sandbox.run("sign-crl --crl-days 90").done();
    assert_eq!(lives(&sandbox), 90);
    // Later signatures use it too.
    sandbox.run("issue-node web1").done();
    sandbox.run("revoke web1").done();
    assert_eq!(lives(&sandbox), 90);
    sandbox.run("sign-crl --crl-days 1000").done();
    assert!((363..=365).contains(&lives(&sandbox)), "not past its CA");
    let sandbox = Sandbox::new();
    let made = sandbox.run("init-ca --crl-days 200").done();
    assert!(made.stdout.contains("CRLs "), "{made:?}");
    assert_eq!(lives(&sandbox), 200);
    sandbox.run("sign-crl --crl-days 0").failed(2, "--crl-days");
}
