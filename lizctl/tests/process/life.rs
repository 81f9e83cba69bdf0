//! What comes after issuing: revocation, the audit log, keys under a passphrase. Against a receiver it is tried end to end.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::desk::{Desk, Ran, ran};

#[cfg(unix)]
fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_revoked_holder_is_listed_as_such_and_refused() {
    let desk = Desk::with_ca();
    desk.run("issue-node web1 web2").done();
    desk.run("issue-node web1").done();
    desk.run("issue-reader web1").done();
    let ran = desk.run("revoke web1 --reason key-compromise").done();
    assert_eq!(ran.stdout.matches("revoked node web1: serial ").count(), 2);
    assert!(ran.stdout.contains("signed number 2 of lizmon issuing CA "));
    assert!(ran.stderr.contains("certs/crl.pem"), "{ran:?}");

    let listed = |line: &str| -> Vec<(String, String)> {
        let list = desk.json(line);
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
    let table = desk.run("list").done().stdout;
    assert_eq!(
        table.matches("revoked (key-compromise)").count(),
        2,
        "{table}"
    );
    desk.run("verify certs/nodes/web1.crt").failed(1, "revoked");
    desk.run("verify certs/nodes/web2.crt").done();
    desk.run("verify certs/readers/web1.crt").done();

    // By its serial, and again: that is no failure.
    let serial = desk.json("list --json")["certificates"][3]["serial"].clone();
    let line = format!("revoke --serial {}", serial.as_str().unwrap());
    assert!(desk.run(&line).done().stdout.contains("revoked node web2"));
    assert!(desk.run(&line).done().stdout.contains("nothing was valid"));
    // Issued anew, it is good again.
    desk.run("issue-node web1").done();
    desk.run("verify certs/nodes/web1.crt").done();
    // Who has what now, without what came before.
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
    desk.run("list --newest --expiring 7d")
        .failed(2, "--expiring");
}

#[test]
fn exit_codes_of_revoke() {
    let desk = Desk::with_ca();
    desk.run("issue-node web1").done();
    desk.run("issue-operator olga").done();
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
        desk.run(&line).failed(code, culprit);
    }
    desk.run("verify certs/nodes/web1.crt").done();
    // It is revoked whoever cannot be told, and the exit code and the last line say that somebody could not.
    let ran = desk.run(&format!(
        "revoke web1 --receiver https://127.0.0.1:1 {keys}"
    ));
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stdout.contains("revoked node web1"), "{ran:?}");
    assert!(
        ran.stderr.contains("still trusts what it trusted"),
        "{ran:?}"
    );
    desk.run("verify certs/nodes/web1.crt").failed(1, "revoked");
}

#[test]
fn the_audit_log_is_shown_and_checked() {
    let desk = Desk::with_ca();
    let first: String = head(&desk.run("verify-audit").done());
    desk.run("issue-node web1").done();
    desk.run("revoke web1").done();
    let lines = desk.json("audit-log --json");
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
    let table = desk.run("audit-log").done().stdout;
    assert_eq!(table.lines().count(), 7, "{table}");
    desk.run(&format!("verify-audit --head {first}")).done();
    assert_eq!(desk.json("verify-audit --json")["good"], true);

    let other = Desk::with_ca();
    other
        .run(&format!("verify-audit --head {first}"))
        .failed(1, "line 3 is another");
    desk.run("verify-audit --head 3").failed(2, "NUMBER:HASH");
    let (_, hash) = first.split_once(':').unwrap();
    desk.run(&format!("verify-audit --head 9:{hash}"))
        .failed(1, "line 7 is missing");
}

fn head(ran: &Ran) -> String {
    let line = ran
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("head "));
    line.unwrap().to_owned()
}

#[cfg(unix)]
#[test]
fn keys_under_a_passphrase() {
    let desk = Desk::new();
    desk.write("secret", "correct horse\n");
    desk.run("init-ca --passphrase-file secret")
        .failed(1, "chmod 600 secret");
    chmod(&desk.path("secret"), 0o600);
    desk.run("init-ca --encrypt").failed(2, "terminal");
    desk.run("init-ca --passphrase-file secret").done();
    desk.write("wrong", "wrong horse\n");
    chmod(&desk.path("wrong"), 0o600);
    desk.run("issue-node web1").failed(1, "--passphrase-file");
    desk.run("issue-node web1 --passphrase-file wrong")
        .failed(1, "not the passphrase of certs/issuing.key");
    desk.run("issue-node web1 --passphrase-file secret").done();
    let mut command = desk.command();
    command.args(["issue-node", "web2"]);
    command.env("LIZMON_PASSPHRASE_FILE", "secret");
    assert!(command.output().unwrap().status.success());
    // To look needs none.
    assert_eq!(desk.issued(), ["node web1", "node web2"]);
    let shown = desk.run("inspect certs/issuing.key").done().stdout;
    assert_eq!(shown, "encrypted private key: PBES2, scrypt, AES-256-CBC\n");
    desk.run("revoke web1").failed(1, "--passphrase-file");
    desk.run("--passphrase-file secret revoke web1").done();

    // OpenSSL opens it with the same passphrase, and finds the certificate's key.
    for key in ["root", "issuing"] {
        let public = |args: &[&str]| {
            let output = Command::new("openssl")
                .args(args)
                .current_dir(desk.dir.path())
                .output();
            let output = output.unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let file = format!("certs/{key}.key");
        let of_key = public(&["pkey", "-in", &file, "-passin", "file:secret", "-pubout"]);
        let certificate = format!("certs/{key}.crt");
        let of_certificate = public(&["x509", "-in", &certificate, "-noout", "-pubkey"]);
        assert_eq!(of_key, of_certificate);
        // And what it encrypted itself, either way, is opened here.
        for derivation in [&["-scrypt"][..], &["-iter", "1000"]] {
            let words = [
                "pkcs8",
                "-topk8",
                "-v2",
                "aes-256-cbc",
                "-in",
                &file,
                "-out",
                "new.key",
            ];
            let passes = ["-passin", "file:secret", "-passout", "pass:correct horse"];
            public(&[&words, derivation, &passes].concat());
            chmod(&desk.path("new.key"), 0o600);
            std::fs::rename(desk.path("new.key"), desk.path(&file)).unwrap();
            desk.run("issue-node web3 --passphrase-file secret").done();
        }
        let locked = Command::new("openssl")
            .args(["pkey", "-in", &file, "-passin", "file:wrong", "-noout"])
            .current_dir(desk.dir.path())
            .output();
        assert!(!locked.unwrap().status.success());
    }
}

#[test]
fn a_root_on_a_stick() {
    let desk = Desk::new();
    desk.run("init-ca --offline-root stick").failed(1, "stick");
    std::fs::create_dir(desk.path("stick")).unwrap();
    let ran = desk.run("init-ca --offline-root stick").done();
    assert!(ran.stdout.contains("stick/root.key"), "{ran:?}");
    assert!(!desk.path("certs/root.key").exists());
    desk.run("issue-node web1").done();
    let serial = desk.json("list --json")["certificates"][1]["serial"].clone();
    let line = format!("revoke --serial {}", serial.as_str().unwrap());
    desk.run(&line).failed(1, "--root-key");
    desk.run(&format!("{line} --root-key stick/root.key"))
        .done();
    desk.run("verify certs/nodes/web1.crt").failed(1, "revoked");
}

#[cfg(unix)]
#[test]
fn keys_that_others_can_read_are_refused() {
    let desk = Desk::with_ca();
    chmod(&desk.path("certs/issuing.key"), 0o640);
    desk.run("issue-node web1")
        .failed(1, "chmod 600 certs/issuing.key");
    desk.run("list").failed(1, "chmod 600 certs/issuing.key");
    chmod(&desk.path("certs/issuing.key"), 0o600);
    desk.run("issue-node web1").done();
}

#[test]
fn a_rotation_is_shown_taken_and_taken_back() {
    for what in ["issuing", "root"] {
        let desk = Desk::with_ca();
        desk.run("issue-node web1").done();
        let stage =
            |desk: &Desk| desk.json(&format!("rotate {what} --status --json"))["stage"].clone();
        assert_eq!(stage(&desk), "steady");
        let step = |step: &str| desk.run(&format!("rotate {what} {step}"));
        let published = step("--next").done();
        assert!(published.stdout.contains("is published"), "{published:?}");
        assert_eq!(stage(&desk), "published");
        let other = if what == "root" { "issuing" } else { "root" };
        desk.run(&format!("rotate {other} --next")).failed(1, what);
        if what == "root" {
            step("--next").failed(1, "node `web1` first");
        }
        step("--next --force").done();
        assert_eq!(stage(&desk), "in use");
        step("--next").failed(1, "--force");
        let waiting = step("--status").done();
        assert!(waiting.stdout.contains("waits: node `web1`"), "{waiting:?}");
        desk.run("verify certs/nodes/web1.crt").done();
        std::fs::copy(desk.path("certs/nodes/web1.crt"), desk.path("old.crt")).unwrap();
        desk.run("issue-node web1").done();
        step("--next").done();
        assert_eq!(stage(&desk), "steady");
        desk.run("verify certs/nodes/web1.crt").done();
        let before = desk.run("verify old.crt");
        assert_eq!(before.code, 1, "{before:?}");
        step("--back").done();
        desk.run("verify old.crt").done();
        desk.run("verify certs/nodes/web1.crt").done();
        let phases = desk.json(&format!("rotate {what} --status --json"));
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
        desk.run("verify-audit").done();
    }
}

/// Who waits is named with what hurries it, and what is over is listed as such.
#[test]
fn a_rotation_names_who_is_left_and_what_helps() {
    let desk = Desk::with_ca();
    for line in [
        "issue-node web1",
        "issue-reader ada",
        "issue-receiver rx1 --san rx1.example --san 192.0.2.7",
        "rotate issuing --next",
        "rotate issuing --next",
    ] {
        desk.run(line).done();
    }
    let helps = |name: &str| {
        let status = desk.json("rotate issuing --status --json");
        let waiting = status["waiting"].as_array().unwrap();
        let entry = waiting.iter().find(|entry| entry["name"] == name);
        entry.map(|entry| entry["command"].as_str().unwrap().to_owned())
    };
    let shown = desk.run("rotate issuing --status").done().stdout;
    for (name, command) in [
        ("web1", "lizctl issue-node web1"),
        ("ada", "lizctl issue-reader ada"),
        (
            "rx1",
            "lizctl issue-receiver rx1 --san rx1.example --san 192.0.2.7",
        ),
    ] {
        assert_eq!(helps(name).as_deref(), Some(command));
        assert!(shown.contains(&format!("`{command}`")), "{shown}");
        desk.run(command.strip_prefix("lizctl ").unwrap()).done();
        assert_eq!(helps(name), None, "that helps");
    }
    // Nobody is left, but files that were replaced a moment ago are not yet in use.
    let last = desk.run("rotate issuing --next").done();
    assert!(last.stderr.contains("waiting for "), "{last:?}");
    let listed = desk.json("list --output json");
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
    let expiring = desk.json("list --expiring 400d --json");
    let expiring = expiring["certificates"].as_array().unwrap();
    let retired = expiring.iter().find(|entry| entry["state"] == "retired");
    assert!(retired.is_none(), "{retired:?}");
}

/// Without liz-ca nobody is there to sign them again.
#[test]
fn lists_live_as_long_as_was_chosen() {
    let lives = |desk: &Desk| {
        let shown = desk.json("inspect certs/crl.pem --json");
        let list = &shown["items"][1];
        let [from, until] = ["this-update", "next-update"].map(|key| list[key].as_u64().unwrap());
        (until - from) / 86_400
    };
    let desk = Desk::with_ca();
    assert_eq!(lives(&desk), 30);
    desk.run("sign-crl --crl-days 90").done();
    assert_eq!(lives(&desk), 90);
    // From then on, whoever signs.
    desk.run("issue-node web1").done();
    desk.run("revoke web1").done();
    assert_eq!(lives(&desk), 90);
    desk.run("sign-crl --crl-days 1000").done();
    assert!((363..=365).contains(&lives(&desk)), "not past its CA");
    let desk = Desk::new();
    let made = desk.run("init-ca --crl-days 200").done();
    assert!(made.stdout.contains("lists "), "{made:?}");
    assert_eq!(lives(&desk), 200);
    desk.run("sign-crl --crl-days 0").failed(2, "--crl-days");
}

#[test]
fn exit_codes_of_rotate() {
    let desk = Desk::with_ca();
    for (line, code, culprit) in [
        ("rotate", 2, "CA"),
        ("rotate issuing", 2, "--status"),
        ("rotate issuing --next --back", 2, "--back"),
        ("rotate leaf --next", 2, "issuing or root"),
        ("rotate issuing --next --receiver https://r1", 2, "--cert"),
        ("rotate issuing --back", 1, "no retired CA"),
        ("rotate root --next --offline-root gone", 1, "gone"),
    ] {
        desk.run(line).failed(code, culprit);
    }
    // What failed left nothing behind.
    assert_eq!(desk.json("rotate root --status --json")["stage"], "steady");
    assert!(!desk.path("certs/generations").exists());
    assert_eq!(
        desk.json("list --json")["certificates"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[cfg(unix)]
#[test]
fn a_browser_gets_key_and_chain_in_one_file() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::with_ca();
    desk.write("secret", "correct horse\n");
    chmod(&desk.path("secret"), 0o600);
    let issue = "issue-reader alice --p12 alice.p12";
    // Nothing is issued before there is a passphrase.
    desk.run(issue).failed(2, "terminal");
    desk.run("issue-reader alice --p12-passphrase-file secret")
        .failed(2, "--p12");
    desk.run(&format!("{issue} --csr x.csr")).failed(2, "--csr");
    assert!(desk.issued().is_empty());
    let ran = desk
        .run(&format!("{issue} --p12-passphrase-file secret"))
        .done();
    assert!(ran.stdout.contains("alice.p12"), "{ran:?}");
    let mode = std::fs::metadata(desk.path("alice.p12"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let openssl = |args: &str| {
        let mut command = Command::new("openssl");
        command
            .args(args.split_whitespace())
            .current_dir(desk.dir.path());
        crate::desk::ran(command.output().unwrap())
    };
    let open = "pkcs12 -in alice.p12 -passin file:secret -nodes";
    let all = openssl(&format!("{open} -out all.pem")).done();
    assert!(!all.stderr.contains("legacy"), "{all:?}");
    let pem = std::fs::read_to_string(desk.path("all.pem")).unwrap();
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(pem.matches("BEGIN PRIVATE KEY").count(), 1);
    let public = openssl("pkey -in all.pem -pubout").done().stdout;
    assert_eq!(
        openssl("x509 -in certs/readers/alice.crt -noout -pubkey")
            .done()
            .stdout,
        public
    );
    let leaf = openssl(&format!("{open} -clcerts -nokeys")).done().stdout;
    assert!(leaf.contains("CN = alice"), "{leaf}");
    chmod(&desk.path("secret"), 0o600);
    desk.write("wrong", "wrong\n");
    assert_ne!(
        openssl("pkcs12 -in alice.p12 -passin file:wrong -nodes").code,
        0
    );
}

#[test]
fn a_backup_and_the_numbers_after_it() {
    let desk = Desk::with_ca();
    desk.run("issue-node web1").done();
    desk.run("backup copy").done();
    desk.run("backup copy").failed(1, "copy is there already");
    desk.run("backup no/such/copy").failed(1, "no/such/copy");
    desk.run("revoke web1").done();
    let lists = |line: &str| {
        desk.run(line)
            .done()
            .stdout
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(lists("sign-crl")[1].starts_with("signed number 3 of lizmon issuing CA"));
    // The copy is a CA, and knows nothing of what came after it.
    desk.run("--certs copy verify certs/nodes/web1.crt").done();
    desk.run("--certs copy verify-audit").done();
    let signed = lists("--certs copy sign-crl --above 7");
    assert!(
        signed.iter().all(|line| line.contains("number 8 of")),
        "{signed:?}"
    );
    assert_eq!(signed.len(), 2);
    desk.run("--certs copy revoke web1").done();
    desk.run("--certs copy verify certs/nodes/web1.crt")
        .failed(1, "revoked");
    desk.run("sign-crl --above x").failed(2, "--above");
}

/// A backup on a stick, an image, a folder of another user, a full disk: who only looks needs to write nothing.
#[cfg(unix)]
#[test]
fn a_ca_that_cannot_be_written_is_read() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    const NOBODY: u32 = 65_534;
    let desk = Desk::with_ca();
    desk.run("issue-node web1").done();
    desk.run("backup copy").done();
    let modes = |folder: &str, folder_mode: u32, file_mode: u32| {
        for entry in fs::read_dir(desk.path(folder)).unwrap().map(Result::unwrap) {
            let mode = if entry.file_type().unwrap().is_dir() {
                folder_mode
            } else if entry.path().extension().is_some_and(|name| name == "key") {
                0o600
            } else {
                file_mode
            };
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(desk.path(folder), fs::Permissions::from_mode(folder_mode)).unwrap();
    };
    fs::set_permissions(desk.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Root may write everywhere, so it looks as somebody who may not.
    let is_root = rustix::process::geteuid().is_root();
    let files = if is_root { 0o444 } else { 0o400 };
    modes("certs", 0o555, files);
    modes("copy", 0o555, files);
    fs::set_permissions(
        desk.path("certs/nodes/web1.crt"),
        fs::Permissions::from_mode(0o444),
    )
    .unwrap();
    let look = |line: &str| {
        let mut command = desk.command();
        command.args(line.split_whitespace()).env("TMPDIR", "/tmp");
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        ran(command.output().unwrap())
    };
    for folder in ["certs", "copy"] {
        for line in [
            "list",
            "list --json",
            "verify-audit",
            "audit-log",
            "rotate issuing --status",
        ] {
            let looked = look(&format!("--certs {folder} {line}")).done();
            assert!(!looked.stdout.is_empty(), "{line}");
            assert!(
                looked.stderr.contains("nothing can be written in"),
                "{line}: {}",
                looked.stderr
            );
        }
    }
    let listed = look("list").stdout;
    assert!(
        listed.contains("web1") && listed.contains("valid"),
        "{listed}"
    );
    look("inspect certs/root.crt").done();
    look("verify certs/nodes/web1.crt").done();
    // What has to be written is refused, and the ledger is left alone.
    for line in ["issue-node web2", "revoke web1"] {
        let refused = look(line);
        assert_eq!(refused.code, 1, "{line}: {refused:?}");
    }
    modes("certs", 0o755, 0o600);
    modes("copy", 0o755, 0o600);
    let listed = desk.run("list").done().stdout;
    assert!(
        !listed.contains("web2") && !listed.contains("revoked"),
        "{listed}"
    );
    // One whose folder nobody may look into is not one that is not there.
    if is_root {
        fs::set_permissions(desk.path("certs"), fs::Permissions::from_mode(0o700)).unwrap();
        look("list").failed(1, "Permission denied");
    }
}

#[test]
fn requests_of_other_tools_are_read_from_files_too() {
    let desk = Desk::with_ca();
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
        desk.write("request", form);
        desk.run(&format!("issue-node web{at} --csr request"))
            .done();
    }
    fs::write(desk.path("request"), request.der()).unwrap();
    desk.run("issue-node der --csr request").done();
    for (form, words) in [
        (key.serialize_pem(), "but PRIVATE KEY"),
        (
            pem.replace("-----END", "----END"),
            "request: the signing request cannot be read: line 1",
        ),
        (String::new(), "there is no signing request in it"),
    ] {
        desk.write("request", &form);
        desk.run("issue-node web9 --csr request").failed(1, words);
    }
}
