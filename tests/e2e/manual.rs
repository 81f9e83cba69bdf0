//! The shell blocks of README and docs, run unchanged and in order, with the real programs.
//!
//! Only host names and ports are replaced by those of this machine. A line that starts a daemon
//! runs in the background while the following lines are run.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::harness::process::{Finished, Running, program, run};

/// Each, and what it says when it works.
const DAEMONS: [(&str, &str); 4] = [
    ("liz-ca ", "READY"),
    ("liz-receiver ", "READY"),
    ("liz-monitor ", "READY"),
    ("lizctl up ", "Publish was successful to"),
];

/// The ```sh blocks of a page.
fn blocks(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let text = fs::read_to_string(path).unwrap();
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// A machine: its folder, and the variables set in its shell.
struct Typist {
    folder: PathBuf,
    places: Vec<(&'static str, String)>,
    environment: Vec<(&'static str, String)>,
    daemons: Vec<Running>,
    /// What the lines in the foreground said on stderr.
    notes: String,
}

impl Typist {
    fn new(folder: PathBuf, places: &[(&'static str, String)]) -> Self {
        fs::create_dir_all(&folder).unwrap();
        Self {
            folder,
            places: places.to_vec(),
            environment: Vec::new(),
            daemons: Vec::new(),
            notes: String::new(),
        }
    }

    fn shell(&self, script: &str) -> Command {
        let programs = program("lizctl").get_program().to_owned();
        let programs = Path::new(&programs).parent().unwrap().to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-eu", "-c", script])
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("HOME", &self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a block, and returns the output of its foreground lines.
    fn type_in(&mut self, block: &str) -> String {
        let mut text = block.replace("\\\n", " ");
        for (there, here) in &self.places {
            text = text.replace(there, here);
        }
        let mut script = String::new();
        let mut left = String::new();
        let mut run_script = |typist: &mut Self, script: &mut String| {
            if !script.is_empty() {
                let finished = run(&mut typist.shell(script));
                typist.notes.push_str(&finished.stderr);
                left.push_str(&done(finished, script));
                script.clear();
            }
        };
        for line in text.lines() {
            let mut daemons = DAEMONS.iter();
            let daemon = daemons.find(|(daemon, _)| line.starts_with(daemon));
            if let Some((_, works)) = daemon.filter(|_| !is_verb(line)) {
                run_script(self, &mut script);
                let mut daemon = Running::start(&mut self.shell(&format!("exec {line}")));
                daemon.wait_for(works);
                self.daemons.push(daemon);
            } else {
                script.push_str(line);
                script.push('\n');
            }
        }
        run_script(self, &mut script);
        left
    }

    fn take(&self, from: &Path, files: &[&str]) {
        for file in files {
            let name = Path::new(file).file_name().unwrap();
            fs::copy(from.join(file), self.folder.join(name)).unwrap();
        }
    }

    fn stop(self) {
        for daemon in self.daemons {
            daemon.signal(Signal::TERM);
            assert!(daemon.wait().status.success());
        }
    }
}

/// `liz-receiver backup` and the like end by themselves.
fn is_verb(line: &str) -> bool {
    let verb = line.split(' ').nth(1);
    verb.is_some_and(|verb| ["check", "backup", "restore"].contains(&verb))
}

fn done(finished: Finished, script: &str) -> String {
    let (out, err) = (&finished.stdout, &finished.stderr);
    assert!(finished.status.success(), "{script}\n{out}{err}");
    finished.stdout
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn places() -> Vec<(&'static str, String)> {
    let [receiver, ca] = [free_port(), free_port()];
    vec![
        ("0.0.0.0:8443", format!("127.0.0.1:{receiver}")),
        ("0.0.0.0:8444", format!("127.0.0.1:{ca}")),
        ("rx1.example:8443", format!("localhost:{receiver}")),
        ("ca.example:8444", format!("localhost:{ca}")),
        ("rx1.example", "localhost".to_owned()),
        ("ca.example", "localhost".to_owned()),
    ]
}

/// Two ports, the second the one after the first.
fn free_ports() -> u16 {
    let first = std::iter::repeat_with(free_port);
    let has_next = |port: &u16| TcpListener::bind(("127.0.0.1", port + 1)).is_ok();
    { first }.find(has_next).unwrap()
}

/// A second machine joins what `up` has started, by the command that is printed, and reports by the
/// one that is printed then.
#[test]
fn the_readmes_second_machine_as_typed() {
    let ground = tempfile::tempdir().unwrap();
    let here = format!("127.0.0.1:{}", free_ports());
    let places = [("192.0.2.7:8443", here)];
    let mut first = Typist::new(ground.path().join("first"), &places);
    let token = first.type_in(&blocks("README.md")[0]);
    let (_, join) = first.notes.split_once("next, on web2: ").unwrap();
    // It is there on a terminal; here a log might keep it.
    let join = join.replace(" TOKEN ", &format!(" {} ", token.trim()));
    let mut web2 = Typist::new(ground.path().join("web2"), &[]);
    web2.type_in(join.lines().next().unwrap());
    let (_, next) = web2.notes.split_once("next: ").unwrap();
    let next = next.lines().next().unwrap().to_owned();
    web2.type_in(&next);
    web2.daemons[0].wait_for("Publish was successful to");
    let hosts = first.type_in("lizctl hosts");
    assert!(hosts.contains("web2"), "{hosts}");
    for machine in [web2, first] {
        machine.stop();
    }
}

/// The README's four steps on four machines show web1's summaries.
#[test]
fn the_readme_as_typed() {
    let ground = tempfile::tempdir().unwrap();
    let at = |name: &str| ground.path().join(name);
    let places = places();
    let all = blocks("README.md");
    let [_, at_the_ca, on_rx1, on_web1, anywhere] = &all[..] else {
        panic!("the README has five blocks, not {}", all.len());
    };
    let mut ca = Typist::new(at("ca"), &places);
    ca.type_in(at_the_ca);
    let certs = at("ca").join("certs");

    let mut rx1 = Typist::new(at("rx1"), &places);
    let own = [
        "receivers/rx1.crt",
        "receivers/rx1.key",
        "root.crt",
        "crl.pem",
    ];
    rx1.take(&certs, &own);
    rx1.type_in(on_rx1);

    let made = run(&mut ca.shell("lizctl join-token web1"));
    let fingerprint = made.stderr.split("CA fingerprint ").nth(1).unwrap();
    let fingerprint = fingerprint.split_whitespace().next().unwrap().to_owned();
    let mut web1 = Typist::new(at("web1"), &places);
    web1.environment = vec![
        ("FINGERPRINT", fingerprint),
        ("TOKEN", made.success().trim().to_owned()),
    ];
    web1.type_in(on_web1);
    web1.daemons[0].wait_for("Publish was successful to");

    let mut ada = Typist::new(at("ada"), &places);
    ada.take(&certs, &["readers/ada.crt", "readers/ada.key", "root.crt"]);
    let seen = ada.type_in(anywhere);
    assert!(
        seen.contains("web1") && seen.contains("by-minute"),
        "{seen}"
    );
    assert!(seen.contains("lost 0"), "{seen}");
    for machine in [web1, rx1, ca] {
        machine.stop();
    }
}

/// Operations by hand, without liz-ca.
#[test]
fn the_pages_on_certificates_and_the_ca_as_typed() {
    let ground = tempfile::tempdir().unwrap();
    let stick = ground.path().join("stick");
    fs::create_dir(&stick).unwrap();
    let mut places = places();
    places.push(("/media/stick", stick.display().to_string()));
    let mut ca = Typist::new(ground.path().join("ca"), &places);
    ca.type_in(
        "lizctl init-ca\nlizctl issue-receiver rx1 --san localhost\nlizctl issue-operator olga\nlizctl issue-node web1\n\
         liz-receiver --listen 0.0.0.0:8443 --cert certs/receivers/rx1.crt --key certs/receivers/rx1.key --ca certs/root.crt --crl certs/crl.pem\n",
    );
    ca.environment = vec![("STICK", stick.display().to_string())];
    for page in ["docs/certificates.md", "docs/ca-operations.md"] {
        let all = blocks(page);
        assert!(!all.is_empty(), "{page} has nothing to type");
        for block in &all {
            // As the page says: another key of that name is moved away.
            if block.contains(" --csr ") {
                ca.type_in("mv certs/nodes/web1.key other.key");
            }
            // A new disk has none of it.
            match block.starts_with("lizctl restore ") {
                true => drop(Typist::new(ground.path().join("new"), &places).type_in(block)),
                false => drop(ca.type_in(block)),
            }
        }
    }
    let lists = ca.type_in("lizctl inspect certs/crl.pem");
    assert!(lists.contains("number: "), "{lists}");
    ca.stop();
}

/// What docs/operating.md backs up and restores, on one machine with the folders of the packages.
/// There are no users here: each command is typed as who runs this test.
#[test]
fn backups_as_typed() {
    let ground = tempfile::tempdir().unwrap();
    let mut places = places();
    let here = |path: &str| ground.path().join(path).display().to_string();
    for (there, folder) in [
        ("/etc/lizmon", "etc"),
        ("/var/lib/lizmon-ca", "ca"),
        ("/var/lib/lizmon-receiver", "rx1"),
        ("/var/backups", "backups"),
    ] {
        fs::create_dir_all(ground.path().join(folder)).unwrap();
        places.push((there, here(folder)));
    }
    for there in ["runuser -u lizmon-ca -- ", "runuser -u lizmon -- "] {
        places.push((there, String::new()));
    }
    for there in ["-o lizmon-ca -g lizmon-ca ", "-o lizmon -g lizmon "] {
        places.push((there, String::new()));
    }
    let mut machine = Typist::new(ground.path().to_owned(), &places);
    machine.type_in(
        "lizctl init-ca --certs ca/certs\nlizctl issue-receiver rx1 --san localhost --certs ca/certs\n\
         lizctl issue-node web1 --certs ca/certs\n",
    );
    let certs = ground.path().join("ca/certs");
    let line = |key: &str, file: &str| format!("{key} = {:?}\n", certs.join(file));
    let settings = [
        line("cert", "receivers/rx1.crt"),
        line("key", "receivers/rx1.key"),
        line("ca", "root.crt"),
        line("crl", "crl.pem"),
        format!("data = {:?}\n", here("rx1/data")),
    ];
    fs::write(ground.path().join("etc/receiver.toml"), settings.concat()).unwrap();
    let start = "liz-receiver --config /etc/lizmon/receiver.toml --listen 0.0.0.0:8443\n";
    machine.type_in(start);
    let receiver = format!(
        "--receiver https://rx1.example:8443 --ca {}",
        here("ca/certs/root.crt")
    );
    let node = format!("{receiver} --cert ca/certs/nodes/web1.crt --key ca/certs/nodes/web1.key");
    machine.type_in(&format!("lizctl push web1 cpu=5 {node}\n"));
    let all = blocks("docs/operating.md");
    let [backup, restore] = &all[..] else {
        panic!("the page has two blocks, not {}", all.len());
    };
    machine.type_in(backup);
    let running = machine.daemons.pop().unwrap();
    running.signal(Signal::TERM);
    assert!(running.wait().status.success());
    let told = machine.type_in(restore);
    assert!(told.contains("hosts are restored"), "{told}");
    machine.type_in(start);
    let shown = machine.type_in(&format!("lizctl query web1 {node}\n"));
    assert!(shown.contains("cpu"), "{shown}");
    machine.stop();
}
