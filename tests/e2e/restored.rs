//! A CA is lost and restored from its backup, using only the programs: certificates issued since
//! then are not in the ledger, but receivers have seen them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::process::{Finished, Running, program, run};

/// A machine for the CA, one for the receiver, and everybody's files.
struct Site {
    ground: tempfile::TempDir,
    receiver: Option<Running>,
    url: String,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            ground: tempfile::tempdir().unwrap(),
            receiver: None,
            url: String::new(),
        };
        for folder in ["ca", "rx1", "away"] {
            fs::create_dir(site.at(folder)).unwrap();
        }
        site.lizctl("init-ca").success();
        site.lizctl("issue-receiver rx1 --san localhost").success();
        for file in [
            "receivers/rx1.crt",
            "receivers/rx1.key",
            "root.crt",
            "crl.pem",
        ] {
            site.copy(file, "rx1");
        }
        site
    }

    fn at(&self, place: &str) -> PathBuf {
        self.ground.path().join(place)
    }

    fn copy(&self, file: &str, machine: &str) {
        let from = self.at("ca/certs").join(file);
        let name = from.file_name().unwrap().to_owned();
        fs::copy(&from, self.at(machine).join(name)).unwrap();
    }

    /// Issues a certificate, which is moved to its holder.
    fn issue(&self, role: &str, name: &str) {
        self.lizctl(&format!("issue-{role} {name}")).success();
        for end in ["crt", "key"] {
            self.copy(&format!("{role}s/{name}.{end}"), "away");
        }
    }

    fn command(&self, name: &str, machine: &str, line: &str) -> Command {
        let mut command = program(name);
        command
            .args(line.split_whitespace())
            .current_dir(self.at(machine));
        command
    }

    fn lizctl(&self, line: &str) -> Finished {
        run(&mut self.command("lizctl", "ca", line))
    }

    /// Runs a verb against the receiver with somebody's certificate.
    fn ask_as(&self, who: &str, line: &str) -> Finished {
        let url = &self.url;
        let of = |end: &str| self.at("away").join(format!("{who}.{end}"));
        let (cert, key, ca) = (of("crt"), of("key"), self.at("rx1/root.crt"));
        let [cert, key, ca] = [cert, key, ca].map(|path| path.display().to_string());
        self.lizctl(&format!(
            "{line} --receiver {url} --cert {cert} --key {key} --ca {ca}"
        ))
    }

    fn start_receiver(&mut self) {
        let mut running = Running::start(&mut self.command(
            "liz-receiver",
            "rx1",
            "--listen 127.0.0.1:0 --cert rx1.crt --key rx1.key --ca root.crt --crl crl.pem",
        ));
        let ready = running.wait_for("READY on");
        let port = ready.split("127.0.0.1:").nth(1).unwrap();
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        self.url = format!("https://localhost:{port}");
        self.receiver = Some(running);
    }

    fn stop_receiver(&mut self, signal: Signal) {
        let running = self.receiver.take().unwrap();
        running.signal(signal);
        running.wait();
    }

    /// Whether the receiver accepts this holder.
    fn is_taken(&self, who: &str) -> bool {
        let asked = self.ask_as(who, "token");
        match asked.status.code() {
            Some(0) => true,
            Some(3) => false,
            other => panic!("{who}: {other:?} {}", asked.stderr),
        }
    }

    fn list(&self) -> Value {
        let listed = self.ask_as("olga", "list --json").success();
        serde_json::from_str(&listed).unwrap()
    }

    /// Name, state and serial of each certificate that is not in the ledger.
    fn unknown(&self) -> Vec<(String, String, String)> {
        let list = self.list();
        let all = list["unknown"].as_array().unwrap();
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
        let mut unknown: Vec<_> = all
            .iter()
            .map(|row| (text(row, "name"), text(row, "state"), text(row, "serial")))
            .collect();
        unknown.sort();
        unknown
    }

    fn states(&self) -> Vec<String> {
        let unknown = self.unknown().into_iter();
        unknown
            .map(|(name, state, _)| format!("{name} {state}"))
            .collect()
    }
}

fn lose(folder: &Path) {
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_was_issued_after_the_backup_is_found_and_ended() {
    let mut site = Site::new();
    site.issue("node", "web1");
    site.issue("reader", "ada");
    fs::rename(site.at("away/web1.crt"), site.at("away/known.crt")).unwrap();
    fs::rename(site.at("away/web1.key"), site.at("away/known.key")).unwrap();
    site.lizctl("backup copy").success();

    for (role, name) in [("node", "web1"), ("node", "late"), ("operator", "olga")] {
        site.issue(role, name);
    }
    site.issue("node", "unseen");
    site.start_receiver();
    for who in ["known", "web1", "late", "olga", "ada"] {
        assert!(site.is_taken(who), "{who}");
    }
    assert_eq!(site.unknown(), [], "the ledger is whole");
    lose(&site.at("ca/certs"));
    site.lizctl("restore copy").success();

    // After a clean exit the receiver still knows them.
    site.stop_receiver(Signal::TERM);
    site.start_receiver();
    let expected = ["late unknown", "olga unknown", "web1 unknown"];
    assert_eq!(site.states(), expected);
    let table = site.ask_as("olga", "list");
    assert!(
        table.stderr.contains("3 certificates of this CA were seen")
            && table.stderr.contains("lizctl revoke --serial"),
        "{table:?}"
    );
    let table = table.success();
    let of_late: Vec<&str> = table.lines().filter(|row| row.contains("late")).collect();
    assert!(
        of_late.len() == 1 && of_late[0].starts_with("node") && of_late[0].contains("unknown"),
        "{table}"
    );

    // By its serial number, as the list shows it.
    let serial = &site.unknown()[0].2;
    site.ask_as("olga", &format!("revoke --serial {serial}"))
        .success();
    assert!(!site.is_taken("late"));
    let expected = ["late revoked", "olga unknown", "web1 unknown"];
    assert_eq!(site.states(), expected);
    // By its holder's name: both known and unknown certificates.
    assert!(site.is_taken("web1") && site.is_taken("known"));
    site.ask_as("olga", "revoke web1").success();
    assert!(!site.is_taken("web1") && !site.is_taken("known"));
    let expected = ["late revoked", "olga unknown", "web1 revoked"];
    assert_eq!(site.states(), expected);
    // A holder that neither the ledger nor a receiver knows.
    let refused = site.ask_as("olga", "revoke nobody");
    assert!(refused.failure(1).contains("nobody"));
    site.lizctl("verify-audit").success();
}

/// Somebody has the issuing CA's key: their certificates are not in the ledger, although that was
/// never restored.
#[test]
fn what_another_copy_of_the_ca_signed_is_found() {
    let mut site = Site::new();
    site.issue("operator", "olga");
    site.start_receiver();
    site.lizctl("backup stolen").success();
    site.lizctl("issue-node mallory --certs stolen").success();
    for end in ["crt", "key"] {
        let from = site.at("ca/stolen/nodes").join(format!("mallory.{end}"));
        fs::copy(from, site.at("away").join(format!("mallory.{end}"))).unwrap();
    }
    assert!(site.is_taken("mallory"));
    let table = site.ask_as("olga", "list");
    assert!(
        table.stderr.contains("1 certificate of this CA was seen")
            && table.stderr.contains("lizctl rotate issuing"),
        "{table:?}"
    );
    let serial = &site.unknown()[0].2;
    let alone = site.lizctl(&format!("revoke --serial {serial}"));
    assert!(alone.failure(1).contains(serial.as_str()), "{alone:?}");
    assert!(site.is_taken("mallory"));
    site.ask_as("olga", "revoke mallory").success();
    assert!(!site.is_taken("mallory"));
    assert_eq!(site.states(), ["mallory revoked"]);
}

#[test]
fn who_is_asked_and_who_may_ask() {
    let mut site = Site::new();
    for (role, name) in [("operator", "olga"), ("reader", "ada"), ("node", "web1")] {
        site.issue(role, name);
    }
    site.start_receiver();
    for who in ["ada", "web1"] {
        let asked = site.ask_as(who, "list");
        let said = asked.failure(3);
        assert!(said.contains("cannot get the certificates"), "{said}");
        assert!(
            asked.stdout.contains("SERIAL"),
            "the ledger is shown: {asked:?}"
        );
    }
    // A reader's variables, or some of the variables, do not cause a query.
    let url = site.url.clone();
    let file = |name: &str| site.at("away").join(name);
    let with = |line: &str, set: &[(&str, &Path)]| {
        let mut command = site.command("lizctl", "ca", line);
        command.env("LIZMON_RECEIVER", &url);
        for (name, value) in set {
            command.env(name, value);
        }
        run(&mut command)
    };
    let root = site.at("rx1/root.crt");
    let of = |name: &str| (file(&format!("{name}.crt")), file(&format!("{name}.key")));
    let (ada, olga) = (of("ada"), of("olga"));
    let all = |(cert, key): &(PathBuf, PathBuf)| {
        [
            ("LIZMON_CERT", cert.clone()),
            ("LIZMON_KEY", key.clone()),
            ("LIZMON_CA", root.clone()),
        ]
    };
    let gone = (file("gone.crt"), file("gone.key"));
    for holder in [&ada, &olga, &gone] {
        let set = all(holder);
        let set = set.each_ref().map(|(name, path)| (*name, path.as_path()));
        with("list", &set).success();
        with("list", &set[..2]).success();
    }
    with("list", &[]).success();
    let typed = with(&format!("list --receiver {url}"), &[]);
    assert!(typed.failure(2).contains("--cert"), "{typed:?}");
    // If the receiver is unreachable, the ledger is listed anyway.
    site.stop_receiver(Signal::TERM);
    let asked = site.ask_as("olga", "list");
    assert!(
        asked.failure(4).contains("cannot get the certificates"),
        "{asked:?}"
    );
    assert!(asked.stdout.contains("web1"), "{asked:?}");
}
